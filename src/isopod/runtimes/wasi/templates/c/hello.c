/* A CGI program: the request is in the environment and on standard input, the response is what
   it writes. Each request is a fresh start of main. */
#include <stdio.h>
#include <stdlib.h>

int main(void) {
  const char *path = getenv("PATH_INFO");

  puts("Content-Type: text/plain; charset=utf-8\n");
  printf("Hello from C! You asked for %s\n", path ? path : "nothing");
  return 0;
}
