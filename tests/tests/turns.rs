//! The turns of the loop: R84–R86. They need a driver that tells when it is looked at, so these runs are not the harness's.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use trefoil_nursery::{Cancelled, Event, checkpoint, local_nursery, move_on_at, now, sleep_until};
use trefoil_runtime::{Driver, Options, ThreadDriver, Unpark};
use trefoil_tests::ms;

type Log = Rc<RefCell<Vec<String>>>;

/// A driver whose "I/O" is a function, which is called at each look.
struct Looks<F> {
    thread: ThreadDriver,
    log: Log,
    io: F,
}

impl<F> std::fmt::Debug for Looks<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Looks")
    }
}

impl<F: Fn() + 'static> Driver for Looks<F> {
    fn name(&self) -> &'static str {
        "looks"
    }
    fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.thread.park(timeout)?;
        self.poll()
    }
    fn poll(&self) -> io::Result<()> {
        self.log.borrow_mut().push("look".into());
        (self.io)();
        Ok(())
    }
    fn unparker(&self) -> Arc<dyn Unpark> {
        self.thread.unparker()
    }
}

#[track_caller]
fn run<T>(log: &Log, io: impl Fn() + 'static, main: impl Future<Output = T>) -> T {
    let driver = Looks { thread: ThreadDriver::new(), log: log.clone(), io };
    trefoil_runtime::run(Rc::new(driver), Options::default(), Location::caller(), main)
}

/// What is woken in a turn runs in the next one, after another look; and there is no coin (N4).
#[test]
fn r84_n4_who_is_woken_in_a_turn_waits_for_the_next() {
    for setter_first in [true, false] {
        let log = Log::default();
        run(&log, || (), async {
            let event = Event::new();
            let note = |what: &str| log.borrow_mut().push(what.into());
            local_nursery(async |n| -> Result<(), Cancelled> {
                let waits = async {
                    event.wait().await?;
                    note("woken");
                    Ok(())
                };
                let sets = async {
                    checkpoint().await?;
                    event.set();
                    note("set");
                    Ok(())
                };
                if setter_first {
                    n.spawn(sets);
                    n.spawn(waits);
                } else {
                    n.spawn(waits);
                    n.spawn(sets);
                }
                Ok(())
            })
            .await
            .unwrap();
        });
        let log = log.borrow();
        let set = log.iter().position(|line| line == "set").unwrap();
        assert_eq!(log[set..set + 3], ["set", "look", "woken"], "{log:?}");
    }
}

/// At most one step of each task between two looks at the driver, also of children of nurseries at different depths.
#[test]
fn r85_the_driver_is_looked_at_between_any_two_steps_of_a_task() {
    let log = Log::default();
    run(&log, || (), async {
        let busy = |name: &'static str| {
            let log = &log;
            async move {
                for _ in 0..20 {
                    log.borrow_mut().push(name.into());
                    checkpoint().await?;
                }
                Ok(())
            }
        };
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(busy("a"));
            n.spawn(async {
                local_nursery(async |inner| -> Result<(), Cancelled> {
                    inner.spawn(busy("b"));
                    busy("c").await
                })
                .await
                .unwrap();
                Ok(())
            });
            busy("d").await
        })
        .await
        .unwrap();
    });
    let log = log.borrow();
    assert_eq!(log.iter().filter(|line| *line != "look").count(), 80);
    for turn in log.split(|line| line == "look") {
        for name in ["a", "b", "c", "d"] {
            assert!(turn.iter().filter(|line| *line == name).count() <= 1, "{turn:?}");
        }
    }
}

/// Also where they are children of one nursery, deep down, that takes its turns itself since nothing else can run.
#[test]
fn r85_the_driver_is_looked_at_in_the_turns_that_a_nursery_takes_itself() {
    const STEPS: usize = 300;
    let log = Log::default();
    run(&log, || (), async {
        let step = |name: &'static str| {
            let log = &log;
            async move {
                for _ in 0..STEPS {
                    log.borrow_mut().push(name.into());
                    checkpoint().await?;
                }
                Ok(())
            }
        };
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                local_nursery(async |inner| -> Result<(), Cancelled> {
                    inner.spawn(step("a"));
                    inner.spawn(step("b"));
                    Ok(())
                })
                .await
                .unwrap();
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
    });
    let log = log.borrow();
    assert_eq!(log.iter().filter(|line| *line != "look").count(), 2 * STEPS);
    for turn in log.split(|line| line == "look") {
        assert!(turn.is_empty() || turn == ["a", "b"], "{turn:?}");
    }
}

/// A busy task does not keep the loop from the driver, whose event another task waits for, nor from deadlines.
#[test]
fn r85_a_busy_task_starves_neither_io_nor_deadlines() {
    let (log, event) = (Log::default(), Rc::new(Event::new()));
    let (looks, io) = (Cell::new(0), event.clone());
    let io = move || {
        looks.set(looks.get() + 1);
        if looks.get() == 10 {
            io.set();
        }
    };
    run(&log, io, async {
        let done = Cell::new(0);
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                event.wait().await?;
                done.set(done.get() + 1);
                Ok(())
            });
            n.spawn(async {
                trefoil_nursery::sleep(ms(2)).await?;
                done.set(done.get() + 1);
                Ok(())
            });
            while done.get() < 2 {
                checkpoint().await?; // busy
            }
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// In one pass, what the driver brings comes before deadlines that are due, and tasks run after both.
#[test]
fn r86_io_then_deadlines_then_tasks() {
    let (log, event) = (Log::default(), Rc::new(Event::new()));
    let (due, io) = (Rc::new(Cell::new(None)), event.clone());
    let until = due.clone();
    let brings = move || {
        // The event and the deadline come in the same pass: the sleep was ended by the deadline, or soon after.
        if until.get().is_some_and(|at| now() + ms(1) >= at) {
            thread::sleep(ms(5));
            io.set();
        }
    };
    let ended = run(&log, brings, async {
        let at = now() + ms(100); // far enough that all begin to wait before it on a busy machine
        due.set(Some(at));
        local_nursery(async |n| -> Result<_, Cancelled> {
            // Its deadline is due in the same pass; so is the end of a sleep beside it, which is looked at after the event too.
            let slept = n.spawn(async {
                sleep_until(at).await?;
                Ok(event.is_set())
            });
            let waited = move_on_at(at, event.wait()).await?;
            Ok((waited, slept.await?))
        })
        .await
    });
    assert_eq!(ended.unwrap(), (Some(()), true), "the event came first");
}
