//! Memory channels: items in order, between tasks, with or without a bound.
//!
//! One queue with two lists: receivers that wait for an item, and senders that wait for room, each of which brings its item. A send
//! hands its item to the oldest receiver; a receive that makes room takes the item of the oldest sender in. So nobody barges
//! (R92), and an item is in one place always: with a sender, in the buffer, or with a receiver.

use crate::blocking;
use std::cell::Cell;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use trefoil_runtime::sync::{AtomicBool, Ordering};
use trefoil_runtime::{
    Cancelled, Guard, Handed, Holder, HolderKey, Holders, Holding, Reason, TimedOut, Turn, Wait, WaitQueue, Waiter,
};

const RECEIVERS: usize = 0;
const SENDERS: usize = 1;

struct State<T> {
    buffer: VecDeque<T>,
    /// How many items were handed to receivers that waited.
    handed: usize,
    /// The numbers of those at the front of the buffer that were handed to a receiver and came back (N5).
    returned: VecDeque<usize>,
    capacity: usize,
    senders: usize,
    receivers: usize,
    handles: usize,
    /// Who made the open ends, and where: for receivers that wait, and for senders.
    sending: Holders,
    receiving: Holders,
}

/// Which end it is.
#[derive(Clone, Copy)]
enum Side {
    Sending,
    Receiving,
}

impl<T> State<T> {
    fn ends(&mut self, side: Side) -> &mut Holders {
        match side {
            Side::Sending => &mut self.sending,
            Side::Receiving => &mut self.receiving,
        }
    }
}

/// What a waiter brings, and what it is handed.
struct Slot<T> {
    /// While it waits, the handle through which it does (R96). With an item for a receiver, the number of that (R92).
    via: usize,
    item: Option<T>,
    /// The last receiver went away while this waited (R95): the first reason counts, also where the own handle is closed after (R18).
    broken: Cell<bool>,
}

impl<T> Slot<T> {
    fn new(via: usize, item: Option<T>) -> Self {
        Self { via, item, broken: Cell::new(false) }
    }
}

type Queue<T> = WaitQueue<State<T>, Slot<T>, 2>;
type Locked<'a, T> = Guard<'a, State<T>, Slot<T>, 2>;

/// One side's end of the queue.
struct Handle<T> {
    queue: Arc<Queue<T>>,
    id: usize,
    closed: AtomicBool,
    /// Among the open ends.
    key: HolderKey,
}

impl<T> Handle<T> {
    fn new(queue: Arc<Queue<T>>, closed: bool, side: Side, place: &'static Location<'static>) -> Self {
        let mut state = queue.lock();
        state.handles += 1;
        let id = state.handles;
        let key = state.ends(side).add(Holder::here(place, 1));
        if closed {
            state.ends(side).remove(key);
        }
        drop(state);
        Self { queue, id, closed: AtomicBool::new(closed), key }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

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
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        buffer: VecDeque::new(),
        handed: 0,
        returned: VecDeque::new(),
        capacity,
        senders: 1,
        receivers: 1,
        handles: 0,
        sending: Holders::new(Holding::Senders, 0),
        receiving: Holders::new(Holding::Receivers, 0),
    };
    let (queue, place) = (Arc::new(WaitQueue::new(state)), Location::caller());
    let sender = Sender { handle: Handle::new(queue.clone(), false, Side::Sending, place) };
    (sender, Receiver { handle: Handle::new(queue, false, Side::Receiving, place) })
}

/// A channel without a bound: a send never waits, and a receiver that is too slow shows up as memory. Prefer [`channel`].
#[track_caller]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(usize::MAX)
}

/// The side of a channel that sends. Clone it for more senders; when the last is dropped, receivers get what is left and then
/// the end (R94). Where it is borrowed, and so cannot be dropped, [`close`](Self::close) does the same.
pub struct Sender<T> {
    handle: Handle<T>,
}

/// The side of a channel that receives. Clone it for more receivers, each of which gets other items; when the last is dropped, what
/// is left is dropped and sends fail (R95). Where it is borrowed, and so cannot be dropped, [`close`](Self::close) does the same.
pub struct Receiver<T> {
    handle: Handle<T>,
}

/// An item was not sent. It is in here (N6).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// The scope was cancelled.
    Cancelled(Cancelled, T),
    /// All receivers are gone.
    Closed(T),
    /// This sender was closed.
    HandleClosed(T),
}

