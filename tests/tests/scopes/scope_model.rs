//! Random trees of scopes and nurseries, with operations on them from tasks all over the tree, against a plain sequential model of the
//! rules: R2, R3, R6, R14, R15, R18–R20, R24–R26, R32, R33, R43–R48, R55, R56; and of soft cancels, which cancel the polite scopes below
//! them now, and the rest later.
//!
//! A program is a tree of *flows* (main, the bodies of nurseries, their children), each a list of items: sleep; sleep and then operate
//! on scopes; enter a scope; open a nursery; look at the effective deadline. The model predicts what each flow sees and when, to the
//! nanosecond, and the flags of every scope at the end.
//!
//! So that a prediction needs no knowledge of the order in which tasks run within one instant, operations happen at instants at which
//! no deadline expires naturally and no other flow wakes by itself (each flow has its own instants in every [`UNIT`]); deadlines and
//! plain sleeps share a few instants of their own, so that they coincide often. And a flow that has operated yields once, so that the
//! loop looks at deadlines that were moved into the past (R45).
//!
//! That the programs reach the rules is checked too: [`mutants_are_found`] breaks one rule of the model after the other, and asks for
//! programs that tell the difference.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use trefoil_nursery::{
    CancelScope, Cancelled, EffectiveDeadline, Local, Nursery, effective_deadline, local_nursery, now, sleep_until,
    soft_cancelled, until_soft_cancelled, yield_now,
};
use trefoil_tests::run_virtual;

// ---- Programs ------------------------------------------------------------------------------------------------------

/// Nanoseconds.
type Time = u64;

const UNIT: Time = 1024;
/// Where in a unit sleeps end and deadlines are; flows operate at the instants below.
const SHARED: Time = 700;

#[derive(Clone, Debug)]
enum Op {
    Cancel(usize),
    /// Relative to now, in units; `None` takes it away.
    Deadline(usize, Option<(i64, Time)>),
    Shield(usize, bool),
    /// With a grace of so long.
    Soft(usize, (i64, Time)),
    /// Lowers the shield and raises it again, at once (R20).
    Blink(usize),
    /// Cancels one and raises the shield of the other, at once (R20).
    CancelAndShield(usize, usize),
    /// Moves the deadline of a scope that it is in into the past, sets the shield of that or another one around, and looks, at once
    /// (R2, R14).
    Stale(usize, usize, bool),
    /// Reads `cancel_called`.
    Read(usize),
    Look,
}

#[derive(Clone, Debug)]
struct Settings {
    deadline: Option<(i64, Time)>,
    shield: bool,
    cancelled: bool,
    soft: Option<(i64, Time)>,
}

#[derive(Clone, Debug)]
enum Item {
    Sleep {
        units: Time,
        shift: Time,
        swallow: bool,
    },
    Operate {
        ops: Vec<Op>,
        swallow: bool,
    },
    Look,
    Scope {
        node: usize,
        settings: Settings,
        items: Vec<Item>,
    },
    /// `until_soft_cancelled`, which nobody has a handle of.
    Polite {
        node: usize,
        items: Vec<Item>,
    },
    Nursery {
        node: usize,
        settings: Settings,
        flows: Vec<(usize, Vec<Item>)>,
    },
}

#[derive(Clone, Debug)]
struct Program {
    main: Vec<Item>,
    nodes: usize,
    flows: usize,
    /// Which nodes are scopes, with their settings.
    scopes: BTreeMap<usize, Settings>,
}

fn time_of(now: Time, (units, shift): (i64, Time)) -> Time {
    let unit = (now / UNIT) as i64 + units;
    // Into the past means a moment ago: no deadline that was set is at an instant that others use.
    if units <= 0 { now.saturating_sub(1) } else { unit as Time * UNIT + SHARED + shift }
}

/// What is left until then; a moment ago is no time.
fn grace_of(now: Time, when: (i64, Time)) -> Time {
    time_of(now, when).saturating_sub(now)
}

fn next_turn(now: Time, flow: usize) -> Time {
    let at = now / UNIT * UNIT + flow as Time;
    if at > now { at } else { at + UNIT }
}

fn when() -> impl Strategy<Value = Option<(i64, Time)>> {
    prop_oneof![1 => Just(None), 5 => (-2..8i64, 0..2u64).prop_map(Some)]
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        prop_oneof![2 => Just(None), 3 => (1..12i64, 0..2u64).prop_map(Some)],
        prop::bool::weighted(0.25),
        prop::bool::weighted(0.06),
        prop_oneof![8 => Just(None), 1 => (0..12i64, 0..2u64).prop_map(Some)],
    )
        .prop_map(|(deadline, shield, cancelled, soft)| Settings { deadline, shield, cancelled, soft })
}

