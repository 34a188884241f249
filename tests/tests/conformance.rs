//! The same programs on this library and on Trio: `cargo test --release --test conformance`.
//!
//! Runs every case of `tests/conformance/cases/trio`, or the `.json` files of the folder that `TREFOIL_CASES` names, and
//! compares what each task logged, and which errors left main, with what real Trio recorded. `tests/conformance/README.md` defines
//! the language; this is an interpreter of it on the public API. Cases named in `cases/known.txt` show a difference on purpose: they
//! have to differ, and in the way that the case has under "here".
//!
//! `TREFOIL_GOT` names a folder for what happened here, a file for each case, of the same name.
//!
//! Names each case that fails, with its first difference; the last line counts them.

#[path = "conformance/case.rs"]
mod case;
#[path = "conformance/runner.rs"]
mod runner;
#[path = "conformance/trio.rs"]
mod trio;

use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use trefoil_nursery::sync::{CapacityLimiter, Condition, Mutex, MutexGuard, Semaphore};
use trefoil_nursery::{
    CancelAware, CancelScope, Cancelled, EffectiveDeadline, ErrorGroup, Event, Local, NotStarted, Nursery, Receiver,
    Sender, Started, TimedOut, TryRecvError, TrySendError, channel, checkpoint, effective_deadline, fail_after,
    local_nursery, now, sleep, sleep_forever,
};

/// What leaves a block: a label, a cancellation, or a group.
#[derive(Debug)]
enum Failure {
    Cancelled,
    Label(String),
    Group(Vec<Failure>),
}

type Outcome = Result<(), Failure>;
type Block<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

fn label(text: &str) -> Failure {
    Failure::Label(text.into())
}

impl From<Cancelled> for Failure {
    fn from(_: Cancelled) -> Self {
        Failure::Cancelled
    }
}

impl From<TimedOut> for Failure {
    fn from(_: TimedOut) -> Self {
        label("TooSlow")
    }
}

impl From<NotStarted> for Failure {
    fn from(_: NotStarted) -> Self {
        label("Misuse")
    }
}

impl From<ErrorGroup<Failure>> for Failure {
    fn from(group: ErrorGroup<Failure>) -> Self {
        Failure::Group(group.into_vec())
    }
}

impl CancelAware for Failure {
    fn is_cancelled(&self) -> bool {
        match self {
            Failure::Cancelled => true,
            Failure::Label(_) => false,
            Failure::Group(all) => all.iter().all(CancelAware::is_cancelled),
        }
    }

    fn without_cancelled(self) -> Option<Self> {
        self.split().0
    }
}

impl Failure {
    /// The errors, and whether a cancellation came along.
    fn split(self) -> (Option<Self>, bool) {
        match self {
            Failure::Cancelled => (None, true),
            Failure::Label(_) => (Some(self), false),
            Failure::Group(all) => {
                let mut cancelled = false;
                let errors: Vec<_> = all
                    .into_iter()
                    .filter_map(|one| {
                        let (errors, also) = one.split();
                        cancelled |= also;
                        errors
                    })
                    .collect();
                (if errors.is_empty() { None } else { Some(Failure::Group(errors)) }, cancelled)
            }
        }
    }

    fn labels(&self) -> Vec<String> {
        let mut all = match self {
            Failure::Cancelled => vec!["Cancelled".into()],
            Failure::Label(text) => vec![text.clone()],
            Failure::Group(all) => all.iter().flat_map(Failure::labels).collect(),
        };
        all.sort();
        all
    }
}

/// A handle that has been freed of its brand, to be found by name from any task.
type Handle = Nursery<'static, 'static, Failure, Local>;
type Trace = BTreeMap<String, Vec<(u64, String)>>;

/// A condition of Trio comes with its lock, which a task holds around a block.
struct Monitor {
    lock: &'static Mutex<()>,
    condition: &'static Condition,
    held: RefCell<Option<MutexGuard<'static, ()>>>,
}

struct Machine {
    begin: Instant,
    trace: RefCell<Trace>,
    scopes: RefCell<HashMap<String, CancelScope>>,
    nurseries: RefCell<HashMap<String, Handle>>,
    events: RefCell<HashMap<String, Rc<Event>>>,
    locks: RefCell<HashMap<String, Rc<Mutex<()>>>>,
    conditions: RefCell<HashMap<String, Rc<Monitor>>>,
    semaphores: HashMap<String, Semaphore>,
    limiters: HashMap<String, CapacityLimiter>,
    senders: HashMap<String, Sender<Value>>,
    receivers: HashMap<String, Receiver<Value>>,
}

