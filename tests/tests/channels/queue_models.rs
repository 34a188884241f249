//! Channel, semaphore, rwlock and condition against sequential models of them: random operations, cancels and drops of waiters, step by
//! step, each with exactly one right outcome. R18, R19, R36, R76, R77, R80, R82, R92–R96, R98, R100, N1, N5, N6.
//!
//! All operations are polled by one task, when the program says so; an operation runs in a scope of its own, by which it is cancelled. So
//! everything between "it was handed over" and "it looked" occurs.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use trefoil_nursery::sync::{Condition, Mutex, MutexGuard, Permits, ReadGuard, RwLock, Semaphore, WriteGuard};
use trefoil_nursery::{
    CancelScope, Cancelled, ChannelStatistics, Receiver, SendError, Sender, TryRecvError, TrySendError, channel,
    yield_now,
};
use trefoil_tests::{poll_once, run_virtual};

type Checked = Result<(), TestCaseError>;

/// What to do, and two numbers that say to what.
type Step = (u8, u8, u8);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec((0..100u8, any::<u8>(), any::<u8>()), 1..70)
}

/// An operation that has not ended, in its scope.
struct Pending<'a, T> {
    id: usize,
    scope: CancelScope,
    #[allow(clippy::type_complexity)]
    future: Pin<Box<dyn Future<Output = Result<Option<T>, Cancelled>> + 'a>>,
}

/// All that have not ended.
struct Operations<'a, T> {
    all: Vec<Pending<'a, T>>,
    next: usize,
}

impl<'a, T> Operations<'a, T> {
    fn new() -> Self {
        Self { all: Vec::new(), next: 0 }
    }

    /// Polls one for the first time; its outcome if it need not wait. `Some(None)` where it was cancelled.
    async fn begin(
        &mut self,
        operation: impl Future<Output = Result<T, Cancelled>> + 'a,
    ) -> (usize, Option<Option<T>>) {
        let (id, scope) = (self.next, CancelScope::new());
        self.next += 1;
        let future = Box::pin(scope.run(operation));
        self.all.push(Pending { id, scope, future });
        (id, self.poll(self.all.len() - 1).await)
    }

    /// Polls one again.
    async fn poll(&mut self, at: usize) -> Option<Option<T>> {
        // Each has the whole budget of a turn (N11).
        yield_now().await;
        match poll_once(self.all[at].future.as_mut()).await {
            Poll::Pending => None,
            Poll::Ready(result) => {
                self.all.remove(at);
                Some(result.expect("its own scope is the only one"))
            }
        }
    }

    /// One that has not ended, by a random number.
    fn pick(&self, number: u8) -> Option<(usize, usize)> {
        let at = usize::from(number).checked_rem(self.all.len())?;
        Some((at, self.all[at].id))
    }
}

// ---- Semaphore ----------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    Waits,
    Served,
    Aborted,
}

/// Who waits, in order, and with what.
#[derive(Debug)]
struct Line<T> {
    all: Vec<(usize, T, Wait)>,
}

impl<T: Copy> Line<T> {
    fn new() -> Self {
        Self { all: Vec::new() }
    }

    fn first(&self) -> Option<(usize, T)> {
        self.all.iter().find(|w| w.2 == Wait::Waits).map(|&(id, what, _)| (id, what))
    }

    fn set(&mut self, id: usize, wait: Wait) {
        self.all.iter_mut().find(|w| w.0 == id).expect("it is there").2 = wait;
    }

    fn remove(&mut self, id: usize) -> (T, Wait) {
        let at = self.all.iter().position(|w| w.0 == id).expect("it is there");
        let (_, what, wait) = self.all.remove(at);
        (what, wait)
    }

    fn wait(&self, id: usize) -> Wait {
        self.all.iter().find(|w| w.0 == id).expect("it is there").2
    }

    fn cancel(&mut self, id: usize) {
        if self.wait(id) == Wait::Waits {
            self.set(id, Wait::Aborted);
        }
    }
}

struct SemaphoreModel {
    available: usize,
    line: Line<usize>,
}

impl SemaphoreModel {
    fn serve(&mut self) {
        while let Some((id, n)) = self.line.first() {
            if n > self.available {
                return;
            }
            self.available -= n;
            self.line.set(id, Wait::Served);
        }
    }

