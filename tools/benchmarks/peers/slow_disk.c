// Preloaded into a server, makes large files slow: a disk that takes SLOW_DISK_MS for each 512 KiB, and a page cache
// that forgets them after half a second. A reader that asks for cached data only (RWF_NOWAIT) is told so when there is
// none, and starts the disk, as in Linux; any other reader waits.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#define BLOCK (512 * 1024)
#define BLOCKS 8192
#define LARGE (64L << 20)
#define KEPT_NS 500000000L

static int64_t ready_at[BLOCKS];  // races between threads do no more than start the disk twice

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000L + now.tv_nsec;
}

// Nanoseconds until the disk has what is asked for.
static int64_t wait_ns(off_t offset, ssize_t size, off_t end) {
  const char* delay_ms = getenv("SLOW_DISK_MS");
  const int64_t delay_ns = (delay_ms ? atol(delay_ms) : 20) * 1000000L;
  const int64_t now = now_ns();
  int64_t latest = now;
  if (offset + size > end) size = end - offset;
  for (off_t at = offset; at < offset + size; at = (at / BLOCK + 1) * BLOCK) {
    int64_t* ready = &ready_at[at / BLOCK % BLOCKS];
    if (now > *ready + KEPT_NS) *ready = now + delay_ns;
    if (*ready > latest) latest = *ready;
  }
  return latest - now;
}

static ssize_t read_slowly(int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  static ssize_t (*real)(int, const struct iovec*, int, off_t, int);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "preadv64v2");
  struct stat status;
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size >= LARGE) {
    ssize_t wanted = 0;
    for (int i = 0; i < count; i++) wanted += parts[i].iov_len;
    const int64_t wait = wait_ns(offset, wanted, status.st_size);
    if (wait > 0 && flags & RWF_NOWAIT) {
      errno = EAGAIN;
      return -1;
    }
    const struct timespec pause = {wait / 1000000000L, wait % 1000000000L};
    if (wait > 0) nanosleep(&pause, NULL);
  }
  return real(fd, parts, count, offset, flags);
}

ssize_t preadv2(int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  return read_slowly(fd, parts, count, offset, flags);
}

ssize_t preadv64v2(int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  return read_slowly(fd, parts, count, offset, flags);
}

ssize_t preadv(int fd, const struct iovec* parts, int count, off_t offset) {
  return read_slowly(fd, parts, count, offset, 0);
}

ssize_t preadv64(int fd, const struct iovec* parts, int count, off_t offset) {
  return read_slowly(fd, parts, count, offset, 0);
}

ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  const struct iovec part = {data, size};
  return read_slowly(fd, &part, 1, offset, 0);
}

ssize_t pread64(int fd, void* data, size_t size, off_t offset) {
  const struct iovec part = {data, size};
  return read_slowly(fd, &part, 1, offset, 0);
}