/// An item was not sent at once. It is in here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room, or others wait for it already.
    Full(T),
    /// All receivers are gone.
    Closed(T),
    /// This sender was closed.
    HandleClosed(T),
}

/// There was no item at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is none now.
    Empty,
    /// There never will be: all senders are gone.
    Closed,
    /// This receiver was closed.
    HandleClosed,
}

impl<T> SendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Cancelled(_, item) | SendError::Closed(item) | SendError::HandleClosed(item) => item,
        }
    }
}

impl<T> TrySendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(item) | TrySendError::Closed(item) | TrySendError::HandleClosed(item) => item,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Cancelled(..) => "Cancelled(..)",
            SendError::Closed(_) => "Closed(..)",
            SendError::HandleClosed(_) => "HandleClosed(..)",
        })
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Cancelled(..) => "the send was cancelled; its item comes back in the error",
            SendError::Closed(_) => "the channel has no receiver any more; the item comes back in the error",
            SendError::HandleClosed(_) => "this sender was closed; the item comes back in the error",
        })
    }
}

static CANCELLED: Cancelled = Cancelled::delivered();

impl<T> Error for SendError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SendError::Cancelled(..) => Some(&CANCELLED),
            SendError::Closed(_) | SendError::HandleClosed(_) => None,
        }
    }
}

impl<T> From<SendError<T>> for io::Error {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Cancelled(cancelled, _) => cancelled.into(),
            SendError::Closed(_) => io::Error::new(io::ErrorKind::BrokenPipe, "the channel has no receiver any more"),
            SendError::HandleClosed(_) => io::Error::new(io::ErrorKind::NotConnected, "this sender was closed"),
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "Full(..)",
            TrySendError::Closed(_) => "Closed(..)",
            TrySendError::HandleClosed(_) => "HandleClosed(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "the channel is full",
            TrySendError::Closed(_) => "the channel has no receiver any more",
            TrySendError::HandleClosed(_) => "this sender was closed",
        })
    }
}

impl<T> Error for TrySendError<T> {}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Empty => "the channel is empty",
            TryRecvError::Closed => "the channel has no sender any more",
            TryRecvError::HandleClosed => "this receiver was closed",
        })
    }
}

impl Error for TryRecvError {}

/// R93: the own handle, no receivers, then a receiver that waits, then room.
fn offer<T>(handle: &Handle<T>, queue: &mut Locked<'_, T>, item: T) -> Result<(), TrySendError<T>> {
    if handle.is_closed() {
        return Err(TrySendError::HandleClosed(item));
    }
    if queue.receivers == 0 {
        return Err(TrySendError::Closed(item));
    }
    queue.handed += 1;
    let number = queue.handed;
    match queue.hand(RECEIVERS, Some(Slot::new(number, Some(item)))) {
        Ok(_) => Ok(()),
        Err(slot) => {
            let item = slot.and_then(|slot| slot.item).expect("what was offered comes back");
            // While senders wait, a new one goes behind them.
            if queue.buffer.len() < queue.capacity && queue.peek(SENDERS).is_none() {
                queue.buffer.push_back(item);
                Ok(())
            } else {
                Err(TrySendError::Full(item))
            }
        }
    }
}

/// R93: the own handle, the buffer and senders that wait, then the end.
fn take<T>(handle: &Handle<T>, queue: &mut Locked<'_, T>) -> Result<T, TryRecvError> {
    if handle.is_closed() {
        return Err(TryRecvError::HandleClosed);
    }
    if let Some(item) = queue.buffer.pop_front() {
        queue.returned.pop_front();
        refill(queue);
        return Ok(item);
    }
    match from_sender(queue) {
        Some(item) => Ok(item),
        None if queue.senders == 0 => Err(TryRecvError::Closed),
        None => Err(TryRecvError::Empty),
    }
}

/// The item of the sender that waits longest.
#[inline(always)]
fn from_sender<T>(queue: &mut Locked<'_, T>) -> Option<T> {
    // Mostly there is none.
    if queue.waiting(SENDERS) == 0 { None } else { from_waiting_sender(queue) }
}

#[inline(never)]
fn from_waiting_sender<T>(queue: &mut Locked<'_, T>) -> Option<T> {
    let brought = queue.hand(SENDERS, None).ok()?;
    Some(brought.and_then(|slot| slot.item).expect("a sender that waits has an item"))
}

/// Room in the buffer belongs to the senders that wait, in order.
fn refill<T>(queue: &mut Locked<'_, T>) {
    while queue.buffer.len() < queue.capacity {
        match from_sender(queue) {
            Some(item) => queue.buffer.push_back(item),
            None => return,
        }
    }
}

