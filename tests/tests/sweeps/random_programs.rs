//! Random programs of everything at once: nurseries, scopes, shields, deadlines, channels, locks, joins, races, foreign combinators, futures
//! that are dropped half way, and panics. What they come to is not predicted (the models beside this do that for one thing at a time), but
//! what must hold of any: nothing is lost, doubled or left over, who excludes others is alone, every driver does the same in virtual
//! time, and a run comes to its end. R18, R19, R36, R76, R77, R87, R92, N5, N7, N9, N12, N13.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Plain};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use trefoil_nursery::sync::{Mutex, RwLock, Semaphore};
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, ErrorGroup, Event, NotStarted, Receiver, SendError, Sender, channel,
    checkpoint, join, local_nursery, move_on_after, now, race_with, shield, shield_for, sleep, yield_now,
};
use trefoil_runtime::{Detection, Options, Order, ThreadDriver};
use trefoil_tests::{drop_at, poll_once, run, run_real};

#[derive(Clone, Debug)]
enum Step {
    Sleep(u32),
    Yield,
    Checkpoint,
    Send(usize),
    Receive(usize),
    Wait(usize),
    Set(usize),
    /// A future that waits for nothing known, for ever (N13).
    Never,
    /// Of the scopes that there were so far.
    Cancel(usize),
    Deadline(usize, u32),
    Shield(usize, bool),
    Fail,
    Panic,
    Lock(usize, Program),
    Read(Program),
    Write(Program),
    Permits(usize, Program),
    Scope(Option<u32>, Program),
    ShieldFor(u32, Program),
    Nursery(Vec<Child>, Program),
    Start(Program, Program),
    Join(Program, Program),
    Race(Program, Program),
    /// Errors and panics end here.
    Catch(Program),
    DropAt(usize, Program),
    /// Dropped after so long, whatever it was told in that moment.
    Timeout(u32, Program),
    /// Polled with a waker of its own.
    Via(Program),
    /// Two of them, of which the second to end is dropped.
    Select(Program, Program),
}

type Program = Vec<Step>;

impl Step {
    fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default().to_string()
    }
}

#[derive(Clone, Debug)]
struct Child {
    steps: Program,
    /// Polled once in the body before it is spawned.
    begun: bool,
    /// Awaited by the body.
    joined: bool,
    /// What the child spawns beside itself.
    beside: Option<Program>,
}

const CHANNELS: [usize; 3] = [0, 1, 3];
const LOCKS: usize = 2;
const PERMITS: usize = 3;

fn program() -> impl Strategy<Value = Program> {
    prop_oneof![deep(), crowd()]
}

/// Few tasks that want the same things at the same times, and are stopped at it in every way: most of what can go wrong is that one is told, served
/// and dropped in one instant.
fn crowd() -> impl Strategy<Value = Program> {
    let ms = || 0..4_u32;
    let rest = prop::collection::vec(
        prop_oneof![3 => ms().prop_map(Step::Sleep), 1 => Just(Step::Yield), 1 => Just(Step::Checkpoint)],
        0..3,
    );
    let wanted = prop_oneof![
        3 => rest.clone().prop_map(|p| Step::Lock(0, p)),
        1 => rest.clone().prop_map(Step::Read),
        1 => rest.clone().prop_map(Step::Write),
        2 => (1..=PERMITS, rest.clone()).prop_map(|(n, p)| Step::Permits(n, p)),
        2 => (0..CHANNELS.len()).prop_map(Step::Send),
        2 => (0..CHANNELS.len()).prop_map(Step::Receive),
        1 => ms().prop_map(Step::Sleep),
        1 => any::<usize>().prop_map(Step::Cancel),
    ];
    let one = || prop::collection::vec(wanted.clone(), 1..3);
    let stopped = prop_oneof![
        2 => one().prop_map(Step::Catch),
        2 => (ms(), one()).prop_map(|(after, p)| Step::Timeout(after, p)),
        2 => (ms(), one()).prop_map(|(after, p)| Step::Scope(Some(after), p)),
        1 => (one(), one()).prop_map(|(a, b)| Step::Race(a, b)),
        1 => (one(), one()).prop_map(|(a, b)| Step::Select(a, b)),
        1 => (1..4_usize, one()).prop_map(|(k, p)| Step::DropAt(k, p)),
        1 => one().prop_map(Step::Via),
    ];
    let task = || prop::collection::vec(stopped.clone(), 1..6);
    let child = (task(), any::<bool>()).prop_map(|(steps, begun)| Child { steps, begun, joined: false, beside: None });
    (prop::collection::vec(child, 1..6), task()).prop_map(|(children, body)| vec![Step::Nursery(children, body)])
}

