/* Counts what a process asks of the system for the files in one folder, and fails or kills it there.

   Preloaded: LD_PRELOAD=calls.so. `calls_arm` names the folder, and the call of which the process
   gets an error, or at which it ends. Calls of the C library that ask the system themselves,
   such as fopen, count once; lseek, which asks no disk, does not count. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 4096
#define KILLED_BEFORE (-1)
#define KILLED_AFTER (-2)

static char folder[PATH_MAX];
static long fails_at, count;
static int error_given, log_number = -1;
static unsigned char ours[DESCRIPTORS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);

/* at: the number of the call, from 1; 0 for none. error: errno, or one of KILLED_. log: a file that
   gets the name and path of each call, or NULL. */
void calls_arm(const char *where, long at, int error, const char *log) {
  real_write = dlsym(RTLD_NEXT, "write");
  strncpy(folder, where, sizeof folder - 1);
  fails_at = at, error_given = error, count = 0;
  memset(ours, 0, sizeof ours);
  if (log) {
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    log_number = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  }
}

long calls_count(void) { return count; }

static int inside(const char *path) {
  size_t length = strlen(folder);
  return length && path && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int of(int number) { return number >= 0 && number < DESCRIPTORS && ours[number]; }

static int at(int number, const char *path) { return inside(path) || (path && path[0] != '/' && of(number)); }

static void mark(int number, int is_ours) {
  if (number >= 0 && number < DESCRIPTORS) ours[number] = is_ours;
}

/* Returns what happens to a call: 0 nothing, 1 it fails with errno set, 2 killed after it. */
static int happens(const char *name, const char *path) {
  pthread_mutex_lock(&mutex);
  long number = ++count;
  if (log_number >= 0) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path ? path : "");
    if (real_write(log_number, line, length) < 0) abort();
  }
  pthread_mutex_unlock(&mutex);
  if (number != fails_at) return 0;
  if (error_given == KILLED_BEFORE) kill(getpid(), SIGKILL);
  if (error_given == KILLED_AFTER) return 2;
  errno = error_given;
  return 1;
}

static void after(int what) {
  if (what == 2) kill(getpid(), SIGKILL);
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)

