//! N10, partial deadlocks, against a reference: random programs of tasks that take locks, permits and tokens in random orders, under virtual
//! time, while one task always goes on. What waits for what is kept in a plain graph beside. The library ends the run if, and only if, some
//! tasks in the graph wait for ever; it says so in the instant in which the last of them begins to wait, ends the run a minute later, and names those.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::Location;
use std::rc::Rc;
use std::time::Instant;
use trefoil::sync::{CapacityLimiter, Mutex, MutexGuard, Permits, ReadGuard, RwLock, Semaphore, Token, WriteGuard};
use trefoil::{
    CancelScope, Cancelled, Deadlock, Detection, Reason, ScopeView, TaskView, local_nursery, move_on_after, now, sleep,
    tree,
};
use trefoil_runtime::{Instruments, Options, Order, ThreadDriver};
use trefoil_tests::{listen, ms};

/// What there is to have.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Lock,
    /// A reader wants one unit, a writer all.
    RwLock,
    Semaphore(usize),
    Limiter(usize),
}

/// What a writer has of a lock.
const ALL: usize = 1_000;

impl Kind {
    fn capacity(self) -> usize {
        match self {
            Kind::Lock => 1,
            Kind::RwLock => ALL,
            Kind::Semaphore(capacity) | Kind::Limiter(capacity) => capacity,
        }
    }

    /// How many units somebody takes who takes few or many.
    fn wanted(self, many: usize) -> usize {
        match self {
            Kind::Lock | Kind::Limiter(_) => 1,
            Kind::RwLock => {
                if many.is_multiple_of(2) {
                    1
                } else {
                    ALL
                }
            }
            Kind::Semaphore(capacity) => 1 + many % capacity,
        }
    }

    /// Whether nobody is served before those in front (R76, R80).
    fn in_line(self) -> bool {
        matches!(self, Kind::RwLock | Kind::Semaphore(_))
    }
}

/// How a task waits.
#[derive(Clone, Copy, Debug)]
enum Patience {
    ForEver,
    /// Until a deadline, so many milliseconds later.
    Deadline(u64),
    /// Until another task cancels it, so many milliseconds later.
    Cancel(u64),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Of what, how many, and for how long to wait for that.
    Take(usize, usize, Patience),
    /// What was taken last, or another one.
    Release(usize),
    Sleep(u64),
}

type Program = (Vec<Kind>, Vec<Vec<Step>>, u64);

fn program() -> impl Strategy<Value = Program> {
    let kind = prop_oneof![
        3 => Just(Kind::Lock),
        2 => Just(Kind::RwLock),
        2 => (1..4usize).prop_map(Kind::Semaphore),
        1 => (1..3usize).prop_map(Kind::Limiter),
    ];
    let patience = prop_oneof![
        8 => Just(Patience::ForEver),
        1 => (1..8u64).prop_map(Patience::Deadline),
        1 => (1..8u64).prop_map(Patience::Cancel),
    ];
    let step = prop_oneof![
        4 => (0..4usize, 0..4usize, patience).prop_map(|(which, many, patience)| Step::Take(which, many, patience)),
        2 => (0..4usize).prop_map(Step::Release),
        3 => (0..4u64).prop_map(Step::Sleep),
    ];
    (vec(kind, 2..5), vec(vec(step, 1..7), 2..6), any::<u64>())
}

/// For what somebody waits, how much of it, whether for ever, and as which of all that have joined a line.
type Waits = (usize, usize, bool, usize);

/// Who holds what, and who waits for what: the reference.
#[derive(Debug)]
struct Graph {
    kinds: Vec<Kind>,
    /// By task and thing.
    held: Vec<Vec<usize>>,
    /// By task.
    waits: Vec<Option<Waits>>,
    joined: usize,
    /// How many waited for ever at the end of each moment in which something changed.
    stood: Vec<(Instant, usize)>,
}

impl Graph {
    /// Something has changed: to be called after each change.
    fn changed(&mut self) {
        let stuck = self.stuck().len();
        match self.stood.last_mut() {
            Some(last) if last.0 == now() => last.1 = stuck,
            _ => self.stood.push((now(), stuck)),
        }
    }

    /// The moments at the end of which more waited for ever than before.
    fn closed(&self) -> Vec<Instant> {
        let before = std::iter::once(0).chain(self.stood.iter().map(|stood| stood.1));
        self.stood.iter().zip(before).filter(|(stood, before)| stood.1 > *before).map(|(stood, _)| stood.0).collect()
    }

    /// The tasks that wait for ever: those that are left when everybody who can go on has done so, and has given back all that it had.
    fn stuck(&self) -> BTreeSet<usize> {
        let mut left: BTreeSet<usize> = (0..self.waits.len()).collect();
        loop {
            let goes_on = |task: &usize| match self.waits[*task] {
                Some((thing, wanted, true, mine)) => {
                    let held: usize = left.iter().map(|task| self.held[*task][thing]).sum();
                    let in_front = |other: &usize| matches!(self.waits[*other], Some((of, .., place)) if of == thing && place < mine);
                    let kind = self.kinds[thing];
                    kind.capacity() - held >= wanted && !(kind.in_line() && left.iter().any(in_front))
                }
                _ => true,
            };
            match left.iter().find(|task| goes_on(task)).copied() {
                Some(task) => left.remove(&task),
                None => return left,
            };
        }
    }
}