fn deep() -> impl Strategy<Value = Program> {
    let leaf = prop_oneof![
        18 => (0..12_u32).prop_map(Step::Sleep),
        6 => Just(Step::Yield),
        6 => Just(Step::Checkpoint),
        12 => (0..CHANNELS.len()).prop_map(Step::Send),
        12 => (0..CHANNELS.len()).prop_map(Step::Receive),
        6 => (0..2_usize).prop_map(Step::Wait),
        3 => (0..2_usize).prop_map(Step::Set),
        1 => Just(Step::Never),
        9 => any::<usize>().prop_map(Step::Cancel),
        6 => (any::<usize>(), 0..12_u32).prop_map(|(scope, ms)| Step::Deadline(scope, ms)),
        3 => any::<(usize, bool)>().prop_map(|(scope, up)| Step::Shield(scope, up)),
        1 => Just(Step::Fail),
        1 => Just(Step::Panic),
    ];
    let steps = prop::collection::vec(leaf, 0..6);
    steps.prop_recursive(6, 300, 8, |inner| {
        let p = || inner.clone();
        let child = (p(), any::<bool>(), any::<bool>(), prop::option::weighted(0.2, p()))
            .prop_map(|(steps, begun, joined, beside)| Child { steps, begun, joined, beside });
        let step = prop_oneof![
            2 => (0..LOCKS, p()).prop_map(|(lock, p)| Step::Lock(lock, p)),
            1 => p().prop_map(Step::Read),
            1 => p().prop_map(Step::Write),
            1 => (0..=PERMITS, p()).prop_map(|(n, p)| Step::Permits(n, p)),
            3 => (prop::option::of(0..12_u32), p()).prop_map(|(after, p)| Step::Scope(after, p)),
            1 => (0..12_u32, p()).prop_map(|(limit, p)| Step::ShieldFor(limit, p)),
            5 => (prop::collection::vec(child, 0..5), p()).prop_map(|(children, p)| Step::Nursery(children, p)),
            1 => (p(), p()).prop_map(|(before, after)| Step::Start(before, after)),
            1 => (p(), p()).prop_map(|(a, b)| Step::Join(a, b)),
            2 => (p(), p()).prop_map(|(a, b)| Step::Race(a, b)),
            2 => p().prop_map(Step::Catch),
            1 => (0..4_usize, p()).prop_map(|(k, p)| Step::DropAt(k, p)),
            2 => (0..12_u32, p()).prop_map(|(after, p)| Step::Timeout(after, p)),
            1 => p().prop_map(Step::Via),
            1 => (p(), p()).prop_map(|(a, b)| Step::Select(a, b)),
        ];
        prop::collection::vec(prop_oneof![2 => step, 1 => inner.prop_map(Step::Catch)], 1..6)
    })
}

// ---- What they run in ----------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// With its sender, who was dropped if it stays so: then nobody knows.
    Offered,
    Sent,
    Back,
}

struct Item(usize);

/// What there is of something.
struct Alive<'a>(&'a Cell<usize>);

impl<'a> Alive<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What another thread can meddle with.
#[derive(Default)]
struct Shared {
    scopes: Plain<Vec<CancelScope>>,
    events: [Event; 2],
}

