//! Memory channels: items in order, between tasks, with or without a bound.
//!
//! One queue with two lists: receivers that wait for an item, and senders that wait for room, each of which brings its item. A send
//! hands its item to the oldest receiver; a receive that makes room takes the item of the oldest sender in. So nobody barges
//! (R92), and an item is in one place always: with a sender, in the buffer, or with a receiver.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{Cancelled, Guard, Handed, Reason, Turn, Wait, WaitQueue, Waiter};

const RECEIVERS: usize = 0;
const SENDERS: usize = 1;

struct State<T> {
    buffer: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receivers: usize,
}

type Queue<T> = WaitQueue<State<T>, T, 2>;
type Locked<'a, T> = Guard<'a, State<T>, T, 2>;

/// A channel that holds up to `capacity` items; with 0, each send meets a receive.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{channel, nursery};
/// let (sender, receiver) = channel(1);
/// let sum = nursery(async |n| -> std::io::Result<i32> {
///     n.spawn(async move {
///         for i in 0..10 {
///             sender.send(i).await?;
///         }
///         Ok(())
///     });
///     let mut sum = 0;
///     while let Some(i) = receiver.recv().await? {
///         sum += i;
///     }
///     Ok(sum)
/// })
/// .await
/// .unwrap();
/// assert_eq!(sum, 45);
/// # });
/// ```
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { buffer: VecDeque::new(), capacity, senders: 1, receivers: 1 };
    let queue = Arc::new(WaitQueue::new(state));
    (Sender { queue: queue.clone() }, Receiver { queue })
}

/// A channel without a bound: a send never waits, and a receiver that is too slow shows up as memory. Prefer [`channel`].
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(usize::MAX)
}

/// The side of a channel that sends. Clone it for more senders; when the last is dropped, receivers get what is left and then
/// the end (R94).
pub struct Sender<T> {
    queue: Arc<Queue<T>>,
}

/// The side of a channel that receives. Clone it for more receivers, each of which gets other items; when the last is dropped, what
/// is left is dropped and sends fail (R95).
pub struct Receiver<T> {
    queue: Arc<Queue<T>>,
}

/// An item was not sent. It is in here (N6).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// The scope was cancelled.
    Cancelled(Cancelled, T),
    /// All receivers are gone.
    Closed(T),
}

/// An item was not sent at once. It is in here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room, or others wait for it already.
    Full(T),
    /// All receivers are gone.
    Closed(T),
}

/// There was no item at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is none now.
    Empty,
    /// There never will be: all senders are gone.
    Closed,
}

impl<T> SendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Cancelled(_, item) | SendError::Closed(item) => item,
        }
    }
}

impl<T> TrySendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(item) | TrySendError::Closed(item) => item,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Cancelled(..) => "Cancelled(..)",
            SendError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Cancelled(..) => "the send was cancelled; its item comes back in the error",
            SendError::Closed(_) => "the channel has no receiver any more; the item comes back in the error",
        })
    }
}

static CANCELLED: Cancelled = Cancelled::delivered();

impl<T> Error for SendError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SendError::Cancelled(..) => Some(&CANCELLED),
            SendError::Closed(_) => None,
        }
    }
}

impl<T> From<SendError<T>> for io::Error {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Cancelled(cancelled, _) => cancelled.into(),
            SendError::Closed(_) => io::Error::new(io::ErrorKind::BrokenPipe, "the channel has no receiver any more"),
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "Full(..)",
            TrySendError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "the channel is full",
            TrySendError::Closed(_) => "the channel has no receiver any more",
        })
    }
}

impl<T> Error for TrySendError<T> {}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Empty => "the channel is empty",
            TryRecvError::Closed => "the channel has no sender any more",
        })
    }
}

impl Error for TryRecvError {}

/// R93: no receivers, then a receiver that waits, then room.
fn offer<T>(queue: &mut Locked<'_, T>, item: T) -> Result<(), TrySendError<T>> {
    if queue.receivers == 0 {
        return Err(TrySendError::Closed(item));
    }
    match queue.hand(RECEIVERS, Some(item)) {
        Ok(_) => Ok(()),
        Err(item) => {
            let item = item.expect("what was offered comes back");
            // While senders wait, a new one goes behind them.
            if queue.buffer.len() < queue.capacity && queue.waiting(SENDERS) == 0 {
                queue.buffer.push_back(item);
                Ok(())
            } else {
                Err(TrySendError::Full(item))
            }
        }
    }
}

fn take<T>(queue: &mut Locked<'_, T>) -> Result<T, TryRecvError> {
    if let Some(item) = queue.buffer.pop_front() {
        refill(queue);
        return Ok(item);
    }
    match queue.hand(SENDERS, None) {
        Ok(item) => Ok(item.expect("a sender that waits has an item")),
        Err(_) if queue.senders == 0 => Err(TryRecvError::Closed),
        Err(_) => Err(TryRecvError::Empty),
    }
}

/// Room in the buffer belongs to the senders that wait, in order.
fn refill<T>(queue: &mut Locked<'_, T>) {
    while queue.buffer.len() < queue.capacity {
        match queue.hand(SENDERS, None) {
            Ok(item) => queue.buffer.push_back(item.expect("a sender that waits has an item")),
            Err(_) => return,
        }
    }
}