/// What a child that is being started answers with.
type Answer = Rc<Cell<Option<Started<'static, Value>>>>;

fn named<T: Clone>(map: &RefCell<HashMap<String, T>>, name: &str, new: impl FnOnce() -> T) -> T {
    map.borrow_mut().entry(name.to_string()).or_insert_with(new).clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a name was expected, not {value}"))
}

/// As Python prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".into(),
        other => other.to_string(),
    }
}

fn ticks(value: &Value) -> Duration {
    Duration::from_secs_f64(value.as_f64().expect("a number of ticks"))
}

impl Machine {
    fn new(program: &Value) -> Self {
        let numbers = |key: &str| -> Vec<(String, Option<u64>)> {
            program[key]
                .as_object()
                .map_or_else(Vec::new, |all| all.iter().map(|(k, v)| (k.clone(), v.as_u64())).collect())
        };
        let (mut senders, mut receivers) = (HashMap::new(), HashMap::new());
        for (name, capacity) in numbers("channels") {
            let (sender, receiver) = channel(capacity.map_or(usize::MAX, |c| c as usize));
            senders.insert(name.clone(), sender);
            receivers.insert(name, receiver);
        }
        Self {
            begin: now(),
            trace: RefCell::default(),
            scopes: RefCell::default(),
            nurseries: RefCell::default(),
            events: RefCell::default(),
            locks: RefCell::default(),
            conditions: RefCell::default(),
            semaphores: numbers("semaphores")
                .into_iter()
                .map(|(k, v)| (k, Semaphore::new(v.unwrap() as usize)))
                .collect(),
            limiters: numbers("limiters")
                .into_iter()
                .map(|(k, v)| (k, CapacityLimiter::new(v.unwrap() as usize)))
                .collect(),
            senders,
            receivers,
        }
    }

    fn log(&self, task: &str, line: impl Into<String>) {
        let at = (now() - self.begin).as_secs_f64().round() as u64;
        self.trace.borrow_mut().entry(task.to_string()).or_default().push((at, line.into()));
    }

    fn scope(&self, name: &str) -> CancelScope {
        named(&self.scopes, name, CancelScope::new)
    }

    fn event(&self, name: &str) -> Rc<Event> {
        named(&self.events, name, || Rc::new(Event::new()))
    }

    fn monitor(&self, name: &str) -> Rc<Monitor> {
        named(&self.conditions, name, || {
            // For the length of the process: few, and small.
            let (lock, condition) = (Box::leak(Box::new(Mutex::new(()))), Box::leak(Box::new(Condition::new())));
            Rc::new(Monitor { lock, condition, held: RefCell::new(None) })
        })
    }

