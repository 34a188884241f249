//! [`start_server`]: a task of the loop for each connection.

use super::{Connection, StreamReader, StreamWriter, streams};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future as StdFuture;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::time::Duration;
use trefoil_io::OperationError;
use trefoil_io::net::{TcpListener, TcpStream, ToSocketAddr};
use trefoil_nursery::asyncio::{self, AnyTask, Future, Resolver, TaskBuilder};
use trefoil_nursery::{CancelAware, CancelScope, Cancelled};

type Place = &'static Location<'static>;

/// How long nothing is accepted when the process is out of descriptors or memory: CPython's.
const OUT_OF_MEANS: Duration = Duration::from_secs(1);

/// What a server has of a connection.
struct Client {
    connection: Weak<Connection>,
    handler: AnyTask,
}

struct Shared {
    address: SocketAddr,
    /// Who accepts; `None` when it is closed.
    accepting: RefCell<Option<CancelScope>>,
    /// The listener is there: for a moment longer than who accepts.
    listening: Cell<bool>,
    clients: RefCell<BTreeMap<u64, Client>>,
    next: Cell<u64>,
    waits: RefCell<Vec<Resolver<(), io::Error>>>,
    /// Who is in `serve_forever`.
    serving: RefCell<Option<Future<(), io::Error>>>,
}

impl Shared {
    fn is_over(&self) -> bool {
        !self.listening.get() && self.clients.borrow().is_empty()
    }

    fn look_whether_over(&self) {
        if self.is_over() {
            for wait in self.waits.take() {
                // Who was cancelled does not listen.
                _ = wait.set_result(());
            }
        }
    }

    fn close(&self) {
        let accepting = self.accepting.take();
        if let Some(accepting) = accepting {
            accepting.cancel();
        }
        let serving = self.serving.take();
        if let Some(serving) = serving {
            serving.cancel();
        }
    }

    fn connections(&self) -> Vec<Rc<Connection>> {
        self.clients.borrow().values().filter_map(|client| client.connection.upgrade()).collect()
    }
}

/// A connection is there until its handler has ended and it is closed: the last of the two takes it out.
struct Served {
    server: Rc<Shared>,
    number: u64,
}

impl Drop for Served {
    fn drop(&mut self) {
        let gone = self.server.clients.borrow_mut().remove(&self.number);
        drop(gone);
        self.server.look_whether_over();
    }
}

/// A server of [`start_server`]. Dropping the handle leaves it alone: it ends with the loop.
///
/// # Examples
/// See [`open_connection`](super::open_connection).
#[derive(Clone)]
pub struct Server {
    shared: Rc<Shared>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.shared.address)
            .field("serving", &self.is_serving())
            .field("clients", &self.shared.clients.borrow().len())
            .finish()
    }
}

/// Listens at an address, and runs `handler` in a task of the loop for each connection.
///
/// The connection is closed when the handler has ended and has dropped the writer. A handler that fails is reported in the log, as in
/// Python, and takes nothing else along.
///
/// # Errors
/// As for [`TcpListener::bind`].
///
/// # Panics
/// Outside of a loop.
///
/// # Examples
/// See [`open_connection`](super::open_connection).
#[track_caller]
pub fn start_server<H, E>(handler: H, addr: impl ToSocketAddr) -> impl StdFuture<Output = io::Result<Server>>
where
    H: AsyncFn(StreamReader, StreamWriter) -> Result<(), E> + 'static,
    E: CancelAware + 'static,
{
    let place = Location::caller();
    async move { start(handler, addr, place) }
}

fn start<H, E>(handler: H, addr: impl ToSocketAddr, place: Place) -> io::Result<Server>
where
    H: AsyncFn(StreamReader, StreamWriter) -> Result<(), E> + 'static,
    E: CancelAware + 'static,
{
    let handler = Rc::new(handler);
    let listener = TcpListener::bind(addr)?;
    let shared = Rc::new(Shared {
        address: listener.local_addr()?,
        accepting: RefCell::new(None),
        listening: Cell::new(true),
        clients: RefCell::new(BTreeMap::new()),
        next: Cell::new(0),
        waits: RefCell::new(Vec::new()),
        serving: RefCell::new(None),
    });
    let server = shared.clone();
    let accepting = asyncio::background(place, async move {
        accept(&listener, place, |stream| serve(&server, &handler, stream, place)).await;
        drop(listener);
        server.listening.set(false);
        server.close();
        server.look_whether_over();
    });
    *shared.accepting.borrow_mut() = Some(accepting);
    Ok(Server { shared })
}

/// Accepts until it is cancelled, or the listener fails.
async fn accept(listener: &TcpListener, place: Place, mut serve: impl FnMut(TcpStream)) {
    loop {
        match listener.accept_for(place).await {
            Ok((stream, _)) => serve(stream),
            Err(error) if error.is_cancelled() => return,
            Err(error) if is_out_of_means(&error) => {
                trefoil_runtime::report_error!("nothing is accepted for {OUT_OF_MEANS:?}: {error}");
                if trefoil_nursery::sleep(OUT_OF_MEANS).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                trefoil_runtime::report_error!("a server stops to accept: {error}");
                return;
            }
        }
    }
}

/// `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`.
fn is_out_of_means(error: &io::Error) -> bool {
    let number = OperationError::of(error).and_then(OperationError::raw_os_error);
    matches!(number, Some(24 | 23 | 105 | 12))
}

