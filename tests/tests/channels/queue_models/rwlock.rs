//! A lock for readers and writers, and its model.

use super::{Checked, Line, Operations, Step, Wait};
use proptest::prelude::*;
use trefoil_nursery::sync::{ReadGuard, RwLock, WriteGuard};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    Read,
    Write,
}

#[allow(dead_code)]
enum RwGuard<'a> {
    Read(ReadGuard<'a, u32>),
    Write(WriteGuard<'a, u32>),
}

impl RwGuard<'_> {
    fn access(&self) -> Access {
        match self {
            RwGuard::Read(_) => Access::Read,
            RwGuard::Write(_) => Access::Write,
        }
    }
}

struct RwModel {
    readers: usize,
    writer: bool,
    line: Line<Access>,
}

impl RwModel {
    fn allows(&self, access: Access) -> bool {
        !self.writer && (access == Access::Read || self.readers == 0)
    }

    fn grant(&mut self, access: Access) {
        match access {
            Access::Read => self.readers += 1,
            Access::Write => self.writer = true,
        }
    }

    fn serve(&mut self) {
        while let Some((id, access)) = self.line.first() {
            if !self.allows(access) {
                return;
            }
            self.grant(access);
            self.line.set(id, Wait::Served);
        }
    }

    fn take(&mut self, access: Access) -> bool {
        let free = self.line.first().is_none() && self.allows(access);
        if free {
            self.grant(access);
        }
        free
    }

    fn give(&mut self, access: Access) {
        match access {
            Access::Read => self.readers -= 1,
            Access::Write => self.writer = false,
        }
        self.serve();
    }
}

pub async fn rwlock(steps: &[Step]) -> Checked {
    let lock = RwLock::new(0);
    let mut model = RwModel { readers: 0, writer: false, line: Line::new() };
    let mut held: Vec<RwGuard<'_>> = Vec::new();
    let mut operations = Operations::new();
    for &(what, a, b) in steps {
        let access = if b % 3 == 0 { Access::Write } else { Access::Read };
        match what {
            0..35 => {
                let free = model.take(access);
                let lock = &lock;
                let (id, out) = operations
                    .begin(async move {
                        Ok(match access {
                            Access::Read => RwGuard::Read(lock.read().await?),
                            Access::Write => RwGuard::Write(lock.write().await?),
                        })
                    })
                    .await;
                prop_assert_eq!(out.is_some(), free, "{:?}", access);
                match out {
                    Some(guard) => held.push(guard.expect("not cancelled")),
                    None => model.line.all.push((id, access, Wait::Waits)),
                }
            }
            35..42 => {
                let out = match access {
                    Access::Read => lock.try_read().map(RwGuard::Read),
                    Access::Write => lock.try_write().map(RwGuard::Write),
                };
                prop_assert_eq!(out.is_ok(), model.take(access), "try {:?}", access);
                held.extend(out);
            }
            42..62 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                let out = operations.poll(at).await;
                match model.line.wait(id) {
                    Wait::Waits => prop_assert!(out.is_none(), "it waits"),
                    Wait::Served => {
                        let (access, _) = model.line.remove(id);
                        let guard = out.flatten().expect("R18: it was served");
                        prop_assert_eq!(guard.access(), access);
                        held.push(guard);
                    }
                    Wait::Aborted => {
                        model.line.remove(id);
                        prop_assert!(matches!(out, Some(None)), "R19: it was cancelled");
                        model.serve();
                    }
                }
            }
            62..72 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                operations.all[at].scope.cancel();
                model.line.cancel(id);
            }
            72..82 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                drop(operations.all.remove(at));
                match model.line.remove(id) {
                    (access, Wait::Served) => model.give(access),
                    _ => model.serve(),
                }
            }
            _ => {
                let Some(at) = usize::from(b).checked_rem(held.len()) else { continue };
                let mut guard = held.remove(at);
                if let RwGuard::Write(value) = &mut guard {
                    **value += 1;
                }
                model.give(guard.access());
                drop(guard);
            }
        }
        let writers = held.iter().filter(|g| g.access() == Access::Write).count();
        prop_assert!(writers == 0 || held.len() == 1, "a writer is alone");
    }
    drop(operations);
    drop(held);
    prop_assert!(lock.try_write().is_ok());
    Ok(())
}
