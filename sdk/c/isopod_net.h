/* isopod: connections for programs and reactors in C (docs/wasi.md).

   isopod_connect(host, port, flags) gives a descriptor that is connected, for read, write, send,
   recv, poll, select, shutdown, fcntl(F_SETFL, O_NONBLOCK) and close of <unistd.h>, <sys/socket.h>
   and <poll.h>; or -1, and errno says why. isopod.toml lists what may be reached ([network] allow);
   anything else is EACCES, and the log says which line is missing. With ISOPOD_TLS the host speaks
   TLS, checks the certificate for `host`, and what is read and written is plain. */
#ifndef ISOPOD_NET_H
#define ISOPOD_NET_H
#include <errno.h>
#include <stdint.h>
#include <string.h>

#define ISOPOD_TLS 1
#define ISOPOD_NONBLOCK 2 /* returns at once: poll until it can be written, ask isopod_connected */

__attribute__((import_module("isopod"), import_name("connect"))) int32_t isopod_host_connect(
    const char *host, uint32_t size, uint32_t port, uint32_t flags);
__attribute__((import_module("isopod"), import_name("connected"))) int32_t isopod_host_connected(
    int32_t fd);

static inline int isopod_connect(const char *host, int port, int flags) {
    int fd = isopod_host_connect(host, strlen(host), (uint32_t)port, (uint32_t)flags);
    if (fd >= 0) return fd;
    errno = -fd;
    return -1;
}

/* 0 once it is connected, or -1: errno is EINPROGRESS, or why it failed. */
static inline int isopod_connected(int fd) {
    int failed = isopod_host_connected(fd);
    if (!failed) return 0;
    errno = failed;
    return -1;
}
#endif
