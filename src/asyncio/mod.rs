//! asyncio's vocabulary, with its meaning, on the same core: for programs that come from Python, and for who thinks in its terms.
//!
//! Everything of `trefoil_nursery::asyncio`, and here, where there is I/O, its streams: [`open_connection`] and [`start_server`]. The chapter
//! `book/src/from_asyncio.md` of the book has every name of asyncio with what it is called here.

mod connection;
mod interrupt;
mod reader;
mod server;
mod writer;

pub use reader::{LIMIT, ReadError, StreamReader};
pub use server::{Server, start_server};
#[doc(inline)]
pub use trefoil_nursery::asyncio::*;
pub use writer::StreamWriter;

use connection::Connection;
use std::io;
use trefoil_io::net::{TcpStream, ToSocketAddr};
use trefoil_nursery::CancelAware;

/// Connects, and gives the two directions of the connection.
///
/// Names are not looked up here: where Python takes a host and a port, this takes an address.
///
/// # Errors
/// As for [`TcpStream::connect`].
///
/// # Cancellation
/// Closes the socket; no descriptor is left.
///
/// # Examples
/// ```
/// use std::io;
/// use trefoil::asyncio::{self, StreamReader, StreamWriter};
///
/// asyncio::run(async {
///     let server = asyncio::start_server(
///         async |mut reader: StreamReader, writer: StreamWriter| -> io::Result<()> {
///             let line = reader.readline().await?;
///             writer.write(&line)?;
///             writer.drain().await
///         },
///         "127.0.0.1:0",
///     )
///     .await?;
///     let (mut reader, writer) = asyncio::open_connection(server.local_addr()?).await?;
///     writer.write(b"hello\n")?;
///     assert_eq!(reader.readline().await?, b"hello\n");
///     assert_eq!(reader.readline().await?, b"");
///     writer.close();
///     writer.wait_closed().await?;
///     server.close();
///     server.wait_closed().await?;
///     Ok::<(), io::Error>(())
/// })?;
/// # Ok::<(), io::Error>(())
/// ```
#[track_caller]
pub fn open_connection(
    addr: impl ToSocketAddr,
) -> impl std::future::Future<Output = io::Result<(StreamReader, StreamWriter)>> {
    let connecting = TcpStream::connect(addr);
    async move { Ok(streams(connecting.await?)) }
}

/// The two directions of a connection that there is: to use asyncio's streams with a socket of your own.
///
/// # Examples
/// ```
/// # use std::io;
/// # use trefoil::asyncio;
/// # use trefoil::net::{TcpListener, TcpStream};
/// # trefoil::run(asyncio::event_loop(async {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let (mut reader, _writer) = asyncio::streams(TcpStream::connect(listener.local_addr()?).await?);
/// let (mut peer, _) = listener.accept().await?;
/// peer.write_all(b"hello").await?;
/// assert_eq!(reader.readexactly(5).await?, b"hello");
/// # Ok::<(), io::Error>(()) }))?;
/// # Ok::<(), io::Error>(())
/// ```
pub fn streams(stream: TcpStream) -> (StreamReader, StreamWriter) {
    let (reader, writer) = stream.into_split();
    let connection = Connection::new(writer);
    (StreamReader::new(reader, connection.clone()), StreamWriter::new(connection))
}

/// Runs an event loop on the calling thread until `main` is done: asyncio's `run`.
///
/// What is left over then is cancelled, once, and awaited (R2, R3). Inside of a run of Trefoil there is
/// [`event_loop`], which is the same as a future.
///
/// # Errors
/// Those of `main`.
///
/// # Ctrl-C
/// On the main thread, and where nobody handles SIGINT by then, the first one cancels `main`, once (R5): its clean-up runs, and so does what else is
/// cancelled at the end. The second one ends the process. Where the first has not ended the loop a second later, what everybody does is logged. A program with a handler of its own sets that up before its first loop.
///
/// # Panics
/// Inside of another run on the same thread (R1). With the first panic of a task or of a callback, when all tasks have ended.
///
/// # Examples
/// ```
/// use std::{io, time::Duration};
/// use trefoil::asyncio;
///
/// async fn say(after: u64, what: &str) -> io::Result<&str> {
///     asyncio::sleep(Duration::from_millis(after)).await?;
///     Ok(what)
/// }
///
/// fn main() -> io::Result<()> {
///     asyncio::run(async {
///         let hello = asyncio::create_task(say(2, "hello"));
///         let world = asyncio::create_task(say(1, "world"));
///         assert_eq!(asyncio::gather([hello, world]).await?, ["hello", "world"]);
///         Ok(())
///     })
/// }
/// ```
#[track_caller]
pub fn run<F, T, E>(main: F) -> Result<T, E>
where
    F: std::future::Future<Output = Result<T, E>> + 'static,
    T: 'static,
    E: CancelAware + 'static,
{
    interrupt::run(event_loop(main))
}

/// Runs several mains on one event loop, one after the other: asyncio's `Runner`. What one leaves running goes on when the next one runs, and
/// is cancelled and awaited when the runner is closed, or dropped.
///
/// Each [`run`](Self::run) is a run of Trefoil of its own. Sockets are of the run that they were made in: what is left to the next one may
/// sleep and wait, and has its connections in one run.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use trefoil::{Cancelled, asyncio};
///
/// let mut runner = asyncio::Runner::new();
/// let task = runner.run(async {
///     Ok::<_, Cancelled>(asyncio::create_task(async {
///         asyncio::sleep(Duration::from_millis(1)).await?;
///         Ok::<_, Cancelled>("done in the second run")
///     }))
/// })?;
/// assert_eq!(runner.run(async { task.await })?, "done in the second run");
/// runner.close();
/// # Ok::<(), Cancelled>(())
/// ```
#[derive(Debug)]
pub struct Runner {
    event_loop: Option<EventLoop>,
}

impl Default for Runner {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl Runner {
    /// A runner with a loop of its own.
    #[track_caller]
    pub fn new() -> Self {
        Self { event_loop: Some(EventLoop::new()) }
    }

    /// Runs the loop until `main` is done. Ctrl-C is as in [`run`].
    ///
    /// # Errors
    /// Those of `main`.
    ///
    /// # Panics
    /// Inside of a run on the same thread (R1). With a panic of a task or of a callback.
    #[track_caller]
    pub fn run<F, T, E>(&mut self, main: F) -> Result<T, E>
    where
        F: std::future::Future<Output = Result<T, E>> + 'static,
        T: 'static,
        E: CancelAware + 'static,
    {
        let event_loop = self.event_loop.as_mut().expect("it is there until the runner is closed");
        interrupt::run(event_loop.run_until_complete(main))
    }

    /// Cancels what is left over, once, and waits until it has ended.
    ///
    /// # Panics
    /// Inside of a run on the same thread. With a panic of a task.
    #[track_caller]
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(event_loop) = self.event_loop.take() {
            trefoil_io::run(event_loop.close());
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // On the way out of a panic, or of another run, the tasks are dropped where they wait.
        if !std::thread::panicking() && !trefoil_runtime::in_run() {
            self.end();
        }
    }
}
