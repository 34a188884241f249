//! Memory channels: items in order, between tasks, with or without a bound.
//!
//! One queue with two lists: receivers that wait for an item, and senders that wait for room, each of which brings its item. A send
//! hands its item to the oldest receiver; a receive that makes room takes the item of the oldest sender in. So nobody barges
//! (R92), and an item is in one place always: with a sender, in the buffer, or with a receiver.

mod errors;
mod receiver;
mod sender;
mod statistics;

pub use errors::{SendError, TryRecvError, TrySendError};
pub use receiver::{Receiver, RecvFuture};
pub use sender::{SendFuture, Sender};
pub use statistics::ChannelStatistics;

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::Location;
use std::sync::Arc;
use trefoil_runtime::sync::{AtomicBool, Ordering};
use trefoil_runtime::{Guard, Holder, HolderKey, Holders, Holding, WaitQueue};

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
    /// While it waits, the handle through which it does (R96). With an item for a receiver, the number of that (R92). With one that nobody is left
    /// to take, [`BROKEN`].
    via: Cell<usize>,
    item: Option<T>,
}

/// The last receiver went away while this waited (R95): the first reason counts, also where the own handle is closed after (R18). Handles and items
/// are counted from 1.
const BROKEN: usize = 0;

impl<T> Slot<T> {
    fn new(via: usize, item: Option<T>) -> Self {
        Self { via: Cell::new(via), item }
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
#[doc(alias("mpsc"))]
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
#[doc(alias("unbounded_channel"))]
#[track_caller]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(usize::MAX)
}

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