/// What a channel was doing at one moment (R100).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelStatistics {
    /// How many items are in the buffer.
    pub buffered: usize,
    /// How many it may hold; `usize::MAX` without a bound.
    pub capacity: usize,
    /// How many senders are open.
    pub senders: usize,
    /// How many receivers are open.
    pub receivers: usize,
    /// How many tasks wait to send.
    pub waiting_to_send: usize,
    /// How many tasks wait to receive.
    pub waiting_to_receive: usize,
}

fn statistics<T>(queue: &Queue<T>) -> ChannelStatistics {
    let mut queue = queue.lock();
    ChannelStatistics {
        buffered: queue.buffer.len(),
        capacity: queue.capacity,
        senders: queue.senders,
        receivers: queue.receivers,
        waiting_to_send: queue.count(SENDERS),
        waiting_to_receive: queue.count(RECEIVERS),
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
    pub fn send(&self, item: T) -> SendFuture<'_, T> {
        self.send_at(item, Location::caller())
    }

    /// [`send`](Self::send) on behalf of code at another place.
    pub(crate) fn send_at(&self, item: T, place: &'static Location<'static>) -> SendFuture<'_, T> {
        SendFuture { handle: &self.handle, waiter: self.handle.queue.waiter(), item: Some(item), place }
    }

    /// Sends an item if there is room now.
    ///
    /// # Errors
    /// [`TrySendError`], with the item in it.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        offer(&self.handle, &mut self.handle.queue.lock(), item)
    }

    /// Sends an item by blocking the thread while there is no room, for a thread that runs no loop.
    ///
    /// # Errors
    /// [`SendError`], with the item in it, if all receivers are gone; it is not cancelled, since no scope is around it.
    ///
    /// # Panics
    /// Inside of a run; await [`send`](Self::send) there.
    ///
    /// # Examples
    /// ```
    /// use trefoil_nursery::channel;
    /// let (sender, receiver) = channel(1);
    /// let thread = std::thread::spawn(move || (0..3).try_for_each(|i| sender.send_blocking(i)));
    /// trefoil_nursery::doc_run(async {
    ///     for i in 0..3 {
    ///         assert_eq!(receiver.recv().await, Ok(Some(i)));
    ///     }
    /// });
    /// thread.join().unwrap().unwrap();
    /// ```
    #[track_caller]
    pub fn send_blocking(&self, item: T) -> Result<(), SendError<T>> {
        blocking::check("Sender::send_blocking", "Sender::send");
        match self.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(item)) => blocking::wait(self.send(item)),
            Err(TrySendError::Closed(item)) => Err(SendError::Closed(item)),
            Err(TrySendError::HandleClosed(item)) => Err(SendError::HandleClosed(item)),
        }
    }

    /// How many items are in the buffer.
    pub fn len(&self) -> usize {
        self.handle.queue.lock().buffer.len()
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a send is bound to fail: all receivers are gone, or this sender was closed.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed() || self.handle.queue.lock().receivers == 0
    }

    /// Closes this sender, as if it were dropped: sends that wait through it end with
    /// [`HandleClosed`](SendError::HandleClosed), clones go on (R96). Again does nothing.
    pub fn close(&self) {
        let mut queue = self.handle.queue.lock();
        if self.handle.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        queue.senders -= 1;
        queue.sending.remove(self.handle.key);
        queue.release(SENDERS, |slot| slot.via == self.handle.id);
        if queue.senders == 0 {
            queue.release(RECEIVERS, |_| true);
        }
    }

    /// What the channel is doing now.
    pub fn statistics(&self) -> ChannelStatistics {
        statistics(&self.handle.queue)
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
    pub fn recv(&self) -> RecvFuture<'_, T> {
        self.recv_at(Location::caller())
    }

    /// [`recv`](Self::recv) on behalf of code at another place.
    pub(crate) fn recv_at(&self, place: &'static Location<'static>) -> RecvFuture<'_, T> {
        RecvFuture { handle: &self.handle, waiter: self.handle.queue.waiter(), place }
    }

    /// Receives an item if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        take(&self.handle, &mut self.handle.queue.lock())
    }

    /// Receives the next item by blocking the thread while there is none, for a thread that runs no loop. `None` when all senders are
    /// gone and every item was received (R94): also when a run ends that had them.
    ///
    /// # Panics
    /// Inside of a run; await [`recv`](Self::recv) there.
    ///
    /// # Examples
    /// ```
    /// use trefoil_nursery::channel;
    /// let (sender, receiver) = channel(10);
    /// let thread = std::thread::spawn(move || std::iter::from_fn(|| receiver.recv_blocking()).sum::<i32>());
    /// trefoil_nursery::doc_run(async move {
    ///     for i in 1..=3 {
    ///         sender.send(i).await.unwrap();
    ///     }
    /// });
    /// assert_eq!(thread.join().unwrap(), 6);
    /// ```
    #[track_caller]
    pub fn recv_blocking(&self) -> Option<T> {
        blocking::check("Receiver::recv_blocking", "Receiver::recv");
        match self.try_recv() {
            Ok(item) => Some(item),
            Err(TryRecvError::Closed | TryRecvError::HandleClosed) => None,
            Err(TryRecvError::Empty) => blocking::uncancelled(blocking::wait(self.recv())),
        }
    }

    /// Receives the next item by blocking the thread, for a length of time at most. Otherwise as [`recv_blocking`](Self::recv_blocking).
    ///
    /// # Errors
    /// [`TimedOut`] if there was none by then.
    ///
    /// # Panics
    /// Inside of a run; await [`recv`](Self::recv) there.
    #[track_caller]
    pub fn recv_blocking_timeout(&self, limit: Duration) -> Result<Option<T>, TimedOut> {
        blocking::check("Receiver::recv_blocking_timeout", "Receiver::recv");
        match self.try_recv() {
            Ok(item) => Ok(Some(item)),
            Err(TryRecvError::Closed | TryRecvError::HandleClosed) => Ok(None),
            Err(TryRecvError::Empty) => blocking::wait_for(limit, self.recv()),
        }
    }

    /// How many items are in the buffer.
    pub fn len(&self) -> usize {
        self.handle.queue.lock().buffer.len()
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Receiver<T> {
    /// Whether this receiver was closed.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Closes this receiver, as if it were dropped: receives that wait through it end with `Ok(None)`, clones go on (R96). The last one
    /// drops what is in the buffer, and fails the sends that wait (R95). Again does nothing.
    pub fn close(&self) {
        let mut queue = self.handle.queue.lock();
        if self.handle.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        queue.receivers -= 1;
        queue.receiving.remove(self.handle.key);
        queue.release(RECEIVERS, |slot| slot.via == self.handle.id);
        if queue.receivers == 0 {
            queue.release(SENDERS, |slot| {
                slot.broken.set(true);
                true
            });
            // Items are dropped outside of the lock.
            queue.returned.clear();
            let left = std::mem::take(&mut queue.buffer);
            drop(queue);
            drop(left);
        }
    }

    /// What the channel is doing now.
    pub fn statistics(&self) -> ChannelStatistics {
        statistics(&self.handle.queue)
    }
}

impl<T> Clone for Sender<T> {
    /// One more sender; a closed one of a closed one.
    #[track_caller]
    fn clone(&self) -> Self {
        // Under the lock, as a close: nobody comes back after the last one has gone (R94, R95).
        let mut queue = self.handle.queue.lock();
        let closed = self.handle.is_closed();
        queue.senders += usize::from(!closed);
        drop(queue);
        Self { handle: Handle::new(self.handle.queue.clone(), closed, Side::Sending, Location::caller()) }
    }
}

impl<T> Clone for Receiver<T> {
    /// One more receiver; a closed one of a closed one.
    #[track_caller]
    fn clone(&self) -> Self {
        // Under the lock, as a close: nobody comes back after the last one has gone (R94, R95).
        let mut queue = self.handle.queue.lock();
        let closed = self.handle.is_closed();
        queue.receivers += usize::from(!closed);
        drop(queue);
        Self { handle: Handle::new(self.handle.queue.clone(), closed, Side::Receiving, Location::caller()) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Sender", &self.handle, f)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Receiver", &self.handle, f)
    }
}

fn debug<T>(name: &str, handle: &Handle<T>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let channel = statistics(&handle.queue);
    let mut debug = f.debug_struct(name);
    debug.field("closed", &handle.is_closed()).field("items", &channel.buffered);
    match channel.capacity {
        usize::MAX => debug.field("capacity", &"unbounded"),
        capacity => debug.field("capacity", &capacity),
    };
    debug
        .field("senders", &channel.senders)
        .field("receivers", &channel.receivers)
        .field("waiting_to_send", &channel.waiting_to_send)
        .field("waiting_to_receive", &channel.waiting_to_receive)
        .finish()
}

/// The future of [`Sender::send`].
#[must_use = "a send does nothing until it is awaited"]
pub struct SendFuture<'a, T> {
    handle: &'a Handle<T>,
    waiter: Waiter<'a, State<T>, Slot<T>, 2>,
    item: Option<T>,
    place: &'static Location<'static>,
}

