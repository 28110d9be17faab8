/*
 * weft-cni: the CNI plugin that a container runtime executes. It carries the call to the agent over a unix socket and
 * prints what the agent answers; what must work without an agent is done here:
 *
 *   VERSION          answered at once
 *   ADD, CHECK, GC   error 11, "try again later"
 *   STATUS           error 50, or 51 when pods are attached
 *   DEL              written to the spool, durably, and reported as done; the agent carries it out before its next ADD
 *
 * Statically linked, no dependencies, one pass: starting it is most of what it costs.
 *
 * The conversation (integers little-endian, 32 bits):
 *   agent:  'A' as soon as it accepts, so that a hung agent is told from a busy one
 *   plugin: "WFT1" | length of environment | length of stdin | CNI_* variables, each ended by a zero byte | stdin
 *   agent:  exit code | length | bytes for stdout
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef WEFT_CNI_SOCKET
#define WEFT_CNI_SOCKET "/run/weft/cni.sock"
#endif
#ifndef WEFT_CNI_SPOOL
#define WEFT_CNI_SPOOL "/var/lib/weft/cni-spool"
#endif

enum {
  MAX_STDIN = 1 << 20,
  MAX_ENVIRONMENT = 1 << 18,
  MAX_ANSWER = 1 << 24,
  FRAME_HEADER = 12,
  ACCEPT_MS = 800,    /* until the agent accepts: a runtime is told within a second that there is none */
  ANSWER_MS = 60000,  /* until it has answered: shorter than kubelet's patience, longer than any attach */
};

/* "Error", CNI 1.1.0 */
enum { BAD_ENVIRONMENT = 4, IO_FAILURE = 5, UNDECODABLE = 6, INVALID_CONFIG = 7, TRY_AGAIN = 11, UNAVAILABLE = 50, AFFECTED = 51 };

extern char **environ;

static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)] = WEFT_CNI_SOCKET;
static char spool_path[1024] = WEFT_CNI_SPOOL;
static char version[17] = "1.1.0";

struct buffer {
  char *at;
  size_t length, room;
};

static int reserve(struct buffer *b, size_t more) {
  if (b->room - b->length >= more) return 0;
  size_t room = b->room ? b->room : 4096;
  while (room - b->length < more) room *= 2;
  char *at = realloc(b->at, room);
  if (!at) return -1;
  b->at = at;
  b->room = room;
  return 0;
}

static int append(struct buffer *b, const void *bytes, size_t length) {
  if (reserve(b, length) < 0) return -1;
  if (length) memcpy(b->at + b->length, bytes, length);
  b->length += length;
  return 0;
}

static void append_text(struct buffer *b, const char *text) { append(b, text, strlen(text)); }

static void append_number(struct buffer *b, unsigned long long n) {
  char digits[24], *at = digits + sizeof digits;
  *--at = 0;
  do *--at = (char)('0' + n % 10);
  while (n /= 10);
  append_text(b, at);
}

/* As the inside of a JSON string; what is not printable ASCII (it may not be UTF-8 at all) becomes '?'. */
static void append_escaped(struct buffer *b, const char *text) {
  for (; *text; text++) {
    char c = *text;
    if (c == '"' || c == '\\') append(b, "\\", 1);
    if (c < 0x20 || c > 0x7e) c = '?';
    append(b, &c, 1);
  }
}

