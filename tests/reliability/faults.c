/* Loaded before libc (LD_PRELOAD): the nth system call that writes below a folder fails, or kills the process.

   faults_arm(prefix, nth, error, lasting): calls below prefix are counted from 1; the nth fails with the errno `error`,
       or kills the process where error is 0; lasting: so do all later ones, as on a disk that stays full.
   faults_count(): calls counted since.

   The wall clock is also off by the seconds in the file that FAULTS_CLOCK names, read anew at every look at it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char prefix[PATH_MAX];
static long nth, counted;
static int error_number, lasting, armed;

void faults_arm(const char *below, long at, int error, int stays) {
    strncpy(prefix, below, sizeof prefix - 1);
    nth = at, error_number = error, lasting = stays, counted = 0;
    armed = below[0] != 0;
}

long faults_count(void) { return counted; }

static int fails_here(void) {
    long now = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (nth == 0 || now < nth || (now > nth && !lasting)) return 0;
    if (error_number == 0) kill(getpid(), SIGKILL);
    errno = error_number;
    return 1;
}

static int fails(const char *path) {
    return armed && path && strncmp(path, prefix, strlen(prefix)) == 0 && fails_here();
}

static int fails_fd(int fd) {
    char link[64] = "/proc/self/fd/", path[PATH_MAX];
    if (!armed) return 0;
    int digits = 14, n = fd;
    for (int i = n; i >= 10; i /= 10) digits++;
    link[digits + 1] = 0;
    do link[digits--] = '0' + n % 10; while (n /= 10);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT; }

static mode_t mode_of(int flags, va_list words) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(words, mode_t) : 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list words; \
        va_start(words, flags); \
        mode_t mode = mode_of(flags, words); \
        va_end(words); \
        REAL(int, #name, const char *, int, ...); \
        return writes(flags) && fails(path) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list words; \
        va_start(words, flags); \
        mode_t mode = mode_of(flags, words); \
        va_end(words); \
        REAL(int, #name, int, const char *, int, ...); \
        return writes(flags) && fails(path) ? -1 : real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return fails_fd(fd) ? -1 : real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return fails_fd(fd) ? -1 : real(fd, parts, count);
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t size, off_t at) { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        return fails_fd(fd) ? -1 : real(fd, data, size, at); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define BY_FD(name) \
    int name(int fd) { \
        REAL(int, #name, int); \
        return fails_fd(fd) ? -1 : real(fd); \
    }
BY_FD(fsync)
BY_FD(fdatasync)

#define TRUNCATE(name) \
    int name(int fd, off_t size) { \
        REAL(int, #name, int, off_t); \
        return fails_fd(fd) ? -1 : real(fd, size); \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define BY_TWO(name) \
    int name(const char *from, const char *to) { \
        REAL(int, #name, const char *, const char *); \
        return fails(to) ? -1 : real(from, to); \
    }
BY_TWO(rename)
BY_TWO(link)
BY_TWO(symlink)

int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    return fails(to) ? -1 : real(a, from, b, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    return fails(to) ? -1 : real(a, from, b, to, flags);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return fails(path) ? -1 : real(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    return fails(path) ? -1 : real(folder, path, mode);
}

#define BY_PATH(name) \
    int name(const char *path) { \
        REAL(int, #name, const char *); \
        return fails(path) ? -1 : real(path); \
    }
BY_PATH(unlink)
BY_PATH(rmdir)

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    return fails(path) ? -1 : real(folder, path, flags);
}

/* ------------------------------------------------------------------------------------------------------ the clock */

static time_t off(void) {
    static const char *path;
    static int (*real)(const char *, int, ...);
    static ssize_t (*look)(int, void *, size_t);
    char text[32] = "";
    if (!real) {
        path = getenv("FAULTS_CLOCK");
        look = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
        real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    }
    if (!path) return 0;
    int before = errno, fd = real(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t length = look(fd, text, sizeof text - 1);
        text[length > 0 ? length : 0] = 0;
        close(fd);
    }
    errno = before;
    return atol(text);
}

int clock_gettime(clockid_t which, struct timespec *found) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int result = real(which, found);
    if (result == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) found->tv_sec += off();
    return result;
}

int gettimeofday(struct timeval *found, void *zone) {
    REAL(int, "gettimeofday", struct timeval *, void *);
    int result = real(found, zone);
    if (result == 0) found->tv_sec += off();
    return result;
}

time_t time(time_t *found) {
    REAL(time_t, "time", time_t *);
    time_t now = real(NULL) + off();
    if (found) *found = now;
    return now;
}