    fn take(&mut self, n: usize) -> bool {
        let free = self.line.first().is_none() && n <= self.available;
        self.available -= if free { n } else { 0 };
        free
    }

    fn give(&mut self, n: usize) {
        self.available += n;
        self.serve();
    }
}

async fn semaphore(initial: usize, steps: &[Step]) -> Checked {
    let semaphore = Semaphore::new(initial);
    let mut model = SemaphoreModel { available: initial, line: Line::new() };
    let mut total = initial;
    let mut held: Vec<Permits<'_>> = Vec::new();
    let mut operations = Operations::new();
    for &(what, a, b) in steps {
        let n = usize::from(a % 4);
        match what {
            0..30 => {
                let free = model.take(n);
                let (id, out) = operations.begin(semaphore.acquire(n)).await;
                prop_assert_eq!(out.is_some(), free, "acquire {}", n);
                match out {
                    Some(permits) => held.push(permits.expect("not cancelled")),
                    None => model.line.all.push((id, n, Wait::Waits)),
                }
            }
            30..36 => {
                let out = semaphore.try_acquire(n);
                prop_assert_eq!(out.is_ok(), model.take(n), "try_acquire {}", n);
                held.extend(out);
            }
            36..60 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                let out = operations.poll(at).await;
                match model.line.wait(id) {
                    Wait::Waits => prop_assert!(out.is_none(), "it waits"),
                    Wait::Served => {
                        let (n, _) = model.line.remove(id);
                        let permits = out.flatten().expect("R18: it was served");
                        prop_assert_eq!(permits.count(), n);
                        held.push(permits);
                    }
                    Wait::Aborted => {
                        model.line.remove(id);
                        prop_assert!(matches!(out, Some(None)), "R19: it was cancelled");
                        model.serve();
                    }
                }
            }
            60..70 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                operations.all[at].scope.cancel();
                model.line.cancel(id);
            }
            70..80 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                drop(operations.all.remove(at));
                match model.line.remove(id) {
                    (n, Wait::Served) => model.give(n),
                    _ => model.serve(),
                }
            }
            80..96 => {
                let Some(at) = usize::from(b).checked_rem(held.len()) else { continue };
                let permits = held.remove(at);
                // Who gives nothing back looks after nobody: those behind one that was cancelled are served when that one has looked.
                if permits.count() > 0 {
                    model.give(permits.count());
                }
                drop(permits);
            }
            96..98 => {
                semaphore.add(n);
                total += n;
                model.give(n);
            }
            _ => {
                let Some(permits) = held.pop() else { continue };
                total -= permits.count();
                permits.forget();
            }
        }
        prop_assert_eq!(semaphore.available(), model.available);
    }
    drop(operations);
    drop(held);
    prop_assert_eq!(semaphore.available(), total, "permits are conserved");
    Ok(())
}

// ---- RwLock -------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    Read,
    Write,
}

#[allow(dead_code)]
enum RwGuard<'a> {
    Read(ReadGuard<'a, u32>),
    Write(WriteGuard<'a, u32>),
}

impl RwGuard<'_> {
    fn access(&self) -> Access {
        match self {
            RwGuard::Read(_) => Access::Read,
            RwGuard::Write(_) => Access::Write,
        }
    }
}

struct RwModel {
    readers: usize,
    writer: bool,
    line: Line<Access>,
}

impl RwModel {
    fn allows(&self, access: Access) -> bool {
        !self.writer && (access == Access::Read || self.readers == 0)
    }

    fn grant(&mut self, access: Access) {
        match access {
            Access::Read => self.readers += 1,
            Access::Write => self.writer = true,
        }
    }

    fn serve(&mut self) {
        while let Some((id, access)) = self.line.first() {
            if !self.allows(access) {
                return;
            }
            self.grant(access);
            self.line.set(id, Wait::Served);
        }
    }

    fn take(&mut self, access: Access) -> bool {
        let free = self.line.first().is_none() && self.allows(access);
        if free {
            self.grant(access);
        }
        free
    }

    fn give(&mut self, access: Access) {
        match access {
            Access::Read => self.readers -= 1,
            Access::Write => self.writer = false,
        }
        self.serve();
    }
}