static int write_all(int fd, const char *bytes, size_t length) {
  while (length) {
    ssize_t n = write(fd, bytes, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return -1;
    bytes += n;
    length -= (size_t)n;
  }
  return 0;
}

__attribute__((noreturn)) static void fail(int code, const char *message, const char *about, const char *details) {
  struct buffer out = {0};
  append_text(&out, "{\"cniVersion\":\"");
  append_text(&out, version);
  append_text(&out, "\",\"code\":");
  append_number(&out, (unsigned)code);
  append_text(&out, ",\"msg\":\"");
  append_escaped(&out, message);
  append_escaped(&out, about);
  append_text(&out, "\",\"details\":\"");
  append_escaped(&out, details);
  append_text(&out, "\"}\n");
  write_all(STDOUT_FILENO, out.at, out.length);
  _exit(1);
}

/*
 * The text under a top-level key of a JSON object: 1 when it is there, plain (no escapes) and fits, -1 when it is there and
 * is not, 0 when it is not there. Malformed JSON is for the agent to judge.
 */
static int top_level_text(const struct buffer *json, const char *key, char *out, size_t size) {
  size_t depth = 0, key_length = strlen(key);
  int is_key = 0, matches = 0; /* the next string is a key; the last key was the one */
  for (size_t i = 0; i < json->length; i++) {
    char c = json->at[i];
    if (c == '{' || c == '[') {
      is_key = ++depth == 1 && c == '{';
      matches = 0;
    } else if (c == '}' || c == ']') {
      if (depth-- <= 1) return 0;
    } else if (c == ',') {
      is_key = depth == 1;
      matches = 0;
    } else if (c == '"') {
      size_t from = ++i;
      int plain = 1;
      for (; i < json->length && json->at[i] != '"'; i++)
        if (json->at[i] == '\\') plain = 0, i++;
      if (i >= json->length) return 0;
      size_t length = i - from;
      if (depth != 1) continue;
      if (is_key) {
        matches = plain && length == key_length && memcmp(json->at + from, key, length) == 0;
        is_key = 0;
      } else if (matches) {
        if (!plain || length == 0 || length >= size || memchr(json->at + from, 0, length)) return -1;
        memcpy(out, json->at + from, length);
        out[length] = 0;
        return 1;
      }
    }
  }
  return 0;
}

static void put32(char *at, size_t value) {
  for (int i = 0; i < 4; i++) at[i] = (char)(value >> (8 * i));
}

static uint32_t get32(const char *at) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; i--) value = value << 8 | (unsigned char)at[i];
  return value;
}

static long long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Wait for `events`; 0 when the deadline has passed. */
static int wait_for(int fd, short events, long long deadline) {
  for (;;) {
    long long left = deadline - now_ms();
    if (left <= 0) return 0;
    struct pollfd p = {.fd = fd, .events = events};
    int n = poll(&p, 1, (int)left);
    if (n > 0) return 1;
    if (n == 0 || errno != EINTR) return 0;
  }
}

static int connect_to_agent(long long deadline) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, socket_path, sizeof socket_path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  while (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    /* EAGAIN: the queue of connections is full, and there is nothing to poll for. */
    if ((errno != EAGAIN && errno != EINTR) || now_ms() >= deadline) {
      close(fd);
      return -1;
    }
    struct timespec pause = {.tv_nsec = 5000000};
    nanosleep(&pause, NULL);
  }
  return fd;
}

static int send_all(int fd, const struct buffer *frame, long long deadline) {
  size_t sent = 0;
  while (sent < frame->length) {
    ssize_t n = send(fd, frame->at + sent, frame->length - sent, MSG_NOSIGNAL);
    if (n > 0) sent += (size_t)n;
    else if (n < 0 && errno == EINTR) continue;
    else if (n == 0 || errno != EAGAIN || !wait_for(fd, POLLOUT, deadline)) return -1;
  }
  return 0;
}

/* Append exactly `length` bytes; -1 when the agent goes away, or the deadline comes, before. */
static int receive(int fd, struct buffer *in, size_t length, long long deadline) {
  if (reserve(in, length) < 0) return -1;
  while (length) {
    ssize_t n = recv(fd, in->at + in->length, length, 0);
    if (n > 0) in->length += (size_t)n, length -= (size_t)n;
    else if (n < 0 && errno == EINTR) continue;
    else if (n == 0 || errno != EAGAIN || !wait_for(fd, POLLIN, deadline)) return -1;
  }
  return 0;
}

