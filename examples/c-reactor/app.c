/* A reactor: set up once, when it is deployed; each request starts from there. See the Makefile. */
#include "isopod.h"

#define LIMIT 1000000
static unsigned char composite[LIMIT];

void isopod_setup(void) {
    for (long at = 2; at * at < LIMIT; at++)
        if (!composite[at])
            for (long other = at * at; other < LIMIT; other += at) composite[other] = 1;
    printf("sieved\n");
}

void isopod_serve(const isopod_request *request) {
    char line[100];
    isopod_set_header("content-type", "text/plain");
    if (!strncmp(request->path, "/prime/", 7)) {
        long number = strtol(request->path + 7, NULL, 10);
        if (number < 2 || number >= LIMIT) {
            isopod_status(404);
            isopod_print("not known\n");
            return;
        }
        snprintf(line, sizeof line, "%ld is %s\n", number, composite[number] ? "composite" : "prime");
        isopod_print(line);
    } else if (request->has_body) {
        for (size_t got; (got = isopod_read(line, sizeof line)) > 0;) isopod_write(line, got);
    } else {
        isopod_print("Hello from C!\n");
    }
}
