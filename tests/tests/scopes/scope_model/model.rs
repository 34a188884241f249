//! The model of the rules: its tree of scopes. What its flows do is in `flows.rs`.

mod flows;

use super::{Deadline, Item, Program, Seen, Time, grace_of, time_of};
use std::collections::BTreeMap;

/// A way for the model to be wrong, each; and a list of them.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Mutant {
            None,
            $($(#[$doc])* $name,)*
        }

        impl Mutant {
            pub const ALL: &[Mutant] = &[$(Mutant::$name),*];
        }
    };
}

mutants! {
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

pub struct Model<'p> {
    now: Time,
    nodes: Vec<Node>,
    flows: Vec<Flow<'p>>,
    /// Flows that are not done, of each nursery.
    running: BTreeMap<usize, usize>,
    seen: Seen,
    mutant: Mutant,
}

impl<'p> Model<'p> {
    pub fn run(program: &'p Program, mutant: Mutant) -> Seen {
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
            self.cancel(node);
            return self.recalculate(node);
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
}