fn op() -> impl Strategy<Value = Op> {
    // Targets are any numbers here; `number` makes nodes of them.
    prop_oneof![
        2 => any::<usize>().prop_map(Op::Cancel),
        4 => (any::<usize>(), when()).prop_map(|(target, when)| Op::Deadline(target, when)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(target, up)| Op::Shield(target, up)),
        4 => (any::<usize>(), (0..8i64, 0..2u64)).prop_map(|(target, grace)| Op::Soft(target, grace)),
        2 => any::<usize>().prop_map(Op::Blink),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(cancel, shield)| Op::CancelAndShield(cancel, shield)),
        2 => (any::<usize>(), any::<usize>(), any::<bool>()).prop_map(|(late, shield, up)| Op::Stale(late, shield, up)),
        2 => any::<usize>().prop_map(Op::Read),
        1 => Just(Op::Look),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let leaf = prop_oneof![
        3 => (1..6u64, 0..2u64, prop::bool::weighted(0.3))
            .prop_map(|(units, shift, swallow)| Item::Sleep { units, shift, swallow }),
        3 => (prop::collection::vec(op(), 1..4), prop::bool::weighted(0.3))
            .prop_map(|(ops, swallow)| Item::Operate { ops, swallow }),
        1 => Just(Item::Look),
    ];
    leaf.prop_recursive(5, 48, 4, |item| {
        let items = || prop::collection::vec(item.clone(), 1..5);
        prop_oneof![
            3 => (settings(), items()).prop_map(|(settings, items)| Item::Scope { node: 0, settings, items }),
            2 => items().prop_map(|items| Item::Polite { node: 0, items }),
            2 => (settings(), prop::collection::vec(items(), 1..4)).prop_map(|(settings, flows)| {
                Item::Nursery { node: 0, settings, flows: flows.into_iter().map(|items| (0, items)).collect() }
            }),
        ]
    })
}

fn program() -> impl Strategy<Value = Program> {
    prop::collection::vec(item(), 1..6).prop_map(|mut main| {
        let mut program = Program { main: Vec::new(), nodes: 0, flows: 1, scopes: BTreeMap::new() };
        number(&mut main, &mut program);
        let scopes: Vec<usize> = program.scopes.keys().copied().collect();
        aim(&mut main, &scopes, &mut Vec::new(), &mut Vec::new());
        program.main = main;
        program
    })
}

fn number(items: &mut [Item], program: &mut Program) {
    for item in items {
        match item {
            Item::Scope { node, settings, items } => {
                *node = program.nodes;
                program.nodes += 1;
                program.scopes.insert(*node, settings.clone());
                number(items, program);
            }
            Item::Polite { node, items } => {
                *node = program.nodes;
                program.nodes += 1;
                number(items, program);
            }
            Item::Nursery { node, flows, .. } => {
                *node = program.nodes;
                program.nodes += 1;
                for (flow, items) in flows {
                    *flow = program.flows;
                    program.flows += 1;
                    number(items, program);
                }
            }
            _ => {}
        }
    }
}

/// Operations aim at any scope of the program (entered, or not, or left), or at a nursery that they are in.
fn aim(items: &mut [Item], scopes: &[usize], nurseries: &mut Vec<usize>, around: &mut Vec<usize>) {
    for item in items {
        match item {
            Item::Operate { ops, .. } => {
                let targets: Vec<usize> = scopes.iter().chain(nurseries.iter()).copied().collect();
                if targets.is_empty() {
                    ops.clear();
                }
                for op in ops {
                    match op {
                        Op::Cancel(t) | Op::Deadline(t, _) | Op::Shield(t, _) => *t = targets[*t % targets.len()],
                        Op::Soft(t, _) | Op::Blink(t) | Op::Read(t) => *t = targets[*t % targets.len()],
                        Op::CancelAndShield(cancel, shield) => {
                            *cancel = targets[*cancel % targets.len()];
                            *shield = targets[*shield % targets.len()];
                        }
                        Op::Stale(..) if around.is_empty() => *op = Op::Look,
                        Op::Stale(late, shield, _) => {
                            *late = around[*late % around.len()];
                            *shield = around[*shield % around.len()];
                        }
                        Op::Look => {}
                    }
                }
            }
            Item::Scope { node, items, .. } => {
                around.push(*node);
                aim(items, scopes, nurseries, around);
                around.pop();
            }
            Item::Polite { items, .. } => aim(items, scopes, nurseries, around),
            Item::Nursery { node, flows, .. } => {
                nurseries.push(*node);
                around.push(*node);
                flows.iter_mut().for_each(|(_, items)| aim(items, scopes, nurseries, around));
                around.pop();
                nurseries.pop();
            }
            _ => {}
        }
    }
}