struct World {
    /// How long a millisecond is.
    unit: Duration,
    begin: std::time::Instant,
    channels: Vec<(Sender<Item>, Receiver<Item>)>,
    fates: RefCell<Vec<(Fate, usize)>>,
    shared: Arc<Shared>,
    locks: [Mutex<usize>; LOCKS],
    rw: RwLock<()>,
    readers: Cell<usize>,
    writers: Cell<usize>,
    permits: Semaphore,
    taken: Cell<usize>,
    alive: Cell<usize>,
    /// No shield is raised any more: what is in one might wait for ever.
    over: Cell<bool>,
    trace: RefCell<Trace>,
}

impl World {
    fn new(unit: Duration) -> Self {
        Self {
            unit,
            begin: now(),
            channels: CHANNELS.iter().map(|capacity| channel(*capacity)).collect(),
            fates: RefCell::default(),
            shared: Arc::default(),
            locks: [Mutex::new(0), Mutex::new(0)],
            rw: RwLock::new(()),
            readers: Cell::new(0),
            writers: Cell::new(0),
            permits: Semaphore::new(PERMITS),
            taken: Cell::new(0),
            alive: Cell::new(0),
            over: Cell::new(false),
            trace: RefCell::default(),
        }
    }

    fn ms(&self, n: u32) -> Duration {
        self.unit * n
    }

    fn note(&self, what: impl Into<String>, well: bool) {
        self.trace.borrow_mut().push((now() - self.begin, what.into(), well));
    }

    fn scope(&self, which: usize) -> Option<CancelScope> {
        let scopes = self.shared.scopes.lock().unwrap();
        if scopes.is_empty() { None } else { Some(scopes[which % scopes.len()].clone()) }
    }

    /// What must hold when all of it has ended.
    fn check(&self) {
        assert_eq!(self.alive.get(), 0, "a step was left over");
        assert_eq!((self.readers.get(), self.writers.get(), self.taken.get()), (0, 0, 0));
        for (_, receiver) in &self.channels {
            while let Ok(item) = receiver.try_recv() {
                self.fates.borrow_mut()[item.0].1 += 1;
            }
            let left = receiver.statistics();
            assert_eq!((left.waiting_to_send, left.waiting_to_receive), (0, 0));
        }
        for (number, (fate, received)) in self.fates.borrow().iter().enumerate() {
            let well = match fate {
                Fate::Offered => *received <= 1,
                Fate::Sent => *received == 1,
                Fate::Back => *received == 0,
            };
            assert!(well, "item {number} is {fate:?}, and was received {received} times");
        }
        assert!(self.locks.iter().all(|lock| lock.try_lock().is_ok()), "a lock is held by nobody");
        assert!(self.rw.try_write().is_ok(), "a lock is held by nobody");
        assert_eq!(self.permits.available(), PERMITS);
    }
}

#[derive(Debug)]
enum Fail {
    Cancelled(Cancelled),
    Made,
    Many(Box<ErrorGroup<Fail>>),
}

impl From<Cancelled> for Fail {
    fn from(cancelled: Cancelled) -> Self {
        Fail::Cancelled(cancelled)
    }
}

impl From<NotStarted> for Fail {
    fn from(_: NotStarted) -> Self {
        Fail::Made
    }
}

impl From<ErrorGroup<Fail>> for Fail {
    fn from(group: ErrorGroup<Fail>) -> Self {
        Fail::Many(Box::new(group))
    }
}

impl CancelAware for Fail {
    fn is_cancelled(&self) -> bool {
        match self {
            Fail::Cancelled(_) => true,
            Fail::Made => false,
            Fail::Many(group) => group.is_cancelled(),
        }
    }

    fn has_cancelled(&self) -> bool {
        match self {
            Fail::Many(group) => group.has_cancelled(),
            one => one.is_cancelled(),
        }
    }

    fn without_cancelled(self) -> Option<Self> {
        match self {
            Fail::Many(group) => group.without_cancelled().map(Into::into),
            one => (!one.is_cancelled()).then_some(one),
        }
    }
}

