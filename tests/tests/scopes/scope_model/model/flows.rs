//! What the flows of the model do: one pass after the other, each flow as far as it goes.

use super::super::{Event, Item, Op, SHARED, UNIT, next_turn, time_of};
use super::{Flow, Frame, Model, Mutant, State};

impl<'p> Model<'p> {
    // R45, R46: all deadlines that are due, then sleeps, then tasks.
    pub fn pass(&mut self) {
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
