//! Instruments: who sees the life of tasks (R116).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use trefoil::{
    Builder, Cancelled, DriverKind, Event, Instrument, InstrumentHandle, TaskInfo, add_instrument, channel, checkpoint,
    local_nursery, nursery, sleep, yield_now,
};
use trefoil_tests::{drop_at, ms, panic_of, run_real, run_virtual};

/// An instrument whose `note` is called with the name of what happens.
macro_rules! tells_what_happens {
    ($name:ident) => {
        impl Instrument for $name {
            fn spawned(&self, task: &TaskInfo) {
                self.note(task, "spawned");
            }
            fn scheduled(&self, task: &TaskInfo) {
                self.note(task, "scheduled");
            }
            fn before_poll(&self, task: &TaskInfo) {
                self.note(task, "before");
            }
            fn after_poll(&self, task: &TaskInfo) {
                self.note(task, "after");
            }
            fn exited(&self, task: &TaskInfo) {
                self.note(task, "exited");
            }
        }
    };
}

/// Notes what it sees.
#[derive(Default)]
struct Seen(RefCell<Vec<(u64, u32, &'static str)>>);

impl Seen {
    fn note(&self, task: &TaskInfo, what: &'static str) {
        self.0.borrow_mut().push((task.id(), task.place().line(), what));
    }

    /// What happened to each task, by its number.
    fn tasks(&self) -> BTreeMap<u64, Vec<&'static str>> {
        let mut tasks = BTreeMap::<_, Vec<_>>::new();
        for &(id, _, what) in self.0.borrow().iter() {
            tasks.entry(id).or_default().push(what);
        }
        tasks
    }

    /// What happened to the task that was spawned in a line.
    fn at(&self, line: u32) -> Vec<&'static str> {
        self.0.borrow().iter().filter(|(_, at, _)| *at == line).map(|(.., what)| *what).collect()
    }

    /// Looks whether this can be the end of the life of each task, and the whole of it where it was seen to be spawned; and whether
    /// polls are nested.
    fn check(&self, all_over: bool) {
        let mut polled = Vec::new();
        for &(id, _, what) in self.0.borrow().iter() {
            match what {
                "before" => polled.push(id),
                "after" => assert_eq!(polled.pop().unwrap_or(id), id, "polls are nested: {:?}", self.0),
                _ => {}
            }
        }
        for (id, events) in self.tasks() {
            let mut events: &[_] = &events;
            let whole = events[0] == "spawned";
            if whole {
                events = &events[1..];
                if events.last() == Some(&"exited") {
                    events = &events[..events.len() - 1];
                } else {
                    assert!(!all_over, "task {id} did not exit");
                }
                // A wake during a poll comes between its begin and its end.
                let polls = events.iter().filter(|&&what| what == "before").count();
                let mut scheduled = 0;
                let mut inside = false;
                for &what in events {
                    match what {
                        "scheduled" => scheduled += 1,
                        "before" => {
                            assert!(scheduled == 1 && !inside, "task {id}: {events:?}");
                            (scheduled, inside) = (0, true);
                        }
                        "after" => {
                            assert!(inside, "task {id}: {events:?}");
                            inside = false;
                        }
                        _ => panic!("task {id}: {events:?}"),
                    }
                    assert!(scheduled <= 1, "task {id}: {events:?}");
                }
                assert_eq!(polls, events.iter().filter(|&&what| what == "after").count());
            }
            assert_eq!(events.iter().filter(|&&what| what == "spawned").count(), 0, "task {id} is spawned once");
        }
    }
}

tells_what_happens!(Seen);

/// Case 59.
#[test]
fn r116_the_life_of_a_task_with_two_checkpoints() {
    run_virtual(async || {
        let seen = Rc::new(Seen::default());
        add_instrument(seen.clone());
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                checkpoint().await?;
                checkpoint().await
            });
            Ok(())
        })
        .await
        .unwrap();
        let spawned = seen.0.borrow().iter().find(|(.., what)| *what == "spawned").unwrap().1;
        // Each wake is within the poll that gives up the turn.
        let expected = [
            vec!["spawned", "scheduled"],
            vec!["before", "scheduled", "after"],
            vec!["before", "scheduled", "after"],
            vec!["before", "after", "exited"],
        ];
        assert_eq!(seen.at(spawned), expected.concat());
        seen.check(false);
    });
}

/// Notes what happens, from the begin of a run.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<String>>>);

impl Shared {
    fn note(&self, task: &TaskInfo, what: &str) {
        assert!(task.place().file().ends_with("instruments.rs"), "{task}");
        self.0.lock().unwrap().push(format!("{} {what}", task.id()));
    }
}

tells_what_happens!(Shared);

