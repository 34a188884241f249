//! Options of sockets, and connecting.

use super::socket;
use super::{TcpListener, TcpStream, ToSocketAddr};
use crate::error::during;
use crate::operation::{Operation, poll_gate};
use crate::source::{Source, ToBeConnected};
use rustix::net::sockopt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Options of a socket, set before it listens or connects.
///
/// What is set for a listener holds for the connections that it accepts, without a system call for each.
///
/// # Examples
/// ```
/// use trefoil_io::net::TcpOptions;
///
/// let listener = TcpOptions::new().reuse_port(true).backlog(4096).listen("127.0.0.1:0")?;
/// assert!(listener.local_addr()?.port() > 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a socket is made with them"]
pub struct TcpOptions {
    nodelay: bool,
    reuse_addr: bool,
    reuse_port: bool,
    backlog: u32,
    send_buffer: Option<usize>,
    receive_buffer: Option<usize>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            reuse_addr: true,
            reuse_port: false,
            backlog: 1024,
            send_buffer: None,
            receive_buffer: None,
        }
    }
}

impl TcpOptions {
    /// No delay, the address reused, the port not, a backlog of 1024, buffers as the system has them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether small writes go out at once instead of waiting for an acknowledgement (`TCP_NODELAY`). On, as a request and its
    /// response need it.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Whether to listen where connections of a listener before still linger (`SO_REUSEADDR`). On, as in std.
    pub fn reuse_addr(mut self, reuse: bool) -> Self {
        self.reuse_addr = reuse;
        self
    }

    /// Whether several listeners share a port, and the kernel its connections among them (`SO_REUSEPORT`). Off.
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// How many connections wait to be accepted at most. The system has an upper limit of its own.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// How many bytes the kernel holds for the peer (`SO_SNDBUF`; it doubles the number, and has limits).
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// How many bytes the kernel holds for us (`SO_RCVBUF`; as for [`send_buffer`](Self::send_buffer)).
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Listens at an address. Port 0 is one that is free.
    ///
    /// # Errors
    /// `bind <address>: ...` with the kind of the system's error: `AddrInUse`, `PermissionDenied`, `InvalidInput` for a name, ...
    pub fn listen(&self, addr: impl ToSocketAddr) -> io::Result<TcpListener> {
        let addr = addr.to_socket_addr()?;
        let listen = || {
            let fd = socket::tcp(addr)?;
            self.apply(fd.as_fd())?;
            sockopt::set_socket_reuseaddr(&fd, self.reuse_addr)?;
            sockopt::set_socket_reuseport(&fd, self.reuse_port)?;
            rustix::net::bind(&fd, &addr)?;
            rustix::net::listen(&fd, self.backlog.try_into().unwrap_or(i32::MAX))?;
            Ok(fd)
        };
        listen().map(TcpListener::from_socket).map_err(|error| during("bind", addr, error))
    }

    /// Connects to an address, as [`TcpStream::connect`] does.
    ///
    /// # Errors
    /// As for [`TcpStream::connect`].
    ///
    /// # Cancellation
    /// As for [`TcpStream::connect`].
    #[track_caller]
    pub fn connect(&self, addr: impl ToSocketAddr) -> Connect {
        Connect { stage: Stage::Start(self.clone(), addr.to_socket_addr()), place: Location::caller() }
    }

    fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.nodelay {
            sockopt::set_tcp_nodelay(fd, true)?;
        }
        if let Some(bytes) = self.send_buffer {
            sockopt::set_socket_send_buffer_size(fd, bytes)?;
        }
        if let Some(bytes) = self.receive_buffer {
            sockopt::set_socket_recv_buffer_size(fd, bytes)?;
        }
        Ok(())
    }
}

/// The future of [`TcpStream::connect`]. Dropping it closes the socket.
#[derive(Debug)]
#[must_use = "futures do nothing until they are awaited"]
pub struct Connect {
    stage: Stage,
    place: &'static Location<'static>,
}

#[derive(Debug)]
enum Stage {
    Start(TcpOptions, io::Result<SocketAddr>),
    Connecting(Source, SocketAddr),
    Over,
}

impl Connect {
    fn poll_socket(&mut self, cx: &mut Context<'_>, addr: SocketAddr) -> Poll<io::Result<()>> {
        if let Stage::Start(options, _) = &self.stage {
            // R37: in a cancelled scope there is not even a socket.
            ready!(poll_gate(cx, self.place))?;
            let fd = socket::tcp(addr)?;
            options.apply(fd.as_fd())?;
            let source = Source::connected(fd, Some(addr));
            let connected = socket::connect(source.fd(), addr)?;
            self.stage = Stage::Connecting(source, addr);
            if connected {
                return Poll::Ready(Ok(()));
            }
        }
        let Stage::Connecting(source, _) = &self.stage else { panic!("polled after it was ready") };
        // SAFETY: [OWNER]: `&mut self`, which owns the source.
        let mut operation = unsafe { Operation::resume(source, ToBeConnected, self.place) };
        operation.poll(cx, socket::connected)
    }
}

impl Future for Connect {
    type Output = io::Result<TcpStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let addr = match &mut self.stage {
            Stage::Start(_, Ok(addr)) | Stage::Connecting(_, addr) => *addr,
            stage => match std::mem::replace(stage, Stage::Over) {
                Stage::Start(_, Err(error)) => return Poll::Ready(Err(error)),
                _ => panic!("polled after it was ready"),
            },
        };
        let result = ready!(self.poll_socket(cx, addr));
        // R41: what was begun is closed, unless it is connected.
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        Poll::Ready(match (result, stage) {
            (Ok(()), Stage::Connecting(source, _)) => Ok(TcpStream::from_source(source)),
            (Ok(()), _) => unreachable!("connected without a socket"),
            (Err(error), _) => Err(during("connect to", addr, error)),
        })
    }
}
