//! The watchdog: a task that holds up its loop is named (`Builder::blocked_after`).

use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};
use trefoil::testing::wait_all_tasks_blocked;
use trefoil::{Builder, Cancelled, DriverKind, checkpoint, local_nursery, nursery, sleep, sleep_forever, yield_now};
use trefoil_runtime::{Detection, Driver, Options, ThreadDriver, Unpark};
use trefoil_tests::{listen_everywhere, ms, panic_of};

/// What was said of the tasks whose name has this in it, by any thread: the watchdog is one for the process.
fn heard(name: &str) -> Vec<String> {
    static HEARD: Mutex<Vec<String>> = Mutex::new(vec![]);
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| listen_everywhere(|line| HEARD.lock().unwrap().push(line.into())));
    HEARD.lock().unwrap().iter().filter(|line| line.contains(name)).cloned().collect()
}

/// Blocks the thread until so many things were said of a task, or for very long.
fn block_until_heard(name: &str, count: usize) {
    let begin = Instant::now();
    while heard(name).len() < count && begin.elapsed() < Duration::from_secs(60) {
        thread::sleep(ms(1));
    }
}

/// Long enough that an innocent task is not held up for so long by a machine that is busy elsewhere.
const LIMIT: Duration = ms(100);

fn on_each_driver(name: &str, test: impl Fn(Builder, &str)) {
    for (kind, id) in [(DriverKind::Epoll, "epoll"), (DriverKind::IoUring, "ring")] {
        for virtual_time in [false, true] {
            let builder = Builder::new().driver(kind).virtual_time(virtual_time).blocked_after(Some(LIMIT));
            if builder.clone().try_run(async {}).is_ok() {
                test(builder, &format!("{name} {id} {virtual_time}"));
            }
        }
    }
}

#[test]
fn a_task_that_blocks_is_named_while_it_lasts_and_when_it_ends() {
    heard("");
    on_each_driver("blocks", |builder, name| {
        let exactly = &format!("`{name}`");
        let line = builder.run(async {
            nursery(async |n| -> Result<u32, Cancelled> {
                n.spawn_named(format!("innocent of {name}"), async { checkpoint().await });
                let line = line!() + 1;
                n.spawn_named(name, async {
                    block_until_heard(exactly, 1);
                    Ok(())
                });
                n.spawn_named(format!("innocent too of {name}"), async { checkpoint().await });
                Ok(line)
            })
            .await
            .unwrap()
        });
        block_until_heard(exactly, 2);
        let said = heard(exactly);
        assert_eq!(said.len(), 2, "{said:?}");
        let task = format!("task=\"task `{name}` (watchdog.rs:{line})\"");
        assert!(said.iter().all(|text| text.contains(&task)), "{said:?}");
        assert!(said[0].contains("has held up its loop for"), "{said:?}");
        assert!(said[1].contains("has yielded, after"), "{said:?}");
        assert_eq!(heard(&format!("innocent of {name}")).len() + heard(&format!("innocent too of {name}")).len(), 0);
    });
}

/// The body of a nursery, after a child of it was polled; and the main task.
#[test]
fn the_one_that_blocks_is_named_and_not_the_one_around_or_inside() {
    heard("");
    on_each_driver("body", |builder, name| {
        builder.run(async {
            nursery(async |n| -> Result<(), Cancelled> {
                n.spawn_named(format!("child in {name}"), async { Ok(()) });
                checkpoint().await?;
                block_until_heard(name, 1);
                Ok(())
            })
            .named(name)
            .await
            .unwrap();
        });
        block_until_heard(name, 2);
        assert!(heard(name).iter().all(|text| text.contains("the body of nursery `body")), "{:?}", heard(name));
    });
}

/// Many short polls, of one task and of many, are not a long one.
#[test]
fn a_busy_loop_is_not_blocked() {
    heard("");
    on_each_driver("busy", |builder, name| {
        builder.blocked_after(Some(ms(500))).run(async {
            nursery(async |n| -> Result<(), Cancelled> {
                for _ in 0..3 {
                    n.spawn_named(name, async {
                        let begin = Instant::now();
                        while begin.elapsed() < ms(1_100) {
                            yield_now().await;
                        }
                        Ok(())
                    });
                }
                Ok(())
            })
            .await
            .unwrap();
        });
        assert_eq!(heard(name), [""; 0]);
    });
}