/// What a `Panic` carries.
struct Thrown;

// ---- Combinators of others -----------------------------------------------------------------------------------------

/// A waker of a combinator: it notes that its branch was woken, and wakes the task.
struct Branch {
    woken: AtomicBool,
    task: Plain<Option<Waker>>,
}

impl Wake for Branch {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Polls with that, only when it was woken, as `FuturesUnordered` does.
struct Via<F> {
    future: F,
    branch: Arc<Branch>,
}

impl<F: Future + Unpin> Via<F> {
    fn new(future: F) -> Self {
        Self { future, branch: Arc::new(Branch { woken: AtomicBool::new(true), task: Plain::new(None) }) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let old = self.branch.task.lock().unwrap().replace(cx.waker().clone());
        drop(old);
        if !self.branch.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(self.branch.clone());
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }
}

// ---- Running -------------------------------------------------------------------------------------------------------

type Ended = Result<(), Fail>;
type Boxed<'a> = Pin<Box<dyn Future<Output = Ended> + 'a>>;

fn steps<'a>(world: &'a World, program: &'a [Step]) -> Boxed<'a> {
    Box::pin(async move {
        for step in program {
            let alive = Alive::new(&world.alive);
            let ended = one(world, step).await;
            drop(alive);
            world.note(step.name(), ended.is_ok());
            ended?;
        }
        Ok(())
    })
}

/// Ends in this what it returns or panics with.
async fn caught(world: &World, mut future: Boxed<'_>) {
    let ended = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(payload)),
    })
    .await;
    match ended {
        Ok(ended) => world.note("caught", ended.is_ok()),
        Err(payload) if payload.is::<Thrown>() => world.note("panicked", false),
        Err(payload) => resume_unwind(payload),
    }
}

