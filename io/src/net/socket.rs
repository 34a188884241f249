//! The system calls of sockets, and what each of their answers means for [readiness](crate::readiness).
//!
//! Everything is close-on-exec from its first moment on, and does not block.

use crate::inbound::Next;
use crate::readiness::SHORT_READ_LIES;
use crate::source::{Direction, Ready};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketFlags,
    SocketType, acceptfrom_with, getpeername, getsockname, ipproto, recv as sys_recv, recvmsg, send as sys_send,
    sendmsg, socket_with, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};

/// How many buffers the kernel takes at once (`UIO_MAXIOV`).
const MAX_BUFFERS: usize = 1024;

/// A new TCP socket for addresses like this one.
pub(crate) fn tcp(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

fn std_addr(addr: SocketAddrAny) -> io::Result<SocketAddr> {
    SocketAddr::try_from(addr)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the address of this socket is not one of TCP"))
}

/// The address of this side.
pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    std_addr(getsockname(fd)?)
}

/// The address of the other side.
pub(crate) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    std_addr(getpeername(fd)?.ok_or(Errno::NOTCONN)?)
}

/// What a read of `n` bytes out of `room` says: a short one that it took everything there was, unless something came behind it.
fn read_some(ready: Ready<'_>, n: usize, room: usize) -> usize {
    if 0 < n && n < room && !ready.seen().has(SHORT_READ_LIES) {
        ready.drained(Direction::Read);
    }
    n
}

/// Reads into a buffer. 0 is the end, if there is room.
#[inline]
pub(crate) fn recv(ready: Ready<'_>, buf: &mut [u8]) -> io::Result<usize> {
    if ready.looks_inbound()
        && let Some(result) = recv_inbound(ready, buf)
    {
        return result;
    }
    let room = buf.len();
    let (_, n) = sys_recv(ready.fd(), buf, RecvFlags::DONTWAIT)?;
    Ok(read_some(ready, n, room))
}

/// The same of what was received ahead. Apart, so that who asks the kernel does not make room for it.
#[inline(never)]
fn recv_inbound(ready: Ready<'_>, buf: &mut [u8]) -> Option<io::Result<usize>> {
    let room = buf.len();
    ready.inbound(|inbound| inbound.read(room, |bytes| buf[..bytes.len()].copy_from_slice(bytes)))
}

/// Reads into memory that nobody has written to. So many bytes of it are written then.
pub(crate) fn recv_uninit(ready: Ready<'_>, buf: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let mut at = 0;
    let ahead = ready.inbound(|inbound| {
        inbound.read(buf.len(), |bytes| {
            for (to, from) in buf[at..].iter_mut().zip(bytes) {
                to.write(*from);
            }
            at += bytes.len();
        })
    });
    if let Some(result) = ahead {
        return result;
    }
    let room = buf.len();
    let (_, n) = sys_recv(ready.fd(), buf, RecvFlags::DONTWAIT)?;
    Ok(read_some(ready, n, room))
}

/// Of so many buffers, those to give to the kernel. Empty ones in front are left out: if all that it takes were empty, it would say 0,
/// which is the end.
fn at_once(lens: impl ExactSizeIterator<Item = usize>) -> Range<usize> {
    let count = lens.len();
    let first = lens.take_while(|len| *len == 0).count();
    first..count.min(first + MAX_BUFFERS)
}

/// Reads into several buffers, one after the other.
pub(crate) fn recv_vectored(ready: Ready<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let range = at_once(bufs.iter().map(|buf| buf.len()));
    let bufs = &mut bufs[range];
    let room = bufs.iter().map(|buf| buf.len()).sum();
    let (mut buf, mut at) = (0, 0);
    let ahead = ready.inbound(|inbound| {
        inbound.read(room, |mut bytes| {
            while !bytes.is_empty() {
                let here = bytes.len().min(bufs[buf].len() - at);
                bufs[buf][at..at + here].copy_from_slice(&bytes[..here]);
                bytes = &bytes[here..];
                at += here;
                if at == bufs[buf].len() {
                    (buf, at) = (buf + 1, 0);
                }
            }
        })
    });
    if let Some(result) = ahead {
        return result;
    }
    let n = recvmsg(ready.fd(), bufs, &mut RecvAncillaryBuffer::default(), RecvFlags::DONTWAIT)?.bytes;
    Ok(read_some(ready, n, room))
}

