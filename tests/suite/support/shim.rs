//! A library for `LD_PRELOAD` that makes system calls fail as they fail on some file systems.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::skipped;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
static int want(const char *name) { const char *v = getenv(name); return v ? atoi(v) : 0; }
/* With SHIM_EINTR, every second call is interrupted. */
static int interrupted(void) {
  static int n;
  return want("SHIM_EINTR") && __sync_fetch_and_add(&n, 1) % 2 == 0;
}
#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)
#define FAIL(error) do { errno = (error); return -1; } while (0)
static int is_staged(int fd) {
  char link[64], path[4096]; ssize_t n;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  n = readlink(link, path, sizeof path);
  return n > 7 && !memcmp(path + n - 7, ".staged", 7);
}
int fsync(int fd) {
  struct stat s; int e = want("SHIM_SYNC_FOLDER"); REAL(int, "fsync", int);
  if (interrupted()) FAIL(EINTR);
  if (e && !fstat(fd, &s) && S_ISDIR(s.st_mode)) FAIL(e);
  return real(fd);
}
int link(const char *a, const char *b) {
  int e = want("SHIM_LINK"); REAL(int, "link", const char *, const char *);
  if (e) FAIL(e);
  if (interrupted()) FAIL(EINTR);
  return real(a, b);
}
int linkat(int x, const char *a, int y, const char *b, int f) {
  int e = want("SHIM_LINK"); REAL(int, "linkat", int, const char *, int, const char *, int);
  if (e) FAIL(e);
  if (interrupted()) FAIL(EINTR);
  return real(x, a, y, b, f);
}
int rename(const char *a, const char *b) {
  REAL(int, "rename", const char *, const char *);
  if (interrupted()) FAIL(EINTR);
  return real(a, b);
}
int flock(int fd, int how) {
  int e = want("SHIM_LOCK"); REAL(int, "flock", int, int);
  if (e) FAIL(e);
  return real(fd, how);
}
int close(int fd) {
  int e = want("SHIM_CLOSE"), staged = e && is_staged(fd); REAL(int, "close", int);
  int ended = real(fd);
  if (staged) FAIL(e);
  return ended;
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
  int e = want("SHIM_WRITE"); REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
  if (e) FAIL(e);
  if (interrupted()) FAIL(EINTR);
  return real(fd, data, n, at);
}
int open64(const char *path, int flags, ...) {
  int e = want("SHIM_OPEN"); REAL(int, "open64", const char *, int, mode_t);
  mode_t mode = 0;
  if (flags & O_CREAT_) {
    __builtin_va_list more;
    __builtin_va_start(more, flags);
    mode = __builtin_va_arg(more, mode_t);
    __builtin_va_end(more);
  }
  if (e && strstr(path, ".staged")) FAIL(e);
  if (interrupted()) FAIL(EINTR);
  return real(path, flags, mode);
}
"#;

/// The compiled library, in a temporary folder.
pub struct Shim {
    _folder: TempDir,
    library: PathBuf,
}

impl Shim {
    /// Compiles the library. Without a C compiler, prints `SKIPPED` and returns `None`.
    pub fn build() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("shim.c"), folder.path().join("shim.so"));
        // The value of O_CREAT on Linux: fcntl.h is not included, because its declarations conflict with
        // the functions above.
        std::fs::write(&source, SOURCE.replace("O_CREAT_", "0100")).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        match compiler.output() {
            Err(_) => {
                skipped("no C compiler (cc) on PATH");
                None
            }
            Ok(built) => {
                assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
                Some(Self { _folder: folder, library })
            }
        }
    }

    /// Environment variables that load the library and set `SHIM_{call}`, so that the call fails with
    /// the error number `error`.
    pub fn failing(&self, call: &str, error: i32) -> [(String, String); 2] {
        let library = self.library.to_str().unwrap().to_owned();
        [("LD_PRELOAD".to_owned(), library), (format!("SHIM_{call}"), error.to_string())]
    }
}