// ---- What a run shows ----------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Deadline {
    Cancelled,
    At(Time),
    Never,
}

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Slept,
    Told,
    Operated(Vec<bool>),
    /// What `effective_deadline` and `soft_cancelled` say.
    Looked(Deadline, bool),
    /// A scope was left: its body had completed, or it absorbed a cancellation, or that went on outward.
    Completed(usize),
    Absorbed(usize),
    WentOn(usize),
    NurseryLeft(usize),
    /// A cancellation came out of the flow's top.
    Escaped,
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    flows: BTreeMap<usize, Vec<(Time, Event)>>,
    /// `(cancel_called, cancelled_caught, soft_cancel_called)` of each scope.
    flags: BTreeMap<usize, (bool, bool, bool)>,
    end: Time,
}

// ---- The model -----------------------------------------------------------------------------------------------------

/// A way for the model to be wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mutant {
    None,
    /// R2, R32: shields do nothing.
    NoShields,
    /// R32: a shield also holds off the scope's own cancellation.
    ShieldsAgainstItself,
    /// R24: any cancelled scope absorbs.
    InnermostCatches,
    /// R25: decided when it was raised: by the state of the scope at that time.
    CaughtByCallOnly,
    /// R26: the flag is set whenever a cancelled scope is left.
    CaughtWheneverCancelled,
    /// R3: taking the deadline away takes the cancellation back.
    Revocable,
    /// R46: a sleep that ends at the deadline wins.
    SleepWinsTies,
    /// R20: raising a shield takes back what was delivered.
    AbortIsTakenBack,
    /// R33: lowering a shield is noticed at the next checkpoint only.
    LoweringDoesNotDeliver,
    /// R14: reading the flag does not look at the clock.
    ReadDoesNotNotice,
    /// R2, R14: nor does the traversal that brings a subtree up to date.
    TraversalDoesNotNotice,
    /// R47: the effective deadline does not stop at shields.
    LooksThroughShields,
    /// R47: the shielded scope's own deadline does not count.
    ShieldedDeadlineIgnored,
    /// R44: a deadline in the past at entry waits for the loop to look.
    LateAtEntry,
    /// R48: a deadline that was set stays.
    FirstDeadlineStays,
    /// R6: what was set before the entry is forgotten.
    ForgetsBeforeEntry,
    /// Shields do nothing against a soft cancel.
    SoftPassesShields,
    /// The last grace counts.
    SoftLengthens,
    /// A soft cancel is one of the scope alone.
    SoftIsNotInherited,
    /// A polite scope entered later is not told.
    SoftForgetsLatecomers,
    /// A soft cancel is as good as a hard one.
    SoftIsHard,
    /// It never becomes one.
    SoftStaysSoft,
}

#[derive(Clone, Debug)]
struct Node {
    parent: Option<usize>,
    entered: bool,
    exited: bool,
    called: bool,
    shield: bool,
    deadline: Option<Time>,
    caught: bool,
    soft: bool,
    polite: bool,
    /// The effective state, hard and soft, that the last traversal left.
    was: (bool, bool),
}

/// What a flow goes on with.
enum Frame<'p> {
    Items(std::slice::Iter<'p, Item>),
    /// The end of a scope.
    Leave(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// It goes on in this pass, or (`bool`) in the next one.
    Ready,
    Yielded,
    /// Until then; an outcome that is decided is not decided again.
    Asleep(Time, Option<Result<(), ()>>),
    InNursery(usize),
    Done,
}

struct Flow<'p> {
    id: usize,
    frames: Vec<Frame<'p>>,
    /// The scope it is in; `None`: the run's.
    scope: Option<usize>,
    /// The nursery it belongs to.
    nursery: Option<usize>,
    state: State,
    /// What it slept for.
    item: Option<&'p Item>,
}

struct Model<'p> {
    now: Time,
    nodes: Vec<Node>,
    flows: Vec<Flow<'p>>,
    /// Flows that are not done, of each nursery.
    running: BTreeMap<usize, usize>,
    seen: Seen,
    mutant: Mutant,
}

impl<'p> Model<'p> {
    fn run(program: &'p Program, mutant: Mutant) -> Seen {
        let fresh = Node {
            parent: None,
            entered: false,
            exited: false,
            called: false,
            shield: false,
            deadline: None,
            caught: false,
            soft: false,
            polite: false,
            was: (false, false),
        };
        let mut nodes = vec![fresh; program.nodes];
        for (&node, settings) in &program.scopes {
            if mutant != Mutant::ForgetsBeforeEntry {
                nodes[node].called = settings.cancelled;
                nodes[node].shield = settings.shield;
                nodes[node].deadline = settings.deadline.map(|d| time_of(0, d));
            }
        }
        let mut model =
            Model { now: 0, nodes, flows: Vec::new(), running: BTreeMap::new(), seen: Seen::default(), mutant };
        for (&node, settings) in &program.scopes {
            if mutant != Mutant::ForgetsBeforeEntry
                && let Some(grace) = settings.soft
            {
                model.cancel_softly(node, grace);
            }
        }
        model.start(0, &program.main, None);
        while model.flows[0].state != State::Done {
            model.pass();
        }
        model.seen.end = model.now;
        for &node in program.scopes.keys() {
            let called = model.read(node);
            let caught = match mutant {
                Mutant::CaughtWheneverCancelled => model.nodes[node].caught || called,
                _ => model.nodes[node].caught,
            };
            model.seen.flags.insert(node, (called, caught, model.nodes[node].soft));
        }
        model.seen
    }

