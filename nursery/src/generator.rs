//! [`generator`]: a task that makes items one at a time, when they are asked for (R101).
//!
//! It is a nursery whose body is the consumer and whose child is the producer, with a baton between them: `demanded`. The producer
//! runs only while it has that; a send gives it back, and ends when it comes again. Item and baton are in the state of one
//! [`WaitQueue`]; who waits is only woken. So an item that nobody has looked at yet stays where it is, whoever is dropped or cancelled.

use crate::branches::{cancelled_here, into_inner, lock};
use crate::channel::SendError;
use crate::join::Join;
use crate::nursery::{Nursery, Open, Parts};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use trefoil_runtime::{CancelAware, Cancelled, ErrorGroup, Handed, Reason, Source, Turn, Wait, WaitQueue};

const PRODUCER: usize = 0;
const CONSUMER: usize = 1;

struct State<T> {
    /// An item was asked for, and has not come yet. Then there is none.
    demanded: bool,
    item: Option<T>,
    producer: Producer,
}

#[derive(Clone, Copy, PartialEq)]
enum Producer {
    Running,
    /// It has returned: there are no more items.
    Ended,
    /// It failed, panicked, or was destroyed. The nursery knows.
    Failed,
}

type Queue<T> = WaitQueue<State<T>, (), 2>;

/// Why a producer is not asked for an item.
enum Stopped {
    Cancelled(Cancelled),
    Closed,
}

/// Waits until an item is asked for.
async fn demand<T>(queue: &Queue<T>, place: &'static Location<'static>) -> Result<(), Stopped> {
    let mut waiter = pin!(queue.waiter());
    let waited = poll_fn(|cx| {
        waiter.as_mut().poll(cx, Wait::new(Reason::Custom("the next item to be asked for")).at(place), |state| {
            match (state.demanded, state.producer) {
                (_, Producer::Ended | Producer::Failed) => Turn::Ready(Err(Stopped::Closed)),
                (true, Producer::Running) => Turn::Ready(Ok(())),
                (false, Producer::Running) => Turn::Wait(PRODUCER, None),
            }
        })
    })
    .await;
    match waited {
        Ok(Handed::Ready(demanded)) => demanded,
        Ok(Handed::Handed(_)) if queue.lock().demanded => Ok(()),
        Ok(Handed::Handed(_)) => Err(Stopped::Closed),
        Err((cancelled, _)) => Err(Stopped::Cancelled(cancelled)),
    }
}

/// The side of a [`generator`] that makes items.
pub struct Yielder<T> {
    queue: Arc<Queue<T>>,
}

/// The side of a [`generator`] that asks for items.
pub struct Items<T> {
    queue: Arc<Queue<T>>,
}

impl<T> fmt::Debug for Yielder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Yielder").field("demanded", &self.queue.lock().demanded).finish()
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.queue.lock();
        f.debug_struct("Items").field("ended", &(state.producer != Producer::Running)).finish()
    }
}

impl<T> Yielder<T> {
    /// Gives the consumer the item that it waits for, and returns when the next one is asked for.
    ///
    /// # Errors
    /// [`SendError`], with the item in it, if the scope is cancelled, or the generator has ended.
    ///
    /// # Cancellation
    /// Before: the item was not sent, and comes back. After, while this waits to be asked for the next: this returns `Ok`, and the next operation
    /// is cancelled (R39).
    #[track_caller]
    pub fn send(&mut self, item: T) -> impl Future<Output = Result<(), SendError<T>>> + use<'_, T> {
        let place = Location::caller();
        async move {
            match demand(&self.queue, place).await {
                Ok(()) => {}
                Err(Stopped::Cancelled(cancelled)) => return Err(SendError::Cancelled(cancelled, item)),
                Err(Stopped::Closed) => return Err(SendError::Closed(item)),
            }
            {
                let mut state = self.queue.lock();
                state.demanded = false;
                state.item = Some(item);
                let _ = state.hand(CONSUMER, None);
            }
            let _ = demand(&self.queue, place).await;
            Ok(())
        }
    }
}

impl<T> Items<T> {
    /// Asks for the next item: the producer runs until it has one. `Ok(None)` when the producer has returned.
    ///
    /// # Errors
    /// [`Cancelled`] if the scope is cancelled, also because the producer has failed: then its error is the result of the
    /// [`generator`].
    ///
    /// # Cancellation
    /// No item is lost: one that comes later is the next one. The producer goes on until it has it.
    #[allow(clippy::should_implement_trait, reason = "it is named as that of streams")]
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Result<Option<T>, Cancelled>> + use<'_, T> {
        self.next_at(Location::caller())
    }

    /// [`next`](Self::next) on behalf of code at another place.
    pub(crate) async fn next_at(&mut self, place: &'static Location<'static>) -> Result<Option<T>, Cancelled> {
        let mut waiter = pin!(self.queue.waiter());
        let waited = poll_fn(|cx| {
            waiter.as_mut().poll(cx, Wait::new(Reason::Custom("an item of a generator")).at(place), |state| {
                if state.item.is_some() || state.producer != Producer::Running {
                    return Turn::Ready(());
                }
                state.demanded = true;
                let _ = state.hand(PRODUCER, None);
                Turn::Wait(CONSUMER, None)
            })
        })
        .await;
        waited.map_err(|(cancelled, _)| cancelled)?;
        let mut state = self.queue.lock();
        match (state.item.take(), state.producer) {
            (Some(item), _) => Ok(Some(item)),
            (None, Producer::Ended) => Ok(None),
            (None, _) => Err(Cancelled::delivered()),
        }
    }
}

