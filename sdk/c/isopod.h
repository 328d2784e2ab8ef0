/* isopod: answer HTTP requests from WebAssembly in C (docs/reactors.md).

   Include it in one file, and define there what is called:
     void isopod_setup(void);                         once, when the app is deployed: what it leaves
                                                      in memory is what every instance starts from
     void isopod_serve(const isopod_request *);       for each request
   Build:  cc --target=wasm32-wasi -mexec-model=reactor -O2 -o app.wasm app.c

   Settings are in getenv(), from the first request on; isopod_setup sees none. */
#ifndef ISOPOD_H
#define ISOPOD_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ISOPOD_BOX (256 * 1024)
#define ISOPOD_MAX_HEADERS 200
#define ISOPOD_MAX_HEAD (64 * 1024)

typedef struct {
    const char *method, *path, *query, *protocol, *scheme, *host, *port, *client;
    int has_body;
    size_t header_count; /* names are lower case */
    const char *header_names[ISOPOD_MAX_HEADERS], *header_values[ISOPOD_MAX_HEADERS];
} isopod_request;

void isopod_setup(void);
void isopod_serve(const isopod_request *request);

__attribute__((import_module("isopod"), import_name("call"))) int32_t isopod_call(void);

/* The two halves of the mailbox begin with a length. */
typedef struct {
    uint32_t length;
    char data[ISOPOD_BOX - 4];
} isopod_box;
static isopod_box isopod_in, isopod_out;
static uint32_t isopod_record[4];
static isopod_request isopod_now;
static char isopod_lines[ISOPOD_BOX], isopod_head[ISOPOD_MAX_HEAD];
static size_t isopod_head_length;
static int isopod_begun, isopod_sent, isopod_gone, isopod_status_code;

/* The value of a request's header, or NULL. */
static inline const char *isopod_header(const isopod_request *request, const char *name) {
    for (size_t at = 0; at < request->header_count; at++)
        if (!strcmp(request->header_names[at], name)) return request->header_values[at];
    return NULL;
}

/* Up to `size` bytes of the request's body; 0 at its end. */
static inline size_t isopod_read(void *to, size_t size) {
    uint32_t want = size < 65536 ? (uint32_t)size : 65536;
    char kept[5];
    /* What waits to be sent keeps its place. */
    uint32_t length = isopod_out.length;
    memcpy(kept, isopod_out.data, 5);
    isopod_out.data[0] = 'B';
    memcpy(isopod_out.data + 1, &want, 4);
    isopod_out.length = 5;
    isopod_call();
    memcpy(isopod_out.data, kept, 5);
    isopod_out.length = length;
    size_t got = isopod_in.length < want ? isopod_in.length : want;
    memcpy(to, isopod_in.data, got);
    return got;
}

/* These two count before the first isopod_write; 0, or -1 for what cannot be sent. */
static inline int isopod_status(int status) {
    if (isopod_begun || status < 200 || status > 599) return -1;
    isopod_status_code = status;
    return 0;
}

static inline int isopod_set_header(const char *name, const char *value) {
    size_t room = sizeof isopod_head - isopod_head_length;
    if (isopod_begun || strpbrk(name, "\r\n:") || strpbrk(value, "\r\n")) return -1;
    int length = snprintf(isopod_head + isopod_head_length, room, "\n%s:%s", name, value);
    if (length < 0 || (size_t)length >= room) return -1;
    isopod_head_length += (size_t)length;
    return 0;
}

static inline void isopod_begin(void) {
    uint32_t length = 3 + (uint32_t)isopod_head_length;
    isopod_out.data[0] = 'S';
    memcpy(isopod_out.data + 1, &length, 4);
    snprintf(isopod_out.data + 5, 4, "%03d", isopod_status_code);
    memcpy(isopod_out.data + 8, isopod_head, isopod_head_length);
    isopod_out.length = 8 + (uint32_t)isopod_head_length;
    isopod_begun = 1;
}

/* Send what has been written so far; -1 when the client is gone. */
static inline int isopod_flush(void) {
    if (isopod_gone) return -1;
    if (!isopod_begun) isopod_begin();
    if (isopod_sent && isopod_out.length <= 1) return 0;
    if (!isopod_sent) isopod_out.data[0] = 'H';
    isopod_call();
    isopod_gone = isopod_in.length != 0;
    isopod_sent = 1;
    isopod_out.data[0] = 'D';
    isopod_out.length = 1;
    return isopod_gone ? -1 : 0;
}

/* More of the response's body. -1 when the client is gone. */
static inline int isopod_write(const void *data, size_t size) {
    const char *from = data;
    if (!isopod_begun) isopod_begin();
    while (size && !isopod_gone) {
        size_t room = sizeof isopod_out.data - isopod_out.length;
        size_t part = size < room ? size : room;
        memcpy(isopod_out.data + isopod_out.length, from, part);
        isopod_out.length += (uint32_t)part;
        from += part;
        size -= part;
        if (part == room) isopod_flush();
    }
    return isopod_gone ? -1 : 0;
}

static inline int isopod_print(const char *text) { return isopod_write(text, strlen(text)); }

/* -- what the host calls ------------------------------------------------------------------ */

__attribute__((export_name("isopod_start"))) uint32_t *isopod_start(void) {
    isopod_record[0] = 1; /* the version of all this */
    isopod_record[1] = (uint32_t)(uintptr_t)&isopod_in;
    isopod_record[2] = (uint32_t)(uintptr_t)&isopod_out;
    isopod_record[3] = ISOPOD_BOX;
    isopod_setup();
    fflush(NULL);
    return isopod_record;
}

__attribute__((export_name("isopod_settings"))) void isopod_settings(void) {
    for (char *at = isopod_in.data, *end = at + isopod_in.length; at < end; at += strlen(at) + 1) {
        char *equals = strchr(at, '=');
        if (!equals) continue;
        *equals = 0;
        setenv(at, equals + 1, 1);
        *equals = '=';
    }
}

__attribute__((export_name("isopod_handle"))) void isopod_handle(void) {
    const char **fields[] = {
        &isopod_now.method, &isopod_now.path, &isopod_now.query, &isopod_now.protocol,
        &isopod_now.scheme, &isopod_now.host, &isopod_now.port,  &isopod_now.client,
    };
    memcpy(isopod_lines, isopod_in.data, isopod_in.length);
    isopod_lines[isopod_in.length] = 0;
    isopod_now.header_count = 0;
    char *line = isopod_lines;
    for (int number = 0; line; number++) {
        char *next = strchr(line, '\n');
        if (next) *next++ = 0;
        if (number < 8) *fields[number] = line;
        else if (number == 8) isopod_now.has_body = *line == '1';
        else if (isopod_now.header_count < ISOPOD_MAX_HEADERS) {
            char *colon = strchr(line, ':');
            if (colon && colon != line) {
                *colon = 0;
                isopod_now.header_names[isopod_now.header_count] = line;
                isopod_now.header_values[isopod_now.header_count++] = colon + 1;
            }
        }
        line = next;
    }
    isopod_begun = isopod_sent = isopod_gone = 0;
    isopod_status_code = 200;
    isopod_head_length = 0;
    isopod_out.length = 0;
    isopod_serve(&isopod_now);
    fflush(NULL);
    if (!isopod_begun) isopod_begin();
    if (isopod_sent) {
        isopod_flush();
        isopod_out.data[0] = 'E';
        isopod_out.length = 1;
    }
}
#endif