    fn start(&mut self, id: usize, items: &'p [Item], nursery: Option<usize>) {
        let frames = vec![Frame::Items(items.iter())];
        self.seen.flows.insert(id, Vec::new());
        self.flows.push(Flow { id, frames, scope: nursery, nursery, state: State::Ready, item: None });
    }

    // R2.
    fn effective(&self, node: Option<usize>) -> bool {
        let Some(n) = node.map(|n| &self.nodes[n]) else { return false };
        let shield = n.shield && self.mutant != Mutant::NoShields;
        if self.mutant == Mutant::ShieldsAgainstItself && shield {
            return false;
        }
        n.called || (n.polite && self.soft(node)) || (!shield && self.effective(n.parent))
    }

    fn soft(&self, node: Option<usize>) -> bool {
        let Some(n) = node.map(|n| &self.nodes[n]) else { return false };
        let shield = n.shield && self.mutant != Mutant::SoftPassesShields;
        let above = n.parent.filter(|&parent| self.mutant != Mutant::SoftIsNotInherited || self.nodes[parent].soft);
        n.soft || (!shield && self.soft(above))
    }

    // R47.
    fn look(&self, from: Option<usize>) -> Deadline {
        if self.effective(from) {
            return Deadline::Cancelled;
        }
        let mut earliest = None;
        let mut node = from;
        while let Some(n) = node.map(|n| &self.nodes[n]) {
            if n.shield && self.mutant == Mutant::ShieldedDeadlineIgnored {
                break;
            }
            earliest = [earliest, n.deadline].into_iter().flatten().min();
            if n.shield && self.mutant != Mutant::LooksThroughShields {
                break;
            }
            node = n.parent;
        }
        earliest.map_or(Deadline::Never, Deadline::At)
    }

    // R15: everything asleep in a cancelled scope is aborted at once, for good (R20).
    fn deliver(&mut self) {
        for i in 0..self.flows.len() {
            if let State::Asleep(until, outcome) = self.flows[i].state {
                let cancelled = self.effective(self.flows[i].scope);
                let told = match outcome {
                    None => cancelled.then_some(Err(())),
                    Some(Err(())) if self.mutant == Mutant::AbortIsTakenBack && !cancelled => None,
                    // R18, R19.
                    decided => decided,
                };
                self.flows[i].state = State::Asleep(until, told);
            }
        }
    }

    // R14.
    fn read(&mut self, node: usize) -> bool {
        let n = &mut self.nodes[node];
        if !n.exited && n.deadline.is_some_and(|at| at <= self.now) && self.mutant != Mutant::ReadDoesNotNotice {
            self.cancel(node);
        }
        self.nodes[node].called
    }

