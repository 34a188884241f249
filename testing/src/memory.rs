//! Streams in memory: a pair of ends, each of which reads what the other writes.

use futures_io::{AsyncRead, AsyncWrite};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{Cancelled, Reason, Turn, Wait, WaitQueue, poll_checkpoint_if_cancelled};

/// Who waits for bytes, and who waits for room.
const READERS: usize = 0;
const WRITERS: usize = 1;

/// One direction.
#[derive(Debug)]
struct Direction {
    bytes: VecDeque<u8>,
    /// How many bytes it holds that nobody has asked for.
    limit: usize,
    /// How many bytes the reader that waits has asked for.
    asked: usize,
    /// The writer has closed it, or is gone.
    ended: bool,
    /// The reader is gone.
    broken: bool,
}

impl Direction {
    fn room(&self) -> usize {
        self.limit.max(self.asked).saturating_sub(self.bytes.len())
    }
}

type Pipe = WaitQueue<Direction, (), 2>;
type Waiting = Pin<Box<dyn Future<Output = Result<(), Cancelled>> + Send + Sync>>;

fn pipe(limit: usize) -> Arc<Pipe> {
    let bytes = VecDeque::new();
    Arc::new(WaitQueue::new(Direction { bytes, limit, asked: 0, ended: false, broken: false }))
}

/// A pair of connected streams in memory; each direction holds `limit` bytes, and a writer waits when it is full.
///
/// # Examples
/// ```
/// use trefoil_nursery::nursery;
/// use trefoil_testing::memory_stream_pair;
///
/// trefoil_testing::run(0, async {
///     let (mut client, mut server) = memory_stream_pair(4);
///     nursery(async |n| -> std::io::Result<()> {
///         n.spawn(async {
///             client.write_all(b"more than there is room for").await?;
///             client.close()
///         });
///         let mut all = Vec::new();
///         server.read_to_end(&mut all).await?;
///         assert_eq!(all, b"more than there is room for");
///         Ok(())
///     })
///     .await
/// })?;
/// # Ok::<(), trefoil_nursery::ErrorGroup<std::io::Error>>(())
/// ```
#[track_caller]
pub fn memory_stream_pair(limit: usize) -> (MemoryStream, MemoryStream) {
    let (there, back) = (pipe(limit), pipe(limit));
    let place = Location::caller();
    let end = |reads, writes| MemoryStream { reads, writes, reading: None, writing: None, place };
    (end(back.clone(), there.clone()), end(there, back))
}

/// A pair of connected streams in memory without any room: a write waits until the other end reads, and takes no more than that has
/// asked for. So no end gets ahead of the other, which finds the places that rely on a buffer.
///
/// # Examples
/// ```
/// use std::task::Poll;
/// use trefoil_nursery::{Cancelled, move_on_after};
/// use trefoil_testing::lockstep_stream_pair;
///
/// trefoil_testing::run(0, async {
///     let (mut client, _server) = lockstep_stream_pair();
///     let second = std::time::Duration::from_secs(1);
///     assert!(matches!(move_on_after(second, client.write_all(b"hello")).await, Ok(None))); // nobody reads
/// });
/// ```
#[track_caller]
pub fn lockstep_stream_pair() -> (MemoryStream, MemoryStream) {
    memory_stream_pair(0)
}

/// One end of [`memory_stream_pair`] or [`lockstep_stream_pair`].
///
/// It reads and writes as [futures-io](futures_io) has it, and behaves as a socket does: what was written before the other end was
/// closed is still read, then there is the end, for ever; to write to one that is gone is an error, `BrokenPipe`. What waits or could
/// wait is a checkpoint (R38), and cancelled or dropped it had no effect (R36, N5).
pub struct MemoryStream {
    reads: Arc<Pipe>,
    writes: Arc<Pipe>,
    /// The wait of a read that has begun.
    reading: Option<Waiting>,
    writing: Option<Waiting>,
    place: &'static Location<'static>,
}

impl fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let incoming = self.reads.lock().bytes.len();
        let outgoing = self.writes.lock().bytes.len();
        f.debug_struct("MemoryStream").field("incoming", &incoming).field("outgoing", &outgoing).finish()
    }
}

/// Takes the question of a reader back when it is over, however that comes about.
struct Asked<'a>(&'a Pipe);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.lock().asked = 0;
    }
}

/// Waits until there are bytes, or the end of them. A checkpoint.
async fn readable(pipe: Arc<Pipe>, wanted: usize, wait: Wait) -> Result<(), Cancelled> {
    let _asked = Asked(&pipe);
    let mut waiter = pin!(pipe.waiter());
    poll_fn(|cx| {
        let polled = waiter.as_mut().poll(cx, wait, |direction| {
            if wanted == 0 || !direction.bytes.is_empty() || direction.ended {
                return Turn::Ready(());
            }
            direction.asked = wanted;
            if direction.room() > 0 {
                let _ = direction.hand(WRITERS, None);
            }
            Turn::Wait(READERS, None)
        });
        polled.map(|served| served.map(drop).map_err(|(cancelled, _)| cancelled))
    })
    .await
}

/// Waits until there is room, or nobody to read. A checkpoint.
async fn writable(pipe: Arc<Pipe>, wanted: usize, wait: Wait) -> Result<(), Cancelled> {
    let mut waiter = pin!(pipe.waiter());
    poll_fn(|cx| {
        let polled = waiter.as_mut().poll(cx, wait, |direction| {
            let ready = wanted == 0 || direction.room() > 0 || direction.broken || direction.ended;
            if ready { Turn::Ready(()) } else { Turn::Wait(WRITERS, None) }
        });
        polled.map(|served| served.map(drop).map_err(|(cancelled, _)| cancelled))
    })
    .await
}

