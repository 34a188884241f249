//! A semaphore and its model.

use super::{Checked, Line, Operations, Step, Wait};
use proptest::prelude::*;
use trefoil_nursery::sync::{Permits, Semaphore};

struct SemaphoreModel {
    available: usize,
    line: Line<usize>,
}

impl SemaphoreModel {
    fn serve(&mut self) {
        while let Some((id, n)) = self.line.first() {
            if n > self.available {
                return;
            }
            self.available -= n;
            self.line.set(id, Wait::Served);
        }
    }

    fn take(&mut self, n: usize) -> bool {
        let free = self.line.first().is_none() && n <= self.available;
        self.available -= if free { n } else { 0 };
        free
    }

    fn give(&mut self, n: usize) {
        self.available += n;
        self.serve();
    }
}

pub async fn semaphore(initial: usize, steps: &[Step]) -> Checked {
    let semaphore = Semaphore::new(initial);
    let mut model = SemaphoreModel { available: initial, line: Line::new() };
    let mut total = initial;
    let mut held: Vec<Permits<'_>> = Vec::new();
    let mut operations = Operations::new();
    for &(what, a, b) in steps {
        let n = usize::from(a % 4);
        match what {
            0..30 => {
                let free = model.take(n);
                let (id, out) = operations.begin(semaphore.acquire(n)).await;
                prop_assert_eq!(out.is_some(), free, "acquire {}", n);
                match out {
                    Some(permits) => held.push(permits.expect("not cancelled")),
                    None => model.line.all.push((id, n, Wait::Waits)),
                }
            }
            30..36 => {
                let out = semaphore.try_acquire(n);
                prop_assert_eq!(out.is_ok(), model.take(n), "try_acquire {}", n);
                held.extend(out);
            }
            36..60 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                let out = operations.poll(at).await;
                match model.line.wait(id) {
                    Wait::Waits => prop_assert!(out.is_none(), "it waits"),
                    Wait::Served => {
                        let (n, _) = model.line.remove(id);
                        let permits = out.flatten().expect("R18: it was served");
                        prop_assert_eq!(permits.count(), n);
                        held.push(permits);
                    }
                    Wait::Aborted => {
                        model.line.remove(id);
                        prop_assert!(matches!(out, Some(None)), "R19: it was cancelled");
                        model.serve();
                    }
                }
            }
            60..70 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                operations.all[at].scope.cancel();
                model.line.cancel(id);
            }
            70..80 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                drop(operations.all.remove(at));
                match model.line.remove(id) {
                    (n, Wait::Served) => model.give(n),
                    _ => model.serve(),
                }
            }
            80..96 => {
                let Some(at) = usize::from(b).checked_rem(held.len()) else { continue };
                let permits = held.remove(at);
                // Who gives nothing back looks after nobody: those behind one that was cancelled are served when that one has looked.
                if permits.count() > 0 {
                    model.give(permits.count());
                }
                drop(permits);
            }
            96..98 => {
                semaphore.add(n);
                total += n;
                model.give(n);
            }
            _ => {
                let Some(permits) = held.pop() else { continue };
                total -= permits.count();
                permits.forget();
            }
        }
        prop_assert_eq!(semaphore.available(), model.available);
    }
    drop(operations);
    drop(held);
    prop_assert_eq!(semaphore.available(), total, "permits are conserved");
    Ok(())
}