/// Whether a read would not wait: `WouldBlock` if it would.
pub(crate) fn readable(ready: Ready<'_>) -> io::Result<()> {
    match ready.inbound(|inbound| inbound.readable()) {
        Some(result) => result,
        None => is_ready(ready.fd(), PollFlags::IN | PollFlags::RDHUP),
    }
}

/// Whether a write would not wait: `WouldBlock` if it would.
pub(crate) fn writable(ready: Ready<'_>) -> io::Result<()> {
    is_ready(ready.fd(), PollFlags::OUT)
}

/// Asks the kernel, and takes nothing away: an error of the socket is still there for the next operation.
fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&now))? {
        0 => Err(Errno::AGAIN.into()),
        _ => Ok(()),
    }
}

/// What a write of `n` bytes out of `len` says: a short one that there is no more room, and that the kernel will tell when there is.
fn wrote_some(ready: Ready<'_>, n: usize, len: usize) -> usize {
    if n < len {
        ready.drained(Direction::Write);
    }
    n
}

const SEND: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// Writes what there is room for.
pub(crate) fn send(ready: Ready<'_>, buf: &[u8]) -> io::Result<usize> {
    let n = sys_send(ready.fd(), buf, SEND)?;
    Ok(wrote_some(ready, n, buf.len()))
}

/// Writes of several buffers, one after the other, what there is room for.
pub(crate) fn send_vectored(ready: Ready<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let bufs = &bufs[at_once(bufs.iter().map(|buf| buf.len()))];
    let n = sendmsg(ready.fd(), bufs, &mut SendAncillaryBuffer::default(), SEND)?;
    Ok(wrote_some(ready, n, bufs.iter().map(|buf| buf.len()).sum()))
}

/// Errors of a connection that was lost before it was accepted (R113; accept(2), "Error handling"): there may be another.
///
/// Without `EOPNOTSUPP`, which the manual lists too: it is also, for ever, what a socket says that cannot listen. And `EPERM` is
/// what a firewall says of one connection, but also a sandbox of all of them: hence [`MOST_REFUSED`].
fn is_of_connection(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNABORTED
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::PERM
    )
}

/// How often in a row `EPERM` is about one connection.
const MOST_REFUSED: u32 = 16;

/// Takes a connection. `Interrupted` where one was lost; `refused` counts those in a row that were not permitted.
pub(crate) fn accept(ready: Ready<'_>, refused: &mut u32) -> io::Result<(OwnedFd, SocketAddr)> {
    let ahead = ready.inbound(|inbound| match inbound.accept() {
        Next::Item(Ok((fd, Some(peer)))) => Next::Item(Ok((fd, peer))),
        Next::Item(Ok((fd, None))) => Next::Item(peer_of(fd)),
        Next::Item(Err(error)) if Errno::from_io_error(&error).is_some_and(is_of_connection) => {
            Next::Item(Err(io::ErrorKind::Interrupted.into()))
        }
        Next::Item(Err(error)) => Next::Item(Err(error)),
        Next::OnItsWay => Next::OnItsWay,
        Next::AskKernel => Next::AskKernel,
    });
    if let Some(result) = ahead {
        return result;
    }
    match acceptfrom_with(ready.fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok((fd, Some(peer))) => Ok((fd, std_addr(peer)?)),
        Ok((fd, None)) => peer_of(fd),
        Err(Errno::PERM) if *refused >= MOST_REFUSED => Err(Errno::PERM.into()),
        Err(error) if is_of_connection(error) => {
            *refused += u32::from(error == Errno::PERM);
            Err(io::ErrorKind::Interrupted.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The peer of an accepted connection; without one it was lost.
fn peer_of(fd: OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    use std::os::fd::AsFd;
    match peer_addr(fd.as_fd()) {
        Ok(peer) => Ok((fd, peer)),
        Err(_) => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// Begins to connect: whether it is done already.
pub(crate) fn connect(fd: BorrowedFd<'_>, addr: SocketAddr) -> io::Result<bool> {
    match rustix::net::connect(fd, &addr) {
        Ok(()) => Ok(true),
        // A signal does not stop it.
        Err(Errno::INPROGRESS | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Looks whether it is connected by now.
pub(crate) fn connected(ready: Ready<'_>) -> io::Result<()> {
    sockopt::socket_error(ready.fd())??;
    match getpeername(ready.fd()) {
        Ok(_) => Ok(()),
        Err(Errno::NOTCONN) => {
            // The error may have come between the two questions.
            sockopt::socket_error(ready.fd())??;
            Err(Errno::AGAIN.into())
        }
        Err(error) => Err(error.into()),
    }
}