/// Says that there will be no more items, however the producer goes.
struct Ended<T> {
    queue: Arc<Queue<T>>,
}

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        if state.producer == Producer::Running {
            state.producer = Producer::Failed;
        }
        state.demanded = false;
        let _ = state.hand(CONSUMER, None);
        let _ = state.hand(PRODUCER, None);
    }
}

/// Runs a producer that makes items for a consumer, which is the block: the result is the consumer's.
///
/// The producer is a task of its own, so it may open nurseries and cancel scopes around a [`send`](Yielder::send), and none of them reaches
/// the consumer. It runs only when it is [asked](Items::next) for an item: it begins at the first, nothing is made in advance, and it
/// stands still while the consumer handles an item (R101). When the consumer ends, the producer is cancelled and awaited.
///
/// Both may borrow what was declared before, and so may the items.
///
/// # Errors
/// The error of the consumer or of the producer, as it is; if both fail, the group of the two, made into an error by `From`.
///
/// # Cancellation
/// Reaches both, and this ends when both have. If the consumer has a value all the same, that is the result.
///
/// # Panics
/// With the panic of one of them, after the other was cancelled and awaited (N9). Outside of a run.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(async {
/// use trefoil_nursery::{generator, sleep};
/// use std::{io, time::Duration};
/// let text = String::from("three leaves make a trefoil");
/// let first_long = generator(
///     async |mut out| {
///         for word in text.split(' ') {
///             sleep(Duration::from_millis(1)).await?;
///             out.send(word).await?;
///         }
///         Ok(())
///     },
///     async |mut words| -> io::Result<_> {
///         while let Some(word) = words.next().await? {
///             if word.len() > 5 {
///                 return Ok(Some(word)); // and the producer is stopped
///             }
///         }
///         Ok(None)
///     },
/// )
/// .await?;
/// assert_eq!(first_long, Some("leaves"));
/// # Ok::<(), io::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn generator<T, P, PF, C, CF, R, E>(
    producer: P,
    consumer: C,
) -> impl Future<Output = Result<R, E>> + use<T, P, PF, C, CF, R, E>
where
    P: FnOnce(Yielder<T>) -> PF,
    PF: Future<Output = Result<(), E>>,
    C: FnOnce(Items<T>) -> CF,
    CF: Future<Output = Result<R, E>>,
    E: CancelAware + From<ErrorGroup<E>>,
{
    run(producer, consumer, Location::caller())
}

/// What the child is made of.
type Of<T, P, PF> = Parts<(P, PF, Arc<Queue<T>>)>;

async fn run<T, P, PF, C, CF, R, E>(producer: P, consumer: C, place: &'static Location<'static>) -> Result<R, E>
where
    P: FnOnce(Yielder<T>) -> PF,
    PF: Future<Output = Result<(), E>>,
    C: FnOnce(Items<T>) -> CF,
    CF: Future<Output = Result<R, E>>,
    E: CancelAware + From<ErrorGroup<E>>,
{
    let queue = Arc::new(Queue::new(State { demanded: false, item: None, producer: Producer::Running }));
    let result = Mutex::new(None);
    let got = &result;
    let ended = Open::new(
        move |nursery: Nursery<'_, '_, E, Of<T, P, PF>>| async move {
            let ended = Ended { queue: queue.clone() };
            drop::<Join<'_, ()>>(nursery.spawn_any(
                async move {
                    let queue = ended.queue.clone();
                    if let Err(Stopped::Cancelled(cancelled)) = demand(&queue, place).await {
                        return Err(cancelled.into());
                    }
                    let result = producer(Yielder { queue }).await;
                    if result.is_ok() {
                        ended.queue.lock().producer = Producer::Ended;
                    }
                    result
                },
                place,
            ));
            let value = consumer(Items { queue }).await?;
            *lock(got) = Some(value);
            nursery.scope().cancel(Source::Enough, place);
            Ok(())
        },
        place,
    )
    .await;
    match (ended, into_inner(result)) {
        (Ok(()), Some(value)) => Ok(value),
        // R29: nothing went wrong but that the producer was cancelled, from outside as well.
        (Err(group), Some(value)) if group.is_cancelled() && cancelled_here() => Ok(value),
        (Err(group), _) if group.len() == 1 => Err(group.into_first()),
        (Err(group), _) => Err(group.into()),
        (Ok(()), None) => Err(Cancelled::delivered().into()),
    }
}
