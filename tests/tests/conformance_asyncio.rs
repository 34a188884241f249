//! The same programs on `trefoil::asyncio` and on CPython's asyncio: `cargo test --release --test conformance_asyncio`.
//!
//! Runs every case of `tests/conformance/cases/asyncio`, or the `.json` files of the folder that `TREFOIL_CASES` names, and compares
//! what each task logged, and which errors left main, with what CPython 3.13 recorded. `tests/conformance/asyncio_oracle.py` defines the
//! statements: each `do_VERB` there has its arm in `Machine::statement` here. Cases named in `cases/known_asyncio.txt` show a difference
//! on purpose.
//!
//! `TREFOIL_GOT` names a folder for what happened here, a file for each case, of the same name.
//!
//! Names each case that fails, with its first difference; the last line counts them.

#[path = "conformance/asyncio.rs"]
mod asyncio_language;
#[path = "conformance/case.rs"]
mod case;
#[path = "conformance/runner.rs"]
mod runner;

use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::future::{Future as StdFuture, IntoFuture, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};
use trefoil_nursery::asyncio::{
    self, Abandoned, Barrier, BarrierError, Condition, Event, Future, GetError, GetNowaitError, Lock, NotLocked,
    PutError, PutNowaitError, Queue, Resolver, Semaphore, Task, TaskGroup, Timeout, WaitError, When,
};
use trefoil_nursery::{CancelAware, Cancelled, ErrorGroup, TimedOut, now, sleep};

/// A program that runs at this tick never ends.
const END: u64 = 10_000_019;

/// What leaves a block. `return` is an exception, as in the oracle.
#[derive(Clone, Debug)]
enum Failure {
    Cancelled,
    Label(String),
    Group(Vec<Failure>),
    Return(Value),
    /// An error that has no label, as that of a name that nothing has.
    Strange(#[allow(dead_code)] String),
}

type Outcome = Result<(), Failure>;
type Block = Pin<Box<dyn StdFuture<Output = Outcome>>>;
type Name = &'static str;
type Waited = Future<Value, Failure>;

fn label(text: &str) -> Failure {
    Failure::Label(text.into())
}

/// A `KeyError`.
fn no(name: impl Display) -> Failure {
    Failure::Strange(format!("there is no {name}"))
}

impl From<Cancelled> for Failure {
    fn from(_: Cancelled) -> Self {
        Failure::Cancelled
    }
}

impl From<Abandoned> for Failure {
    fn from(_: Abandoned) -> Self {
        label("Abandoned")
    }
}

impl From<TimedOut> for Failure {
    fn from(_: TimedOut) -> Self {
        label("Timeout")
    }
}

impl From<ErrorGroup<Failure>> for Failure {
    fn from(group: ErrorGroup<Failure>) -> Self {
        // A group of asyncio that was cancelled raises that alone.
        if group.is_cancelled() { Failure::Cancelled } else { Failure::Group(group.into_vec()) }
    }
}

impl From<NotLocked> for Failure {
    fn from(_: NotLocked) -> Self {
        label("Misuse")
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Cancelled(_) => Failure::Cancelled,
            WaitError::NotLocked(_) => label("Misuse"),
        }
    }
}

impl From<BarrierError> for Failure {
    fn from(error: BarrierError) -> Self {
        match error {
            BarrierError::Cancelled(_) => Failure::Cancelled,
            BarrierError::Broken => label("BrokenBarrier"),
        }
    }
}

impl From<GetError> for Failure {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Cancelled(_) => Failure::Cancelled,
            GetError::ShutDown => label("QueueShutDown"),
        }
    }
}

impl<T> From<PutError<T>> for Failure {
    fn from(error: PutError<T>) -> Self {
        match error {
            PutError::Cancelled(..) => Failure::Cancelled,
            PutError::ShutDown(_) => label("QueueShutDown"),
        }
    }
}

impl From<GetNowaitError> for Failure {
    fn from(error: GetNowaitError) -> Self {
        match error {
            GetNowaitError::Empty => label("QueueEmpty"),
            GetNowaitError::ShutDown => label("QueueShutDown"),
        }
    }
}

