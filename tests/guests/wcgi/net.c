/* What tests/unit/runtimes/test_wasi_network.py asks: the path says what is done, the query which
   port of localhost, and after a comma more. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "isopod_net.h"

static char piece[1 << 16];

static int failed(const char *what) {
    printf("%s %s\n", what, strerror(errno));
    return 0;
}

/* Everything that comes until its end, on standard output. */
static int copy(int fd) {
    ssize_t got;
    while ((got = read(fd, piece, sizeof piece)) > 0) fwrite(piece, 1, (size_t)got, stdout);
    return got < 0 ? failed("read") : 0;
}

static int say(const char *host, int port, int flags, const char *text) {
    int fd = isopod_connect(host, port, flags);
    if (fd < 0) return failed("connect");
    if (write(fd, text, strlen(text)) < 0) return failed("write");
    return copy(fd);
}

static int ask(const char *host, int port, int flags) { return say(host, port, flags, "hello\n"); }

/* Two at once, the second answers first; then a poll that is in vain. */
static int polls(int port) {
    struct pollfd fds[2] = {{.events = POLLIN}, {.events = POLLIN}};
    for (int at = 0; at < 2; at++) {
        fds[at].fd = isopod_connect("localhost", port, ISOPOD_NONBLOCK);
        if (fds[at].fd < 0) return failed("connect");
        struct pollfd writes = {.fd = fds[at].fd, .events = POLLOUT};
        while (isopod_connected(fds[at].fd)) {
            if (errno != EINPROGRESS) return failed("connected");
            if (poll(&writes, 1, 20000) != 1) return failed("poll");
        }
        printf("%s ", read(fds[at].fd, piece, 1) < 0 && errno == EAGAIN ? "nothing" : "what?");
    }
    write(fds[1].fd, "second\n", 7);
    if (poll(fds, 2, 20000) != 1 || !(fds[1].revents & POLLIN)) return failed("poll");
    printf("%zd ", recv(fds[1].fd, piece, 3, MSG_PEEK));
    printf("%zd %.7s", recv(fds[1].fd, piece, sizeof piece, 0), piece);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    int ready = poll(fds, 1, 30);
    clock_gettime(CLOCK_MONOTONIC, &after);
    long ms = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    printf("%d %d\n", ready, ms >= 29);
    return close(fds[0].fd) || close(fds[1].fd);
}

static int lies(int port) {
    printf("%d ", isopod_host_connect("localhost", 9, 1 << 16, 0) == -EINVAL);
    printf("%d ", isopod_host_connect("localhost", 9, port, 4) == -EINVAL);
    printf("%d ", isopod_host_connect("localhost", 300, port, 0) == -EINVAL);
    int unknown[] = {3, 511, 512, 639, 640, -1, 1 << 30};
    for (size_t at = 0; at < sizeof unknown / sizeof *unknown; at++) {
        int fd = unknown[at];
        printf("%d", isopod_host_connected(fd) == EBADF);
        printf("%d", recv(fd, piece, 1, 0) < 0 && send(fd, piece, 1, 0) < 0 && shutdown(fd, 2) < 0);
    }
    struct pollfd closed = {.fd = 512, .events = POLLIN};
    printf(" %d %d ", poll(&closed, 1, 0), closed.revents);
    int fd = isopod_connect("localhost", port, 0);
    printf("%d %d ", fd, fcntl(fd, F_GETFL) & O_NONBLOCK);
    printf("%d %d ", fcntl(fd, F_SETFL, O_NONBLOCK), !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    printf("%d %d\n", recv(fd, piece, 1, MSG_WAITALL) < 0, lseek(fd, 0, SEEK_SET) < 0);
    return 0;
}

static int outside(int port) {
    char *end = (char *)((size_t)__builtin_wasm_memory_size(0) << 16);
    return (int)recv(isopod_connect("localhost", port, 0), end - 1, 2, 0);
}

static int many(int port) {
    int count = 0;
    while (isopod_connect("localhost", port, ISOPOD_NONBLOCK) >= 0) count++;
    printf("%d %s\n", count, strerror(errno));
    return 0;
}

static int sends(int port) {
    int fd = isopod_connect("localhost", port, 0);
    for (int at = 0; at < 64; at++)
        for (size_t sent = 0; sent < sizeof piece;) {
            ssize_t took = write(fd, piece + sent, sizeof piece - sent);
            if (took < 0) return failed("write");
            sent += (size_t)took;
        }
    shutdown(fd, SHUT_WR);
    return copy(fd);
}

int main(int argc, char **argv) {
    const char *path = getenv("PATH_INFO"), *query = getenv("QUERY_STRING");
    if (argc > 1) return ask("localhost", atoi(argv[1]), 0);
    puts("Content-Type: text/plain\n");
    int port = atoi(query);
    const char *host = strchr(query, ',');
    host = host ? host + 1 : "localhost";
    if (!strcmp(path, "/ask")) return ask(host, port, 0);
    if (!strcmp(path, "/http")) return say(host, port, 0, "GET /wasm HTTP/1.0\r\n\r\n");
    if (!strcmp(path, "/tls")) return ask(host, port, ISOPOD_TLS);
    if (!strcmp(path, "/poll")) return polls(port);
    if (!strcmp(path, "/lies")) return lies(port);
    if (!strcmp(path, "/outside")) return outside(port);
    if (!strcmp(path, "/many")) return many(port);
    if (!strcmp(path, "/send")) return sends(port);
    return 0;
}
