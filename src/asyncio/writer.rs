//! [`StreamWriter`].

use super::Connection;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::rc::Rc;

/// The writing direction of a connection: from [`open_connection`](super::open_connection), and what the handler of a
/// [server](super::start_server) is given.
///
/// Clone it to write from several tasks. When the last clone is dropped, the connection is [closed](Self::close): what was written is still
/// sent.
///
/// Unlike Python's, writing says what went wrong: to a connection that is lost or closed it is an error, and not a line in a log. What is
/// written and not sent yet is in memory: await [`drain`](Self::drain) between writes.
///
/// # Examples
/// See [`open_connection`](super::open_connection).
pub struct StreamWriter {
    connection: Rc<Connection>,
    clones: Rc<Cell<usize>>,
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamWriter").field(&self.connection).finish()
    }
}

impl Clone for StreamWriter {
    fn clone(&self) -> Self {
        self.clones.set(self.clones.get() + 1);
        Self { connection: self.connection.clone(), clones: self.clones.clone() }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.clones.set(self.clones.get() - 1);
        if self.clones.get() == 0 {
            self.connection.close();
        }
    }
}

impl StreamWriter {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        Self { connection, clones: Rc::new(Cell::new(1)) }
    }

    /// Writes all of the data: what there is room for now, and the rest beside the tasks of the loop, in order. Does not wait: see
    /// [`drain`](Self::drain).
    ///
    /// # Errors
    /// `BrokenPipe` after [`close`](Self::close) or [`write_eof`](Self::write_eof); when the connection was lost, why it was. At more than
    /// 64 MiB that are not sent the connection is aborted, since nobody drains it (D-10): Python goes on until there is no memory.
    ///
    /// # Panics
    /// Outside of a loop, where not all can be sent at once.
    #[track_caller]
    pub fn write(&self, data: &[u8]) -> io::Result<()> {
        self.connection.write(data)
    }

    /// Writes several pieces of data, one after the other; otherwise as [`write`](Self::write).
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    ///
    /// # Panics
    /// As for [`write`](Self::write).
    #[track_caller]
    pub fn writelines<D: AsRef<[u8]>>(&self, lines: impl IntoIterator<Item = D>) -> io::Result<()> {
        for line in lines {
            self.write(line.as_ref())?;
        }
        Ok(())
    }

    /// Waits, if much is not sent yet, until there is room again: from more than 64 KiB to 16 KiB, unless
    /// [`set_write_buffer_limits`](Self::set_write_buffer_limits) says otherwise.
    ///
    /// # Errors
    /// Why the connection was lost; `ConnectionReset` where it was closed.
    ///
    /// # Cancellation
    /// What was written is sent all the same.
    #[track_caller]
    pub fn drain(&self) -> impl Future<Output = io::Result<()>> {
        self.connection.drain(Location::caller())
    }

    /// At how many bytes that are not sent [`drain`](Self::drain) waits, and until how many: more than `high`, and `low`; asyncio's
    /// `transport.set_write_buffer_limits`.
    ///
    /// # Panics
    /// If `low` is more than `high`.
    pub fn set_write_buffer_limits(&self, high: usize, low: usize) {
        assert!(low <= high, "low, {low}, is more than high, {high}");
        self.connection.set_limits(high, low);
    }

    /// How many bytes are not sent yet; asyncio's `transport.get_write_buffer_size`.
    pub fn get_write_buffer_size(&self) -> usize {
        self.connection.unsent()
    }

    /// Ends the writing direction: the peer reads the end behind what was written. Reading goes on. Again, it does nothing.
    pub fn write_eof(&self) {
        self.connection.write_eof();
    }

    /// Whether there is a [`write_eof`](Self::write_eof): there is, for TCP.
    pub fn can_write_eof(&self) -> bool {
        true
    }

    /// Closes the connection, both directions, when what was written is sent: see [`wait_closed`](Self::wait_closed). Again, it does nothing.
    pub fn close(&self) {
        self.connection.close();
    }

    /// Closes the connection at once; what is not sent is dropped. asyncio's `transport.abort`.
    pub fn abort(&self) {
        self.connection.abort();
    }

    /// Whether it is closed, is being closed, or was lost.
    pub fn is_closing(&self) -> bool {
        self.connection.is_closing()
    }

    /// Waits until it is closed, and all that was written is sent.
    ///
    /// # Errors
    /// Why the connection was lost.
    ///
    /// # Cancellation
    /// It goes on closing.
    #[track_caller]
    pub fn wait_closed(&self) -> impl Future<Output = io::Result<()>> {
        self.connection.wait_closed(Location::caller())
    }

    /// The address of the other side; asyncio's `get_extra_info("peername")`.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.connection.peer()
    }

    /// The address of this side; asyncio's `get_extra_info("sockname")`.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.connection.local()
    }

    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }
}