    // R3, R4.
    fn cancel(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].called, true) {
            self.recalculate(node);
        }
    }

    fn cancel_softly(&mut self, node: usize, grace: (i64, Time)) {
        let grace = grace_of(self.now, grace);
        let n = &mut self.nodes[node];
        n.soft = true;
        if grace == 0 || self.mutant == Mutant::SoftIsHard {
            return self.cancel(node);
        }
        let at = self.now + grace;
        n.deadline = match n.deadline {
            before if self.mutant == Mutant::SoftStaysSoft => before,
            Some(before) if self.mutant != Mutant::SoftLengthens => Some(before.min(at)),
            _ => Some(at),
        };
        self.recalculate(node);
    }

    /// R2: brings a scope up to date and, where its state has changed, what is below it. To know the state of a scope it reads
    /// `cancel_called`, which notices the clock (R14), as Trio's `recalculate` does.
    fn recalculate(&mut self, top: usize) {
        let now = self.now;
        let live = |n: &Node| n.entered && !n.exited;
        let mut todo: Vec<usize> = if live(&self.nodes[top]) { vec![top] } else { vec![] };
        while let Some(node) = todo.pop() {
            let n = &mut self.nodes[node];
            if n.deadline.is_some_and(|at| at <= now) && self.mutant != Mutant::TraversalDoesNotNotice {
                n.called = true;
            }
            let state = (self.effective(Some(node)), self.soft(Some(node)));
            if state != std::mem::replace(&mut self.nodes[node].was, state) {
                let below = |&child: &usize| live(&self.nodes[child]) && self.nodes[child].parent == Some(node);
                todo.extend((0..self.nodes.len()).filter(below));
            }
        }
        self.deliver();
    }

    fn enter(&mut self, node: usize, parent: Option<usize>) {
        let now = self.now;
        let n = &mut self.nodes[node];
        (n.parent, n.entered) = (parent, true);
        // R44.
        if self.mutant == Mutant::LateAtEntry {
            self.nodes[node].was = (self.effective(Some(node)), self.soft(Some(node)));
            return;
        }
        if n.deadline.is_some_and(|at| at <= now) {
            n.called = true;
        }
        self.recalculate(node);
    }

    /// R24, R25: whether it absorbs a cancellation that comes out.
    fn absorbs(&self, node: usize) -> bool {
        let n = &self.nodes[node];
        let outside = !n.shield && self.effective(n.parent);
        match self.mutant {
            Mutant::InnermostCatches => n.called,
            Mutant::CaughtByCallOnly => n.called && !self.effective(n.parent),
            _ => self.effective(Some(node)) && !outside,
        }
    }

    // R45, R46: all deadlines that are due, then sleeps, then tasks.
    fn pass(&mut self) {
        let now = self.now;
        let wake = |model: &mut Self| {
            for flow in &mut model.flows {
                if let State::Asleep(until, outcome @ None) = &mut flow.state
                    && *until <= now
                {
                    *outcome = Some(Ok(()));
                }
            }
        };
        if self.mutant == Mutant::SleepWinsTies {
            wake(self);
        }
        for node in 0..self.nodes.len() {
            let n = &self.nodes[node];
            if n.entered && !n.exited && n.deadline.is_some_and(|at| at <= now) {
                self.cancel(node);
            }
        }
        wake(self);
        for i in 0..self.flows.len() {
            if self.flows[i].state == State::Yielded {
                self.flows[i].state = State::Ready;
            }
        }
        // R84: who is woken in this pass runs in the next one, after another look at the deadlines.
        let can_run = |flow: &Flow<'_>| matches!(flow.state, State::Ready | State::Asleep(_, Some(_)));
        let runnable: Vec<usize> = (0..self.flows.len()).filter(|&i| can_run(&self.flows[i])).collect();
        let ran = !runnable.is_empty();
        runnable.into_iter().for_each(|i| self.step(i));
        if !ran && !self.flows.iter().any(|f| f.state == State::Yielded) {
            // R51, R52: nothing can run, so time moves exactly to the next thing that is due.
            let sleeps = self.flows.iter().filter_map(|f| match f.state {
                State::Asleep(until, _) => Some(until),
                _ => None,
            });
            let live = self.nodes.iter().filter(|n| n.entered && !n.exited && !n.called);
            let next = sleeps.chain(live.filter_map(|n| n.deadline)).min();
            if self.flows[0].state != State::Done {
                self.now = next.expect("somebody sleeps");
            }
        }
    }

    fn note(&mut self, i: usize, event: Event) {
        let id = self.flows[i].id;
        self.seen.flows.get_mut(&id).unwrap().push((self.now, event));
    }

    /// Runs a flow until it waits.
    fn step(&mut self, i: usize) {
        match self.flows[i].state {
            State::Ready => {}
            State::Asleep(_, Some(outcome)) => {
                self.flows[i].state = State::Ready;
                let item = self.flows[i].item.take().unwrap();
                self.wake(i, item, outcome);
            }
            _ => return,
        }
        while self.flows[i].state == State::Ready {
            let frame = self.flows[i].frames.last_mut();
            match frame {
                None => self.finish(i),
                Some(Frame::Leave(node)) => {
                    let node = *node;
                    self.flows[i].frames.pop();
                    self.leave(i, node, Event::Completed(node));
                }
                Some(Frame::Items(items)) => match items.next() {
                    None => drop(self.flows[i].frames.pop()),
                    Some(item) => self.item(i, item),
                },
            }
        }
    }

    fn item(&mut self, i: usize, item: &'p Item) {
        let (scope, id) = (self.flows[i].scope, self.flows[i].id);
        match item {
            Item::Sleep { .. } | Item::Operate { .. } => {
                let until = match item {
                    Item::Sleep { units, shift, .. } => (self.now / UNIT + units) * UNIT + SHARED + shift,
                    _ => next_turn(self.now, id),
                };
                if self.effective(scope) {
                    // R37.
                    self.wake(i, item, Err(()));
                } else {
                    self.flows[i].item = Some(item);
                    self.flows[i].state = State::Asleep(until, None);
                }
            }
            Item::Look => self.look_around(i),
            Item::Scope { node, items, .. } | Item::Polite { node, items } => {
                if matches!(item, Item::Polite { .. }) {
                    let told = self.soft(scope) && self.mutant == Mutant::SoftForgetsLatecomers;
                    self.nodes[*node].polite = !told;
                }
                self.enter(*node, scope);
                self.flows[i].scope = Some(*node);
                self.flows[i].frames.push(Frame::Leave(*node));
                self.flows[i].frames.push(Frame::Items(items.iter()));
            }
            Item::Nursery { node, settings, flows } => {
                self.enter(*node, scope);
                let n = &mut self.nodes[*node];
                n.deadline = settings.deadline.map(|d| time_of(self.now, d));
                n.shield = settings.shield;
                self.recalculate(*node);
                if settings.cancelled {
                    self.cancel(*node);
                }
                self.running.insert(*node, flows.len());
                self.flows[i].state = State::InNursery(*node);
                for (id, items) in flows {
                    self.start(*id, items, Some(*node));
                }
            }
        }
    }

    fn wake(&mut self, i: usize, item: &'p Item, outcome: Result<(), ()>) {
        let swallow = match item {
            Item::Sleep { swallow, .. } | Item::Operate { swallow, .. } => *swallow,
            _ => unreachable!(),
        };
        if outcome.is_err() {
            self.note(i, Event::Told);
            if !swallow {
                self.raise(i);
            }
            return;
        }
        self.note(i, Event::Slept);
        if let Item::Operate { ops, .. } = item {
            let mut reads = Vec::new();
            for op in ops {
                self.operate(i, op, &mut reads);
            }
            self.note(i, Event::Operated(reads));
            self.flows[i].state = State::Yielded;
        }
    }

    fn operate(&mut self, i: usize, op: &Op, reads: &mut Vec<bool>) {
        match *op {
            Op::Cancel(node) => self.cancel(node),
            Op::Deadline(node, when) => {
                let at = when.map(|when| time_of(self.now, when));
                if self.mutant == Mutant::FirstDeadlineStays && self.nodes[node].deadline.is_some() {
                    return;
                }
                if self.mutant == Mutant::Revocable && at.is_none() {
                    self.nodes[node].called = false;
                }
                self.nodes[node].deadline = at;
                // R45: even one in the past waits for the loop to look.
            }
            Op::Shield(node, up) => {
                self.nodes[node].shield = up;
                if self.mutant != Mutant::LoweringDoesNotDeliver {
                    self.recalculate(node);
                }
            }
            Op::Blink(node) => {
                self.operate(i, &Op::Shield(node, false), reads);
                self.operate(i, &Op::Shield(node, true), reads);
            }
            Op::CancelAndShield(cancel, shield) => {
                self.operate(i, &Op::Cancel(cancel), reads);
                self.operate(i, &Op::Shield(shield, true), reads);
            }
            Op::Stale(late, shield, up) => {
                for op in [Op::Deadline(late, Some((0, 0))), Op::Shield(shield, up), Op::Look] {
                    self.operate(i, &op, reads);
                }
            }
            Op::Read(node) => reads.push(self.read(node)),
            Op::Soft(node, grace) => self.cancel_softly(node, grace),
            Op::Look => self.look_around(i),
        }
    }

    fn look_around(&mut self, i: usize) {
        let scope = self.flows[i].scope;
        let soft = self.soft(scope) || self.effective(scope);
        let seen = Event::Looked(self.look(scope), soft);
        self.note(i, seen);
    }

    fn leave(&mut self, i: usize, node: usize, event: Event) {
        self.nodes[node].exited = true;
        self.flows[i].scope = self.nodes[node].parent;
        self.note(i, event);
    }

    /// `Cancelled` goes outward until a scope absorbs it.
    fn raise(&mut self, i: usize) {
        loop {
            match self.flows[i].frames.pop() {
                None => {
                    self.note(i, Event::Escaped);
                    return self.finish(i);
                }
                Some(Frame::Items(_)) => {}
                Some(Frame::Leave(node)) => {
                    if self.absorbs(node) {
                        self.nodes[node].caught = true;
                        return self.leave(i, node, Event::Absorbed(node));
                    }
                    self.leave(i, node, Event::WentOn(node));
                }
            }
        }
    }

    /// R55, R56.
    fn finish(&mut self, i: usize) {
        self.flows[i].state = State::Done;
        let Some(nursery) = self.flows[i].nursery else { return };
        let left = self.running.get_mut(&nursery).unwrap();
        *left -= 1;
        if *left == 0 {
            let parent = self.flows.iter().position(|f| f.state == State::InNursery(nursery)).unwrap();
            self.flows[parent].state = State::Ready;
            self.leave(parent, nursery, Event::NurseryLeft(nursery));
            self.flows[parent].scope = self.nodes[nursery].parent;
        }
    }
}

