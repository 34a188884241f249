//! What was received ahead of who reads: bytes that an operation took from the kernel and could not hand over, and what an
//! operation that completes by itself (a multishot receive or accept of io_uring) brings in. In order, and never lost.
//!
//! Under the lock of the source that owns it. On epoll it exists only after a `read_exact` was cancelled half way.

use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// See the module. Small, since every connection has one; most have no queue while they are idle.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    queue: Option<Box<Queue>>,
    end: Option<End>,
    /// An operation is under way that brings more: asking the kernel directly would put bytes out of order.
    streaming: bool,
    /// What it brings are connections.
    connections: bool,
    /// To be polled for, and then asked for directly: messages are large, better received into the reader's own buffer than here; or the kernel
    /// does not bring more of this by itself; or the end, or an error, was seen.
    polled: bool,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// How many of `bytes` were read.
    read: usize,
    /// With their peers, where those are known.
    accepted: VecDeque<(OwnedFd, Option<SocketAddr>)>,
}

/// How large a buffer may be to be kept while it is empty.
const KEEP: usize = 128;

/// What comes after everything that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer has shut down its side: for ever.
    Eof,
    /// An error: reported once; who asks again asks the kernel.
    Failed(Errno),
}

/// What a look at the queue came to.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// This.
    Item(T),
    /// Nothing now; it is on its way.
    OnItsWay,
    /// Nothing, and nothing is on its way: ask the kernel.
    AskKernel,
}

impl Inbound {
    /// Gives bytes back, to be read before all others.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.queue.get_or_insert_default().unread(bytes);
    }

    /// How many bytes and connections wait.
    pub fn len(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes.len() - queue.read + queue.accepted.len())
    }

    /// Whether an operation is under way that brings more.
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// Whether there is something to read: bytes, or what comes after them.
    pub fn readable(&self) -> Next<io::Result<()>> {
        if self.len() > 0 || self.end.is_some() { Next::Item(Ok(())) } else { self.nothing() }
    }

    /// Whether nothing is here, and something on its way.
    pub fn is_waiting(&self) -> bool {
        self.streaming && self.end.is_none() && self.len() == 0
    }

    /// Hands out at most `room` bytes, in one piece. `Item(0)` is the end, if there is room.
    pub fn read(&mut self, room: usize, put: impl FnOnce(&[u8])) -> Next<io::Result<usize>> {
        if let Some(queue) = &mut self.queue {
            let rest = &queue.bytes[queue.read..];
            let n = rest.len().min(room);
            if n > 0 {
                put(&rest[..n]);
                queue.read += n;
                if queue.read == queue.bytes.len() {
                    self.forget_read();
                }
                return Next::Item(Ok(n));
            }
        }
        match self.next_end() {
            Some(Ok(())) => Next::Item(Ok(0)),
            Some(Err(error)) => Next::Item(Err(error)),
            None => self.nothing(),
        }
    }

    /// The next connection, and its peer where that is known.
    pub fn accept(&mut self) -> Next<io::Result<(OwnedFd, Option<SocketAddr>)>> {
        if let Some(accepted) = self.queue.as_mut().and_then(|queue| queue.accepted.pop_front()) {
            return Next::Item(Ok(accepted));
        }
        match self.next_end() {
            Some(Err(error)) => Next::Item(Err(error)),
            Some(Ok(())) | None => self.nothing(),
        }
    }

    fn next_end(&mut self) -> Option<io::Result<()>> {
        match self.end? {
            End::Eof => Some(Ok(())),
            End::Failed(error) => {
                self.end = None;
                Some(Err(error.into()))
            }
        }
    }

    /// An idle source keeps no more memory than a small message takes.
    fn forget_read(&mut self) {
        match &mut self.queue {
            Some(queue) if queue.bytes.capacity() <= KEEP || !queue.accepted.is_empty() => {
                queue.bytes.clear();
                queue.read = 0;
            }
            large => *large = None,
        }
    }

    fn nothing<T>(&self) -> Next<T> {
        if self.streaming { Next::OnItsWay } else { Next::AskKernel }
    }
}