impl<T> fmt::Debug for SendFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendFuture").field(&self.waiter).finish()
    }
}

impl<T> Future for SendFuture<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this; `item` is not.
        let (handle, waiter, item, place) = unsafe {
            let this = self.get_unchecked_mut();
            (this.handle, Pin::new_unchecked(&mut this.waiter), &mut this.item, this.place)
        };
        let wait = Wait::new(Reason::Send).at(place);
        let failed = |item| if handle.is_closed() { SendError::HandleClosed(item) } else { SendError::Closed(item) };
        let polled = waiter.poll(cx, wait, |queue| {
            match offer(handle, queue, item.take().expect("polled after it was ready")) {
                Ok(()) => Turn::Ready(Ok(())),
                Err(TrySendError::Full(item)) => {
                    let receivers = queue.receiving.thing();
                    Turn::WaitFor(SENDERS, Some(Slot::new(handle.id, Some(item))), receivers, 1)
                }
                Err(TrySendError::Closed(item) | TrySendError::HandleClosed(item)) => Turn::Ready(Err(failed(item))),
            }
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(result)) => result,
            // Taken; or given back, because nobody is left to take it.
            Ok(Handed::Handed(slot)) => match slot {
                Some(Slot { item: Some(item), broken, .. }) if broken.get() => Err(SendError::Closed(item)),
                Some(Slot { item: Some(item), .. }) => Err(SendError::HandleClosed(item)),
                _ => Ok(()),
            },
            Err((cancelled, brought)) => {
                let item =
                    brought.and_then(|slot| slot.item).or_else(|| item.take()).expect("the item is in one place");
                Err(SendError::Cancelled(cancelled, item))
            }
        })
    }
}

