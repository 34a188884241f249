//! A lock with two conditions, and the model of them.

use super::{Checked, Operations, Step};
use proptest::prelude::*;
use std::collections::BTreeMap;
use trefoil_nursery::Cancelled;
use trefoil_nursery::sync::{Condition, Mutex, MutexGuard};

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

pub async fn monitor(steps: &[Step]) -> Checked {
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