impl<T> From<PutNowaitError<T>> for Failure {
    fn from(error: PutNowaitError<T>) -> Self {
        match error {
            PutNowaitError::Full(_) => label("QueueFull"),
            PutNowaitError::ShutDown(_) => label("QueueShutDown"),
        }
    }
}

impl CancelAware for Failure {
    fn is_cancelled(&self) -> bool {
        matches!(self, Failure::Cancelled)
    }

    fn to_copy(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl Failure {
    /// Those of its leaves, sorted. As in the oracle, a leaf that has none is raised then: a `return` out of a group goes on so.
    fn labels(&self) -> Result<Vec<String>, Failure> {
        let mut all = match self {
            Failure::Cancelled => vec!["Cancelled".into()],
            Failure::Label(text) => vec![text.clone()],
            Failure::Group(all) => all.iter().map(Failure::labels).collect::<Result<Vec<_>, _>>()?.concat(),
            Failure::Return(_) | Failure::Strange(_) => return Err(self.clone()),
        };
        all.sort();
        Ok(all)
    }
}

/// As Python prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        other => other.to_string(),
    }
}

fn shown_outcome(outcome: &Result<Value, Failure>) -> Result<String, Failure> {
    match outcome {
        Ok(value) => Ok(shown(value)),
        Err(failure) => Ok(format!("!{}", failure.labels()?.join(","))),
    }
}

fn text(value: &'static Value) -> Name {
    value.as_str().unwrap_or_else(|| panic!("a name was expected, not {value}"))
}

/// Ticks. Where they are negative it is too late, and that is all that matters.
fn ticks(value: &Value) -> Duration {
    Duration::from_secs_f64(value.as_f64().expect("a number of ticks").max(0.0))
}

fn ticks_or_none(value: &Value) -> Option<Duration> {
    (!value.is_null()).then(|| ticks(value))
}

/// A future, and its resolver, until that is used.
type Resolvable = (Option<Resolver<Value, Failure>>, Waited);

struct Machine {
    begin: Instant,
    trace: RefCell<BTreeMap<String, Vec<(u64, String)>>>,
    tasks: RefCell<HashMap<Name, Task<Value, Failure>>>,
    futures: RefCell<HashMap<Name, Resolvable>>,
    groups: RefCell<HashMap<Name, TaskGroup<Failure>>>,
    timeouts: RefCell<HashMap<Name, Timeout>>,
    events: RefCell<HashMap<Name, Rc<Event>>>,
    locks: RefCell<HashMap<Name, Rc<Lock>>>,
    conditions: RefCell<HashMap<Name, Rc<Condition>>>,
    queues: HashMap<Name, Queue<Value>>,
    semaphores: HashMap<Name, Semaphore>,
    barriers: HashMap<Name, Barrier>,
    /// Those that awaited themselves. CPython takes every later await of such a one for a misuse.
    awaited_themselves: RefCell<Vec<Waited>>,
    ended: Arc<AtomicBool>,
    result: RefCell<Option<Outcome>>,
}

fn named<T: Clone>(map: &RefCell<HashMap<Name, T>>, name: Name, new: impl FnOnce() -> T) -> T {
    map.borrow_mut().entry(name).or_insert_with(new).clone()
}

impl Machine {
    fn new(program: &'static Value) -> Rc<Self> {
        fn each<T>(program: &'static Value, key: &str, new: impl Fn(usize) -> T) -> HashMap<Name, T> {
            let all = program[key].as_object().into_iter().flatten();
            all.map(|(name, n)| (&**name, new(n.as_u64().expect("a number") as usize))).collect()
        }
        Rc::new(Self {
            begin: now(),
            trace: RefCell::default(),
            tasks: RefCell::default(),
            futures: RefCell::default(),
            groups: RefCell::default(),
            timeouts: RefCell::default(),
            events: RefCell::default(),
            locks: RefCell::default(),
            conditions: RefCell::default(),
            queues: each(program, "queues", Queue::new),
            semaphores: each(program, "semaphores", Semaphore::new),
            barriers: each(program, "barriers", Barrier::new),
            awaited_themselves: RefCell::default(),
            ended: Arc::default(),
            result: RefCell::default(),
        })
    }

