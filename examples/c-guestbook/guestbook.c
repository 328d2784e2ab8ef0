/* A guest book: GET shows it, POST adds the body as a line. The book is a file on a volume. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BOOK "/data/book.txt"

static int show(void) {
  int letter;
  FILE *book = fopen(BOOK, "r");

  puts("Content-Type: text/plain; charset=utf-8\n");
  if (!book) return puts("Nobody has been here yet.") < 0;
  while ((letter = getc(book)) != EOF) putchar(letter);
  return 0;
}

static int sign(void) {
  char line[200];
  size_t size = fread(line, 1, sizeof line - 1, stdin);
  FILE *book;

  line[size] = 0;
  line[strcspn(line, "\r\n")] = 0;
  if (!*line) {
    puts("Status: 422 Unprocessable Content\nContent-Type: text/plain\n\nA line is needed.");
    return 0;
  }
  if (!(book = fopen(BOOK, "a")) || fprintf(book, "%s\n", line) < 0 || fclose(book)) {
    perror(BOOK); /* in the app's log */
    puts("Status: 507 Insufficient Storage\nContent-Type: text/plain\n\nThe book is full.");
    return 0;
  }
  puts("Status: 303 See Other\nLocation: /\n");
  return 0;
}

int main(void) {
  const char *method = getenv("REQUEST_METHOD");
  return method && !strcmp(method, "POST") ? sign() : show();
}
