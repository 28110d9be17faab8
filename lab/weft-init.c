/*
 * weft-init: runs one container of a lab pod.
 *
 *   weft-init --dir DIR [--net F] [--uts F] [--ipc F] [--mnt F] [--cwd D] -- PROGRAM [ARGUMENT...]
 *
 * It joins the given namespaces (files), makes a PID and a mount namespace with its own /proc, and runs the program there
 * under a PID 1 that forwards SIGTERM and reaps. Three processes: the outer one, which the lab knows by the pid it wrote; PID
 * 1; the program. What must outlive a kill -9 of the lab's daemon is in DIR:
 *
 *   pid    "<boot id> <pid> <start time of pid> <pid of PID 1>", written before the program starts
 *   exit   "<exit code> <milliseconds since the epoch>"; 128 + n for a program killed by signal n
 *   error  why the program could not be started, in words (exit code 128, as container runtimes answer)
 *
 * Signals to the outer process: SIGTERM is passed to the program, SIGUSR2 kills the container. If the outer process is
 * killed, the container dies with it (PR_SET_PDEATHSIG), and there is no `exit`.
 *
 * Environment: names that start with WEFT_LAB_ stay with the outer process, by which a lab finds what is its own; the program does
 * not see them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int dirfd_ = -1;
static volatile pid_t child = 0;

/* Written whole or not at all: a reader never sees half a file. */
static void put(const char *name, const char *text) {
  char temporary[32];
  snprintf(temporary, sizeof temporary, ".%s", name);
  int fd = openat(dirfd_, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  size_t length = strlen(text);
  ssize_t written = write(fd, text, length);
  close(fd);
  if (written == (ssize_t)length) renameat(dirfd_, temporary, dirfd_, name);
}

static void put_exit(int code) {
  struct timespec now;
  char text[64];
  clock_gettime(CLOCK_REALTIME, &now);
  snprintf(text, sizeof text, "%d %lld\n", code, (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
  put("exit", text);
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (dirfd_ >= 0) {
    put("error", text);
    put_exit(128);
  }
  fprintf(stderr, "weft-init: %s\n", text);
  _exit(128);
}

static void forward(int signal) {
  if (child > 0) kill(child, signal);
}

static void kill_child(int signal) {
  (void)signal;
  if (child > 0) kill(child, SIGKILL);
}

static void on(int signal, void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler};
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, NULL);
}

static int code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Field 22 of /proc/self/stat, counted after the last ')': the name may contain anything. */
static void start_time(char *out, size_t size) {
  char text[1024];
  int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  snprintf(out, size, "0");
  if (length <= 0) return;
  text[length] = 0;
  char *at = strrchr(text, ')');
  if (!at) return;
  at += 2;
  for (int field = 3; field < 22 && at; field++) {
    at = strchr(at, ' ');
    if (at) at++;
  }
  if (!at) return;
  at[strcspn(at, " \n")] = 0;
  snprintf(out, size, "%s", at);
}

static void boot_id(char *out, size_t size) {
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  ssize_t length = fd < 0 ? -1 : read(fd, out, size - 1);
  if (fd >= 0) close(fd);
  out[length > 0 ? length : 0] = 0;
  out[strcspn(out, "\n")] = 0;
}

/* PID 1 of the container: starts the program, passes SIGTERM on, reaps whatever is orphaned to it. */
__attribute__((noreturn)) static void init(char **command, const char *cwd) {
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) < 0) fail("pipe: %s", strerror(errno));
  child = fork();
  if (child < 0) fail("fork: %s", strerror(errno));
  if (child == 0) {
    on(SIGTERM, SIG_DFL);
    on(SIGUSR2, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (chdir(cwd) < 0) {
      char text[600];
      int length = snprintf(text, sizeof text, "cannot enter the working directory %s: %s", cwd, strerror(errno));
      if (write(ready[1], text, (size_t)length) < 0) _exit(128);
      _exit(128);
    }
    execvp(command[0], command);
    char text[600];
    int length = snprintf(text, sizeof text, "cannot run %.400s: %s", command[0], strerror(errno));
    if (write(ready[1], text, (size_t)length) < 0) _exit(128);
    _exit(128);
  }
  close(ready[1]);
  char text[600];
  ssize_t length = read(ready[0], text, sizeof text - 1);
  close(ready[0]);
  if (length > 0) {
    text[length] = 0;
    fail("%s", text);
  }
  for (;;) {
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    if (pid == child) _exit(code_of(status)); /* the kernel kills the rest of the PID namespace */
    if (pid < 0 && errno != EINTR) _exit(128);
  }
}

