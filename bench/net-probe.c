/*
 * net-probe: the smallest TCP client and server that tell how long a path takes.
 *
 *   net-probe server PORT                  echo every byte, one connection at a time
 *   net-probe rr ADDRESS PORT SECONDS      one connection, one byte there and back, again and again
 *   net-probe connect ADDRESS PORT SECONDS a new connection for every byte there and back
 *
 * rr and connect print the number of exchanges per second. The first tenth of the time warms up and does not count.
 * Connections end with a reset (SO_LINGER 0), so that no ports wait in TIME_WAIT for the next measurement.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
  fprintf(stderr, "net-probe: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void set(int fd, int level, int name, int value) {
  if (setsockopt(fd, level, name, &value, sizeof value) != 0) die("setsockopt");
}

/* IPv6 with IPv4 mapped into it, so that one server answers both. */
static void serve(int port) {
  int listener = socket(AF_INET6, SOCK_STREAM, 0);
  if (listener < 0) die("socket");
  set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
  set(listener, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  set(listener, IPPROTO_TCP, TCP_NODELAY, 1);
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
  if (listen(listener, 128) != 0) die("listen");
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue; /* reset before it was accepted */
    char byte;
    while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1) {}
    close(fd);
  }
}

static int open_connection(const struct addrinfo *to) {
  int fd = socket(to->ai_family, SOCK_STREAM, 0);
  if (fd < 0) die("socket");
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) != 0) die("setsockopt");
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (connect(fd, to->ai_addr, to->ai_addrlen) != 0) die("connect");
  return fd;
}

static void exchange(int fd) {
  char byte = 'x';
  if (write(fd, &byte, 1) != 1) die("write");
  if (read(fd, &byte, 1) != 1) die("read");
}

static void measure(const struct addrinfo *to, int anew, double seconds) {
  int fd = anew ? -1 : open_connection(to);
  double counted_from = now() + seconds / 10, end = counted_from + seconds, time;
  long count = 0;
  double began = 0;
  for (;;) {
    if (anew) fd = open_connection(to);
    exchange(fd);
    if (anew) close(fd);
    time = now();
    if (began == 0) {
      if (time >= counted_from) began = time;
    } else {
      count++;
      if (time >= end) break;
    }
  }
  printf("%.1f\n", count / (time - began));
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  if (argc == 3 && strcmp(argv[1], "server") == 0) serve(atoi(argv[2]));
  int anew = argc == 5 && strcmp(argv[1], "connect") == 0;
  if (argc == 5 && (anew || strcmp(argv[1], "rr") == 0)) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *to;
    int failed = getaddrinfo(argv[2], argv[3], &hints, &to);
    if (failed) {
      fprintf(stderr, "net-probe: %s: %s\n", argv[2], gai_strerror(failed));
      return 1;
    }
    alarm((unsigned)atof(argv[4]) * 2 + 10); /* a path that loses everything must not hang the benchmark */
    measure(to, anew, atof(argv[4]));
    return 0;
  }
  fprintf(stderr, "usage: net-probe server PORT | rr ADDRESS PORT SECONDS | connect ADDRESS PORT SECONDS\n");
  return 2;
}
