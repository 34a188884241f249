//! The same programs as tasks, scopes and nurseries of the library.

use super::{Deadline, Event, Item, Op, Program, SHARED, Seen, Time, UNIT, grace_of, next_turn, time_of};
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
use trefoil_tests::{Ended, run_virtual};

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

pub struct Real {
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

    pub fn run(program: &Program) -> Seen {
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