int main(int argc, char **argv) {
  static const struct {
    const char *option;
    int type;
  } kinds[] = {{"--net", CLONE_NEWNET}, {"--uts", CLONE_NEWUTS}, {"--ipc", CLONE_NEWIPC}, {"--mnt", CLONE_NEWNS}};
  enum { KINDS = sizeof kinds / sizeof kinds[0] };
  const char *files[KINDS] = {0};
  const char *cwd = "/";
  int at = 1;
  for (; at + 1 < argc && strcmp(argv[at], "--") != 0; at += 2) {
    const char *value = argv[at + 1];
    int known = 0;
    if (strcmp(argv[at], "--cwd") == 0) cwd = value, known = 1;
    if (strcmp(argv[at], "--dir") == 0) {
      known = 1;
      dirfd_ = open(value, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
      if (dirfd_ < 0) fail("cannot open %s: %s", value, strerror(errno));
    }
    for (int i = 0; i < KINDS; i++)
      if (strcmp(argv[at], kinds[i].option) == 0) files[i] = value, known = 1;
    if (!known) fail("unknown option %s", argv[at]);
  }
  if (at + 1 >= argc || strcmp(argv[at], "--") != 0 || dirfd_ < 0)
    fail("usage: weft-init --dir DIR [--net F] [--uts F] [--ipc F] [--mnt F] [--cwd D] -- PROGRAM [ARGUMENT...]");
  char **command = argv + at + 1;

  char boot[64], started[32];
  boot_id(boot, sizeof boot);
  start_time(started, sizeof started);

  /* Open all before joining any: with the mount namespace the paths change. */
  int fds[KINDS];
  for (int i = 0; i < KINDS; i++) {
    fds[i] = files[i] ? open(files[i], O_RDONLY | O_CLOEXEC) : -1;
    if (files[i] && fds[i] < 0) fail("cannot open the namespace %s: %s", files[i], strerror(errno));
  }
  for (int i = 0; i < KINDS; i++)
    if (fds[i] >= 0 && setns(fds[i], kinds[i].type) < 0)
      fail("cannot join the namespace %s: %s", files[i], strerror(errno));
  if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0) fail("unshare: %s", strerror(errno));
  /* Mounts made on the node later appear in the container, never the other way round. */
  if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) fail("make / a slave mount: %s", strerror(errno));

  char **kept = environ;
  for (char **entry = environ; *entry; entry++)
    if (strncmp(*entry, "WEFT_LAB_", 9) != 0) *kept++ = *entry;
  *kept = NULL;

  on(SIGTERM, forward);
  on(SIGUSR2, kill_child);
  int go[2];
  if (pipe2(go, O_CLOEXEC) < 0) fail("pipe: %s", strerror(errno));
  pid_t outer = getpid();
  child = fork();
  if (child < 0) fail("fork: %s", strerror(errno));
  if (child == 0) {
    child = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(go[1]);
    char byte;
    if (read(go[0], &byte, 1) != 1) _exit(128); /* the outer process died before it could write `pid` */
    close(go[0]);
    setsid();
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
      fail("mount /proc: %s", strerror(errno));
    init(command, cwd);
  }
  close(go[0]);
  char text[160];
  snprintf(text, sizeof text, "%s %d %s %d\n", boot, (int)outer, started, (int)child);
  put("pid", text);
  if (write(go[1], "", 1) != 1) kill(child, SIGKILL);
  close(go[1]);

  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) fail("wait: %s", strerror(errno));
  int code = code_of(status);
  if (faccessat(dirfd_, "exit", F_OK, 0) != 0) put_exit(code);
  return code;
}
