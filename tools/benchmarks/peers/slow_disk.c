// Preloaded into a server, makes the disk slow: a read that the page cache cannot answer takes SLOW_DISK_MS longer.
// What is cached is as fast as ever, and a reader that asks for cached data only (RWF_NOWAIT) is not slowed down.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

static ssize_t read_slowly(int fd, const struct iovec* parts, int count, off_t offset, int flags) {
  static ssize_t (*real)(int, const struct iovec*, int, off_t, int);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "preadv64v2");
  ssize_t wanted = 0;
  for (int i = 0; i < count; i++) wanted += parts[i].iov_len;
  ssize_t done = real(fd, parts, count, offset, flags | RWF_NOWAIT);
  if (flags & RWF_NOWAIT || done == wanted || done == 0) return done;
  const char* delay_ms = getenv("SLOW_DISK_MS");
  const long ms = delay_ms ? atol(delay_ms) : 20;
  const struct timespec delay = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&delay, NULL);
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