// ---- The real thing ------------------------------------------------------------------------------------------------

trait Control {
    fn cancel(&self);
    fn cancel_softly(&self, grace: Duration);
    fn set_deadline(&self, at: Option<Instant>);
    fn set_shield(&self, up: bool);
    fn cancel_called(&self) -> bool;
}

impl Control for CancelScope {
    fn cancel(&self) {
        self.cancel()
    }
    fn cancel_softly(&self, grace: Duration) {
        self.cancel_softly(grace)
    }
    fn set_deadline(&self, at: Option<Instant>) {
        self.set_deadline(at)
    }
    fn set_shield(&self, up: bool) {
        self.set_shield(up)
    }
    fn cancel_called(&self) -> bool {
        self.cancel_called()
    }
}

struct InNursery<'s, 'env>(Nursery<'s, 'env, Cancelled, Local>);

impl Control for InNursery<'_, '_> {
    fn cancel(&self) {
        self.0.cancel()
    }
    fn cancel_softly(&self, grace: Duration) {
        self.0.cancel_softly(grace)
    }
    fn set_deadline(&self, at: Option<Instant>) {
        self.0.set_deadline(at)
    }
    fn set_shield(&self, up: bool) {
        self.0.set_shield(up)
    }
    fn cancel_called(&self) -> bool {
        self.0.cancel_called()
    }
}

