/* A reactor with everything that the C package offers. */
#include "isopod.h"
#include "isopod_net.h"

#include <unistd.h>
#include <time.h>

static int count, tables[64];

void isopod_setup(void) {
    for (int at = 0; at < 64; at++) tables[at] = at * at;
    printf("setup %s\n", getenv("KEY") ? getenv("KEY") : "without settings");
}

static int is(const isopod_request *request, const char *path) {
    return !strcmp(request->path, path);
}

void isopod_serve(const isopod_request *request) {
    static char data[100000];
    count++;
    if (is(request, "/echo")) {
        isopod_set_header("content-type", "application/octet-stream");
        for (size_t got; (got = isopod_read(data, sizeof data)) > 0;) isopod_write(data, got);
    } else if (is(request, "/large")) {
        memset(data, 'A', sizeof data);
        for (int at = 0; at < 30; at++)
            if (isopod_write(data, sizeof data)) {
                fprintf(stderr, "gone after %d\n", at);
                return;
            }
    } else if (is(request, "/status")) {
        int bad = isopod_status(99) + isopod_set_header("x", "a\r\nset-cookie: b");
        isopod_status(404);
        isopod_set_header("x-bad", bad == -2 ? "both" : "no");
    } else if (is(request, "/connect")) {
        int fd = isopod_connect("localhost", atoi(request->query), 0);
        if (fd < 0) {
            isopod_print(strerror(errno));
            return;
        }
        write(fd, "hello\n", 6);
        isopod_status(203); /* what was said before stays */
        for (ssize_t got; (got = read(fd, data, sizeof data)) > 0;) isopod_write(data, (size_t)got);
        close(fd);
    } else if (is(request, "/count")) {
        int before = 0;
        FILE *file = fopen("/data/count", "r");
        if (file) {
            if (fscanf(file, "%d", &before) != 1) before = -1;
            fclose(file);
        }
        file = fopen("/data/count", "w");
        if (!file) {
            isopod_print(strerror(errno));
            return;
        }
        fprintf(file, "%d", before + 1);
        fclose(file);
        snprintf(data, 20, "%d", before + 1);
        isopod_print(data);
    } else if (is(request, "/fill")) {
        FILE *file = fopen("/data/large", "w");
        size_t done = 1;
        while (file && done) done = fwrite(data, 1, sizeof data, file);
        isopod_print(strerror(errno));
        if (file) fclose(file);
        remove("/data/large");
    } else if (is(request, "/abort")) {
        fprintf(stderr, "last words\n");
        abort();
    } else if (is(request, "/full")) {
        for (char *volatile got; (got = malloc(1 << 20));) got[0] = 1;
        isopod_print("full");
    } else if (is(request, "/loop")) {
        for (volatile int at = 0;;) at++;
    } else if (is(request, "/random")) {
        unsigned char bytes[8];
        struct timespec now;
        getentropy(bytes, sizeof bytes);
        clock_gettime(CLOCK_MONOTONIC, &now);
        snprintf(data, 100, "%02x%02x%02x%02x %lld", bytes[0], bytes[1], bytes[2], bytes[3],
                 (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
        isopod_print(data);
    } else {
        const char *key = getenv("KEY"), *two = isopod_header(request, "x-two");
        snprintf(data, sizeof data, "%s %s?%s %s %s %s %s %s %s %d %d", request->method,
                 request->path, request->query, request->scheme, request->host, request->port,
                 request->client, two ? two : "", key ? key : "", count, tables[63]);
        isopod_print(data);
    }
}
