//! [`PeerPlace`]: where the kernel writes from whom a connection is that it accepts, which spares a `getpeername` for each.
//!
//! One place for a ring, since an accept that goes on writes every address to the same one, and so may all listeners. Whose address is there is
//! known only where one connection was accepted since it was last [taken](PeerPlace::take), which the caller has to know; the others are asked for.
//!
//! **\[PLACE\]** The kernel writes there within our system calls only, on the thread of the ring (THREAD): where completions are deferred
//! ([`Ring::defers`](super::Ring::defers)), and no worker of the kernel does an operation that goes on
//! ([`Ring::accepts_say_whom`](super::Ring::accepts_say_whom)). And it is dropped with no accept in flight, or leaked.

use super::sys::Sqe;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// See the module.
#[derive(Debug)]
pub struct PeerPlace(NonNull<Written>);

/// Of a `sockaddr_in` or a `sockaddr_in6`.
const LONGEST: usize = size_of::<libc::sockaddr_in6>();

#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct Written {
    /// Nothing: of no family.
    address: [u8; LONGEST],
    /// Before: of the place. After: of the address.
    length: u32,
}

const NOTHING: Written = Written { address: [0; LONGEST], length: LONGEST as u32 };

impl PeerPlace {
    pub fn new() -> Self {
        Self(NonNull::from(Box::leak(Box::new(NOTHING))))
    }

    /// [`Sqe::accept_multishot`], with the peer written here.
    ///
    /// # Safety
    /// \[PLACE\].
    pub unsafe fn accept_multishot(&self, listener: BorrowedFd<'_>, key: u64) -> Sqe {
        let at = self.0.as_ptr();
        // SAFETY: inside of the box; the rest is the caller's promise.
        unsafe {
            Sqe::accept_multishot(listener, key).with_peer((&raw mut (*at).address).cast(), &raw mut (*at).length)
        }
    }

    /// What was written there last, if that is an address of TCP, and was not taken before.
    pub fn take(&mut self) -> Option<SocketAddr> {
        // SAFETY: ours until it is dropped; [PLACE]: the kernel does not write now.
        let written = unsafe { self.0.replace(NOTHING) };
        address(&written.address)
    }

    /// For a teardown that could not drain.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        // SAFETY: from `new`; [PLACE]: nobody writes there any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

fn address(raw: &[u8; LONGEST]) -> Option<SocketAddr> {
    let [family0, family1, port0, port1, a, b, c, d, ..] = *raw;
    let port = u16::from_be_bytes([port0, port1]);
    match libc::c_int::from(u16::from_ne_bytes([family0, family1])) {
        libc::AF_INET => Some(([a, b, c, d], port).into()),
        libc::AF_INET6 => {
            let ip: [u8; 16] = raw[8..24].try_into().expect("so long");
            let scope = u32::from_ne_bytes(raw[24..].try_into().expect("so long"));
            Some(std::net::SocketAddrV6::new(Ipv6Addr::from(ip), port, u32::from_be_bytes([a, b, c, d]), scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::Setup;
    use super::super::ring::tests::{collect, ring};
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    #[test]
    fn who_connects_is_written_down() {
        let Some(mut ring) = ring(Setup::new(8)) else { return };
        if !ring.accepts_say_whom() {
            return println!("skipped: the kernel is too old");
        }
        for here in ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"] {
            let Ok(listener) = TcpListener::bind(here) else {
                println!("skipped: no {here}");
                continue;
            };
            let mut place = PeerPlace::new();
            assert_eq!(place.take(), None);
            // SAFETY: it is drained below.
            ring.push(unsafe { place.accept_multishot(listener.as_fd(), 1) }).unwrap();
            for _ in 0..3 {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let cqe = collect(&mut ring, 1)[0];
                // SAFETY: the completion owns it.
                let accepted = TcpStream::from(unsafe { OwnedFd::from_raw_fd(cqe.res()) });
                assert_eq!(place.take(), Some(client.local_addr().unwrap()));
                assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
                assert_eq!(place.take(), None, "taken once");
            }
            ring.cancel_all().unwrap();
            collect(&mut ring, 1);
        }
    }
}
