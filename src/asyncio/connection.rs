//! The writing direction of a connection: what is not sent yet, and who waits for that.
//!
//! [`write`](Connection::write) sends at once what there is room for. The rest is queued, and a flusher is begun, which works beside the tasks of the
//! loop and has the socket until nothing is left. So at each moment either the flusher has the socket, or nothing is queued.
//!
//! ```text
//!   OPEN ── close ──▶ CLOSING ── all is sent ──▶ CLOSED
//!     └─────── an error, or abort ────────────────▲
//! ```

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::rc::Rc;
use trefoil_io::net::{OwnedWriteHalf, Shutdown};
use trefoil_nursery::asyncio::{self, Resolver, Waiting};
use trefoil_nursery::{CancelAware, CancelScope};

/// asyncio's limits: at more than `HIGH` bytes `drain` waits, until there are no more than `LOW`.
const HIGH: usize = 64 * 1024;
const LOW: usize = HIGH / 4;

/// No more than this is queued at all (D-10).
pub(super) const MOST: usize = 64 * 1024 * 1024;

type Place = &'static Location<'static>;

/// Who waits for an end.
type Waits = RefCell<Vec<Resolver<(), io::Error>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closing,
    Closed,
}

pub(super) struct Connection {
    state: Cell<State>,
    /// `None` while the flusher has it, and when it is closed.
    socket: RefCell<Option<OwnedWriteHalf>>,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    queue: RefCell<Vec<u8>>,
    /// Bytes in the queue, and what of the flusher's is not sent.
    unsent: Cell<usize>,
    high: Cell<usize>,
    low: Cell<usize>,
    /// More than `high` were unsent, and since then never as few as `low`.
    paused: Cell<bool>,
    eof: Cell<bool>,
    /// Why it was lost.
    error: RefCell<Option<io::Error>>,
    flusher: RefCell<Option<CancelScope>>,
    drains: Waits,
    closes: Waits,
    /// Dropped when it is closed.
    until_closed: RefCell<Option<Box<dyn Any>>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("state", &self.state.get())
            .field("unsent", &self.unsent.get())
            .finish_non_exhaustive()
    }
}

/// An error for several.
fn copy(error: &io::Error) -> io::Error {
    error.to_copy().unwrap_or_else(|| error.kind().into())
}

fn tell(waits: &Waits, outcome: impl Fn() -> io::Result<()>) {
    for wait in waits.take() {
        // Who was cancelled does not listen.
        _ = wait.set(outcome());
    }
}

/// A new one that waits.
fn wait(waits: &Waits, what: &'static str, place: Place) -> Waiting<(), io::Error> {
    let (resolver, future) = asyncio::create_future_for(what, place);
    waits.borrow_mut().push(resolver);
    future.wait_for(place)
}