async fn one(world: &World, step: &Step) -> Ended {
    match step {
        Step::Sleep(n) => sleep(world.ms(*n)).await?,
        Step::Yield => yield_now().await,
        Step::Checkpoint => checkpoint().await?,
        Step::Send(which) => {
            let number = world.fates.borrow().len();
            world.fates.borrow_mut().push((Fate::Offered, 0));
            let sent = world.channels[*which].0.send(Item(number)).await;
            world.fates.borrow_mut()[number].0 = if sent.is_ok() { Fate::Sent } else { Fate::Back };
            match sent {
                Ok(()) => {}
                Err(SendError::Cancelled(cancelled, _)) => return Err(cancelled.into()),
                Err(error) => panic!("nobody closes it: {error:?}"),
            }
        }
        Step::Receive(which) => {
            let item = world.channels[*which].1.recv().await?.expect("nobody closes it");
            world.fates.borrow_mut()[item.0].1 += 1;
        }
        Step::Wait(which) => world.shared.events[*which].wait().await?,
        Step::Set(which) => world.shared.events[*which].set(),
        Step::Never => pending::<()>().await,
        Step::Cancel(which) => {
            if let Some(scope) = world.scope(*which) {
                scope.cancel();
            }
        }
        Step::Deadline(which, n) => {
            if let Some(scope) = world.scope(*which) {
                scope.set_deadline(Some(now() + world.ms(*n)));
            }
        }
        Step::Shield(which, up) => {
            if let Some(scope) = world.scope(*which) {
                scope.set_shield(*up && !world.over.get());
            }
        }
        Step::Fail => return Err(Fail::Made),
        Step::Panic => resume_unwind(Box::new(Thrown)),
        Step::Lock(which, inner) => {
            let mut guard = world.locks[*which].lock().await?;
            *guard += 1;
            let (mine, ended) = (*guard, steps(world, inner).await);
            assert_eq!(*guard, mine, "two have the lock");
            ended?;
        }
        Step::Read(inner) => {
            let _guard = world.rw.read().await?;
            let _reader = Alive::new(&world.readers);
            assert_eq!(world.writers.get(), 0, "a reader beside a writer");
            steps(world, inner).await?;
        }
        Step::Write(inner) => {
            let _guard = world.rw.write().await?;
            let _writer = Alive::new(&world.writers);
            assert_eq!((world.readers.get(), world.writers.get()), (0, 1), "a writer is alone");
            steps(world, inner).await?;
        }
        Step::Permits(n, inner) => {
            let _permits = world.permits.acquire(*n).await?;
            let _taken: Vec<_> = (0..*n).map(|_| Alive::new(&world.taken)).collect();
            assert!(world.taken.get() <= PERMITS, "more permits than there are");
            steps(world, inner).await?;
        }
        Step::Scope(after, inner) => {
            let scope = CancelScope::new();
            if let Some(after) = after {
                scope.set_deadline(Some(now() + world.ms(*after)));
            }
            world.shared.scopes.lock().unwrap().push(scope.clone());
            let ended = scope.run(steps(world, inner)).await;
            assert!(scope.cancel_called() || !matches!(ended, Ok(None)), "it absorbs its own cancellation only");
            ended?;
        }
        Step::ShieldFor(limit, inner) => {
            shield_for(world.ms(*limit), steps(world, inner)).await?;
        }
        Step::Nursery(children, body) => nursery(world, children, body).await?,
        Step::Start(before, after) => {
            local_nursery(async |n| -> Ended {
                n.start(async |started| {
                    steps(world, before).await?;
                    started.ready(());
                    steps(world, after).await
                })
                .await
            })
            .await?;
        }
        Step::Join(a, b) => _ = join((steps(world, a), steps(world, b))).await?,
        Step::Race(a, b) => race_with((steps(world, a), steps(world, b)), drop).await?,
        Step::Catch(inner) => caught(world, steps(world, inner)).await,
        Step::DropAt(k, inner) => {
            if let Some(ended) = drop_at(*k, steps(world, inner)).await {
                ended?;
            }
        }
        Step::Timeout(after, inner) => {
            let (mut after, mut inner) = (pin!(sleep(world.ms(*after))), steps(world, inner));
            poll_fn(|cx| match after.as_mut().poll(cx) {
                Poll::Pending => inner.as_mut().poll(cx),
                ended => ended.map_err(Fail::from),
            })
            .await?;
        }
        Step::Via(inner) => {
            let mut via = Via::new(steps(world, inner));
            poll_fn(|cx| via.poll(cx)).await?;
        }
        Step::Select(a, b) => {
            let (mut a, mut b) = (Via::new(steps(world, a)), Via::new(steps(world, b)));
            poll_fn(|cx| match a.poll(cx) {
                Poll::Pending => b.poll(cx),
                ready => ready,
            })
            .await?;
        }
    }
    Ok(())
}

async fn nursery(world: &World, children: &[Child], body: &[Step]) -> Ended {
    let ended = local_nursery(async |n| -> Ended {
        let mut joins = Vec::new();
        for Child { steps: program, begun, joined, beside } in children {
            let mut child = steps(world, program);
            if *begun && let Poll::Ready(ended) = poll_once(child.as_mut()).await {
                ended?;
                continue;
            }
            let join = n.spawn(async move {
                if let Some(beside) = beside {
                    n.spawn(steps(world, beside));
                }
                child.await?;
                Ok(Alive::new(&world.alive))
            });
            if *joined {
                joins.push(join);
            }
        }
        steps(world, body).await?;
        for join in joins {
            drop(join.await?);
        }
        Ok(())
    })
    .await;
    Ok(ended?)
}

/// When what ended, and whether well.
type Trace = Vec<(Duration, String, bool)>;