    fn log(&self, task: Name, line: impl Into<String>) {
        if !self.ended.load(Ordering::Relaxed) {
            let at = (now() - self.begin).as_secs_f64().round() as u64;
            self.trace.borrow_mut().entry(task.to_string()).or_default().push((at, line.into()));
        }
    }

    fn future(&self, name: Name) -> Waited {
        let mut futures = self.futures.borrow_mut();
        let (_, future) = futures.entry(name).or_insert_with(|| {
            let (resolver, future) = asyncio::create_future();
            (Some(resolver), future)
        });
        future.clone()
    }

    /// A task of that name if there is one by now, or else a future.
    fn awaitable(&self, name: Name) -> Waited {
        let task = self.tasks.borrow().get(name).cloned();
        task.map_or_else(|| self.future(name), Into::into)
    }

    fn awaitables(&self, names: &'static Value) -> Vec<Waited> {
        names.as_array().expect("names").iter().map(|name| self.awaitable(text(name))).collect()
    }

    fn task(&self, name: Name) -> Result<Task<Value, Failure>, Failure> {
        self.tasks.borrow().get(name).cloned().ok_or_else(|| no(name))
    }

    fn resolve(&self, name: Name, outcome: Result<Value, Failure>) -> Outcome {
        drop(self.future(name));
        let resolver = self.futures.borrow_mut().get_mut(name).and_then(|(resolver, _)| resolver.take());
        // It is used up, or the future was cancelled.
        let set = resolver.is_some_and(|resolver| resolver.set(outcome).is_ok());
        if set { Ok(()) } else { Err(label("InvalidState")) }
    }

    /// Awaits a future. A task that awaits itself panics here; in Python the error comes in the next turn.
    async fn await_one(&self, future: Waited) -> Result<Value, Failure> {
        if self.is_misused(&future) && !future.done() {
            return Err(label("Misuse"));
        }
        if self.is_current(&future) {
            self.awaited_themselves.borrow_mut().push(future);
            asyncio::sleep(Duration::ZERO).await?;
            return Err(label("Misuse"));
        }
        (&future).await
    }

    fn is_misused(&self, future: &Waited) -> bool {
        self.awaited_themselves.borrow().iter().any(|other| other.is(future))
    }

    fn is_current(&self, future: &Waited) -> bool {
        let current = asyncio::current_task();
        self.tasks.borrow().values().any(|task| task.is(future) && Some(task.handle()) == current)
    }

    /// A task's whole body.
    async fn run(self: Rc<Self>, task: Name, statements: &'static Value) -> Result<Value, Failure> {
        match self.block(task, statements).await {
            Ok(()) => Ok(Value::Null),
            Err(Failure::Return(value)) => Ok(value),
            Err(failure) => Err(failure),
        }
    }

    fn block(self: &Rc<Self>, task: Name, statements: &'static Value) -> Block {
        let machine = self.clone();
        Box::pin(async move {
            for statement in statements.as_array().expect("a block is a list") {
                let (verb, arg) = statement.as_object().and_then(|s| s.iter().next()).expect("a statement has one key");
                machine.statement(task, verb, arg).await?;
            }
            Ok(())
        })
    }