impl Connection {
    pub fn new(socket: OwnedWriteHalf) -> Rc<Self> {
        Rc::new(Self {
            state: Cell::new(State::Open),
            peer: socket.peer_addr().ok(),
            local: socket.local_addr().ok(),
            socket: RefCell::new(Some(socket)),
            queue: RefCell::new(Vec::new()),
            unsent: Cell::new(0),
            high: Cell::new(HIGH),
            low: Cell::new(LOW),
            paused: Cell::new(false),
            eof: Cell::new(false),
            error: RefCell::new(None),
            flusher: RefCell::new(None),
            drains: Waits::default(),
            closes: Waits::default(),
            until_closed: RefCell::new(None),
        })
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    pub fn unsent(&self) -> usize {
        self.unsent.get()
    }

    pub fn set_limits(&self, high: usize, low: usize) {
        self.high.set(high);
        self.low.set(low);
        self.look_at_limits();
    }

    pub fn is_closing(&self) -> bool {
        self.state.get() != State::Open
    }

    /// Keeps something until it is closed.
    pub fn keep(&self, until_closed: Box<dyn Any>) {
        if self.state.get() != State::Closed {
            *self.until_closed.borrow_mut() = Some(until_closed);
        }
    }

    fn look_at_limits(&self) {
        let unsent = self.unsent.get();
        if unsent > self.high.get() {
            self.paused.set(true);
        } else if unsent <= self.low.get() && self.paused.replace(false) {
            tell(&self.drains, || Ok(()));
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        if let Some(error) = &*self.error.borrow() {
            return Err(copy(error));
        }
        let why = match self.state.get() {
            State::Open if self.eof.get() => "write after `write_eof`",
            State::Open => return Ok(()),
            _ => "write after `close`",
        };
        Err(io::Error::new(io::ErrorKind::BrokenPipe, why))
    }

    #[track_caller]
    pub fn write(self: &Rc<Self>, data: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let mut sent = 0;
        if let Some(socket) = &mut *self.socket.borrow_mut() {
            match socket.try_write(data) {
                Ok(n) => sent = n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    *self.error.borrow_mut() = Some(error);
                }
            }
        }
        if self.error.borrow().is_some() {
            self.end();
            return self.check_writable();
        }
        self.queue(&data[sent..])
    }

    #[track_caller]
    fn queue(self: &Rc<Self>, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let unsent = self.unsent.get() + data.len();
        if unsent > MOST {
            let error = io::Error::other(format!("{unsent} bytes are not sent yet: await `drain` between writes"));
            *self.error.borrow_mut() = Some(error);
            self.abort();
            return self.check_writable();
        }
        self.queue.borrow_mut().extend_from_slice(data);
        self.unsent.set(unsent);
        self.look_at_limits();
        self.flush();
        Ok(())
    }

    /// Begins a flusher, if there is none.
    #[track_caller]
    fn flush(self: &Rc<Self>) {
        let Some(mut socket) = self.socket.take() else { return };
        let (connection, place) = (self.clone(), Location::caller());
        let flusher = asyncio::background(place, async move {
            let ended = connection.send(&mut socket, place).await;
            connection.flusher.take();
            *connection.socket.borrow_mut() = Some(socket);
            match connection.state.get() {
                State::Closed => connection.let_go(),
                _ => connection.flushed(ended),
            }
        });
        *self.flusher.borrow_mut() = Some(flusher);
    }

    /// Sends what is queued, until nothing is.
    async fn send(&self, socket: &mut OwnedWriteHalf, place: Place) -> io::Result<()> {
        loop {
            let data = self.queue.take();
            if data.is_empty() {
                return Ok(());
            }
            let mut rest = &data[..];
            while !rest.is_empty() {
                let n = socket.write_for(rest, place).await?;
                rest = &rest[n..];
                self.unsent.set(self.unsent.get().saturating_sub(n));
                self.look_at_limits();
            }
        }
    }

    fn flushed(&self, ended: io::Result<()>) {
        match ended {
            Ok(()) if self.state.get() == State::Closing => self.end(),
            Ok(()) => self.send_eof(),
            Err(error) if error.is_cancelled() => {
                let unsent = self.unsent.get();
                trefoil_runtime::report_warn!(peer = ?self.peer, "{unsent} bytes were not sent: the event loop has ended");
                self.end();
            }
            Err(error) => self.fail(error),
        }
    }

    /// The connection is lost.
    pub fn fail(&self, error: io::Error) {
        self.error.borrow_mut().get_or_insert(error);
        self.abort();
    }

    /// It is closed: whoever waits is told.
    fn end(&self) {
        if self.state.replace(State::Closed) == State::Closed {
            return;
        }
        self.queue.take();
        self.unsent.set(0);
        self.paused.set(false);
        self.let_go();
        let lost = || io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed");
        tell(&self.drains, || Err(self.error.borrow().as_ref().map_or_else(lost, copy)));
        tell(&self.closes, || self.error.borrow().as_ref().map_or(Ok(()), |error| Err(copy(error))));
        drop(self.until_closed.take());
    }

    fn let_go(&self) {
        if let Some(socket) = self.socket.take() {
            // Who reads finds the end, unless it was lost: then there may be something to read.
            let how = if self.error.borrow().is_some() { Shutdown::Write } else { Shutdown::Both };
            _ = socket.shutdown(how);
        }
    }

    pub fn close(&self) {
        if self.state.get() == State::Open {
            self.state.set(State::Closing);
            if self.socket.borrow().is_some() {
                self.end();
            }
        }
    }

    pub fn abort(&self) {
        let flusher = self.flusher.borrow().clone();
        self.end();
        if let Some(flusher) = flusher {
            // It gives the socket back, which is let go of then.
            flusher.cancel();
        }
    }

    pub fn write_eof(&self) {
        if !self.is_closing() && !self.eof.replace(true) && self.socket.borrow().is_some() {
            self.send_eof();
        }
    }

    fn send_eof(&self) {
        if self.eof.get()
            && let Some(socket) = &*self.socket.borrow()
        {
            // A connection that is gone has no end to be told.
            _ = socket.shutdown(Shutdown::Write);
        }
    }

    pub async fn drain(&self, place: Place) -> io::Result<()> {
        if self.is_closing() {
            asyncio::sleep(std::time::Duration::ZERO).await?;
        }
        if let Some(error) = &*self.error.borrow() {
            return Err(copy(error));
        }
        if self.state.get() == State::Closed {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed"));
        }
        if self.paused.get() {
            wait(&self.drains, "the peer to take what was written", place).await?;
        }
        Ok(())
    }

    pub async fn wait_closed(&self, place: Place) -> io::Result<()> {
        if self.state.get() != State::Closed {
            return wait(&self.closes, "a connection to be closed", place).await;
        }
        self.error.borrow().as_ref().map_or(Ok(()), |error| Err(copy(error)))
    }
}
