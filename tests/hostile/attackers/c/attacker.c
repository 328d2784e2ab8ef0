// Attacks its node from inside, one way for each path: see tests/hostile/test_every_language.py. A WASI
// command that answers one request (CGI), compiled by the test.

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "isopod_net.h"

extern char **environ;

static void head(const char *lines) { printf("%s\r\n", lines); }

static void json(void) { head("Content-Type: application/json\r\n"); }

static void quoted(const char *text) {
  putchar('"');
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') putchar('\\');
    if ((unsigned char)*text >= 32) putchar(*text);
  }
  putchar('"');
}

static volatile int deeper = 1;
static int recurse(int level) {
  char large[512];
  memset(large, level, sizeof large);
  return deeper ? recurse(level + 1) + large[level % 512] : level;
}

static void memory(void) {
  for (;;) {
    char *piece = malloc(1 << 20);
    if (!piece) abort();
    memset(piece, 1, 1 << 20);
  }
}

static int64_t now(clockid_t clock) {
  struct timespec at;
  clock_gettime(clock, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void clocks(void) {
  int64_t rest = 0, ends = now(CLOCK_MONOTONIC) + 200000000;
  while (now(CLOCK_MONOTONIC) < ends)
    rest |= now(CLOCK_MONOTONIC) % 1000000 | now(CLOCK_REALTIME) % 1000000;
  json();
  printf("[%lld]", (long long)rest);
}

static void fresh(void) {
  unsigned char bytes[16];
  getentropy(bytes, sizeof bytes);
  json();
  printf("{\"random\": [\"");
  for (unsigned n = 0; n < sizeof bytes; n++) printf("%02x", bytes[n]);
  const char *setting = getenv("SETTING");
  printf("\"], \"now_ms\": %.3f, \"setting\": ", now(CLOCK_REALTIME) / 1e6);
  quoted(setting ? setting : "");
  printf("}");
}

static void environment(void) {
  json();
  putchar('{');
  for (char **one = environ; *one; one++) {
    char name[256];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(*one, "="), *one);
    if (one != environ) putchar(',');
    quoted(name);
    putchar(':');
    quoted(*one + strcspn(*one, "=") + 1);
  }
  putchar('}');
}

static void files(void) {
  const char *paths[] = {"/proc/self/environ", "/etc/passwd", "/app/../../../token",
                         "/tmp/../../../state.db", "/dev/mem", "../../token", "/tmp/private/diary"};
  json();
  putchar('[');
  for (unsigned n = 0; n < sizeof paths / sizeof *paths; n++) {
    if (n) putchar(',');
    quoted(open(paths[n], O_RDONLY) < 0 ? strerror(errno) : "opened");
  }
  putchar(']');
}

static void headers(const char *what) {
  if (!strcmp(what, "split")) fwrite("X: a\rSet-Cookie: evil=1\r\n", 1, 25, stdout);
  if (!strcmp(what, "name")) printf("X\rSet-Cookie: evil=1\r\n");
  if (!strcmp(what, "nul")) fwrite("X: a\0b\r\n", 1, 8, stdout);
  if (!strcmp(what, "lengths")) printf("Content-Length: 1\r\nContent-Length: 2\r\n");
  if (!strcmp(what, "negative")) printf("Content-Length: -1\r\n");
  if (!strcmp(what, "long")) printf("Content-Length: 999999999999999999999999999999\r\n");
  for (int n = 0; !strcmp(what, "many") && n < 300; n++) printf("X-%d: y\r\n", n);
  if (!strcmp(what, "large")) {
    printf("X: ");
    for (int n = 0; n < 70000; n++) putchar('y');
    printf("\r\n");
  }
  printf("\r\nx");
}

static void say(const char *escaped) {
  for (; *escaped; escaped++) {
    int byte = *escaped;
    if (*escaped == '%') {
      sscanf(escaped + 1, "%2x", &byte);
      escaped += 2;
    }
    fputc(byte, stderr);
  }
  fputc('\n', stderr);
  json();
  printf("1");
}

static void connects(int port) {
  const struct {
    const char *host;
    int port;
  } to[] = {{"127.0.0.1", port}, {"localhost", port}, {"0x7f.1", port}, {"::ffff:127.0.0.1", port},
            {"169.254.169.254", 80}, {"metadata", 80}, {"/etc/passwd", 1}, {"", port}};
  json();
  for (size_t n = 0; n < sizeof to / sizeof *to; n++) {
    int fd = isopod_connect(to[n].host, to[n].port, n % 2 ? ISOPOD_TLS : 0);
    printf(n ? "," : "[");
    if (fd < 0) quoted(strerror(errno));
    else printf("%d", fd);
  }
  // Descriptors that nobody gave it.
  for (int fd = 3; fd < 2000; fd++)
    if (isopod_connected(fd) == 0 || send(fd, "x", 1, 0) >= 0) printf(",%d", fd);
  printf("]");
}

int main(void) {
  const char *path = getenv("PATH_INFO");
  if (!path || !*++path) {
    head("Content-Type: text/plain\r\n");
    printf("fine");
  } else if (!strcmp(path, "loop")) {
    for (volatile int n = 0;; n++) {}
  } else if (!strcmp(path, "never")) {
    sleep(3600);
  } else if (!strcmp(path, "memory")) {
    memory();
  } else if (!strcmp(path, "recurse")) {
    printf("%d", recurse(1));
  } else if (!strcmp(path, "flood")) {
    for (;;) fprintf(stderr, "flood %01000d\n", 0);
  } else if (!strcmp(path, "vanish")) {
    abort();
  } else if (!strncmp(path, "log/", 4)) {
    const char *raw = getenv("REQUEST_URI");
    say(raw ? raw + 5 : path + 4);
  } else if (!strncmp(path, "headers/", 8)) {
    headers(path + 8);
  } else if (!strcmp(path, "longer")) {
    head("Content-Length: 5\r\n");
    for (int n = 0; n < 1000; n++) putchar('x');
  } else if (!strcmp(path, "shorter")) {
    head("Content-Length: 1000\r\n");
    printf("xxxxx");
  } else if (!strcmp(path, "endless")) {
    head("Content-Type: text/plain\r\n");
    for (;;) printf("%050000d", 0);
  } else if (!strcmp(path, "later")) {
    head("Content-Length: 3\r\n");
    printf("now");
    fflush(stdout);
    for (volatile int n = 0;; n++) {}
  } else if (!strcmp(path, "connection")) {
    head("Transfer-Encoding: chunked\r\nConnection: x-mine\r\nX-Mine: 1\r\nX-Request-Id: forged\r\n");
    printf("5\r\nhello");
  } else if (!strcmp(path, "env")) {
    environment();
  } else if (!strncmp(path, "connect/", 8)) {
    connects(atoi(path + 8));
  } else if (!strcmp(path, "files")) {
    files();
  } else if (!strcmp(path, "clock")) {
    clocks();
  } else if (!strcmp(path, "fresh")) {
    fresh();
  }
  return 0;
}