async fn rwlock(steps: &[Step]) -> Checked {
    let lock = RwLock::new(0);
    let mut model = RwModel { readers: 0, writer: false, line: Line::new() };
    let mut held: Vec<RwGuard<'_>> = Vec::new();
    let mut operations = Operations::new();
    for &(what, a, b) in steps {
        let access = if b % 3 == 0 { Access::Write } else { Access::Read };
        match what {
            0..35 => {
                let free = model.take(access);
                let lock = &lock;
                let (id, out) = operations
                    .begin(async move {
                        Ok(match access {
                            Access::Read => RwGuard::Read(lock.read().await?),
                            Access::Write => RwGuard::Write(lock.write().await?),
                        })
                    })
                    .await;
                prop_assert_eq!(out.is_some(), free, "{:?}", access);
                match out {
                    Some(guard) => held.push(guard.expect("not cancelled")),
                    None => model.line.all.push((id, access, Wait::Waits)),
                }
            }
            35..42 => {
                let out = match access {
                    Access::Read => lock.try_read().map(RwGuard::Read),
                    Access::Write => lock.try_write().map(RwGuard::Write),
                };
                prop_assert_eq!(out.is_ok(), model.take(access), "try {:?}", access);
                held.extend(out);
            }
            42..62 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                let out = operations.poll(at).await;
                match model.line.wait(id) {
                    Wait::Waits => prop_assert!(out.is_none(), "it waits"),
                    Wait::Served => {
                        let (access, _) = model.line.remove(id);
                        let guard = out.flatten().expect("R18: it was served");
                        prop_assert_eq!(guard.access(), access);
                        held.push(guard);
                    }
                    Wait::Aborted => {
                        model.line.remove(id);
                        prop_assert!(matches!(out, Some(None)), "R19: it was cancelled");
                        model.serve();
                    }
                }
            }
            62..72 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                operations.all[at].scope.cancel();
                model.line.cancel(id);
            }
            72..82 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                drop(operations.all.remove(at));
                match model.line.remove(id) {
                    (access, Wait::Served) => model.give(access),
                    _ => model.serve(),
                }
            }
            _ => {
                let Some(at) = usize::from(b).checked_rem(held.len()) else { continue };
                let mut guard = held.remove(at);
                if let RwGuard::Write(value) = &mut guard {
                    **value += 1;
                }
                model.give(guard.access());
                drop(guard);
            }
        }
        let writers = held.iter().filter(|g| g.access() == Access::Write).count();
        prop_assert!(writers == 0 || held.len() == 1, "a writer is alone");
    }
    drop(operations);
    drop(held);
    prop_assert!(lock.try_write().is_ok());
    Ok(())
}

// ---- Channel ------------------------------------------------------------------------------------------------------------

/// What an operation on the channel has come to, whether or not it has looked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stand {
    Sends(u32),
    Taken,
    Broken(u32),
    HandleClosed(u32),
    SendAborted(u32),
    Receives,
    Got(usize, u32),
    End,
    ReceiveAborted,
}

#[derive(Debug)]
enum Result2 {
    Sent(Result<(), SendError<u32>>),
    Received(Option<u32>),
}

struct ChannelModel {
    capacity: usize,
    buffer: VecDeque<u32>,
    /// Those that were handed to receivers and came back, by number.
    returned: BTreeMap<usize, u32>,
    handed: usize,
    senders: [bool; 2],
    receivers: [bool; 2],
    /// `(id, handle, stand)`, in order.
    all: Vec<(usize, usize, Stand)>,
    lost: Vec<u32>,
}

impl ChannelModel {
    fn open(side: [bool; 2]) -> usize {
        side.iter().filter(|&&open| open).count()
    }

    fn first(&mut self, of: fn(&Stand) -> bool) -> Option<&mut (usize, usize, Stand)> {
        self.all.iter_mut().find(|one| of(&one.2))
    }

    fn buffered(&self) -> usize {
        self.buffer.len() + self.returned.len()
    }

    /// To the oldest receiver that waits.
    fn hand(&mut self, number: usize, item: u32) -> bool {
        let receiver = self.first(|s| *s == Stand::Receives);
        let found = receiver.is_some();
        if let Some(receiver) = receiver {
            receiver.2 = Stand::Got(number, item);
        }
        found
    }