type Nurseries<'a> = Vec<(usize, Rc<dyn Control + 'a>)>;
type Ended = Result<(), Cancelled>;

struct Real {
    begin: Instant,
    scopes: BTreeMap<usize, CancelScope>,
    seen: RefCell<Seen>,
}

impl Real {
    fn time(&self) -> Time {
        (now() - self.begin).as_nanos() as Time
    }

    fn instant(&self, at: Time) -> Instant {
        self.begin + Duration::from_nanos(at)
    }

    fn note(&self, flow: usize, event: Event) {
        let at = self.time();
        self.seen.borrow_mut().flows.entry(flow).or_default().push((at, event));
    }

    fn look(&self) -> Event {
        let deadline = match effective_deadline() {
            EffectiveDeadline::Cancelled => Deadline::Cancelled,
            EffectiveDeadline::Never => Deadline::Never,
            EffectiveDeadline::At(at) => Deadline::At((at - self.begin).as_nanos() as Time),
        };
        Event::Looked(deadline, soft_cancelled())
    }

    fn operate(&self, flow: usize, ops: &[Op], nurseries: &Nurseries<'_>) {
        let control = |node: usize| -> &dyn Control {
            match nurseries.iter().find(|(n, _)| *n == node) {
                Some((_, nursery)) => &**nursery,
                None => &self.scopes[&node],
            }
        };
        let mut reads = Vec::new();
        for op in ops {
            match *op {
                Op::Cancel(node) => control(node).cancel(),
                Op::Deadline(node, when) => {
                    control(node).set_deadline(when.map(|when| self.instant(time_of(self.time(), when))));
                }
                Op::Shield(node, up) => control(node).set_shield(up),
                Op::Soft(node, grace) => {
                    control(node).cancel_softly(Duration::from_nanos(grace_of(self.time(), grace)));
                }
                Op::Blink(node) => {
                    control(node).set_shield(false);
                    control(node).set_shield(true);
                }
                Op::CancelAndShield(cancel, shield) => {
                    control(cancel).cancel();
                    control(shield).set_shield(true);
                }
                Op::Stale(late, shield, up) => {
                    control(late).set_deadline(Some(self.instant(time_of(self.time(), (0, 0)))));
                    control(shield).set_shield(up);
                    self.note(flow, self.look());
                }
                Op::Read(node) => reads.push(control(node).cancel_called()),
                Op::Look => self.note(flow, self.look()),
            }
        }
        self.note(flow, Event::Operated(reads));
    }