#[test]
fn r116_from_the_begin_of_a_run_main_is_a_task_too() {
    let seen = Shared::default();
    let builder = Builder::new().driver(DriverKind::Epoll).instrument(seen.clone());
    builder.clone().run(async {
        nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async { Ok(()) });
            Ok(())
        })
        .await
        .unwrap();
    });
    let expected = [
        "1 spawned",
        "1 scheduled",
        "1 before", // the body of the nursery is a part of main
        "2 spawned",
        "2 scheduled",
        "1 scheduled",
        "1 after",
        "1 before",
        "2 before",
        "2 after",
        "2 exited",
        "1 after",
        "1 exited",
    ];
    assert_eq!(*seen.0.lock().unwrap(), expected);
    // Main panics: it has exited all the same.
    seen.0.lock().unwrap().clear();
    _ = panic_of(|| builder.run(async { panic!("main") }));
    assert_eq!(*seen.0.lock().unwrap(), ["1 spawned", "1 scheduled", "1 before", "1 after", "1 exited"]);
}

/// Panics at its n-th event.
struct Raises(Cell<u32>, Rc<Cell<u32>>);

impl Raises {
    fn event(&self) {
        self.1.set(self.1.get() + 1);
        self.0.set(self.0.get() - 1);
        if self.0.get() == 0 {
            panic!("the instrument panics");
        }
    }
}

impl Instrument for Raises {
    fn spawned(&self, _: &TaskInfo) {
        self.event();
    }
    fn scheduled(&self, _: &TaskInfo) {
        self.event();
    }
    fn before_poll(&self, _: &TaskInfo) {
        self.event();
    }
    fn after_poll(&self, _: &TaskInfo) {
        self.event();
    }
    fn exited(&self, _: &TaskInfo) {
        self.event();
    }
}

async fn a_nursery_of_three() {
    nursery(async |n| -> Result<(), Cancelled> {
        for _ in 0..3 {
            n.spawn(async {
                checkpoint().await?;
                sleep(ms(1)).await
            });
        }
        Ok(())
    })
    .await
    .unwrap();
}

/// Case 59.
#[test]
fn r116_an_instrument_that_panics_is_removed_and_the_others_and_the_run_go_on() {
    run_virtual(async || {
        // With none that panics, how much there is to see.
        let whole = Rc::new(Seen::default());
        let handle = add_instrument(whole.clone());
        a_nursery_of_three().await;
        handle.remove();
        checkpoint().await.unwrap();
        let all = whole.0.borrow().len() as u32;
        assert!(all > 30, "{all}");
        for at in 1..=all {
            let (first, last, events) = (Rc::new(Seen::default()), Rc::new(Seen::default()), Rc::new(Cell::new(0)));
            let first_handle = add_instrument(first.clone());
            add_instrument(Raises(Cell::new(at), events.clone()));
            let last_handle = add_instrument(last.clone());
            a_nursery_of_three().await;
            assert_eq!(events.get(), at, "it is not called again");
            assert_eq!(*first.0.borrow(), *last.0.borrow());
            assert_eq!(first.0.borrow().len() as u32, all);
            first_handle.remove();
            last_handle.remove();
            checkpoint().await.unwrap();
        }
    });
}

/// Does something at each event, if it is told to.
struct Acts<F: Fn(&TaskInfo)>(F);

impl<F: Fn(&TaskInfo)> Instrument for Acts<F> {
    fn spawned(&self, task: &TaskInfo) {
        (self.0)(task);
    }
    fn scheduled(&self, task: &TaskInfo) {
        (self.0)(task);
    }
    fn before_poll(&self, task: &TaskInfo) {
        (self.0)(task);
    }
    fn after_poll(&self, task: &TaskInfo) {
        (self.0)(task);
    }
    fn exited(&self, task: &TaskInfo) {
        (self.0)(task);
    }
}

#[test]
fn r116_instruments_are_removed_and_installed_by_instruments() {
    run_virtual(async || {
        for at in 1..30 {
            let (events, before, after) = (Cell::new(0), Rc::new(Seen::default()), Rc::new(Seen::default()));
            let handles: Rc<RefCell<Vec<InstrumentHandle>>> = Rc::default();
            let gone = Rc::new(Cell::new(None));
            let later = Rc::new(Seen::default());
            handles.borrow_mut().push(add_instrument(before.clone()));
            let (all, when, more, next) = (handles.clone(), gone.clone(), later.clone(), after.clone());
            let acts = Acts(move |_| {
                events.set(events.get() + 1);
                if events.get() == at {
                    // Itself, the one before it and the one after it.
                    all.borrow().iter().for_each(InstrumentHandle::remove);
                    when.set(Some(next.0.borrow().len()));
                    let handle = add_instrument(more.clone());
                    all.borrow_mut().push(handle);
                }
            });
            let handle = add_instrument(acts);
            handles.borrow_mut().push(handle);
            handles.borrow_mut().push(add_instrument(after.clone()));
            a_nursery_of_three().await;
            let gone = gone.get().expect("there are that many events");
            assert_eq!(before.0.borrow().len(), gone + 1, "it had this event");
            assert_eq!(after.0.borrow().len(), gone, "it was not called any more, not even for this event");
            assert!(!later.0.borrow().is_empty());
            handles.borrow().iter().for_each(InstrumentHandle::remove);
            checkpoint().await.unwrap();
        }
    });
}