    fn next_of_sender(&mut self) -> Option<u32> {
        let sender = self.first(|s| matches!(s, Stand::Sends(_)))?;
        let Stand::Sends(item) = std::mem::replace(&mut sender.2, Stand::Taken) else { unreachable!() };
        Some(item)
    }

    fn offer(&mut self, handle: usize, item: u32) -> Result<(), TrySendError<u32>> {
        if !self.senders[handle] {
            return Err(TrySendError::HandleClosed(item));
        }
        if Self::open(self.receivers) == 0 {
            return Err(TrySendError::Closed(item));
        }
        self.handed += 1;
        if self.hand(self.handed, item) {
            return Ok(());
        }
        if self.buffered() < self.capacity && self.first(|s| matches!(s, Stand::Sends(_))).is_none() {
            self.buffer.push_back(item);
            return Ok(());
        }
        Err(TrySendError::Full(item))
    }

    fn take(&mut self, handle: usize) -> Result<u32, TryRecvError> {
        if !self.receivers[handle] {
            return Err(TryRecvError::HandleClosed);
        }
        let item = match self.returned.pop_first() {
            Some((_, item)) => Some(item),
            None => self.buffer.pop_front(),
        };
        if let Some(item) = item {
            while self.buffered() < self.capacity {
                match self.next_of_sender() {
                    Some(item) => self.buffer.push_back(item),
                    None => break,
                }
            }
            return Ok(item);
        }
        match self.next_of_sender() {
            Some(item) => Ok(item),
            None if Self::open(self.senders) == 0 => Err(TryRecvError::Closed),
            None => Err(TryRecvError::Empty),
        }
    }

    fn close_sender(&mut self, handle: usize) {
        if !std::mem::take(&mut self.senders[handle]) {
            return;
        }
        let last = Self::open(self.senders) == 0;
        for (_, via, stand) in &mut self.all {
            match *stand {
                Stand::Sends(item) if *via == handle => *stand = Stand::HandleClosed(item),
                Stand::Receives if last => *stand = Stand::End,
                _ => {}
            }
        }
    }

    fn close_receiver(&mut self, handle: usize) {
        if !std::mem::take(&mut self.receivers[handle]) {
            return;
        }
        let last = Self::open(self.receivers) == 0;
        for (_, via, stand) in &mut self.all {
            match *stand {
                Stand::Receives if *via == handle => *stand = Stand::End,
                Stand::Sends(item) if last => *stand = Stand::Broken(item),
                _ => {}
            }
        }
        if last {
            self.lost.extend(std::mem::take(&mut self.returned).into_values());
            self.lost.extend(self.buffer.drain(..));
        }
    }

    fn statistics(&self) -> ChannelStatistics {
        let count = |of: fn(&Stand) -> bool| self.all.iter().filter(|one| of(&one.2)).count();
        ChannelStatistics {
            buffered: self.buffered(),
            capacity: self.capacity,
            senders: Self::open(self.senders),
            receivers: Self::open(self.receivers),
            waiting_to_send: count(|s| matches!(s, Stand::Sends(_))),
            waiting_to_receive: count(|s| *s == Stand::Receives),
        }
    }
}

