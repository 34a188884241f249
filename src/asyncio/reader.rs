//! [`StreamReader`].

use super::Connection;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use trefoil_io::net::OwnedReadHalf;
use trefoil_nursery::{CancelAware, Cancelled};

/// The longest line that is read, unless [`set_limit`](StreamReader::set_limit) says otherwise: 64 KiB, as in asyncio.
pub const LIMIT: usize = 64 * 1024;

/// How much is read at once: at first, and at most.
const LITTLE: usize = 4 * 1024;
const MUCH: usize = 256 * 1024;

/// Why not all that was wanted was read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The stream has ended before: asyncio's `IncompleteReadError`.
    Incomplete {
        /// What there was; it is out of the reader.
        partial: Vec<u8>,
        /// How many bytes were wanted, if so many were.
        expected: Option<usize>,
    },
    /// There is no separator within the limit: asyncio's `LimitOverrunError`. All is still in the reader.
    LimitOverrun {
        /// So many bytes can be read that the separator does not begin in.
        consumed: usize,
    },
    /// The connection was lost, or the read was cancelled.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Incomplete { partial, expected: Some(expected) } => {
                write!(f, "the stream ended after {} of {expected} bytes", partial.len())
            }
            ReadError::Incomplete { partial, expected: None } => {
                write!(f, "the stream ended after {} bytes, before a separator", partial.len())
            }
            ReadError::LimitOverrun { consumed } => write!(f, "no separator within the limit, in {consumed} bytes"),
            ReadError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl From<Cancelled> for ReadError {
    fn from(cancelled: Cancelled) -> Self {
        ReadError::Io(cancelled.into())
    }
}

impl CancelAware for ReadError {
    fn is_cancelled(&self) -> bool {
        matches!(self, ReadError::Io(error) if error.is_cancelled())
    }
}

impl From<ReadError> for io::Error {
    /// `UnexpectedEof`, `InvalidData`, or the error of the connection.
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Io(error) => return error,
            ReadError::Incomplete { .. } => io::ErrorKind::UnexpectedEof,
            ReadError::LimitOverrun { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// The reading direction of a connection: from [`open_connection`](super::open_connection), and what the handler of a
/// [server](super::start_server) is given.
///
/// It reads from the socket when somebody waits for more than there is. So a peer that sends more than is read is held up by TCP itself, and
/// nothing but what was read ahead is in memory. (asyncio reads ahead on its own, up to twice the limit.) Two tasks cannot read
/// at once: reading takes `&mut`.
///
/// # Cancellation
/// Of every method: nothing is lost. What had come is there for the next read.
///
/// # Examples
/// ```
/// # use std::io;
/// # use trefoil::asyncio;
/// # use trefoil::net::{TcpListener, TcpStream};
/// use trefoil::asyncio::ReadError;
/// # trefoil::run(asyncio::event_loop(async {
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let (mut reader, _writer) = asyncio::streams(TcpStream::connect(listener.local_addr()?).await?);
/// # let (mut peer, _) = listener.accept().await?;
/// peer.write_all(b"one\ntwo;three").await?;
/// drop(peer);
/// assert_eq!(reader.readline().await?, b"one\n");
/// assert_eq!(reader.readuntil(b";").await?, b"two;");
/// assert_eq!(reader.readexactly(2).await?, b"th");
/// let Err(ReadError::Incomplete { partial, .. }) = reader.readexactly(9).await else { unreachable!() };
/// assert_eq!(partial, b"ree");
/// assert!(reader.at_eof());
/// # Ok::<(), io::Error>(()) }))?;
/// # Ok::<(), io::Error>(())
/// ```
pub struct StreamReader {
    socket: OwnedReadHalf,
    connection: Rc<Connection>,
    /// What was read is in `begin..end`.
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    eof: bool,
    limit: usize,
    error: Option<io::Error>,
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader")
            .field("peer", &self.connection.peer())
            .field("buffered", &self.buffered().len())
            .field("eof", &self.eof)
            .field("limit", &self.limit)
            .finish()
    }
}

impl StreamReader {
    pub(super) fn new(socket: OwnedReadHalf, connection: Rc<Connection>) -> Self {
        Self { socket, connection, buffer: Vec::new(), begin: 0, end: 0, eof: false, limit: LIMIT, error: None }
    }

    /// What was read ahead.
    fn buffered(&self) -> &[u8] {
        &self.buffer[self.begin..self.end]
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let taken = self.buffer[self.begin..self.begin + n].to_vec();
        self.skip(n);
        taken
    }

    fn skip(&mut self, n: usize) {
        self.begin += n;
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
    }

    /// Room for at least so many bytes behind what is there.
    fn reserve(&mut self, room: usize) {
        if self.buffer.len() - self.end >= room {
            return;
        }
        self.buffer.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        if self.buffer.len() - self.end < room {
            self.buffer.resize(self.end + room, 0);
        }
    }

