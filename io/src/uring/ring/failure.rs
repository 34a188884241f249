//! What an attempt at io_uring that failed says, and the advice with it.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// An attempt that failed, and what to do about it.
#[derive(Debug)]
struct Failed {
    attempt: String,
    advice: &'static str,
    errno: Errno,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed ({}): {}", self.attempt, self.errno, self.advice)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.errno)
    }
}

/// An error of the kind that `errno` has, with a message that helps.
pub(in crate::uring) fn failed(attempt: String, advice: &'static str, errno: Errno) -> io::Error {
    io::Error::new(io::Error::from(errno).kind(), Failed { attempt, advice, errno })
}

/// The same for what a kernel lacks, however it puts it.
pub(in crate::uring) fn unsupported(attempt: String, advice: &'static str, errno: Errno) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, Failed { attempt, advice, errno })
}

pub(super) fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => {
            "io_uring is forbidden here (seccomp or kernel.io_uring_disabled): use TREFOIL_DRIVER=epoll"
        }
        Errno::NOSYS => {
            "the kernel has no io_uring, one older than 5.11, or a sandbox hides it: use TREFOIL_DRIVER=epoll"
        }
        Errno::NOMEM => {
            "not enough memory, or a low limit on locked memory (ulimit -l): raise it, or use TREFOIL_DRIVER=epoll"
        }
        Errno::MFILE | Errno::NFILE => "too many open files: raise the limit (ulimit -n)",
        Errno::EXIST => "a ring belongs to the thread that made it; this is another one (a bug in Trefoil)",
        Errno::BADR => {
            "the kernel had no memory for completions and lost some: nothing that waits on this ring can be trusted"
        }
        _ => "unexpected (a bug in Trefoil, or a kernel we do not know); TREFOIL_DRIVER=epoll avoids io_uring",
    }
}