async fn memory_channel(capacity: usize, steps: &[Step], close: bool) -> Checked {
    let (tx, rx): (Sender<u32>, Receiver<u32>) = channel(capacity);
    let (txs, rxs) = ([tx.clone(), tx], [rx.clone(), rx]);
    let mut model = ChannelModel {
        capacity,
        buffer: VecDeque::new(),
        returned: BTreeMap::new(),
        handed: 0,
        senders: [true; 2],
        receivers: [true; 2],
        all: Vec::new(),
        lost: Vec::new(),
    };
    let mut operations = Operations::new();
    // Every item is in one of these at the end.
    let (mut item, mut received, mut back) = (0, Vec::new(), Vec::new());
    for &(what, a, b) in steps {
        let handle = usize::from(b % 2);
        match what {
            0..22 => {
                item += 1;
                let expected = model.offer(handle, item);
                let tx = &txs[handle];
                let (id, out) = operations.begin(async move { Ok(Result2::Sent(tx.send(item).await)) }).await;
                match (expected, out) {
                    (Ok(()), Some(Some(Result2::Sent(Ok(()))))) => {}
                    (Err(TrySendError::Closed(i)), Some(Some(Result2::Sent(Err(SendError::Closed(j))))))
                    | (
                        Err(TrySendError::HandleClosed(i)),
                        Some(Some(Result2::Sent(Err(SendError::HandleClosed(j))))),
                    ) => {
                        prop_assert_eq!(i, j);
                        back.push(j);
                    }
                    (Err(TrySendError::Full(item)), None) => model.all.push((id, handle, Stand::Sends(item))),
                    other => prop_assert!(false, "send: {:?}", other),
                }
            }
            22..44 => {
                let expected = model.take(handle);
                let rx = &rxs[handle];
                let (id, out) = operations.begin(async move { Ok(Result2::Received(rx.recv().await?)) }).await;
                match (expected, out) {
                    (Ok(i), Some(Some(Result2::Received(Some(j))))) => {
                        prop_assert_eq!(i, j);
                        received.push(j);
                    }
                    (Err(TryRecvError::Closed | TryRecvError::HandleClosed), Some(Some(Result2::Received(None)))) => {}
                    (Err(TryRecvError::Empty), None) => model.all.push((id, handle, Stand::Receives)),
                    other => prop_assert!(false, "recv: {:?}", other),
                }
            }
            44..50 => {
                item += 1;
                let out = txs[handle].try_send(item);
                prop_assert_eq!(out, model.offer(handle, item));
                back.extend(out.err().map(TrySendError::into_inner));
            }
            50..56 => {
                let out = rxs[handle].try_recv();
                prop_assert_eq!(out, model.take(handle));
                received.extend(out);
            }
            56..78 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                let out = operations.poll(at).await;
                let place = model.all.iter().position(|one| one.0 == id).expect("it is there");
                let stand = model.all[place].2;
                if out.is_some() {
                    model.all.remove(place);
                }
                match (stand, out) {
                    (Stand::Sends(_) | Stand::Receives, None)
                    | (Stand::Taken, Some(Some(Result2::Sent(Ok(())))))
                    | (Stand::End, Some(Some(Result2::Received(None))))
                    | (Stand::ReceiveAborted, Some(None)) => {}
                    (Stand::Broken(i), Some(Some(Result2::Sent(Err(SendError::Closed(j))))))
                    | (Stand::HandleClosed(i), Some(Some(Result2::Sent(Err(SendError::HandleClosed(j))))))
                    | (Stand::SendAborted(i), Some(Some(Result2::Sent(Err(SendError::Cancelled(_, j)))))) => {
                        prop_assert_eq!(i, j);
                        back.push(j);
                    }
                    (Stand::Got(_, i), Some(Some(Result2::Received(Some(j))))) => {
                        prop_assert_eq!(i, j);
                        received.push(j);
                    }
                    other => prop_assert!(false, "poll: {:?}", other),
                }
            }
            78..86 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                operations.all[at].scope.cancel();
                let one = model.all.iter_mut().find(|one| one.0 == id).expect("it is there");
                match one.2 {
                    Stand::Sends(item) => one.2 = Stand::SendAborted(item),
                    Stand::Receives => one.2 = Stand::ReceiveAborted,
                    _ => {}
                }
            }
            86..94 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                drop(operations.all.remove(at));
                let place = model.all.iter().position(|one| one.0 == id).expect("it is there");
                match model.all.remove(place).2 {
                    // With the future goes what it did not send.
                    Stand::Sends(item) | Stand::Broken(item) | Stand::HandleClosed(item) | Stand::SendAborted(item) => {
                        model.lost.push(item);
                    }
                    // N5.
                    Stand::Got(number, item) if !model.hand(number, item) => {
                        if ChannelModel::open(model.receivers) == 0 {
                            model.lost.push(item);
                        } else {
                            model.returned.insert(number, item);
                        }
                    }
                    _ => {}
                }
            }
            94..97 if close => {
                txs[handle].close();
                model.close_sender(handle);
            }
            97.. if close => {
                rxs[handle].close();
                model.close_receiver(handle);
            }
            _ => {}
        }
        prop_assert_eq!(txs[0].statistics(), model.statistics());
        prop_assert_eq!((txs[0].len(), rxs[1].len()), (model.buffered(), model.buffered()));
        prop_assert_eq!(rxs[handle].is_closed(), !model.receivers[handle]);
    }
    // What receivers have that have not looked goes back, in order, and comes out before what is behind it.
    for one in std::mem::take(&mut model.all) {
        match one.2 {
            Stand::Sends(item) | Stand::Broken(item) | Stand::HandleClosed(item) | Stand::SendAborted(item) => {
                model.lost.push(item);
            }
            Stand::Got(number, item) if ChannelModel::open(model.receivers) > 0 => {
                model.returned.insert(number, item);
            }
            Stand::Got(_, item) => model.lost.push(item),
            _ => {}
        }
    }
    drop(operations);
    let left: Vec<u32> = model.returned.values().chain(&model.buffer).copied().collect();
    let mut drained = Vec::new();
    for rx in rxs.iter().filter(|rx| !rx.is_closed()) {
        drained.extend(std::iter::from_fn(|| rx.try_recv().ok()));
    }
    prop_assert_eq!(&drained, &left);
    let mut all: Vec<u32> = [received, back, drained, model.lost].concat();
    all.sort();
    prop_assert_eq!(all, (1..=item).collect::<Vec<_>>(), "every item is in one place");
    Ok(())
}