/* The agent's exit code, its words appended to `out`; -1 when there was no whole answer. */
static int ask_agent(const struct buffer *frame, struct buffer *out) {
  long long begun = now_ms();
  int fd = connect_to_agent(begun + ACCEPT_MS);
  if (fd < 0) return -1;
  struct buffer head = {0};
  int code = -1;
  /* Sent before the 'A' is awaited: it saves a round trip, and a frame mostly fits the socket's buffer. */
  if (send_all(fd, frame, begun + ACCEPT_MS) == 0 && receive(fd, &head, 1, begun + ACCEPT_MS) == 0 && head.at[0] == 'A' &&
      receive(fd, &head, 8, begun + ANSWER_MS) == 0) {
    size_t length = get32(head.at + 5);
    if (length <= MAX_ANSWER && receive(fd, out, length, begun + ANSWER_MS) == 0) code = (int)(get32(head.at + 1) & 0xff);
  }
  free(head.at);
  close(fd);
  return code;
}

static void make_folders(char *path) {
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    mkdir(path, 0755);
    *slash = '/';
  }
  mkdir(path, 0700);
}

/* The request as it would have been sent, in a file that survives a loss of power. 0 when it is there. */
static int spool(const struct buffer *frame) {
  struct timespec t;
  static struct buffer name, hidden;
  clock_gettime(CLOCK_REALTIME, &t);
  append_number(&name, (unsigned long long)t.tv_sec * 1000000000ULL + (unsigned long long)t.tv_nsec);
  append_text(&name, "-");
  append_number(&name, (unsigned long long)getpid());
  append_text(&hidden, ".");
  if (append(&name, "", 1) < 0 || append(&hidden, name.at, name.length) < 0) return -1;

  int folder = open(spool_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0 && errno == ENOENT) {
    make_folders(spool_path);
    folder = open(spool_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  if (folder < 0) return -1;
  int fd = openat(folder, hidden.at, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return -1;
  int ok = write_all(fd, frame->at, frame->length) == 0 && fsync(fd) == 0;
  ok = close(fd) == 0 && ok;
  ok = ok && renameat(folder, hidden.at, folder, name.at) == 0 && fsync(folder) == 0;
  if (!ok) unlinkat(folder, hidden.at, 0);
  close(folder);
  return ok ? 0 : -1;
}

/* The agent leaves a file beside its socket while pods are attached. */
static int pods_are_attached(void) {
  static const char suffix[] = ".attached";
  char path[sizeof socket_path + sizeof suffix];
  size_t length = strlen(socket_path);
  memcpy(path, socket_path, length);
  memcpy(path + length, suffix, sizeof suffix);
  return access(path, F_OK) == 0;
}

/* The whole of stdin; more than the limit is refused, and read no further. */
static void read_stdin(struct buffer *in) {
  for (;;) {
    if (reserve(in, 4096) < 0) fail(IO_FAILURE, "out of memory", "", "WEFT_CNI_BAD_REQUEST");
    ssize_t n = read(STDIN_FILENO, in->at + in->length, in->room - in->length);
    if (n == 0) return;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(IO_FAILURE, "cannot read the network configuration from stdin", "", "WEFT_CNI_BAD_REQUEST");
    in->length += (size_t)n;
    if (in->length > MAX_STDIN) fail(UNDECODABLE, "the network configuration is larger than 1 MiB", "", "WEFT_CNI_BAD_REQUEST");
  }
}

static void collect_environment(struct buffer *out) {
  for (char **entry = environ; entry && *entry; entry++)
    if (strncmp(*entry, "CNI_", 4) == 0 && append(out, *entry, strlen(*entry) + 1) < 0)
      fail(IO_FAILURE, "out of memory", "", "WEFT_CNI_BAD_REQUEST");
  if (out->length > MAX_ENVIRONMENT)
    fail(BAD_ENVIRONMENT, "the CNI_ variables are larger than 256 KiB", "", "WEFT_CNI_BAD_REQUEST");
}

/* A path that cannot be used must not become the usual one, where another agent may answer. */
static void take_path(char *to, size_t size, const struct buffer *config, const char *key, const char *variable) {
  const char *value = getenv(variable);
  int given = top_level_text(config, key, to, size);
  if (given == 0 && value && *value) {
    given = strlen(value) < size ? 1 : -1;
    if (given > 0) strcpy(to, value);
  }
  if (given < 0 || to[0] != '/') fail(INVALID_CONFIG, key, " is not a path, or one that is too long", "WEFT_CNI_BAD_REQUEST");
}

int main(void) {
  const char *command = getenv("CNI_COMMAND");
  if (!command || !*command)
    fail(BAD_ENVIRONMENT, "CNI_COMMAND is not set", ": weft-cni is a CNI plugin, executed by container runtimes", "WEFT_CNI_BAD_REQUEST");
  signal(SIGPIPE, SIG_IGN);

  static struct buffer config, environment, frame, answer;
  read_stdin(&config);
  char wanted[sizeof version];
  if (top_level_text(&config, "cniVersion", wanted, sizeof wanted) > 0 && strspn(wanted, "0123456789.") == strlen(wanted))
    strcpy(version, wanted);

  if (strcmp(command, "VERSION") == 0) {
    append_text(&answer, "{\"cniVersion\":\"");
    append_text(&answer, version);
    append_text(&answer, "\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n");
    return write_all(STDOUT_FILENO, answer.at, answer.length) == 0 ? 0 : 1;
  }

  take_path(socket_path, sizeof socket_path, &config, "weftSocket", "WEFT_CNI_SOCKET");
  take_path(spool_path, sizeof spool_path, &config, "weftSpool", "WEFT_CNI_SPOOL");
  collect_environment(&environment);
  char head[FRAME_HEADER] = {'W', 'F', 'T', '1'};
  put32(head + 4, environment.length);
  put32(head + 8, config.length);
  if (append(&frame, head, sizeof head) < 0 || append(&frame, environment.at, environment.length) < 0 ||
      append(&frame, config.at, config.length) < 0)
    fail(IO_FAILURE, "out of memory", "", "WEFT_CNI_BAD_REQUEST");

  int code = ask_agent(&frame, &answer);
  if (code >= 0) {
    if (write_all(STDOUT_FILENO, answer.at, answer.length) < 0 && code == 0) code = 1;
    return code;
  }

  if (strcmp(command, "DEL") == 0) {
    const char *container = getenv("CNI_CONTAINERID"), *ifname = getenv("CNI_IFNAME");
    if (!container || !*container) fail(BAD_ENVIRONMENT, "CNI_CONTAINERID is not set", "", "WEFT_CNI_BAD_REQUEST");
    if (!ifname || !*ifname) fail(BAD_ENVIRONMENT, "CNI_IFNAME is not set", "", "WEFT_CNI_BAD_REQUEST");
    if (spool(&frame) == 0) return 0;
    fail(IO_FAILURE, "the Weft agent does not answer, and the request cannot be kept for it in ", spool_path, strerror(errno));
  }
  if (strcmp(command, "STATUS") == 0)
    fail(pods_are_attached() ? AFFECTED : UNAVAILABLE, "the Weft agent does not answer on ", socket_path, "WEFT_CNI_NOT_READY");
  if (strcmp(command, "ADD") == 0 || strcmp(command, "CHECK") == 0 || strcmp(command, "GC") == 0)
    fail(TRY_AGAIN, "the Weft agent does not answer on ", socket_path, "WEFT_CNI_NOT_READY");
  fail(BAD_ENVIRONMENT, "CNI_COMMAND is unknown: ", command, "WEFT_CNI_BAD_REQUEST");
}
