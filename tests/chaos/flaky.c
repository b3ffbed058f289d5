// Preloaded into a process: its storage below $FLAKY_DIR fails now and then, with EIO.
// Of the calls of each kind every $FLAKY_EVERY-th fails, if that is not the same call again.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(const char *path, atomic_int *calls) {
  const char *folder = getenv("FLAKY_DIR"), *every = getenv("FLAKY_EVERY");
  if (!folder || !every || !path || strncmp(path, folder, strlen(folder))) return 0;
  if (atomic_fetch_add(calls, 1) % atoi(every) != atoi(every) - 1) return 0;
  const char *log = getenv("FLAKY_LOG");  // outside the folder
  FILE *(*open_log)(const char *, const char *) = dlsym(RTLD_NEXT, "fopen");
  FILE *file = log ? open_log(log, "a") : NULL;
  if (file) fprintf(file, "%s\n", path), fclose(file);
  errno = EIO;
  return 1;
}

#define WRAP(name, type, parameters, arguments, path, failed)       \
  type name parameters {                                            \
    static type(*real) parameters;                                  \
    static atomic_int calls;                                        \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);  \
    return fails(path, &calls) ? failed : real arguments;           \
  }

WRAP(fopen, FILE *, (const char *path, const char *mode), (path, mode), path, NULL)
WRAP(fopen64, FILE *, (const char *path, const char *mode), (path, mode), path, NULL)
WRAP(rename, int, (const char *from, const char *to), (from, to), to, -1)

#define WRAP_OPEN(name)                                                            \
  int name(const char *path, int flags, ...) {                                     \
    static int (*real)(const char *, int, ...);                                    \
    static atomic_int calls;                                                       \
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);    \
    va_list list;                                                                  \
    va_start(list, flags);                                                         \
    mode_t mode = va_arg(list, mode_t);                                            \
    va_end(list);                                                                  \
    return fails(path, &calls) ? -1 : real(path, flags, mode);                     \
  }

WRAP_OPEN(open)
WRAP_OPEN(open64)