    /// Reads once from the socket: more, or the end.
    async fn fill(&mut self, wanted: usize, place: &'static Location<'static>) -> io::Result<()> {
        let doubled = self.buffer.len().min(MUCH / 2);
        self.reserve(wanted.clamp(LITTLE, MUCH).max(if self.end == self.buffer.len() { doubled } else { 0 }));
        match self.socket.read_for(&mut self.buffer[self.end..], place).await {
            Ok(0) => self.eof = true,
            Ok(n) => self.end += n,
            Err(error) => {
                if !error.is_cancelled() {
                    self.error = error.to_copy();
                    self.connection.fail(error.to_copy().unwrap_or_else(|| error.kind().into()));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        match &self.error {
            Some(error) => Err(error.to_copy().unwrap_or_else(|| error.kind().into())),
            None => Ok(()),
        }
    }

    /// Reads up to `n` bytes, as soon as there are some. Nothing is the end, unless `n` is 0.
    ///
    /// # Errors
    /// Why the connection was lost: `ConnectionReset`, ...; the same again in later reads.
    #[track_caller]
    pub fn read(&mut self, n: usize) -> impl Future<Output = io::Result<Vec<u8>>> {
        let place = Location::caller();
        async move {
            self.check()?;
            if n == 0 {
                return Ok(Vec::new());
            }
            if self.buffered().is_empty() && !self.eof {
                self.fill(n, place).await?;
            }
            let n = n.min(self.buffered().len());
            Ok(self.take(n))
        }
    }

    /// Reads to the end: asyncio's `read(-1)`.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    #[track_caller]
    pub fn read_to_end(&mut self) -> impl Future<Output = io::Result<Vec<u8>>> {
        let place = Location::caller();
        async move {
            self.check()?;
            while !self.eof {
                self.fill(LITTLE, place).await?;
            }
            let n = self.buffered().len();
            Ok(self.take(n))
        }
    }

    /// Reads `n` bytes.
    ///
    /// # Errors
    /// [`ReadError::Incomplete`], with what there was, if the stream ends before; otherwise as for [`read`](Self::read).
    #[track_caller]
    pub fn readexactly(&mut self, n: usize) -> impl Future<Output = Result<Vec<u8>, ReadError>> {
        let place = Location::caller();
        async move {
            self.check()?;
            while self.buffered().len() < n {
                if self.eof {
                    let partial = self.take(self.buffered().len());
                    return Err(ReadError::Incomplete { partial, expected: Some(n) });
                }
                self.fill(n - self.buffered().len(), place).await?;
            }
            Ok(self.take(n))
        }
    }

    /// Reads up to the separator, and with it.
    ///
    /// # Errors
    /// [`ReadError::Incomplete`], with what there was, if the stream ends before; [`ReadError::LimitOverrun`] if the separator does not
    /// come within the [limit](Self::set_limit): then nothing is taken out. Otherwise as for [`read`](Self::read).
    ///
    /// # Panics
    /// If the separator is empty.
    #[track_caller]
    pub fn readuntil(&mut self, separator: impl AsRef<[u8]>) -> impl Future<Output = Result<Vec<u8>, ReadError>> {
        self.until(separator, Location::caller())
    }

    async fn until(
        &mut self,
        separator: impl AsRef<[u8]>,
        place: &'static Location<'static>,
    ) -> Result<Vec<u8>, ReadError> {
        let separator = separator.as_ref();
        assert!(!separator.is_empty(), "a separator has at least one byte");
        self.check()?;
        // The separator does not begin before that.
        let mut seen = 0;
        loop {
            if let Some(at) = find(&self.buffered()[seen..], separator) {
                let at = seen + at;
                if at > self.limit {
                    return Err(ReadError::LimitOverrun { consumed: at });
                }
                return Ok(self.take(at + separator.len()));
            }
            seen = seen.max((self.buffered().len() + 1).saturating_sub(separator.len()));
            if seen > self.limit {
                return Err(ReadError::LimitOverrun { consumed: seen });
            }
            if self.eof {
                let partial = self.take(self.buffered().len());
                return Err(ReadError::Incomplete { partial, expected: None });
            }
            self.fill(LITTLE, place).await?;
        }
    }

    /// Reads a line, with its `\n`; the last one may have none, and nothing is the end.
    ///
    /// # Errors
    /// `InvalidData` if the line is longer than the [limit](Self::set_limit): what of it has come is gone. Otherwise as for
    /// [`read`](Self::read).
    #[track_caller]
    pub fn readline(&mut self) -> impl Future<Output = io::Result<Vec<u8>>> {
        let place = Location::caller();
        async move {
            match self.until(b"\n", place).await {
                Ok(line) => Ok(line),
                Err(ReadError::Incomplete { partial, .. }) => Ok(partial),
                Err(ReadError::LimitOverrun { consumed }) => {
                    let line = self.buffered().get(consumed) == Some(&b'\n');
                    self.skip(if line { consumed + 1 } else { self.buffered().len() });
                    Err(ReadError::LimitOverrun { consumed }.into())
                }
                Err(ReadError::Io(error)) => Err(error),
            }
        }
    }

    /// Whether the end was read, and all before it. The end is read when somebody waits for more.
    pub fn at_eof(&self) -> bool {
        self.eof && self.buffered().is_empty()
    }

    /// Why the connection was lost, where a read has found that.
    pub fn exception(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// How far a separator may be; asyncio takes it where the connection is made.
    ///
    /// # Panics
    /// If it is 0.
    pub fn set_limit(&mut self, limit: usize) {
        assert!(limit > 0, "the limit of a stream is at least 1");
        self.limit = limit;
    }
}

/// Where it begins.
fn find(bytes: &[u8], separator: &[u8]) -> Option<usize> {
    match separator {
        [byte] => bytes.iter().position(|at| at == byte),
        _ => bytes.windows(separator.len()).position(|window| window == separator),
    }
}