// ---- Condition ----------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// `lock()`.
    LockWaits,
    LockHas,
    LockAborted,
    /// `wait()`, for the condition of this number.
    Waits(usize),
    Notified(usize),
    Has(usize),
    Aborted(usize, bool),
    /// Cancelled, and waits for the lock again.
    Relocks,
    HasAgain,
}

/// The lock: who waits for it, in order; and who waits for a condition, in order.
struct MonitorModel {
    locked: bool,
    lockers: Vec<usize>,
    waiters: Vec<usize>,
    at: BTreeMap<usize, At>,
}

impl MonitorModel {
    fn unlock(&mut self) {
        let next =
            self.lockers.iter().position(|id| matches!(self.at[id], At::LockWaits | At::Notified(_) | At::Relocks));
        self.locked = next.is_some();
        let Some(next) = next else { return };
        let id = self.lockers.remove(next);
        let at = match self.at[&id] {
            At::LockWaits => At::LockHas,
            At::Notified(of) => At::Has(of),
            At::Relocks => At::HasAgain,
            other => unreachable!("{other:?}"),
        };
        self.at.insert(id, at);
    }

    fn notify(&mut self, of: usize) {
        let Some(first) = self.waiters.iter().position(|id| self.at[id] == At::Waits(of)) else { return };
        let id = self.waiters.remove(first);
        self.at.insert(id, At::Notified(of));
        self.lockers.push(id);
        if !self.locked {
            self.unlock();
        }
    }

    fn remove(&mut self, id: usize) -> At {
        self.lockers.retain(|&one| one != id);
        self.waiters.retain(|&one| one != id);
        self.at.remove(&id).expect("it is there")
    }
}

type Guarded<'a> = (MutexGuard<'a, u32>, Result<(), Cancelled>);

