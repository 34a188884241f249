//! Rings of this kernel: helpers, and one file for each thing that is looked at.

use super::*;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use std::time::Instant;

mod closing;
mod operations;
mod queues;
mod setup;

pub fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).unwrap()
}

pub fn say(fd: &OwnedFd, what: &[u8]) {
    assert_eq!(send(fd, what, SendFlags::NOSIGNAL), Ok(what.len()));
}

/// A ring, or `None` with a printed line where there can be none.
pub fn ring(setup: Setup) -> Option<Ring> {
    match Ring::new(setup) {
        Ok(ring) => Some(ring),
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Enters until `count` completions were popped; fails after some seconds without any.
pub fn collect(ring: &mut Ring, count: usize) -> Vec<Cqe> {
    let mut all = Vec::new();
    while all.len() < count {
        let _ = ring.enter(1, Some(Duration::from_secs(5))).unwrap();
        let before = all.len();
        all.extend(std::iter::from_fn(|| ring.pop()));
        assert!(all.len() > before, "nothing for 5 s after {all:?}");
    }
    assert_eq!(all.len(), count, "{all:?}");
    all
}

fn keys_and_results(mut cqes: Vec<Cqe>) -> Vec<(u64, Result<u32, Errno>)> {
    cqes.sort_by_key(Cqe::key);
    cqes.iter().map(|cqe| (cqe.key(), cqe.result())).collect()
}

const MOMENT: Option<Duration> = Some(Duration::from_millis(20));
const POLLIN: u32 = 1;