    fn items<'a>(
        &'a self,
        flow: usize,
        items: &'a [Item],
        nurseries: Nurseries<'a>,
    ) -> Pin<Box<dyn Future<Output = Ended> + 'a>> {
        Box::pin(async move {
            for item in items {
                match item {
                    Item::Sleep { swallow, .. } | Item::Operate { swallow, .. } => {
                        let until = match item {
                            Item::Sleep { units, shift, .. } => (self.time() / UNIT + units) * UNIT + SHARED + shift,
                            _ => next_turn(self.time(), flow),
                        };
                        match sleep_until(self.instant(until)).await {
                            Ok(()) => self.note(flow, Event::Slept),
                            Err(cancelled) => {
                                self.note(flow, Event::Told);
                                if *swallow {
                                    continue;
                                }
                                return Err(cancelled);
                            }
                        }
                        if let Item::Operate { ops, .. } = item {
                            self.operate(flow, ops, &nurseries);
                            yield_now().await;
                        }
                    }
                    Item::Look => self.note(flow, self.look()),
                    Item::Scope { node, items, .. } | Item::Polite { node, items } => {
                        let body = self.items(flow, items, nurseries.clone());
                        let left = match item {
                            Item::Polite { .. } => until_soft_cancelled(body).await,
                            _ => self.scopes[node].run(body).await,
                        };
                        let event = match &left {
                            Ok(Some(())) => Event::Completed(*node),
                            Ok(None) => Event::Absorbed(*node),
                            Err(_) => Event::WentOn(*node),
                        };
                        self.note(flow, event);
                        left?;
                    }
                    Item::Nursery { node, settings, flows } => {
                        let left = local_nursery(async |n| -> Ended {
                            n.set_deadline(settings.deadline.map(|d| self.instant(time_of(self.time(), d))));
                            n.set_shield(settings.shield);
                            if settings.cancelled {
                                n.cancel();
                            }
                            let mut inside = nurseries.clone();
                            inside.push((*node, Rc::new(InNursery(n))));
                            let (body, children) = flows.split_first().expect("there is a body");
                            for (child, items) in children {
                                let inside = inside.clone();
                                n.spawn(async move {
                                    self.flow(*child, items, inside).await;
                                    Ok(())
                                });
                            }
                            self.flow(body.0, &body.1, inside).await;
                            Ok(())
                        });
                        left.await.expect("no flow fails");
                        self.note(flow, Event::NurseryLeft(*node));
                    }
                }
            }
            Ok(())
        })
    }

    async fn flow<'a>(&'a self, flow: usize, items: &'a [Item], nurseries: Nurseries<'a>) {
        self.seen.borrow_mut().flows.entry(flow).or_default();
        if self.items(flow, items, nurseries).await.is_err() {
            self.note(flow, Event::Escaped);
        }
    }

    fn run(program: &Program) -> Seen {
        run_virtual(async || {
            let begin = now();
            let scopes = program.scopes.iter().map(|(&node, settings)| {
                let scope = CancelScope::new();
                scope.set_deadline(settings.deadline.map(|d| begin + Duration::from_nanos(time_of(0, d))));
                scope.set_shield(settings.shield);
                if let Some(grace) = settings.soft {
                    scope.cancel_softly(Duration::from_nanos(grace_of(0, grace)));
                }
                if settings.cancelled {
                    scope.cancel();
                }
                (node, scope)
            });
            let real = Real { begin, scopes: scopes.collect(), seen: RefCell::default() };
            real.flow(0, &program.main, Vec::new()).await;
            let end = real.time();
            let Real { scopes, seen, .. } = real;
            let flags = scopes
                .iter()
                .map(|(&node, s)| (node, (s.cancel_called(), s.cancelled_caught(), s.soft_cancel_called())));
            Seen { flags: flags.collect(), end, ..seen.into_inner() }
        })
    }
}

// ---- Tests ---------------------------------------------------------------------------------------------------------

const FLOWS: usize = SHARED as usize - 1;

proptest! {
    #![proptest_config(Config { cases: Config::default().cases.max(400), failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() })]

    #[test]
    fn agrees_with_the_model(program in program()) {
        prop_assume!(program.flows < FLOWS);
        let (model, real) = (Model::run(&program, Mutant::None), Real::run(&program));
        prop_assert_eq!(real, model);
    }
}

/// How many of so many random programs the model tells from each mutant of it; and that the programs are not trivial.
#[test]
fn mutants_are_found() {
    use Mutant::*;
    let mutants = [
        NoShields,
        ShieldsAgainstItself,
        InnermostCatches,
        CaughtByCallOnly,
        CaughtWheneverCancelled,
        Revocable,
        SleepWinsTies,
        AbortIsTakenBack,
        LoweringDoesNotDeliver,
        ReadDoesNotNotice,
        TraversalDoesNotNotice,
        LooksThroughShields,
        ShieldedDeadlineIgnored,
        LateAtEntry,
        FirstDeadlineStays,
        ForgetsBeforeEntry,
        SoftPassesShields,
        SoftLengthens,
        SoftIsNotInherited,
        SoftForgetsLatecomers,
        SoftIsHard,
        SoftStaysSoft,
    ];
    let mut runner = TestRunner::deterministic();
    let (mut found, mut caught, mut went_on, mut flows) = (vec![0; mutants.len()], 0, 0, 0);
    let strategy = program();
    for _ in 0..800 {
        let program = strategy.new_tree(&mut runner).unwrap().current();
        let model = Model::run(&program, None);
        caught += model.flags.values().filter(|flags| flags.1).count();
        went_on += model.flows.values().flatten().filter(|(_, e)| matches!(e, Event::WentOn(_))).count();
        flows += model.flows.len();
        for (mutant, found) in mutants.iter().zip(&mut found) {
            *found += usize::from(Model::run(&program, *mutant) != model);
        }
    }
    println!("{caught} scopes caught, {went_on} let a cancellation through, {flows} flows; found: {found:?}");
    for (mutant, found) in mutants.iter().zip(found) {
        assert!(found >= 4, "{mutant:?} differs in {found} of 800 programs only");
    }
}