fn serve<H, E>(server: &Rc<Shared>, handler: &Rc<H>, stream: TcpStream, place: Place)
where
    H: AsyncFn(StreamReader, StreamWriter) -> Result<(), E> + 'static,
    E: CancelAware + 'static,
{
    let (reader, writer) = streams(stream);
    let connection = writer.connection().clone();
    let number = server.next.replace(server.next.get() + 1);
    let served = Rc::new(Served { server: server.clone(), number });
    connection.keep(Box::new(served.clone()));
    let (handler, closed) = (handler.clone(), connection.clone());
    let task = TaskBuilder::new().place(place).create_task(async move {
        let ended = handler(reader, writer).await;
        drop(served);
        if let Err(error) = ended {
            // Of a task that is cancelled asyncio closes the connection, and of one that fails, too.
            closed.close();
            if error.is_cancelled() {
                return Err(Cancelled::delivered());
            }
            trefoil_runtime::report_error!(peer = ?closed.peer(), "the handler of a connection failed: {error:?}");
        }
        Ok(())
    });
    let client = Client { connection: Rc::downgrade(&connection), handler: task.handle() };
    server.clients.borrow_mut().insert(number, client);
}

impl Server {
    /// Stops listening. Connections that there are go on: see [`close_clients`](Self::close_clients), [`shutdown`](Self::shutdown).
    /// Again, it does nothing.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Whether it accepts connections.
    pub fn is_serving(&self) -> bool {
        self.shared.accepting.borrow().is_some()
    }

    /// Where it listens, with the port that was found for port 0; asyncio's `sockets`.
    ///
    /// # Errors
    /// None at present.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.shared.address)
    }

    /// Waits until it is [closed](Self::close), and all its connections are.
    ///
    /// # Errors
    /// A cancellation.
    #[track_caller]
    pub fn wait_closed(&self) -> impl StdFuture<Output = io::Result<()>> {
        self.over(Location::caller())
    }

    async fn over(&self, place: Place) -> io::Result<()> {
        if self.shared.is_over() {
            return Ok(());
        }
        let (resolver, over) = asyncio::create_future_for("a server to be closed, with all its connections", place);
        self.shared.waits.borrow_mut().push(resolver);
        over.wait_for(place).await
    }

    /// Waits until the task is cancelled; then closes the server, and waits until all its connections are closed.
    ///
    /// # Errors
    /// The cancellation, always; where somebody else closes the server, that is one, too. `InvalidInput` if the server is closed, or a task is in
    /// here already.
    #[track_caller]
    pub fn serve_forever(&self) -> impl StdFuture<Output = io::Result<()>> {
        let place = Location::caller();
        async move {
            let mistake = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            if !self.is_serving() {
                return mistake("the server is closed");
            }
            if self.shared.serving.borrow().is_some() {
                return mistake("another task serves for ever");
            }
            let (resolver, forever) = asyncio::create_future_for::<(), io::Error>("a server to be closed", place);
            *self.shared.serving.borrow_mut() = Some(forever.clone());
            let ended = forever.wait_for(place).await;
            drop(resolver);
            self.close();
            self.over(place).await?;
            ended
        }
    }

    /// Closes all connections, when what was written to them is sent; their handlers read the end.
    pub fn close_clients(&self) {
        for connection in self.shared.connections() {
            connection.close();
        }
    }

    /// Closes all connections at once; what is not sent is dropped.
    pub fn abort_clients(&self) {
        for connection in self.shared.connections() {
            connection.abort();
        }
    }

    /// Closes the server in two steps: stops listening, and gives the connections some time to end by themselves; then cancels their
    /// handlers, aborts what is left, and waits for that. asyncio has the parts.
    ///
    /// # Errors
    /// A cancellation.
    ///
    /// # Examples
    /// ```
    /// # use std::io;
    /// # use std::time::Duration;
    /// # use trefoil::asyncio::{self, StreamReader, StreamWriter};
    /// # trefoil::run(asyncio::event_loop(async {
    /// let echo = async |mut reader: StreamReader, writer: StreamWriter| -> io::Result<()> {
    ///     while !reader.at_eof() {
    ///         writer.write(&reader.read(1024).await?)?;
    ///         writer.drain().await?;
    ///     }
    ///     Ok(())
    /// };
    /// let server = asyncio::start_server(echo, "127.0.0.1:0").await?;
    /// let (mut reader, _writer) = asyncio::open_connection(server.local_addr()?).await?;
    /// server.shutdown(Duration::from_millis(10)).await?;
    /// // It ended, or was aborted.
    /// assert!(reader.read(1).await.map_or(true, |end| end.is_empty()));
    /// # Ok::<(), io::Error>(()) }))?;
    /// # Ok::<(), io::Error>(())
    /// ```
    #[track_caller]
    pub fn shutdown(&self, grace: Duration) -> impl StdFuture<Output = io::Result<()>> {
        let place = Location::caller();
        async move {
            self.close();
            let in_time = asyncio::timeout(grace, async |_| self.over(place).await).await;
            match in_time {
                Err(late) if late.kind() == io::ErrorKind::TimedOut => {}
                ended => return ended,
            }
            let handlers: Vec<_> = self.shared.clients.borrow().values().map(|client| client.handler.clone()).collect();
            for handler in handlers {
                handler.cancel();
            }
            self.abort_clients();
            self.over(place).await
        }
    }
}