    async fn statement(self: &Rc<Self>, task: Name, verb: &str, arg: &'static Value) -> Outcome {
        match verb {
            "log" => self.log(task, text(arg)),
            "sleep" => asyncio::sleep(ticks(arg)).await?,
            "raise" => return Err(label(text(arg))),
            "return" => return Err(Failure::Return(arg.clone())),

            // Tasks.
            "create" => {
                let name = text(&arg["name"]);
                let created = asyncio::create_task(self.clone().run(name, &arg["body"]));
                self.tasks.borrow_mut().insert(name, created);
            }
            "cancel" => {
                let accepted = self.awaitable(text(arg)).cancel();
                self.log(task, format!("cancel {} {accepted}", text(arg)));
            }
            "uncancel" => {
                let left = self.task(text(arg))?.uncancel();
                self.log(task, format!("uncancel {} {left}", text(arg)));
            }
            "cancelling" => {
                let count = self.task(text(arg))?.cancelling();
                self.log(task, format!("cancelling {} {count}", text(arg)));
            }
            "uncancel_self" => {
                let left = asyncio::current_task().expect("in a task").uncancel();
                self.log(task, format!("uncancel self {left}"));
            }
            "state" => {
                let future = self.awaitable(text(arg));
                let state = match future.cancelled() {
                    true => "cancelled".to_string(),
                    false => future.look(shown_outcome).unwrap_or_else(|_| Ok("pending".into()))?,
                };
                self.log(task, format!("{} is {state}", text(arg)));
            }
            "await" => {
                let value = self.await_one(self.awaitable(text(arg))).await?;
                self.log(task, format!("{} gave {}", text(arg), shown(&value)));
            }
            "set_result" => self.resolve(text(&arg["future"]), Ok(arg["value"].clone()))?,
            "set_exception" => self.resolve(text(&arg["future"]), Err(label(text(&arg["label"]))))?,

            // Combinators.
            "gather" => {
                let all = self.awaitables(&arg["of"]);
                let shown: Vec<String> = match arg["return_exceptions"].as_bool().unwrap_or(false) {
                    true => asyncio::gather_settled(&all).await?.iter().map(shown_outcome).collect::<Result<_, _>>()?,
                    false => asyncio::gather(&all).await?.iter().map(shown).collect(),
                };
                self.log(task, format!("gather [{}]", shown.join(" ")));
            }
            "wait" => {
                let names: Vec<_> = arg["of"].as_array().expect("names").iter().map(text).collect();
                let all = self.awaitables(&arg["of"]);
                if all.is_empty() {
                    return Err(label("Misuse"));
                }
                let when = match arg["when"].as_str() {
                    Some("FIRST_COMPLETED") => When::FirstCompleted,
                    Some("FIRST_EXCEPTION") => When::FirstException,
                    _ => When::AllCompleted,
                };
                let waited = asyncio::wait(&all, when, ticks_or_none(&arg["timeout"])).await?;
                // A name may be another one's by now: asked again, as the oracle does. Of two names of one future the last is said.
                let by_then = self.awaitables(&arg["of"]);
                let said = |some: &[&Waited]| {
                    let name = |one: &&Waited| by_then.iter().rposition(|other| other.is(one)).map(|at| names[at]);
                    let mut names = some.iter().map(name).collect::<Option<Vec<_>>>().ok_or_else(|| no(arg))?;
                    names.sort_unstable();
                    Ok::<_, Failure>(names.join(","))
                };
                self.log(task, format!("done {} pending {}", said(&waited.done)?, said(&waited.pending)?));
            }
            "wait_for" => {
                let future = self.awaitable(text(&arg["of"]));
                let timeout = ticks_or_none(&arg["timeout"]);
                let value = match timeout {
                    Some(time) if !time.is_zero() && (self.is_current(&future) || self.is_misused(&future)) => {
                        asyncio::timeout(time, async |_| self.await_one(future).await).await?
                    }
                    None => self.await_one(future).await?,
                    _ => asyncio::wait_for(&future, timeout).await?,
                };
                self.log(task, format!("wait_for {}", shown(&value)));
            }
            "as_completed" => {
                let all = self.awaitables(&arg["of"]);
                let mut results = asyncio::as_completed(&all, ticks_or_none(&arg["timeout"]));
                while let Some(result) = results.next().await {
                    self.log(task, format!("completed {}", shown(&result?)));
                }
            }
            "shield" => {
                let value = asyncio::shield(&self.awaitable(text(arg))).await?;
                self.log(task, format!("shield {}", shown(&value)));
            }
            "timeout" => {
                let id = text(&arg["id"]);
                asyncio::timeout(ticks_or_none(&arg["after"]), async |timeout| {
                    self.timeouts.borrow_mut().insert(id, timeout);
                    self.block(task, &arg["body"]).await
                })
                .await?;
                let expired = self.timeouts.borrow()[id].expired();
                self.log(task, format!("{id} expired={expired}"));
            }
            "reschedule" => {
                let when = ticks_or_none(&arg["after"]).map(|after| now() + after);
                let timeout = self.timeouts.borrow().get(text(&arg["id"])).cloned().ok_or_else(|| no(&arg["id"]))?;
                timeout.reschedule(when).map_err(|_| label("Misuse"))?;
            }
            "group" => {
                asyncio::task_group(async |group| {
                    self.groups.borrow_mut().insert(text(&arg["id"]), group);
                    self.block(task, &arg["body"]).await
                })
                .await?;
            }
            "spawn" => {
                let group = self.groups.borrow().get(text(&arg["in"])).cloned().ok_or_else(|| no(&arg["in"]))?;
                let name = text(&arg["name"]);
                let created = group.create_task(self.clone().run(name, &arg["body"])).map_err(|_| label("Misuse"))?;
                self.tasks.borrow_mut().insert(name, created);
            }

            // Control flow.
            "try" => {
                let Err(failure) = self.block(task, &arg["body"]).await else { return Ok(()) };
                match failure {
                    Failure::Return(_) => return Err(failure),
                    Failure::Cancelled => {
                        if let Some(handler) = arg.get("cancelled") {
                            self.log(task, "cancelled");
                            self.block(task, handler).await?;
                        }
                        if !arg["swallow"].as_bool().unwrap_or(false) {
                            return Err(failure);
                        }
                    }
                    failure => {
                        let Some(handler) = arg.get("except") else { return Err(failure) };
                        self.log(task, format!("caught {}", failure.labels()?.join(",")));
                        self.block(task, handler).await?;
                    }
                }
            }
            "finally" => {
                let result = self.block(task, &arg["body"]).await;
                self.block(task, &arg["finally"]).await?;
                return result;
            }

            // Synchronisation.
            "set" => named(&self.events, text(arg), Rc::default).set(),
            "clear" => named(&self.events, text(arg), Rc::default).clear(),
            "wait_event" => named(&self.events, text(arg), Rc::<Event>::default).wait().await?,
            "lock" => {
                let lock = named(&self.locks, text(&arg["id"]), Rc::<Lock>::default);
                let _held = lock.acquire().await?;
                self.log(task, format!("acquired {}", text(&arg["id"])));
                self.block(task, &arg["body"]).await?;
            }
            "semaphore" => {
                let _permit = self.semaphores[text(&arg["id"])].acquire().await?;
                self.log(task, format!("acquired {}", text(&arg["id"])));
                self.block(task, &arg["body"]).await?;
            }
            "condition" => {
                let condition = named(&self.conditions, text(&arg["id"]), Rc::<Condition>::default);
                condition.acquire().await?.forget();
                let result = self.block(task, &arg["body"]).await;
                condition.release()?;
                return result;
            }
            "condition_wait" => {
                let condition = self.conditions.borrow().get(text(arg)).cloned().ok_or_else(|| no(arg))?;
                condition.wait_unguarded().await?;
                self.log(task, format!("notified {}", text(arg)));
            }
            "notify" => {
                let condition = named(&self.conditions, text(&arg["id"]), Rc::<Condition>::default);
                condition.notify_unguarded(arg["n"].as_u64().map_or(usize::MAX, |n| n as usize))?;
            }
            "barrier" => {
                self.barriers[text(arg)].wait().await?;
                self.log(task, format!("passed {}", text(arg)));
            }
            "barrier_abort" => self.barriers[text(arg)].abort().await?,
            "put" => {
                self.queues[text(&arg["queue"])].put(arg["value"].clone()).await?;
                self.log(task, format!("put {}", arg["value"]));
            }
            "put_nowait" => self.queues[text(&arg["queue"])].put_nowait(arg["value"].clone())?,
            "get" => {
                let item = self.queues[text(arg)].get().await?;
                self.log(task, format!("got {item}"));
            }
            "get_nowait" => {
                let item = self.queues[text(arg)].get_nowait()?;
                self.log(task, format!("got {item}"));
            }
            "task_done" => self.queues[text(arg)].task_done().map_err(|_| label("Misuse"))?,
            "join" => {
                self.queues[text(arg)].join().await?;
                self.log(task, format!("joined {}", text(arg)));
            }
            "shutdown" => {
                let queue = &self.queues[text(&arg["queue"])];
                match arg["immediate"].as_bool().unwrap_or(false) {
                    true => drop(queue.shutdown_now()),
                    false => queue.shutdown(),
                }
            }
            other => panic!("there is no statement {other:?}"),
        }
        Ok(())
    }
}