/* A function of a condition that it is about our files, which returns `failure` if it fails. */
#define WRAP(type, name, failure, condition, path, parameters, arguments)         \
  type name parameters {                                                          \
    static type(*real) parameters;                                                \
    if (!real) real = dlsym(RTLD_NEXT, #name);                                    \
    int what = (condition) ? happens(#name, path) : 0;                            \
    if (what == 1) return failure;                                                \
    type answer = real arguments;                                                 \
    after(what);                                                                  \
    return answer;                                                                \
  }

#define OPENS(name, condition, path, parameters, start, ...)                      \
  int name parameters {                                                           \
    static int (*real)(__VA_ARGS__, ...);                                         \
    if (!real) real = dlsym(RTLD_NEXT, #name);                                    \
    mode_t mode = 0;                                                              \
    if (flags & (O_CREAT | __O_TMPFILE)) {                                        \
      va_list list;                                                               \
      va_start(list, flags), mode = va_arg(list, mode_t), va_end(list);           \
    }                                                                             \
    int is_ours = (condition);                                                    \
    int writes = flags & (O_WRONLY | O_RDWR | O_CREAT);                           \
    int what = is_ours ? happens(writes ? "open_to_write" : "open_to_read", path) : 0; \
    if (what == 1) return -1;                                                     \
    int number = real start;                                                      \
    mark(number, is_ours && number >= 0);                                         \
    after(what);                                                                  \
    return number;                                                                \
  }

OPENS(open, inside(path), path, (const char *path, int flags, ...), (path, flags, mode), const char *, int)
OPENS(open64, inside(path), path, (const char *path, int flags, ...), (path, flags, mode), const char *, int)
OPENS(openat, at(place, path), path, (int place, const char *path, int flags, ...), (place, path, flags, mode), int, const char *, int)
OPENS(openat64, at(place, path), path, (int place, const char *path, int flags, ...), (place, path, flags, mode), int, const char *, int)

static FILE *opened(const char *name, const char *path, const char *mode) {
  FILE *(*real)(const char *, const char *) = dlsym(RTLD_NEXT, name);
  int is_ours = inside(path);
  int what = is_ours ? happens(strpbrk(mode, "wa+") ? "open_to_write" : "open_to_read", path) : 0;
  if (what == 1) return NULL;
  FILE *file = real(path, mode);
  if (file) mark(fileno(file), is_ours);
  after(what);
  return file;
}

FILE *fopen(const char *path, const char *mode) { return opened("fopen", path, mode); }
FILE *fopen64(const char *path, const char *mode) { return opened("fopen64", path, mode); }

int close(int number) {
  REAL(int, close, int);
  int is_ours = of(number), what = is_ours ? happens("close", NULL) : 0;
  mark(number, 0);
  int found = real(number), error = errno;
  after(what);
  if (what == 1) return errno = error_given, -1; /* as Linux does: closed all the same */
  errno = error;
  return found;
}

int fclose(FILE *file) {
  REAL(int, fclose, FILE *);
  int number = fileno(file), what = of(number) ? happens("fclose", NULL) : 0;
  mark(number, 0);
  int found = real(file);
  after(what);
  if (what == 1) return errno = error_given, EOF;
  return found;
}

WRAP(ssize_t, write, -1, of(number), NULL, (int number, const void *bytes, size_t size), (number, bytes, size))
WRAP(ssize_t, pwrite, -1, of(number), NULL, (int number, const void *bytes, size_t size, off_t place), (number, bytes, size, place))
WRAP(ssize_t, pwrite64, -1, of(number), NULL, (int number, const void *bytes, size_t size, off64_t place), (number, bytes, size, place))
WRAP(ssize_t, writev, -1, of(number), NULL, (int number, const struct iovec *parts, int size), (number, parts, size))
WRAP(size_t, fwrite, 0, of(fileno(file)), NULL, (const void *bytes, size_t size, size_t times, FILE *file), (bytes, size, times, file))
WRAP(int, fflush, EOF, file && of(fileno(file)), NULL, (FILE *file), (file))
WRAP(ssize_t, read, -1, of(number), NULL, (int number, void *bytes, size_t size), (number, bytes, size))
WRAP(ssize_t, pread, -1, of(number), NULL, (int number, void *bytes, size_t size, off_t place), (number, bytes, size, place))
WRAP(ssize_t, pread64, -1, of(number), NULL, (int number, void *bytes, size_t size, off64_t place), (number, bytes, size, place))
WRAP(int, fsync, -1, of(number), NULL, (int number), (number))
WRAP(int, fdatasync, -1, of(number), NULL, (int number), (number))
WRAP(int, ftruncate, -1, of(number), NULL, (int number, off_t size), (number, size))
WRAP(int, ftruncate64, -1, of(number), NULL, (int number, off64_t size), (number, size))
WRAP(int, flock, -1, of(number), NULL, (int number, int how), (number, how))
WRAP(int, rename, -1, inside(path), path, (const char *from, const char *path), (from, path))
WRAP(int, renameat, -1, at(to, path), path, (int place, const char *from, int to, const char *path), (place, from, to, path))
WRAP(int, unlink, -1, inside(path), path, (const char *path), (path))
WRAP(int, unlinkat, -1, at(place, path), path, (int place, const char *path, int flags), (place, path, flags))
WRAP(int, rmdir, -1, inside(path), path, (const char *path), (path))
WRAP(int, mkdir, -1, inside(path), path, (const char *path, mode_t mode), (path, mode))
WRAP(int, mkdirat, -1, at(place, path), path, (int place, const char *path, mode_t mode), (place, path, mode))
WRAP(int, chmod, -1, inside(path), path, (const char *path, mode_t mode), (path, mode))
WRAP(int, fchmod, -1, of(number), NULL, (int number, mode_t mode), (number, mode))
WRAP(int, stat, -1, inside(path), path, (const char *path, struct stat *found), (path, found))
WRAP(int, stat64, -1, inside(path), path, (const char *path, struct stat64 *found), (path, found))
WRAP(int, lstat, -1, inside(path), path, (const char *path, struct stat *found), (path, found))
WRAP(int, lstat64, -1, inside(path), path, (const char *path, struct stat64 *found), (path, found))
WRAP(int, fstat, -1, of(number), NULL, (int number, struct stat *found), (number, found))
WRAP(int, fstat64, -1, of(number), NULL, (int number, struct stat64 *found), (number, found))
WRAP(int, fstatat, -1, at(place, path), path, (int place, const char *path, struct stat *found, int flags), (place, path, found, flags))
WRAP(int, fstatat64, -1, at(place, path), path, (int place, const char *path, struct stat64 *found, int flags), (place, path, found, flags))
WRAP(int, access, -1, inside(path), path, (const char *path, int mode), (path, mode))
WRAP(DIR *, opendir, NULL, inside(path), path, (const char *path), (path))
