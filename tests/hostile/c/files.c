// What a guest tries with files. Each export tells its host one line per try: "what errno".
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((import_module("host"), import_name("call"))) int host_call(
    const void *, unsigned, void *, void *);
__attribute__((export_name("host_alloc"))) void *host_alloc(unsigned size) {
  return malloc(size);
}

static char said[65536];
static unsigned used;
static void say(const char *what, long result) {
  used += snprintf(said + used, sizeof said - used, "%s %d\n", what, result < 0 ? errno : 0);
}
static void tell(void) {
  unsigned at, size;
  host_call(said, used, &at, &size);
  used = 0;
}
static long read_one(const char *path) {
  char byte;
  int fd = open(path, O_RDONLY);
  if (fd < 0) return fd;
  long got = read(fd, &byte, 1);
  close(fd);
  return got;
}

__attribute__((export_name("escape"))) void escape(void) {
  const char *paths[] = {
      "/tmp/../secret", "/app/../secret", "/tmp/../../../../../../etc/passwd", "/etc/passwd",
      "/tmp/./../secret", "/tmp/a/../../secret", "/tmp//../secret", "/proc/self/environ",
      "/proc/self/mem", "/dev/mem", "/dev/null", "/", "..", "../secret", "secret",
      "/app/file/", "/app/file/../../secret", "/tmp\\..\\secret"};
  mkdir("/tmp/a", 0700);
  for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) say(paths[i], read_one(paths[i]));
  tell();
}

__attribute__((export_name("links"))) void links(void) {
  say("symlink absolute", symlink("/etc/passwd", "/tmp/absolute"));
  say("read absolute", read_one("/tmp/absolute"));
  say("symlink up", symlink("../secret", "/tmp/up"));
  say("read up", read_one("/tmp/up"));
  say("symlink far", symlink("../../../../../../../../etc", "/tmp/far"));
  say("read far", read_one("/tmp/far/passwd"));
  say("symlink proc", symlink("/proc/self", "/tmp/proc"));
  say("read proc", read_one("/tmp/proc/environ"));
  say("write through up", open("/tmp/up", O_WRONLY | O_TRUNC));
  say("create through far", open("/tmp/far/evil", O_WRONLY | O_CREAT, 0600));
  say("mkdir through far", mkdir("/tmp/far/evil", 0700));
  say("unlink through far", unlink("/tmp/far/passwd"));
  say("rename through far", rename("/tmp/a", "/tmp/far/evil"));
  say("hard link of the app's file", link("/app/file", "/tmp/mine"));
  say("hard link up", link("/tmp/../secret", "/tmp/theirs"));
  say("write the app's file through a link", open("/tmp/mine", O_WRONLY));
  say("rename the app's file here", rename("/app/file", "/tmp/taken"));
  say("rename a link up", rename("/tmp/up", "/tmp/../up"));
  say("rename here to the app's", rename("/tmp/up", "/app/up"));
  tell();
}

__attribute__((export_name("read_only"))) void read_only(void) {
  say("write", open("/app/file", O_WRONLY));
  say("append", open("/app/file", O_WRONLY | O_APPEND));
  say("truncate on open", open("/app/file", O_RDONLY | O_TRUNC));
  say("create", open("/app/new", O_WRONLY | O_CREAT, 0600));
  say("create to read", open("/app/new", O_RDONLY | O_CREAT, 0600));
  say("mkdir", mkdir("/app/new", 0700));
  say("unlink", unlink("/app/file"));
  say("symlink", symlink("x", "/app/new"));
  struct timespec times[2] = {{1, 0}, {1, 0}};
  say("times", utimensat(AT_FDCWD, "/app/file", times, 0));
  int fd = open("/app/file", O_RDONLY);
  say("truncate", ftruncate(fd, 0));
  say("write to a reader", write(fd, "x", 1));
  say("times of a reader", futimens(fd, times));
  close(fd);
  tell();
}

__attribute__((export_name("names"))) void names(void) {
  static char name[1 << 20];
  memset(name, 'n', sizeof name);
  memcpy(name, "/tmp/", 5);
  name[5 + 255] = 0;
  say("255 bytes", open(name, O_WRONLY | O_CREAT, 0600));
  name[5 + 255] = 'n';
  name[5 + 256] = 0;
  say("256 bytes", open(name, O_WRONLY | O_CREAT, 0600));
  name[5 + 256] = 'n';
  name[sizeof name - 1] = 0;
  say("a MiB", open(name, O_WRONLY | O_CREAT, 0600));
  say("mkdir a MiB", mkdir(name, 0700));
  say("stat a MiB", access(name, F_OK));
  say("unlink a MiB", unlink(name));
  for (unsigned i = 5; i + 3 < sizeof name; i += 3) memcpy(name + i, "../", 3);
  say("a MiB of ..", open(name, O_RDONLY));
  say("not UTF-8", open("/tmp/\xff\xfe", O_WRONLY | O_CREAT, 0600));
  say("a line break", open("/tmp/a\nb", O_WRONLY | O_CREAT, 0600));
  tell();
}