/// What happened on each driver, in the form in which the cases have it.
fn perform(program: &Value) -> Vec<Value> {
    // For the length of the process: tasks are `'static`, and programs are few and small.
    let program: &'static Value = Box::leak(Box::new(program.clone()));
    let all = RefCell::new(Vec::new());
    trefoil_tests::run_virtual(async || {
        let machine = Machine::new(program);
        let mut event_loop = Box::pin(asyncio::event_loop(body(machine.clone(), program)));
        // A task that swallows the last cancel may wait forever, as it may in Python: then the loop is dropped.
        let mut patience = Box::pin(sleep(Duration::from_secs(2 * END)));
        poll_fn(|cx| {
            let ended = event_loop.as_mut().poll(cx).map(drop);
            if ended.is_pending() { patience.as_mut().poll(cx).map(drop) } else { ended }
        })
        .await;
        drop(event_loop);
        let outcome = match machine.result.take().expect("main ended") {
            Ok(()) => vec!["ok".to_string()],
            Err(failure) => failure.labels().unwrap_or_else(|error| panic!("main fails with {error:?}")),
        };
        all.borrow_mut().push(serde_json::json!({ "trace": machine.trace.take(), "outcome": outcome }));
    });
    all.into_inner()
}

/// As `main` in the oracle.
async fn body(machine: Rc<Machine>, program: &'static Value) -> Outcome {
    drop(asyncio::create_task(sentinel(machine.clone())));
    let body = asyncio::create_task(machine.clone().run("main", &program["body"]));
    machine.tasks.borrow_mut().insert("main", body.clone());
    let waited = asyncio::wait([&body], When::AllCompleted, Duration::from_secs(END)).await?;
    assert!(waited.pending.is_empty(), "the program never ends");
    *machine.result.borrow_mut() = Some((&body).await.map(drop));
    Ok(())
}

/// Waits until the loop cancels what is left over, at the end, and says so in the very moment: what tasks do from then on is not part of
/// the trace. It is the first task that the loop cancels, as it is the oldest beside the loop's main.
async fn sentinel(machine: Rc<Machine>) -> Outcome {
    struct Cancelling {
        ended: Arc<AtomicBool>,
        task: Waker,
    }
    impl Wake for Cancelling {
        fn wake(self: Arc<Self>) {
            self.ended.store(true, Ordering::Relaxed);
            self.task.wake_by_ref();
        }
    }
    let (_resolver, never) = asyncio::create_future::<(), Failure>();
    let mut never = never.into_future();
    poll_fn(|cx| {
        let waker = Waker::from(Arc::new(Cancelling { ended: machine.ended.clone(), task: cx.waker().clone() }));
        Pin::new(&mut never).poll(&mut Context::from_waker(&waker))
    })
    .await
}

fn main() {
    let suite = runner::Suite {
        language: asyncio_language::LANGUAGE,
        perform,
        cases: "asyncio",
        known: "known_asyncio.txt",
        malformed: "malformed_asyncio",
    };
    suite.main();
}
