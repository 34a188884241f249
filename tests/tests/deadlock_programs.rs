//! N10, partial deadlocks, against a reference: random programs of tasks that take locks, permits and tokens in random orders, under virtual
//! time, while one task always goes on. What waits for what is kept in a plain graph beside. The library ends the run if, and only if, some
//! tasks in the graph wait for ever; it does so in the instant in which the last of them begins to wait; and it names those.
//!
//! All who want permits of one semaphore want as many. Where they do not, who wants few waits behind who wants many (R80), and that is no edge
//! of the library's graph: it knows who holds, and not who is in front.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::Location;
use std::rc::Rc;
use std::time::Instant;
use trefoil::sync::{CapacityLimiter, Mutex, MutexGuard, Permits, Semaphore, Token};
use trefoil::{CancelScope, Cancelled, Deadlock, Detection, local_nursery, move_on_after, now, sleep};
use trefoil_runtime::{Instruments, Options, Order, ThreadDriver};
use trefoil_tests::ms;

/// What there is to have.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Lock,
    /// So many permits, of which everybody takes so many.
    Semaphore(usize, usize),
    Limiter(usize),
}

impl Kind {
    fn capacity(self) -> usize {
        match self {
            Kind::Lock => 1,
            Kind::Semaphore(capacity, _) | Kind::Limiter(capacity) => capacity,
        }
    }

    fn wanted(self) -> usize {
        if let Kind::Semaphore(_, wanted) = self { wanted } else { 1 }
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
    Take(usize, Patience),
    /// What was taken last, or another one.
    Release(usize),
    Sleep(u64),
}

type Program = (Vec<Kind>, Vec<Vec<Step>>, u64);

fn program() -> impl Strategy<Value = Program> {
    let kind = prop_oneof![
        3 => Just(Kind::Lock),
        1 => (1..4usize, 1..3usize).prop_map(|(capacity, wanted)| Kind::Semaphore(capacity.max(wanted), wanted)),
        1 => (1..3usize).prop_map(Kind::Limiter),
    ];
    let patience = prop_oneof![
        8 => Just(Patience::ForEver),
        1 => (1..8u64).prop_map(Patience::Deadline),
        1 => (1..8u64).prop_map(Patience::Cancel),
    ];
    let step = prop_oneof![
        4 => (0..4usize, patience).prop_map(|(which, patience)| Step::Take(which, patience)),
        2 => (0..4usize).prop_map(Step::Release),
        3 => (0..4u64).prop_map(Step::Sleep),
    ];
    (vec(kind, 2..5), vec(vec(step, 1..7), 2..6), any::<u64>())
}

/// Who holds what, and who waits for what: the reference.
#[derive(Debug)]
struct Graph {
    capacities: Vec<usize>,
    /// By task and thing.
    held: Vec<Vec<usize>>,
    /// By task: for what, how much of it, whether for ever, and since when.
    waits: Vec<Option<(usize, usize, bool, Instant)>>,
}

impl Graph {
    /// The tasks that wait for ever: those that are left when everybody who can go on has done so, and has given back all that it had.
    fn stuck(&self) -> BTreeSet<usize> {
        let mut left: BTreeSet<usize> = (0..self.waits.len()).collect();
        loop {
            let goes_on = |task: &usize| match self.waits[*task] {
                Some((thing, wanted, true, _)) => {
                    let held: usize = left.iter().map(|task| self.held[*task][thing]).sum();
                    self.capacities[thing] - held >= wanted
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
    Semaphore(Semaphore, usize),
    Limiter(CapacityLimiter),
}

#[allow(dead_code)]
enum Held<'a> {
    Lock(MutexGuard<'a, ()>),
    Permits(Permits<'a>),
    Token(Token<'a>),
}

impl Thing {
    async fn take(&self) -> Result<Held<'_>, Cancelled> {
        Ok(match self {
            Thing::Lock(lock) => Held::Lock(lock.lock().await?),
            Thing::Semaphore(semaphore, wanted) => Held::Permits(semaphore.acquire(*wanted).await?),
            Thing::Limiter(limiter) => Held::Token(limiter.acquire().await?),
        })
    }
}

/// What the reference says of a run.
#[derive(Debug, PartialEq)]
struct Verdict {
    /// Who waits for ever.
    stuck: BTreeSet<usize>,
    /// When it was asked.
    at: Instant,
    /// When the last of them began to wait.
    closed: Option<Instant>,
}

fn verdict(graph: &Graph) -> Verdict {
    let stuck = graph.stuck();
    let closed = stuck.iter().filter_map(|task| graph.waits[*task].map(|wait| wait.3)).max();
    Verdict { stuck, at: now(), closed }
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
    let mut has: Vec<(usize, Held<'_>)> = Vec::new();
    for step in steps {
        match *step {
            Step::Sleep(length) => sleep(ms(length)).await.map_err(told)?,
            Step::Release(which) => {
                if let Some(at) = has.len().checked_sub(1).map(|last| last - which.min(last)) {
                    let (thing, held) = has.remove(at);
                    drop(held);
                    graph.borrow_mut().held[number][thing] -= kinds[thing].wanted();
                }
            }
            Step::Take(which, patience) => {
                let which = which % things.len();
                let for_ever = matches!(patience, Patience::ForEver);
                graph.borrow_mut().waits[number] = Some((which, kinds[which].wanted(), for_ever, now()));
                let taken = match patience {
                    Patience::ForEver => things[which].take().await.map(Some),
                    Patience::Deadline(length) => move_on_after(ms(length), things[which].take()).await,
                    Patience::Cancel(length) => {
                        let scope = CancelScope::new();
                        let canceller = async {
                            sleep(ms(length)).await?;
                            scope.cancel();
                            Ok::<_, Cancelled>(())
                        };
                        // Both are in this task: what it waits for is either.
                        let taken = scope.run(things[which].take());
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
                    graph.held[number][which] += kinds[which].wanted();
                    has.push((which, held));
                }
            }
        }
    }
    // All is given back in this step.
    has.clear();
    graph.borrow_mut().held[number].fill(0);
    Ok(())
}

/// What became of a program, and what the reference says: at the moment of the report, or long after everything has settled.
fn run((kinds, tasks, seed): &Program) -> (Option<Deadlock>, Verdict) {
    let graph = RefCell::new(Graph {
        capacities: kinds.iter().map(|kind| kind.capacity()).collect(),
        held: vec![vec![0; kinds.len()]; tasks.len()],
        waits: vec![None; tasks.len()],
    });
    let things: Vec<Thing> = kinds
        .iter()
        .map(|kind| match *kind {
            Kind::Lock => Thing::Lock(Mutex::new(())),
            Kind::Semaphore(capacity, wanted) => Thing::Semaphore(Semaphore::new(capacity), wanted),
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
    (ended.err(), verdict)
}

#[test]
fn n10_it_is_reported_if_and_only_if_some_wait_for_ever() {
    let counts = RefCell::new((0, 0));
    let config = Config { cases: 2_000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&program(), |program| {
            let (report, verdict) = run(&program);
            match report {
                None => {
                    counts.borrow_mut().1 += 1;
                    prop_assert!(verdict.stuck.is_empty(), "not reported: {verdict:?}");
                }
                Some(report) => {
                    counts.borrow_mut().0 += 1;
                    prop_assert!(!verdict.stuck.is_empty(), "a false alarm: {report}");
                    prop_assert_eq!(Some(verdict.at), verdict.closed, "late: {}", report);
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
