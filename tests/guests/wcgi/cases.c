/* One program that behaves as the path says: well, oddly or badly. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static char bytes[1 << 16];
static char *volatile kept;

static void text(void) { fputs("Content-Type: text/plain\r\n\r\n", stdout); }

static void copy(void) {
  ssize_t got;
  text();
  fflush(stdout);
  while ((got = read(0, bytes, sizeof bytes)) > 0) write(1, bytes, got);
}

int main(int argc, char **argv) {
  const char *path = getenv("PATH_INFO");

  if (!path) { /* a command */
    for (int n = 0; n < argc; n++) printf("%s\n", argv[n]);
    fprintf(stderr, "%d\n", getchar());
    return argc > 1 ? atoi(argv[1]) : 0;
  }
  if (!strcmp(path, "/")) {
    text();
    puts("hello");
  } else if (!strcmp(path, "/env")) {
    text();
    for (char **one = environ; *one; one++) puts(*one);
  } else if (!strcmp(path, "/argv")) {
    text();
    printf("%d %s\n", argc, argv[0]);
  } else if (!strcmp(path, "/terminal")) {
    int file = open("/tmp/file", O_RDWR | O_CREAT, 0644), flags = fcntl(file, F_GETFL);
    text();
    printf("%d %d %d %d\n", isatty(0), isatty(1), isatty(2), (flags & O_RDWR) == O_RDWR);
    unlink("/tmp/file");
  } else if (!strcmp(path, "/echo")) {
    copy();
  } else if (!strcmp(path, "/status")) {
    fputs("Status: 404 Not Here\nX-Own: a: b\nContent-Type: text/html\n\n<p>no", stdout);
  } else if (!strcmp(path, "/redirect")) {
    fputs("Location: /elsewhere\n\n", stdout);
  } else if (!strcmp(path, "/length")) {
    fputs("Content-Length: 2\n\nok", stdout);
  } else if (!strcmp(path, "/pieces")) {
    text();
    for (int n = 0; n < 3; n++) {
      printf("piece %d\n", n);
      fflush(stdout);
      usleep(20000);
    }
  } else if (!strcmp(path, "/large")) {
    text();
    for (int n = 0; n < 64; n++) fwrite(bytes, 1, sizeof bytes, stdout);
  } else if (!strcmp(path, "/flood")) {
    text();
    for (;;) fwrite(bytes, 1, sizeof bytes, stdout);
  } else if (!strcmp(path, "/stderr")) {
    fputs("first line\nsecond", stderr);
    text();
  } else if (!strcmp(path, "/file")) {
    FILE *file = fopen("data/greeting.txt", "r");
    text();
    if (file) fwrite(bytes, 1, fread(bytes, 1, 100, file), stdout);
    printf("%s\n", fopen("data/greeting.txt", "w") ? "written" : strerror(errno));
  } else if (!strcmp(path, "/tmp")) {
    FILE *before = fopen("/tmp/mark", "r"), *file = fopen("/tmp/mark", "w");
    fputs("x", file);
    text();
    puts(before ? "there" : "new");
  } else if (!strcmp(path, "/count")) {
    int count = 0;
    FILE *file = fopen("/data/count", "r");
    if (file) fscanf(file, "%d", &count);
    file = fopen("/data/count", "w");
    if (!file) return 9;
    fprintf(file, "%d", ++count);
    text();
    printf("%d", count);
  } else if (!strcmp(path, "/fill")) {
    int file = open("/data/large", O_WRONLY | O_CREAT | O_APPEND, 0644);
    ssize_t put = write(file, bytes, sizeof bytes);
    int why = errno;
    text();
    puts(put < 0 ? strerror(why) : "written");
  } else if (!strcmp(path, "/dup")) {
    text();
    fflush(stdout);
    freopen("/tmp/aside", "w", stdout);
    puts("not for the client");
  } else if (!strcmp(path, "/exit")) {
    exit(3);
  } else if (!strcmp(path, "/late-exit")) {
    text();
    puts("said");
    exit(4);
  } else if (!strcmp(path, "/exit-0")) {
    text();
    fflush(stdout);
    _Exit(0);
  } else if (!strcmp(path, "/nothing")) {
    return 0;
  } else if (!strcmp(path, "/body-first")) {
    fputs("<html>\nContent-Type: text/html\n\n", stdout);
  } else if (!strcmp(path, "/half")) {
    fputs("Content-Type: text/plain\nX-Ha", stdout);
  } else if (!strcmp(path, "/unended")) {
    fputs("Content-Type: text/plain\n", stdout);
  } else if (!strcmp(path, "/empty-first")) {
    fputs("\nContent-Type: text/plain\n\n", stdout);
  } else if (!strcmp(path, "/nul")) {
    fwrite("X-A: b\0c\n\n", 1, 10, stdout);
  } else if (!strcmp(path, "/binary")) {
    for (int n = 0; n < 100; n++) bytes[n] = (char)(n * 7 + 128);
    fwrite(bytes, 1, 100, stdout);
  } else if (!strcmp(path, "/endless-head")) {
    for (;;) fputs("X-A: b\n", stdout);
  } else if (!strcmp(path, "/two-statuses")) {
    fputs("Status: 200\nStatus: 201\n\n", stdout);
  } else if (!strcmp(path, "/status-0")) {
    fputs("Status: 099\n\n", stdout);
  } else if (!strcmp(path, "/more-than-declared")) {
    fputs("Content-Length: 2\n\nmore", stdout);
  } else if (!strcmp(path, "/trap")) {
    __builtin_trap();
  } else if (!strcmp(path, "/late-trap")) {
    text();
    fwrite(bytes, 1, sizeof bytes, stdout);
    fflush(stdout);
    usleep(20000);
    __builtin_trap();
  } else if (!strcmp(path, "/memory")) {
    while ((kept = malloc(1 << 20))) memset(kept, 1, 1 << 20);
    abort();
  } else if (!strcmp(path, "/loop")) {
    for (volatile int n = 0;; n++) {}
  } else if (!strcmp(path, "/sleep")) {
    sleep(100);
  } else if (!strcmp(path, "/random")) {
    unsigned long number = 0;
    getentropy(&number, sizeof number);
    text();
    printf("%lx %d", number, bytes[0]++);
  } else if (!strcmp(path, "/clock")) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    text();
    printf("%lld %ld", (long long)now.tv_sec, now.tv_nsec);
  } else {
    fputs("Status: 404\n\n", stdout);
  }
  return 0;
}