enum Thing {
    Lock(Mutex<()>),
    RwLock(RwLock<()>),
    Semaphore(Semaphore),
    Limiter(CapacityLimiter),
}

#[allow(dead_code)]
enum Held<'a> {
    Lock(MutexGuard<'a, ()>),
    Read(ReadGuard<'a, ()>),
    Write(WriteGuard<'a, ()>),
    Permits(Permits<'a>),
    Token(Token<'a>),
}

impl Thing {
    async fn take(&self, wanted: usize) -> Result<Held<'_>, Cancelled> {
        Ok(match self {
            Thing::Lock(lock) => Held::Lock(lock.lock().await?),
            Thing::RwLock(lock) if wanted == 1 => Held::Read(lock.read().await?),
            Thing::RwLock(lock) => Held::Write(lock.write().await?),
            Thing::Semaphore(semaphore) => Held::Permits(semaphore.acquire(wanted).await?),
            Thing::Limiter(limiter) => Held::Token(limiter.acquire().await?),
        })
    }
}

/// Whether the task of that name waits for a lock or for permits.
fn waits(number: usize) -> bool {
    fn waits(task: &TaskView) -> bool {
        task.waits.iter().any(|wait| matches!(wait.reason, Reason::Lock | Reason::Permits | Reason::Token))
            || task.scopes.iter().flat_map(|scope| &scope.tasks).any(waits)
    }
    fn find(scope: &ScopeView, name: &str) -> bool {
        let below = |task: &TaskView| task.scopes.iter().any(|scope| find(scope, name));
        scope.tasks.iter().any(|task| (task.name.as_deref() == Some(name) && waits(task)) || below(task))
    }
    find(&tree(), &format!("t{number}"))
}

/// Takes it, and notes its place in the line when it joins that. It may give up its turn before.
async fn take<'a>(
    number: usize,
    which: usize,
    wanted: usize,
    things: &'a [Thing],
    graph: &RefCell<Graph>,
) -> Result<Held<'a>, Cancelled> {
    let mut taken = std::pin::pin!(things[which].take(wanted));
    std::future::poll_fn(|cx| {
        let polled = taken.as_mut().poll(cx);
        let graph = &mut *graph.borrow_mut();
        let is_new = graph.kinds[which].in_line() && graph.waits[number].is_some_and(|(.., place)| place == usize::MAX);
        if polled.is_pending() && is_new && waits(number) {
            graph.joined += 1;
            graph.waits[number].as_mut().expect("it waits").3 = graph.joined;
            graph.changed();
        }
        polled
    })
    .await
}

/// What the reference says of a run.
#[derive(Debug, PartialEq)]
struct Verdict {
    /// Who waits for ever.
    stuck: BTreeSet<usize>,
    /// When it was asked.
    at: Instant,
    /// The moments at which more came to do so.
    closed: Vec<Instant>,
}

fn verdict(graph: &Graph) -> Verdict {
    Verdict { stuck: graph.stuck(), at: now(), closed: graph.closed() }
}

async fn task(
    number: usize,
    steps: &[Step],
    things: &[Thing],
    kinds: &[Kind],
    graph: &RefCell<Graph>,
    first: &RefCell<Option<Verdict>>,
) -> Result<(), Cancelled> {
    // Whoever is cancelled first, at the end of the run, asks the reference.
    let told = |cancelled| {
        let mut first = first.borrow_mut();
        first.get_or_insert_with(|| verdict(&graph.borrow()));
        cancelled
    };
    let mut has: Vec<(usize, usize, Held<'_>)> = Vec::new();
    for step in steps {
        match *step {
            Step::Sleep(length) => sleep(ms(length)).await.map_err(told)?,
            Step::Release(which) => {
                if let Some(at) = has.len().checked_sub(1).map(|last| last - which.min(last)) {
                    let (thing, units, held) = has.remove(at);
                    drop(held);
                    let mut graph = graph.borrow_mut();
                    graph.held[number][thing] -= units;
                    graph.changed();
                }
            }
            Step::Take(which, many, patience) => {
                let which = which % things.len();
                let for_ever = matches!(patience, Patience::ForEver);
                let wanted = kinds[which].wanted(many);
                {
                    let mut graph = graph.borrow_mut();
                    graph.waits[number] = Some((which, wanted, for_ever, usize::MAX));
                    graph.changed();
                }
                let taken = match patience {
                    Patience::ForEver => take(number, which, wanted, things, graph).await.map(Some),
                    Patience::Deadline(length) => {
                        move_on_after(ms(length), take(number, which, wanted, things, graph)).await
                    }
                    Patience::Cancel(length) => {
                        let scope = CancelScope::new();
                        let canceller = async {
                            sleep(ms(length)).await?;
                            scope.cancel();
                            Ok::<_, Cancelled>(())
                        };
                        // Both are in this task: what it waits for is either.
                        let taken = scope.run(take(number, which, wanted, things, graph));
                        match futures::future::select(std::pin::pin!(taken), std::pin::pin!(canceller)).await {
                            futures::future::Either::Left((taken, _)) => taken,
                            futures::future::Either::Right((ended, taken)) => ended.and(taken.await),
                        }
                    }
                };
                let taken = taken.map_err(told)?;
                let mut graph = graph.borrow_mut();
                graph.waits[number] = None;
                if let Some(held) = taken {
                    graph.held[number][which] += wanted;
                    has.push((which, wanted, held));
                }
                graph.changed();
            }
        }
    }
    // All is given back in this step.
    has.clear();
    let mut graph = graph.borrow_mut();
    graph.held[number].fill(0);
    graph.changed();
    Ok(())
}

/// What became of a program, when there were warnings, and what the reference says: at the moment of the report, or long after everything has settled.
fn run((kinds, tasks, seed): &Program) -> (Option<Deadlock>, Vec<Instant>, Verdict) {
    let warned = std::sync::Arc::<std::sync::Mutex<Vec<Instant>>>::default();
    let heard = warned.clone();
    // When cycles were logged, on the clock of the run; and not that main has returned after the end.
    let _listens = listen(move |line| {
        if line.starts_with("deadlock (N10)") {
            heard.lock().unwrap().push(now());
        }
    });
    let graph = RefCell::new(Graph {
        kinds: kinds.clone(),
        held: vec![vec![0; kinds.len()]; tasks.len()],
        waits: vec![None; tasks.len()],
        joined: 0,
        stood: Vec::new(),
    });
    let things: Vec<Thing> = kinds
        .iter()
        .map(|kind| match *kind {
            Kind::Lock => Thing::Lock(Mutex::new(())),
            Kind::RwLock => Thing::RwLock(RwLock::new(())),
            Kind::Semaphore(capacity) => Thing::Semaphore(Semaphore::new(capacity)),
            Kind::Limiter(total) => Thing::Limiter(CapacityLimiter::new(total)),
        })
        .collect();
    let first = RefCell::new(None);
    let main = local_nursery(async |n| -> Result<(), Cancelled> {
        for (number, steps) in tasks.iter().enumerate() {
            n.spawn_named(format!("t{number}"), task(number, steps, &things, kinds, &graph, &first));
        }
        // Something always goes on.
        for _ in 0..200 {
            sleep(ms(1)).await?;
        }
        for _ in 0..70 {
            sleep(ms(1_000)).await?;
        }
        *first.borrow_mut() = Some(verdict(&graph.borrow()));
        n.cancel();
        Ok(())
    });
    let order = if seed % 2 == 0 { Order::default() } else { Order::Shuffled(*seed) };
    let options = Options {
        virtual_time: true,
        cycles_end: true,
        deadlock: Detection::After(ms(1000)),
        order,
        ..Options::default()
    };
    let ended = trefoil_runtime::try_run(
        Rc::new(ThreadDriver::new()),
        options,
        Instruments::default(),
        Location::caller(),
        main,
    );
    let verdict = first.borrow_mut().take().expect("everybody is cancelled in the end, or was ended by a report");
    let warned = warned.lock().unwrap().clone();
    (ended.err(), warned, verdict)
}

#[test]
fn n10_it_is_reported_if_and_only_if_some_wait_for_ever() {
    let counts = RefCell::new((0, 0));
    let config = Config { cases: 2_000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&program(), |program| {
            let (report, warned, verdict) = run(&program);
            match report {
                None => {
                    counts.borrow_mut().1 += 1;
                    prop_assert!(verdict.stuck.is_empty(), "not reported: {verdict:?}");
                    prop_assert!(warned.is_empty(), "a warning of nothing: {warned:?}");
                }
                Some(report) => {
                    counts.borrow_mut().0 += 1;
                    prop_assert!(!verdict.stuck.is_empty(), "a false alarm: {report}");
                    // More tasks may have come to wait for those since the first cycle was there.
                    let first = report.tasks().iter().map(|task| task.waits()[0].since()).min().unwrap();
                    prop_assert!(first >= ms(60_000) && first < ms(61_000), "early, or late: {first:?}, {report}");
                    prop_assert!(
                        warned.first() == verdict.closed.first(),
                        "no warning at once: {warned:?}, {verdict:?}, {report}"
                    );
                    prop_assert!(warned.iter().all(|at| verdict.closed.contains(at)), "{warned:?}, {verdict:?}");
                    prop_assert!(report.cycles().count() > 0, "{report}");
                    for task in report.cycles().flatten() {
                        let number: usize = task.name().unwrap()[1..].parse().unwrap();
                        prop_assert!(verdict.stuck.contains(&number), "t{number} goes on: {report}");
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    // Otherwise nothing was tested.
    let (reported, fine) = counts.into_inner();
    assert!(reported > 100 && fine > 100, "{reported} reported, {fine} not");
}