impl Queue {
    fn unread(&mut self, bytes: &[u8]) {
        match self.read.checked_sub(bytes.len()) {
            Some(at) => {
                self.bytes[at..self.read].copy_from_slice(bytes);
                self.read = at;
            }
            None => {
                self.bytes.splice(..self.read, bytes.iter().copied());
                self.read = 0;
            }
        }
    }
}

/// The io_uring driver's side.
impl Inbound {
    /// Bytes arrived.
    pub fn received(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let queue = self.queue.get_or_insert_default();
        // Whoever reads a little at a time does not make it grow for ever.
        if queue.read > queue.bytes.len() / 2 {
            queue.bytes.drain(..queue.read);
            queue.read = 0;
        }
        queue.bytes.extend_from_slice(bytes);
    }

    /// A connection arrived.
    pub fn connected(&mut self, fd: OwnedFd) {
        self.queue.get_or_insert_default().accepted.push_back((fd, None));
    }

    /// The connection that arrived last is this one, and from there. It may be gone by now.
    pub fn is_from(&mut self, fd: RawFd, from: SocketAddr) {
        let last = self.queue.as_mut().and_then(|queue| queue.accepted.back_mut());
        if let Some((last, peer)) = last
            && last.as_raw_fd() == fd
        {
            *peer = Some(from);
        }
    }

    /// An operation that brings more begins, or is over.
    pub fn set_streaming(&mut self, streaming: bool) {
        self.streaming = streaming;
    }

    /// What it brings are connections.
    pub fn set_connections(&mut self) {
        self.connections = true;
    }

    /// Whether connections are on their way.
    pub fn is_accepting(&self) -> bool {
        self.streaming && self.connections
    }

    /// From now on polled for.
    pub fn set_polled(&mut self) {
        self.polled = true;
    }

    /// Whether it is polled for.
    pub fn is_polled(&self) -> bool {
        self.polled
    }

    /// The error that is to be read when all else was.
    pub fn failed(&self) -> Option<Errno> {
        match self.end? {
            End::Failed(error) => Some(error),
            End::Eof => None,
        }
    }

    /// Nothing comes after what is here.
    pub fn ended(&mut self, end: End) {
        self.end = Some(end);
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::*;

    fn read(inbound: &mut Inbound, room: usize) -> Vec<u8> {
        let mut into = Vec::new();
        let Next::Item(Ok(n)) = inbound.read(room, |bytes| into.extend_from_slice(bytes)) else {
            panic!("nothing there")
        };
        assert_eq!(n, into.len());
        into
    }

    #[test]
    fn bytes_come_out_in_order_across_chunks() {
        let mut inbound = Inbound::default();
        inbound.received(b"hello ");
        inbound.received(b"world");
        inbound.ended(End::Eof);
        assert_eq!(inbound.len(), 11);
        assert_eq!(read(&mut inbound, 4), b"hell");
        assert_eq!(read(&mut inbound, 4), b"o wo");
        inbound.unread(b"o wo");
        assert_eq!(read(&mut inbound, 100), b"o world");
        assert_eq!(read(&mut inbound, 100), b"");
        assert_eq!(read(&mut inbound, 100), b"");
    }

    #[test]
    fn an_error_is_reported_once_and_behind_the_bytes() {
        let mut inbound = Inbound::default();
        inbound.received(b"x");
        inbound.ended(End::Failed(Errno::CONNRESET));
        assert_eq!(read(&mut inbound, 8), b"x");
        assert!(matches!(inbound.read(8, |_| {}), Next::Item(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset));
        assert!(matches!(inbound.read(8, |_| {}), Next::AskKernel));
    }

    #[test]
    fn while_more_is_on_its_way_the_kernel_is_not_asked() {
        let mut inbound = Inbound::default();
        inbound.set_streaming(true);
        assert!(matches!(inbound.read(8, |_| {}), Next::OnItsWay));
        assert!(matches!(inbound.accept(), Next::OnItsWay));
        inbound.connected(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap());
        assert!(matches!(inbound.accept(), Next::Item(Ok(_))));
        inbound.set_streaming(false);
        assert!(matches!(inbound.accept(), Next::AskKernel));
    }
}