#[test]
fn r116_every_task_exits_once_however_it_ends() {
    run_virtual(async || {
        let seen = Rc::new(Seen::default());
        let handle = add_instrument(seen.clone());
        checkpoint().await.unwrap();
        // It panics; it is cancelled; it is dropped where it waits for something foreign (N13).
        let panicked = catch_unwind_of(async {
            nursery(async |n| -> Result<(), Cancelled> {
                n.spawn::<_, ()>(async { panic!("the child") });
                n.spawn(async { sleep(ms(10)).await });
                n.spawn::<_, ()>(pending());
                Ok(())
            })
            .await
        })
        .await;
        assert!(panicked);
        // It is dropped with its nursery (N12), never having run and half way.
        for k in 1..4 {
            let dropped = drop_at(
                k,
                nursery(async |n| -> Result<(), Cancelled> {
                    n.spawn(sleep(ms(10)));
                    checkpoint().await?;
                    n.spawn(sleep(ms(10)));
                    Ok(())
                }),
            );
            assert!(dropped.await.is_none());
        }
        handle.remove();
        seen.check(false);
        let lives = seen.tasks();
        let whole = lives.values().filter(|events| events[0] == "spawned");
        assert!(whole.clone().count() >= 3 + 4);
        for events in whole {
            assert_eq!(events.iter().filter(|&&what| what == "exited").count(), 1, "{events:?}");
        }
    });
}

/// Whether a future panicked.
async fn catch_unwind_of<T>(future: impl Future<Output = T>) -> bool {
    let mut future = Box::pin(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(|_| false),
        Err(_) => std::task::Poll::Ready(true),
    })
    .await
}

#[test]
fn r116_all_happens_on_the_thread_of_the_run() {
    run_real(async || {
        let here = thread::current().id();
        let seen = Rc::new(Seen::default());
        let elsewhere = Arc::new(AtomicBool::new(false));
        let told = elsewhere.clone();
        let on_thread = Acts(move |_| told.store(told.load(SeqCst) || thread::current().id() != here, SeqCst));
        let handles = [add_instrument(on_thread), add_instrument(seen.clone())];
        let (sender, receiver) = channel::<u32>(0);
        let thread = thread::spawn(move || {
            for i in 0..200 {
                sender.send_blocking(i).unwrap();
            }
        });
        nursery(async |n| -> Result<(), Cancelled> {
            for _ in 0..3 {
                n.spawn(async {
                    while receiver.recv().await?.is_some() {}
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        thread.join().unwrap();
        handles.iter().for_each(InstrumentHandle::remove);
        seen.check(false);
        assert!(seen.0.borrow().len() >= 3 * 5);
        assert!(!elsewhere.load(SeqCst));
    });
}

#[test]
fn r116_in_any_order_each_task_has_a_proper_life() {
    trefoil_testing::seeds(0..30, async || {
        let seen = Rc::new(Seen::default());
        let handle = add_instrument(seen.clone());
        let event = Event::new();
        nursery(async |n| -> Result<(), Cancelled> {
            for i in 0..5 {
                let event = &event;
                n.spawn(async move {
                    nursery(async |inner| -> Result<(), Cancelled> {
                        for j in 0..i {
                            inner.spawn(async move {
                                for _ in 0..j {
                                    yield_now().await;
                                }
                                event.wait().await
                            });
                        }
                        sleep(ms(i)).await
                    })
                    .await
                    .unwrap();
                    Ok(())
                });
            }
            checkpoint().await?;
            event.set();
            Ok(())
        })
        .await
        .unwrap();
        handle.remove();
        seen.check(false);
        assert_eq!(seen.0.borrow().iter().filter(|(.., what)| *what == "exited").count(), 5 + 10);
    });
}

#[test]
fn r116_an_instrument_may_wake_tasks() {
    run_virtual(async || {
        for at in 1..30 {
            let event = Rc::new(Event::new());
            let (set, events) = (event.clone(), Cell::new(0));
            let handle = add_instrument(Acts(move |_| {
                events.set(events.get() + 1);
                if events.get() == at {
                    set.set(); // from within whatever is going on
                }
            }));
            local_nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(event.wait());
                n.spawn(async {
                    a_nursery_of_three().await;
                    Ok(())
                });
                Ok(())
            })
            .await
            .unwrap();
            handle.remove();
        }
    });
}

/// Panics when it is dropped.
struct Bad;

impl Instrument for Bad {}

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("the destructor of an instrument");
    }
}

#[test]
fn r116_a_destructor_that_panics_harms_nobody() {
    run_virtual(async || {
        let handle = add_instrument(Bad);
        checkpoint().await.unwrap();
        handle.remove();
        add_instrument(Bad); // goes with the run
        a_nursery_of_three().await;
    });
}

#[test]
fn outside_of_a_run_there_is_nothing_to_see() {
    assert!(panic_of(|| drop(add_instrument(Rc::new(Seen::default())))).contains("outside of a run"));
}