/// The future of [`Receiver::recv`].
#[must_use = "a receive does nothing until it is awaited"]
pub struct RecvFuture<'a, T> {
    handle: &'a Handle<T>,
    waiter: Waiter<'a, State<T>, Slot<T>, 2>,
    place: &'static Location<'static>,
}

impl<T> fmt::Debug for RecvFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvFuture").field(&self.waiter).finish()
    }
}

impl<T> Future for RecvFuture<'_, T> {
    type Output = Result<Option<T>, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `waiter` is pinned with this.
        let (handle, waiter, place) = unsafe {
            let this = self.get_unchecked_mut();
            (this.handle, Pin::new_unchecked(&mut this.waiter), this.place)
        };
        let wait = Wait::new(Reason::Receive).at(place);
        let polled = waiter.poll(cx, wait, |queue| match take(handle, queue) {
            Ok(item) => Turn::Ready(Some(item)),
            Err(TryRecvError::Closed | TryRecvError::HandleClosed) => Turn::Ready(None),
            Err(TryRecvError::Empty) => {
                let senders = queue.sending.thing();
                Turn::WaitFor(RECEIVERS, Some(Slot::new(handle.id, None)), senders, 1)
            }
        });
        Poll::Ready(match ready!(polled) {
            Ok(Handed::Ready(item)) => Ok(item),
            Ok(Handed::Handed(slot)) => Ok(slot.and_then(|slot| slot.item)),
            Err((cancelled, _)) => Err(cancelled),
        })
    }
}

impl<T> Drop for RecvFuture<'_, T> {
    fn drop(&mut self) {
        // SAFETY: pinned, and not moved.
        let waiter = unsafe { Pin::new_unchecked(&mut self.waiter) };
        let queue = waiter.queue();
        if let Some(Some(Slot { item: Some(item), via, .. })) = waiter.withdraw() {
            // N5: it was handed an item and never looked.
            let mut queue = queue.lock();
            if let Err(Some(Slot { item: Some(item), .. })) = queue.hand(RECEIVERS, Some(Slot::new(via, Some(item)))) {
                if queue.receivers == 0 {
                    // R95: as what was in the buffer; outside of the lock.
                    drop(queue);
                    return drop(item);
                }
                let place = queue.returned.partition_point(|&number| number < via);
                queue.returned.insert(place, via);
                queue.buffer.insert(place, item);
            }
        }
    }
}