#[test]
fn in_a_test_it_can_be_an_error() {
    heard("");
    let message = panic_of(|| {
        trefoil::testing::Builder::new().blocked_after(Some(ms(5))).run(async {
            nursery(async |n| -> Result<(), Cancelled> {
                n.spawn_named("hog", async {
                    block_until_heard("`hog`", 1);
                    Ok(())
                });
                checkpoint().await?;
                checkpoint().await
            })
            .await
            .unwrap();
        });
    });
    assert!(message.starts_with("a task held up its loop for "), "{message}");
    assert!(message.contains("where 5 ms are allowed: task `hog` (watchdog.rs:"), "{message}");
}

/// A driver that may have something in flight, for ever.
#[derive(Debug)]
struct Holds(ThreadDriver, usize);

impl Driver for Holds {
    fn name(&self) -> &'static str {
        "one that holds"
    }
    fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.park(timeout)
    }
    fn poll(&self) -> io::Result<()> {
        self.0.poll()
    }
    fn unparker(&self) -> Arc<dyn Unpark> {
        self.0.unparker()
    }
    fn in_flight(&self) -> usize {
        self.1
    }
}

/// The loop hears of it wherever it goes after that: to its end, to sleep in one way or another, or on and on.
#[test]
fn the_error_comes_wherever_the_loop_goes_next() {
    heard("");
    for way in ["ends", "sleeps", "has a deadline", "watches", "spins", "spins in a nursery"] {
        for (virtual_time, in_flight) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
            let name = &format!("{way} {virtual_time} {in_flight}");
            let main = async {
                let spins = async || -> Result<(), Cancelled> {
                    loop {
                        yield_now().await;
                    }
                };
                local_nursery(async |n| -> Result<(), Cancelled> {
                    if way == "watches" {
                        n.spawn(async { wait_all_tasks_blocked(FOR_EVER).await });
                        yield_now().await;
                    }
                    n.spawn_named(name.as_str(), async {
                        block_until_heard(name, 1);
                        match way {
                            "ends" => Ok(()),
                            "sleeps" | "watches" => sleep_forever().await,
                            "has a deadline" => sleep(FOR_EVER).await,
                            "spins" => spins().await,
                            _ => {
                                local_nursery(async |inner| -> Result<(), Cancelled> {
                                    inner.spawn(spins());
                                    Ok(())
                                })
                                .await
                                .unwrap();
                                Ok(())
                            }
                        }
                    });
                    Ok(())
                })
                .await
                .unwrap();
            };
            let limits = (Some(ms(5)), Detection::After(FOR_EVER), Duration::from_secs(30));
            let (blocked_after, deadlock, autojump) = limits;
            let options = Options {
                virtual_time,
                deadlock,
                autojump,
                blocked_after,
                blocked_is_error: true,
                ..Options::default()
            };
            let driver = Rc::new(Holds(ThreadDriver::new(), in_flight));
            let message = panic_of(|| trefoil_runtime::run(driver, options, Location::caller(), main));
            assert!(message.starts_with("a task held up its loop for "), "{name}: {message}");
            assert!(message.contains(&format!("task `{name}`")), "{name}: {message}");
        }
    }
}

const FOR_EVER: Duration = Duration::from_secs(3600);

#[test]
fn it_can_be_off() {
    heard("");
    Builder::new().blocked_after(None).run(async {
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn_named("unseen", async {
                thread::sleep(ms(150));
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
    });
    assert_eq!(heard("unseen"), [""; 0]);
}

/// R88: a call from another thread that blocks is named by the place where it was asked for.
#[test]
fn a_call_of_a_run_handle_that_blocks_is_named() {
    heard("");
    on_each_driver("call", |builder, _| {
        let place = format!("asked for at watchdog.rs:{}", line!() + 7);
        let count = heard(&place).len();
        builder.run(async {
            let (handle, wanted) = (trefoil::run_handle(), place.clone());
            let blocks = move || block_until_heard(&wanted, count + 1);
            // Short ones, which are together as long, are not blamed.
            let short = || thread::sleep(LIMIT / 10);
            handle.run_soon(blocks).unwrap();
            for _ in 0..20 {
                handle.run_soon(short).unwrap();
            }
            checkpoint().await.unwrap();
            checkpoint().await.unwrap();
        });
        block_until_heard(&place, count + 2);
        let said = heard(&place);
        assert!(said[count].contains("a call has held up its loop for "), "{said:?}");
        assert!(said[count + 1].contains("a call that held up its loop has returned, after "), "{said:?}");
        assert_eq!(heard("a call has").len(), heard(&place).len() / 2, "{:?}", heard("a call"));
    });
}