/// Polls a wait that has begun. One that was begun by an operation that is gone, and cancelled in its scope, does not count here.
fn poll_wait(
    waiting: &mut Option<Waiting>,
    cx: &mut Context<'_>,
    place: &'static Location<'static>,
    begin: impl Fn() -> Waiting,
) -> Poll<io::Result<()>> {
    loop {
        let old = waiting.is_some();
        let ended = ready!(waiting.get_or_insert_with(&begin).as_mut().poll(cx));
        *waiting = None;
        match ended {
            Ok(()) => return Poll::Ready(Ok(())),
            Err(_) if old && matches!(poll_checkpoint_if_cancelled(place), Poll::Ready(Ok(()))) => {}
            Err(cancelled) => return Poll::Ready(Err(cancelled.into())),
        }
    }
}

impl MemoryStream {
    fn poll_read_at(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        place: &'static Location<'static>,
    ) -> Poll<io::Result<usize>> {
        let wait = Wait::new(Reason::Custom("bytes of a stream in memory")).at(place);
        loop {
            let (pipe, wanted) = (&self.reads, buf.len());
            ready!(poll_wait(&mut self.reading, cx, place, || Box::pin(readable(pipe.clone(), wanted, wait))))?;
            let mut direction = self.reads.lock();
            let n = buf.len().min(direction.bytes.len());
            if n == 0 && !buf.is_empty() && !direction.ended {
                continue;
            }
            for (to, byte) in buf.iter_mut().zip(direction.bytes.drain(..n)) {
                *to = byte;
            }
            if direction.room() > 0 {
                let _ = direction.hand(WRITERS, None);
            }
            return Poll::Ready(Ok(n));
        }
    }

    fn poll_write_at(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
        place: &'static Location<'static>,
    ) -> Poll<io::Result<usize>> {
        let wait = Wait::new(Reason::Custom("room in a stream in memory")).at(place);
        loop {
            let (pipe, wanted) = (&self.writes, buf.len());
            ready!(poll_wait(&mut self.writing, cx, place, || Box::pin(writable(pipe.clone(), wanted, wait))))?;
            let mut direction = self.writes.lock();
            if direction.broken || direction.ended {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let n = buf.len().min(direction.room());
            if n == 0 && !buf.is_empty() {
                continue;
            }
            direction.bytes.extend(&buf[..n]);
            if n > 0 {
                // The reader that asked has an answer: it owns these bytes, and no more.
                direction.asked = 0;
                let _ = direction.hand(READERS, None);
            }
            return Poll::Ready(Ok(n));
        }
    }

    /// Reads some bytes, once there are some; 0 at the end of the stream.
    ///
    /// # Errors
    /// `ECANCELED` if the scope is cancelled before.
    ///
    /// # Cancellation
    /// No byte is lost.
    #[track_caller]
    pub fn read<'a>(&'a mut self, buf: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let operation = Operation { stream: self, place: Location::caller() };
        poll_fn(move |cx| operation.stream.poll_read_at(cx, buf, operation.place))
    }

    /// Reads until the end of the stream.
    ///
    /// # Errors
    /// `ECANCELED` if the scope is cancelled before.
    ///
    /// # Cancellation
    /// What was read by then is in the vector.
    #[track_caller]
    pub fn read_to_end<'a>(&'a mut self, to: &'a mut Vec<u8>) -> impl Future<Output = io::Result<()>> + Send + 'a {
        let operation = Operation { stream: self, place: Location::caller() };
        poll_fn(move |cx| {
            let mut piece = [0; 4096];
            loop {
                match ready!(operation.stream.poll_read_at(cx, &mut piece, operation.place))? {
                    0 => return Poll::Ready(Ok(())),
                    n => to.extend_from_slice(&piece[..n]),
                }
            }
        })
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// `ECANCELED` if the scope is cancelled before, and `BrokenPipe` if the other end is gone, or this one closed.
    ///
    /// # Cancellation
    /// Some of the bytes may have been written (R41).
    #[track_caller]
    pub fn write_all<'a>(&'a mut self, bytes: &'a [u8]) -> impl Future<Output = io::Result<()>> + Send + 'a {
        let operation = Operation { stream: self, place: Location::caller() };
        let mut written = 0;
        poll_fn(move |cx| {
            loop {
                written += ready!(operation.stream.poll_write_at(cx, &bytes[written..], operation.place))?;
                if written == bytes.len() {
                    return Poll::Ready(Ok(()));
                }
            }
        })
    }

    /// Ends the direction in which this end writes: the other one reads what is there, and then the end. Again does nothing.
    ///
    /// # Errors
    /// None: it is a `Result` for the tail of a task that returns `io::Result`.
    pub fn close(&mut self) -> io::Result<()> {
        let mut direction = self.writes.lock();
        direction.ended = true;
        while direction.hand(READERS, None).is_ok() {}
        while direction.hand(WRITERS, None).is_ok() {}
        Ok(())
    }
}

/// An operation that owns its wait, unlike those of the poll functions: dropped, it takes it back.
struct Operation<'a> {
    stream: &'a mut MemoryStream,
    place: &'static Location<'static>,
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.stream.reading = None;
        self.stream.writing = None;
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_read_at(cx, buf, this.place)
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_write_at(cx, buf, this.place)
    }

    /// There is nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// As [`close`](Self::close), also in a cancelled scope (R42).
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().close())
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        let _ = self.close();
        let mut direction = self.reads.lock();
        direction.broken = true;
        direction.bytes.clear();
        while direction.hand(WRITERS, None).is_ok() {}
    }
}