/// Everything waits for a second at most, and what is in a shield for as long as that allows.
async fn whole(program: &Program, unit: Duration, meddles: impl FnOnce(&Arc<Shared>)) -> Trace {
    let world = World::new(unit);
    meddles(&world.shared);
    let end = async {
        shield(sleep(world.ms(900))).await?;
        world.over.set(true);
        let scopes = world.shared.scopes.lock().unwrap().clone();
        scopes.iter().for_each(|scope| scope.set_shield(false));
        Ok(())
    };
    let body = async {
        caught(&world, steps(&world, program)).await;
        Ok(())
    };
    let ended: Ended = move_on_after(world.ms(1_000), join((end, body))).await.map(drop).map_err(Fail::from);
    assert!(ended.is_ok(), "{ended:?}");
    world.check();
    world.trace.take()
}

const MS: Duration = Duration::from_millis(1);

fn options(order: Order) -> Options {
    // Nobody waits for ever, but where something was lost: that is found out soon.
    Options { virtual_time: true, order, deadlock: Detection::After(300 * MS), ..Options::default() }
}

fn nobody(_: &Arc<Shared>) {}

proptest! {
    #![proptest_config(Config { cases: Config::default().cases.max(64), failure_persistence: None, max_shrink_iters: 5_000, ..Config::default() })]

    /// R87: the same on every driver, and in every run.
    #[test]
    fn every_driver_does_the_same(program in program()) {
        let mut traces = Vec::new();
        run(options(Order::Fifo), async || traces.push(whole(&program, MS, nobody).await));
        for trace in &traces {
            prop_assert_eq!(trace, &traces[0]);
        }
    }

    /// N4: what must hold does so in any order.
    #[test]
    fn every_order_keeps_the_rules(program in program(), seed in any::<u64>()) {
        run(options(Order::Shuffled(seed)), async || _ = whole(&program, MS, nobody).await);
    }

    /// In real time, of which a second is a few milliseconds, with another thread that cancels, moves deadlines, sets events and looks on.
    #[test]
    fn another_thread_changes_no_rule(program in program(), seed in any::<u64>()) {
        run_real(async || {
            let mut meddler = None;
            whole(&program, 10 * MS / 1_000, |shared| meddler = Some(Meddler::begins(shared.clone(), seed))).await;
        });
    }
}

struct Meddler {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Meddler {
    fn begins(shared: Arc<Shared>, mut seed: u64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (what, which) = ((seed >> 60) as usize, (seed >> 32) as usize);
                let scope = {
                    let scopes = shared.scopes.lock().unwrap();
                    scopes.get(which % scopes.len().max(1)).cloned()
                };
                match (what, scope) {
                    (0, Some(scope)) => scope.cancel(),
                    (1, Some(scope)) => scope.set_deadline(Some(std::time::Instant::now() + MS / 2)),
                    (2, Some(scope)) => scope.set_deadline(None),
                    (3, Some(scope)) => scope.set_shield(false),
                    (4, _) => shared.events[which % 2].set(),
                    (5, _) => _ = trefoil_runtime::trees(),
                    _ => std::thread::sleep(MS / 20),
                }
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The programs reach what they are for: each step ends well in some and otherwise in others.
#[test]
fn programs_do_all_of_it() {
    let mut runner = TestRunner::deterministic();
    let (strategy, mut ends) = (program(), BTreeMap::<(String, bool), usize>::new());
    for _ in 0..800 {
        let program = strategy.new_tree(&mut runner).unwrap().current();
        let driver = Rc::new(ThreadDriver::new());
        let whole = whole(&program, MS, nobody);
        for (_, what, well) in trefoil_runtime::run(driver, options(Order::Fifo), Location::caller(), whole) {
            *ends.entry((what, well)).or_default() += 1;
        }
    }
    println!("{ends:?}");
    let never_fail = ["Cancel", "Catch", "Deadline", "Set", "Shield", "Yield"];
    let never_succeed = ["Fail", "Never", "panicked"];
    for (what, _) in ends.keys() {
        for well in [false, true] {
            let can = !(if well { &never_succeed[..] } else { &never_fail }).contains(&what.as_str());
            assert_eq!(can, ends.contains_key(&(what.clone(), well)), "{what} {well}");
        }
    }
    assert!(ends.len() > 40, "{ends:?}");
}