async fn monitor(steps: &[Step]) -> Checked {
    let (mutex, conditions) = (Mutex::new(0), [Condition::new(), Condition::new()]);
    let mut model = MonitorModel { locked: false, lockers: Vec::new(), waiters: Vec::new(), at: BTreeMap::new() };
    let mut held: Option<MutexGuard<'_, u32>> = None;
    let mut operations: Operations<'_, Guarded<'_>> = Operations::new();
    for &(what, a, b) in steps {
        let of = usize::from(b % 2);
        match what {
            0..20 => {
                let (free, mutex) = (!model.locked, &mutex);
                let (id, out) = operations.begin(async move { Ok((mutex.lock().await?, Ok(()))) }).await;
                prop_assert_eq!(out.is_some(), free, "lock");
                match out {
                    Some(guard) => {
                        model.locked = true;
                        held = Some(guard.expect("not cancelled").0);
                    }
                    None => {
                        model.lockers.push(id);
                        model.at.insert(id, At::LockWaits);
                    }
                }
            }
            20..24 => {
                let out = mutex.try_lock();
                prop_assert_eq!(out.is_ok(), !model.locked, "try_lock");
                if let Ok(guard) = out {
                    model.locked = true;
                    held = Some(guard);
                }
            }
            24..44 => {
                let Some(guard) = held.take() else { continue };
                let condition = &conditions[of];
                let (id, out) = operations.begin(async move { Ok(condition.wait(guard).await) }).await;
                prop_assert!(out.is_none(), "wait");
                model.waiters.push(id);
                model.at.insert(id, At::Waits(of));
                model.unlock();
            }
            44..52 => {
                let Some(guard) = &held else { continue };
                let n = usize::from(a % 3);
                conditions[of].notify(guard, n);
                for _ in 0..n {
                    model.notify(of);
                }
            }
            52..62 => {
                let Some(mut guard) = held.take() else { continue };
                *guard += 1;
                drop(guard);
                model.unlock();
            }
            62..82 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                let out = operations.poll(at).await;
                let out = out.map(|out| out.map(|(guard, waited)| (held.replace(guard).is_some(), waited)));
                let kind = match model.at[&id] {
                    // N1: first the notification goes on, then it comes for the lock.
                    At::Aborted(of, notified) => {
                        model.remove(id);
                        if notified {
                            model.notify(of);
                        }
                        let free = !model.locked;
                        model.at.insert(id, if free { At::HasAgain } else { At::Relocks });
                        if free {
                            model.locked = true;
                        } else {
                            model.lockers.push(id);
                        }
                        model.at[&id]
                    }
                    kind => kind,
                };
                match (kind, out) {
                    (At::LockWaits | At::Waits(_) | At::Notified(_) | At::Relocks, None) => continue,
                    (At::LockHas | At::Has(_), Some(Some((false, Ok(())))))
                    | (At::HasAgain, Some(Some((false, Err(Cancelled { .. })))))
                    | (At::LockAborted, Some(None)) => {}
                    other => prop_assert!(false, "poll: {:?}", other),
                }
                model.remove(id);
            }
            82..91 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                operations.all[at].scope.cancel();
                let at = match model.at[&id] {
                    At::LockWaits => At::LockAborted,
                    At::Waits(of) => At::Aborted(of, false),
                    At::Notified(of) => At::Aborted(of, true),
                    other => other,
                };
                model.at.insert(id, at);
            }
            _ => {
                let Some((at, id)) = operations.pick(a) else { continue };
                drop(operations.all.remove(at));
                match model.remove(id) {
                    At::LockHas | At::HasAgain => model.unlock(),
                    At::Notified(of) | At::Aborted(of, true) => model.notify(of),
                    At::Has(of) => {
                        model.notify(of);
                        model.unlock();
                    }
                    At::LockWaits | At::LockAborted | At::Waits(_) | At::Aborted(_, false) | At::Relocks => {}
                }
            }
        }
        prop_assert_eq!(mutex.is_locked(), model.locked);
    }
    drop(operations);
    drop(held);
    prop_assert!(mutex.try_lock().is_ok(), "the lock is free when nobody is left");
    Ok(())
}

proptest! {
    #[test]
    fn a_semaphore_does_as_its_model_does(initial in 0..5usize, steps in steps()) {
        run_virtual(async || semaphore(initial, &steps).await)?;
    }

    #[test]
    fn a_rwlock_does_as_its_model_does(steps in steps()) {
        run_virtual(async || rwlock(&steps).await)?;
    }

    #[test]
    fn a_channel_does_as_its_model_does(capacity in prop_oneof![Just(0), Just(1), Just(2), Just(usize::MAX)], steps in steps()) {
        run_virtual(async || memory_channel(capacity, &steps, false).await)?;
    }

    #[test]
    fn a_channel_whose_handles_are_closed_does_as_its_model_does(capacity in 0..3usize, steps in steps()) {
        run_virtual(async || memory_channel(capacity, &steps, true).await)?;
    }

    #[test]
    fn a_lock_and_its_conditions_do_as_their_model_does(steps in steps()) {
        run_virtual(async || monitor(&steps).await)?;
    }
}