__attribute__((export_name("descriptors"))) void descriptors(void) {
  int opened = 0;
  while (opened < 100000 && open("/app/file", O_RDONLY) >= 0) opened++;
  say("one more", -1);
  used += snprintf(said + used, sizeof said - used, "opened %d\n", opened);
  tell();
}

static char block[1 << 20];

__attribute__((export_name("fill"))) void fill(void) {
  int fd = open("/tmp/big", O_WRONLY | O_CREAT, 0600);
  long total = 0, got;
  while ((got = write(fd, block, sizeof block)) > 0 && total < (1l << 30)) total += got;
  say("write", got);
  say("pwrite far", pwrite(fd, "x", 1, 1ll << 40));
  say("truncate larger", ftruncate(fd, 1ll << 40));
  used += snprintf(said + used, sizeof said - used, "wrote %ld\n", total);
  close(fd);
  say("remove", unlink("/tmp/big"));
  fd = open("/tmp/again", O_WRONLY | O_CREAT, 0600);
  say("write again", write(fd, block, 4096));
  tell();
}

__attribute__((export_name("sparse"))) void sparse(void) {
  int fd = open("/tmp/sparse", O_WRONLY | O_CREAT, 0600);
  say("truncate to 1 TiB", ftruncate(fd, 1ll << 40));
  say("write at 1 TiB", pwrite(fd, "x", 1, 1ll << 40));
  say("another file", open("/tmp/other", O_WRONLY | O_CREAT, 0600) < 0
          ? -1
          : write(open("/tmp/other", O_WRONLY), block, sizeof block));
  say("allocate", posix_fallocate(fd, 0, 1ll << 40) ? (errno = ENOSPC, -1) : 0);
  tell();
}

// Removed while open: a guest that hides what it writes.
__attribute__((export_name("ghosts"))) void ghosts(void) {
  long total = 0;
  char name[32];
  for (int i = 0; i < 200; i++) {
    snprintf(name, sizeof name, "/tmp/ghost%d", i);
    int fd = open(name, O_WRONLY | O_CREAT, 0600);
    if (fd < 0) break;
    unlink(name);
    long got = 0;
    for (int k = 0; k < 4 && (got = write(fd, block, sizeof block)) > 0; k++) total += got;
    if (got < 0) break;
  }
  used += snprintf(said + used, sizeof said - used, "wrote %ld\n", total);
  tell();
}

__attribute__((export_name("many"))) void many(void) {
  char name[32];
  int made = 0;
  for (; made < 1000000; made++) {
    snprintf(name, sizeof name, "/tmp/m%d", made);
    int fd = open(name, O_WRONLY | O_CREAT, 0600);
    if (fd < 0) break;
    close(fd);
  }
  say("one more", -1);
  used += snprintf(said + used, sizeof said - used, "made %d\n", made);
  tell();
}

// A chain of folders that no path can name: each is made in the one before, by its descriptor.
__attribute__((export_name("deep"))) void deep(void) {
  int made = 0, at = open("/tmp", O_RDONLY | O_DIRECTORY);
  for (; made < 1500; made++) {
    if (mkdirat(at, "deeper", 0700) < 0) break;
    int next = openat(at, "deeper", O_RDONLY | O_DIRECTORY);
    if (next < 0) break;
    close(at);
    at = next;
  }
  used += snprintf(said + used, sizeof said - used, "made %d\n", made);
  int fd = openat(at, "file", O_WRONLY | O_CREAT, 0600);
  say("file", fd);
  for (int i = 0; fd >= 0 && i < 64; i++)
    if (write(fd, block, sizeof block) < 0) {
      say("write", -1);
      break;
    }
  tell();
}

static char large[32 << 20];

__attribute__((export_name("whole"))) void whole(void) {
  long got, total = 0, calls = 0;
  int fd = open("/app/file", O_RDONLY);
  for (; (got = read(fd, large, sizeof large)) > 0; calls++) total += got;
  used += snprintf(said + used, sizeof said - used, "read %ld\ncalls %ld\n", total, calls);
  got = pread(fd, large, sizeof large, 0);
  used += snprintf(said + used, sizeof said - used, "pread %ld\n", got);
  tell();
}

__attribute__((export_name("list"))) void list(void) {
  DIR *folder = opendir("/tmp");
  int seen = 0;
  while (folder && readdir(folder)) seen++;
  used += snprintf(said + used, sizeof said - used, "seen %d\n", seen);
  tell();
}

// Renames a folder and a link over each other while it reads through the name.
__attribute__((export_name("race"))) void race(void) {
  long got = 0;
  mkdir("/tmp/safe", 0700);
  close(open("/tmp/safe/secret", O_WRONLY | O_CREAT, 0600));
  symlink("..", "/tmp/link");
  for (int i = 0; i < 300; i++) {
    rename("/tmp/safe", "/tmp/name");
    got += read_one("/tmp/name/secret") > 0;
    rename("/tmp/name", "/tmp/safe");
    rename("/tmp/link", "/tmp/name");
    got += read_one("/tmp/name/secret") > 0;
    rename("/tmp/name", "/tmp/link");
  }
  used += snprintf(said + used, sizeof said - used, "got %ld\n", got);
  tell();
}