impl<T> Sender<T> {
    /// Sends an item; waits while there is no room.
    ///
    /// # Errors
    /// [`SendError`], with the item in it, if the scope is cancelled or all receivers are gone.
    ///
    /// # Cancellation
    /// The item was not sent (R98). One that a receiver took first was: then the send has succeeded.
    #[track_caller]
    pub fn send(&self, item: T) -> Send<'_, T> {
        Send { waiter: self.queue.waiter(), item: Some(item), wait: Wait::new(Reason::Send) }
    }

    /// Sends an item if there is room now.
    ///
    /// # Errors
    /// [`TrySendError`], with the item in it.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        offer(&mut self.queue.lock(), item)
    }

    /// How many items are in the buffer.
    pub fn len(&self) -> usize {
        self.queue.lock().buffer.len()
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all receivers are gone.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().receivers == 0
    }
}

impl<T> Receiver<T> {
    /// Receives the next item; waits while there is none. `Ok(None)` when all senders are gone and every item was received (R94).
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled.
    ///
    /// # Cancellation
    /// No item is lost: one that was handed over first is returned (R18), and one handed to a receive that is then dropped goes to
    /// the next receiver, or back to the front (N5).
    #[track_caller]
    pub fn recv(&self) -> Recv<'_, T> {
        Recv { waiter: self.queue.waiter(), wait: Wait::new(Reason::Receive) }
    }

    /// Receives an item if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        take(&mut self.queue.lock())
    }

    /// How many items are in the buffer.
    pub fn len(&self) -> usize {
        self.queue.lock().buffer.len()
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.queue.lock().senders += 1;
        Self { queue: self.queue.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.queue.lock().receivers += 1;
        Self { queue: self.queue.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.senders -= 1;
        if queue.senders == 0 {
            while queue.release(RECEIVERS) {}
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.receivers -= 1;
        if queue.receivers == 0 {
            while queue.release(SENDERS) {}
            // Items are dropped outside of the lock.
            let left = std::mem::take(&mut queue.buffer);
            drop(queue);
            drop(left);
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Sender", &self.queue, f)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Receiver", &self.queue, f)
    }
}

fn debug<T>(name: &str, queue: &Queue<T>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let queue = queue.lock();
    let mut debug = f.debug_struct(name);
    debug.field("items", &queue.buffer.len());
    match queue.capacity {
        usize::MAX => debug.field("capacity", &"unbounded"),
        capacity => debug.field("capacity", &capacity),
    };
    debug
        .field("senders", &queue.senders)
        .field("receivers", &queue.receivers)
        .field("waiting_to_send", &queue.waiting(SENDERS))
        .field("waiting_to_receive", &queue.waiting(RECEIVERS))
        .finish()
}

/// The future of [`Sender::send`].
#[must_use = "a send does nothing until it is awaited"]
pub struct Send<'a, T> {
    waiter: Waiter<'a, State<T>, T, 2>,
    item: Option<T>,
    wait: Wait,
}

impl<T> fmt::Debug for Send<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Send").field(&self.waiter).finish()
    }
}

impl<T> Future for Send<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this; `item` is not.
        let (waiter, item, wait) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.waiter), &mut this.item, this.wait)
        };
        let polled =
            waiter.poll(cx, wait, |queue| match offer(queue, item.take().expect("polled after it was ready")) {
                Ok(()) => Turn::Ready(Ok(())),
                Err(TrySendError::Full(item)) => Turn::Wait(SENDERS, Some(item)),
                Err(TrySendError::Closed(item)) => Turn::Ready(Err(SendError::Closed(item))),
            });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(result)) => result,
            // Taken; or given back, because nobody is left to take it.
            Ok(Handed::Handed(None)) => Ok(()),
            Ok(Handed::Handed(Some(item))) => Err(SendError::Closed(item)),
            Err((cancelled, brought)) => {
                let item = brought.or_else(|| item.take()).expect("the item is in one place");
                Err(SendError::Cancelled(cancelled, item))
            }
        })
    }
}

/// The future of [`Receiver::recv`].
#[must_use = "a receive does nothing until it is awaited"]
pub struct Recv<'a, T> {
    waiter: Waiter<'a, State<T>, T, 2>,
    wait: Wait,
}

impl<T> fmt::Debug for Recv<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recv").field(&self.waiter).finish()
    }
}

impl<T> Future for Recv<'_, T> {
    type Output = Result<Option<T>, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this.
        let (waiter, wait) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.waiter), this.wait)
        };
        let polled = waiter.poll(cx, wait, |queue| match take(queue) {
            Ok(item) => Turn::Ready(Some(item)),
            Err(TryRecvError::Closed) => Turn::Ready(None),
            Err(TryRecvError::Empty) => Turn::Wait(RECEIVERS, None),
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(item) | Handed::Handed(item)) => Ok(item),
            Err((cancelled, _)) => Err(cancelled),
        })
    }
}

impl<T> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        // SAFETY: pinned, and not moved.
        let waiter = unsafe { Pin::new_unchecked(&mut self.waiter) };
        let queue = waiter.queue();
        if let Some(Some(item)) = waiter.withdraw() {
            // N5: it was handed an item and never looked.
            let mut queue = queue.lock();
            if let Err(Some(item)) = queue.hand(RECEIVERS, Some(item)) {
                queue.buffer.push_front(item);
            }
        }
    }
}