    fn block<'a>(&'a self, task: &'a str, statements: &'a Value, started: Option<Answer>) -> Block<'a> {
        Box::pin(async move {
            for statement in statements.as_array().expect("a block is a list") {
                let (verb, arg) = statement.as_object().and_then(|s| s.iter().next()).expect("a statement has one key");
                self.statement(task, verb, arg, started.clone()).await?;
            }
            Ok(())
        })
    }

    async fn statement(&self, task: &str, verb: &str, arg: &Value, started: Option<Answer>) -> Outcome {
        match verb {
            "log" => self.log(task, text(arg)),
            "sleep" => sleep(ticks(arg)).await?,
            "sleep_forever" => sleep_forever().await?,
            "checkpoint" => checkpoint().await?,
            "raise" => return Err(label(text(arg))),
            "nursery" => {
                let id = text(&arg["id"]);
                let opened = local_nursery(async |n: Nursery<'_, '_, Failure, Local>| {
                    // SAFETY: the handle is taken out of the map before the nursery ends; children borrow the machine and the program,
                    // which outlive the run.
                    let handle: Handle = unsafe { std::mem::transmute(n) };
                    self.nurseries.borrow_mut().insert(id.to_string(), handle);
                    self.block(task, &arg["body"], started).await
                });
                let ended = Gone { machine: self, id };
                let result = opened.or_cancelled().await;
                drop(ended);
                result?;
            }
            "spawn" => self.spawn(arg),
            "start" => {
                let handle = self.nurseries.borrow()[text(&arg["in"])];
                // SAFETY: machine and program outlive every child.
                let (machine, arg) = unsafe { (forever(self), forever(arg)) };
                let value = handle
                    .start(move |started: Started<'static, Value>| {
                        let answer = Rc::new(Cell::new(Some(started)));
                        machine.block(text(&arg["name"]), &arg["body"], Some(answer))
                    })
                    .await?;
                self.log(task, format!("started {}", shown(&value)));
            }
            "started" => match started.and_then(|answer| answer.take()) {
                Some(answer) => answer.ready(arg.clone()),
                None => return Err(label("Misuse")),
            },
            "scope" => {
                let id = text(&arg["id"]);
                let scope = self.scope(id);
                scope.set_shield(arg["shield"].as_bool().unwrap_or(false));
                if !arg["after"].is_null() {
                    scope.set_deadline(Some(now() + ticks(&arg["after"])));
                }
                scope.run(self.block(task, &arg["body"], started)).await?;
                self.log(task, format!("{id} caught={}", scope.cancelled_caught()));
            }
            "fail_after" => fail_after(ticks(&arg["after"]), self.block(task, &arg["body"], started)).await?,
            "cancel" => self.scope(text(arg)).cancel(),
            "cancel_nursery" => {
                let handle = self.nurseries.borrow().get(text(arg)).copied();
                if let Some(handle) = handle {
                    handle.cancel();
                }
            }
            "set_deadline" => {
                let after = &arg["after"];
                let deadline = (!after.is_null()).then(|| match after.as_f64().expect("ticks") {
                    late if late < 0.0 => now() - Duration::from_secs_f64(-late),
                    _ => now() + ticks(after),
                });
                self.scope(text(&arg["scope"])).set_deadline(deadline);
            }
            "set_shield" => self.scope(text(&arg["scope"])).set_shield(arg["shield"].as_bool().expect("a flag")),
            "cancel_called" => {
                let called = self.scope(text(arg)).cancel_called();
                self.log(task, format!("{} called={called}", text(arg)));
            }
            "effective_deadline" => {
                let left = match effective_deadline() {
                    EffectiveDeadline::Cancelled => "-inf".to_string(),
                    EffectiveDeadline::Never => "inf".to_string(),
                    EffectiveDeadline::At(at) => {
                        let ahead = at.saturating_duration_since(now()).as_secs_f64();
                        let behind = now().saturating_duration_since(at).as_secs_f64();
                        format!("{}", (ahead - behind).round() as i64)
                    }
                };
                self.log(task, format!("deadline {left}"));
            }
            "try" => {
                let Err(failure) = self.block(task, &arg["body"], started.clone()).await else { return Ok(()) };
                let whole = failure.labels();
                let _ = whole;
                match (failure, arg.get("except")) {
                    (failure, Some(handler)) if !failure.is_cancelled() => {
                        let (errors, cancelled) = failure.split();
                        self.log(task, format!("caught {}", errors.expect("not only cancelled").labels().join(",")));
                        self.block(task, handler, started).await?;
                        if cancelled {
                            return Err(Failure::Cancelled);
                        }
                    }
                    (failure, _) => {
                        let has_cancelled = failure.labels().iter().any(|label| label == "Cancelled");
                        if let (Some(handler), true) = (arg.get("cancelled"), has_cancelled) {
                            self.log(task, "cancelled");
                            self.block(task, handler, started).await?;
                        }
                        return Err(failure);
                    }
                }
            }
            "finally" => {
                let result = self.block(task, &arg["body"], started.clone()).await;
                self.block(task, &arg["finally"], started).await?;
                return result;
            }
            "set" => self.event(text(arg)).set(),
            "wait" => self.event(text(arg)).wait().await?,
            "send" => {
                let sender = &self.senders[text(&arg["ch"])];
                match sender.send(arg["value"].clone()).await {
                    Ok(()) => self.log(task, format!("sent {}", shown(&arg["value"]))),
                    Err(trefoil_nursery::SendError::Cancelled(cancelled, _)) => return Err(cancelled.into()),
                    Err(trefoil_nursery::SendError::Closed(_)) => return Err(label("Broken")),
                    Err(trefoil_nursery::SendError::HandleClosed(_)) => return Err(label("Closed")),
                }
            }
            "recv" => {
                let receiver = &self.receivers[text(arg)];
                match receiver.recv().await? {
                    Some(value) => self.log(task, format!("got {}", shown(&value))),
                    None if receiver.is_closed() => return Err(label("Closed")),
                    None => return Err(label("EndOfChannel")),
                }
            }
            "drain" => {
                let receiver = &self.receivers[text(arg)];
                while let Some(value) = receiver.recv().await? {
                    self.log(task, format!("got {}", shown(&value)));
                }
                if receiver.is_closed() {
                    return Err(label("Closed"));
                }
            }
            "send_nowait" => match self.senders[text(&arg["ch"])].try_send(arg["value"].clone()) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => return Err(label("WouldBlock")),
                Err(TrySendError::Closed(_)) => return Err(label("Broken")),
                Err(TrySendError::HandleClosed(_)) => return Err(label("Closed")),
            },
            "recv_nowait" => match self.receivers[text(arg)].try_recv() {
                Ok(value) => self.log(task, format!("got {}", shown(&value))),
                Err(TryRecvError::Empty) => return Err(label("WouldBlock")),
                Err(TryRecvError::Closed) => return Err(label("EndOfChannel")),
                Err(TryRecvError::HandleClosed) => return Err(label("Closed")),
            },
            "close_send" => self.senders[text(arg)].close(),
            "close_recv" => self.receivers[text(arg)].close(),
            "lock" => {
                let lock = named(&self.locks, text(&arg["id"]), Rc::default);
                let _held = lock.lock().await?;
                self.log(task, format!("acquired {}", text(&arg["id"])));
                self.block(task, &arg["body"], started).await?;
            }
            "semaphore" => {
                let _permit = self.semaphores[text(&arg["id"])].acquire(1).await?;
                self.log(task, format!("acquired {}", text(&arg["id"])));
                self.block(task, &arg["body"], started).await?;
            }
            "limiter" => {
                let _token = self.limiters[text(&arg["id"])].acquire().await?;
                self.log(task, format!("acquired {}", text(&arg["id"])));
                self.block(task, &arg["body"], started).await?;
            }
            "condition" => {
                let monitor = self.monitor(text(&arg["id"]));
                let guard = monitor.lock.lock().await?;
                *monitor.held.borrow_mut() = Some(guard);
                let result = self.block(task, &arg["body"], started).await;
                let guard = monitor.held.borrow_mut().take();
                drop(guard);
                return result;
            }
            "condition_wait" => {
                let monitor = self.monitor(text(arg));
                let Some(guard) = monitor.held.borrow_mut().take() else { return Err(label("Misuse")) };
                let (guard, waited) = monitor.condition.wait(guard).await;
                *monitor.held.borrow_mut() = Some(guard);
                waited?;
                self.log(task, format!("notified {}", text(arg)));
            }
            "notify" => {
                let monitor = self.monitor(text(&arg["id"]));
                let held = monitor.held.borrow();
                let Some(guard) = &*held else { return Err(label("Misuse")) };
                match arg["n"].as_u64() {
                    Some(n) => monitor.condition.notify(guard, n as usize),
                    None => monitor.condition.notify_all(guard),
                }
            }
            other => panic!("there is no statement {other:?}"),
        }
        Ok(())
    }

    fn spawn(&self, arg: &Value) {
        let handle = self.nurseries.borrow()[text(&arg["in"])];
        // SAFETY: machine and program outlive every child.
        let (machine, arg) = unsafe { (forever(self), forever(arg)) };
        drop(handle.spawn(machine.block(text(&arg["name"]), &arg["body"], None)));
    }
}

/// # Safety
/// The value outlives all that is done with the result.
unsafe fn forever<T>(value: &T) -> &'static T {
    // SAFETY: the caller's word.
    unsafe { &*std::ptr::from_ref(value) }
}

/// The nursery of that name is not open any more.
struct Gone<'a> {
    machine: &'a Machine,
    id: &'a str,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.machine.nurseries.borrow_mut().remove(self.id);
    }
}

/// What happened on each driver, in the form in which the cases have it.
fn perform(program: &Value) -> Vec<Value> {
    let all = RefCell::new(Vec::new());
    trefoil_tests::run_virtual(async || {
        let machine = Machine::new(program);
        let result = machine.block("main", &program["body"], None).await;
        let outcome = match result {
            Ok(()) => vec!["ok".to_string()],
            Err(failure) => failure.labels(),
        };
        all.borrow_mut().push(serde_json::json!({ "trace": machine.trace.take(), "outcome": outcome }));
    });
    all.into_inner()
}

fn main() {
    let suite =
        runner::Suite { language: trio::LANGUAGE, perform, cases: "trio", known: "known.txt", malformed: "malformed" };
    suite.main();
}
