//! Entry from outside: closures that any thread has run on the loop of a run (`run_handle`, `run_soon`, `coalesced`).

use std::cell::Cell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread::{self, ThreadId};
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{
    Cancelled, Coalesced, Event, RunFinished, RunHandle, checkpoint, metrics, nursery, run_handle, shield, sleep,
    sleep_forever,
};
use trefoil_testing::Builder;
use trefoil_tests::{OnDrop, ms, panic_of, run_real, run_virtual};

type Log = Arc<Mutex<Vec<usize>>>;

type Signal = Coalesced<Box<dyn FnMut() + Send>>;

fn log() -> Log {
    Log::default()
}

fn noted(log: &Log, what: usize) -> impl FnMut() + Send + 'static {
    let log = log.clone();
    move || log.lock().unwrap().push(what)
}

fn lines(log: &Log) -> Vec<usize> {
    log.lock().unwrap().clone()
}

// ---- R88: order, coalescing, fairness ------------------------------------------------------------------------------

#[test]
fn r88_calls_run_in_order_and_not_before_the_caller_yields() {
    run_virtual(async || {
        let (handle, log) = (run_handle(), log());
        for i in 0..10 {
            handle.clone().run_soon(noted(&log, i)).unwrap();
        }
        assert!(lines(&log).is_empty());
        checkpoint().await.unwrap();
        assert_eq!(lines(&log), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn r88_a_call_from_another_thread_wakes_the_run_and_keeps_its_order() {
    run_real(async || {
        let (handle, log, done) = (run_handle(), log(), Arc::new(Event::new()));
        let (seen, set) = (log.clone(), done.clone());
        let here = thread::current().id();
        let thread = thread::spawn(move || {
            for i in 0..1_000 {
                let seen = seen.clone();
                let call = move || {
                    assert_eq!(thread::current().id(), here);
                    seen.lock().unwrap().push(i);
                };
                handle.run_soon(call).unwrap();
            }
            handle.run_soon(move || set.set()).unwrap();
        });
        done.wait().await.unwrap();
        assert_eq!(lines(&log), (0..1_000).collect::<Vec<_>>());
        thread.join().unwrap();
    });
}

/// Case 37.
#[test]
fn r88_coalesced_calls_collapse_while_one_is_pending() {
    run_virtual(async || {
        let (handle, log) = (run_handle(), log());
        let (a, b) = (handle.coalesced(noted(&log, 1)), handle.coalesced(noted(&log, 2)));
        for _ in 0..100 {
            a.fire().unwrap();
            b.clone().fire().unwrap();
        }
        checkpoint().await.unwrap();
        assert_eq!(lines(&log), [1, 2]);
        checkpoint().await.unwrap();
        assert_eq!(lines(&log), [1, 2], "nothing is pending");
        b.fire().unwrap();
        handle.run_soon(noted(&log, 3)).unwrap();
        a.fire().unwrap();
        checkpoint().await.unwrap();
        assert_eq!(lines(&log), [1, 2, 2, 3, 1], "in one order with the others");
    });
}

#[test]
fn r88_a_coalesced_call_may_be_fired_from_inside_of_itself() {
    run_virtual(async || {
        let left = Arc::new(AtomicUsize::new(5));
        let itself: Arc<Mutex<Option<Signal>>> = Arc::default();
        let (counted, again) = (left.clone(), itself.clone());
        let call: Box<dyn FnMut() + Send> = Box::new(move || {
            if counted.fetch_sub(1, SeqCst) > 1 {
                again.lock().unwrap().as_ref().unwrap().fire().unwrap();
            }
        });
        let signal = run_handle().coalesced(call);
        *itself.lock().unwrap() = Some(signal.clone());
        signal.fire().unwrap();
        for expected in (0..5).rev() {
            checkpoint().await.unwrap();
            assert_eq!(left.load(SeqCst), expected, "once in each turn");
        }
        checkpoint().await.unwrap();
        assert_eq!(left.load(SeqCst), 0);
        itself.lock().unwrap().take(); // it is in itself
    });
}

/// Calls itself again until it is told to stop.
fn again_and_again(handle: &RunHandle, calls: &Arc<AtomicUsize>, stop: &Arc<AtomicBool>) {
    calls.fetch_add(1, SeqCst);
    if !stop.load(SeqCst) {
        let (handle, calls, stop) = (handle.clone(), calls.clone(), stop.clone());
        let call = {
            let handle = handle.clone();
            move || again_and_again(&handle, &calls, &stop)
        };
        _ = handle.run_soon(call); // refused when the run ends
    }
}

/// Case 37.
#[test]
fn r88_a_call_that_calls_itself_again_starves_neither_tasks_nor_deadlines_nor_io() {
    run_real(async || {
        let (calls, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        again_and_again(&run_handle(), &calls, &stop);
        checkpoint().await.unwrap();
        let before = calls.load(SeqCst);
        checkpoint().await.unwrap();
        assert_eq!(calls.load(SeqCst), before + 1, "once in each turn");
        sleep(ms(5)).await.unwrap();
        if metrics().driver != "thread" {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            for _ in 0..10 {
                client.write_all(b"ping").await.unwrap();
                server.read_exact(&mut [0; 4]).await.unwrap();
            }
        }
        assert!(calls.load(SeqCst) > before + 1);
        stop.store(true, SeqCst);
    });
}

#[test]
fn r88_a_flood_of_calls_is_run_a_slice_in_each_turn() {
    run_virtual(async || {
        let (handle, log) = (run_handle(), log());
        for i in 0..10_000 {
            handle.run_soon(noted(&log, i)).unwrap();
        }
        let mut turns = 0;
        while lines(&log).len() < 10_000 {
            checkpoint().await.unwrap();
            turns += 1;
            handle.run_soon(|| ()).unwrap(); // goes behind what was taken out before
        }
        assert!((10..100).contains(&turns), "{turns}");
        assert_eq!(lines(&log), (0..10_000).collect::<Vec<_>>());
    });
}

#[test]
fn a_call_wakes_spawns_and_cancels() {
    run_virtual(async || {
        let event = Arc::new(Event::new());
        let set = event.clone();
        run_handle().run_soon(move || set.set()).unwrap();
        event.wait().await.unwrap();

        let scope = Arc::new(trefoil::CancelScope::new());
        let cancel = scope.clone();
        run_handle().run_soon(move || cancel.cancel()).unwrap();
        assert_eq!(scope.run(sleep_forever()).await, Ok::<_, Cancelled>(None));
    });
}

// ---- R89: the end --------------------------------------------------------------------------------------------------

/// Calls when it is dropped.
struct CallOnDrop(RunHandle, Log);

impl Drop for CallOnDrop {
    fn drop(&mut self) {
        self.0.run_soon(noted(&self.1, 3)).unwrap();
    }
}

#[test]
fn r89_what_is_accepted_is_run_before_the_run_ends_and_what_comes_after_is_given_back() {
    let log = log();
    let handles = Mutex::new(Vec::new());
    run_virtual(async || {
        log.lock().unwrap().clear();
        let handle = run_handle();
        let signal: Signal = handle.coalesced(Box::new(noted(&log, 2)));
        let _late = CallOnDrop(handle.clone(), log.clone()); // accepted: main is not gone yet
        handles.lock().unwrap().push((handle.clone(), signal.clone()));
        handle.run_soon(noted(&log, 1)).unwrap();
        signal.fire().unwrap();
    });
    assert_eq!(lines(&log), [1, 2, 3]);
    for (handle, signal) in handles.into_inner().unwrap() {
        log.lock().unwrap().clear();
        let RunFinished(mut closure) = handle.run_soon(noted(&log, 4)).unwrap_err();
        assert_eq!(signal.fire(), Err(RunFinished(())));
        assert!(lines(&log).is_empty(), "neither was run");
        closure();
        assert_eq!(lines(&log), [4], "it was given back");
    }
}

#[test]
fn r89_a_call_that_is_made_by_one_of_the_last_calls_is_refused() {
    let refused = Arc::new(AtomicUsize::new(0));
    let runs = Cell::new(0);
    run_virtual(async || {
        runs.set(runs.get() + 1);
        let (handle, count) = (run_handle(), refused.clone());
        let inner = handle.clone();
        let call = move || {
            let signal = inner.coalesced(|| panic!("it was refused"));
            let both = [inner.run_soon(|| panic!("it was refused")).is_err(), signal.fire().is_err()];
            count.fetch_add(both.into_iter().filter(|&refused| refused).count(), SeqCst);
        };
        handle.run_soon(call).unwrap();
    });
    assert_eq!(refused.load(SeqCst), 2 * runs.get());
}

/// A closure's belongings, which say on which thread they were dropped.
struct Belongings(mpsc::Sender<ThreadId>);

impl Drop for Belongings {
    fn drop(&mut self) {
        self.0.send(thread::current().id()).unwrap();
    }
}

#[test]
fn r89_closures_are_dropped_by_the_run_or_given_back() {
    run_real(async || {
        let (told, drops) = mpsc::channel();
        let handle = run_handle();
        let here = thread::current().id();
        thread::spawn(move || {
            let (one, other) = (Belongings(told.clone()), Belongings(told));
            handle.run_soon(move || drop(one)).unwrap();
            // The last that knows of it is the queue.
            let signal = handle.coalesced(move || _ = &other);
            signal.fire().unwrap();
        })
        .join()
        .unwrap();
        checkpoint().await.unwrap();
        assert_eq!(drops.iter().collect::<Vec<_>>(), [here, here]);
    });
}

/// Counts itself when it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Case 36. Each thread calls until it is refused; the run ends in the middle of it, by itself, by a panic, or after a while.
#[test]
fn r89_threads_hammer_until_the_run_ends_and_every_accepted_call_ran() {
    const THREADS: usize = 4;
    for round in 0..40 {
        let ran = Arc::new(AtomicUsize::new(0));
        let dropped = Arc::new(AtomicUsize::new(0));
        let (accepted, all) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (signalled, at_least) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let (send_handle, handles) = mpsc::channel::<(RunHandle, Signal)>();
        let handles = Mutex::new(handles);
        let start = Barrier::new(THREADS + 1);
        thread::scope(|s| {
            for _ in 0..THREADS {
                s.spawn(|| {
                    let (handle, signal) = handles.lock().unwrap().recv().unwrap();
                    start.wait();
                    loop {
                        let (ran, counted) = (ran.clone(), Counted(dropped.clone()));
                        all.fetch_add(1, SeqCst);
                        let call = move || {
                            _ = &counted;
                            ran.fetch_add(1, SeqCst);
                        };
                        // A fire that is accepted is followed by a call of the closure.
                        let before = signalled.load(SeqCst);
                        if signal.fire().is_ok() {
                            at_least.fetch_max(before + 1, SeqCst);
                        }
                        match handle.run_soon(call) {
                            Ok(()) => _ = accepted.fetch_add(1, SeqCst),
                            Err(RunFinished(call)) => return drop(call),
                        }
                    }
                });
            }
            let run = || {
                let program = async {
                    let handle = run_handle();
                    let count = signalled.clone();
                    let signal: Signal = handle.coalesced(Box::new(move || _ = count.fetch_add(1, SeqCst)));
                    for _ in 0..THREADS {
                        send_handle.send((handle.clone(), signal.clone())).unwrap();
                    }
                    start.wait();
                    if round % 4 == 3 {
                        handle.run_soon(|| panic!("a call panics")).unwrap();
                    }
                    for _ in 0..round {
                        if checkpoint().await.is_err() {
                            break;
                        }
                    }
                    if round % 4 == 2 {
                        panic!("main panics");
                    }
                };
                trefoil::Builder::new().run(program)
            };
            assert_eq!(catch_unwind(AssertUnwindSafe(run)).is_err(), round % 4 >= 2);
        });
        assert_eq!(ran.load(SeqCst), accepted.load(SeqCst), "accepted, and run");
        assert_eq!(dropped.load(SeqCst), all.load(SeqCst), "each closure is dropped once");
        assert!(signalled.load(SeqCst) >= at_least.load(SeqCst), "a fire that was accepted was not followed by a call");
    }
}

/// Case 36, the late crash: the last of the calls panics when main is done.
#[test]
fn r89_a_panic_of_a_call_at_the_very_end_comes_out_and_later_calls_run() {
    let log = log();
    let message = panic_of(|| {
        run_virtual(async || {
            let handle = run_handle();
            handle.run_soon(noted(&log, 1)).unwrap();
            handle.run_soon(|| panic!("the first")).unwrap();
            handle.run_soon(noted(&log, 2)).unwrap();
            handle.run_soon(|| panic!("the second")).unwrap();
            handle.run_soon(noted(&log, 3)).unwrap();
        })
    });
    assert_eq!(message, "the first");
    assert_eq!(lines(&log), [1, 2, 3]);
}

#[test]
fn r89_a_panic_of_a_call_cancels_the_run_which_cleans_up() {
    let log = log();
    let message = panic_of(|| {
        run_virtual(async || {
            let handle = run_handle();
            let event = Event::new();
            handle.run_soon(|| panic!("the call")).unwrap();
            handle.run_soon(noted(&log, 1)).unwrap();
            let out = nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    let waited = event.wait().await;
                    shield(sleep(ms(10))).await?;
                    handle.run_soon(noted(&log, 2)).unwrap();
                    waited
                });
                sleep_forever().await
            })
            .await;
            assert!(out.is_err(), "the run was cancelled");
            handle.run_soon(noted(&log, 3)).unwrap();
            panic!("main panics in its turn, too late");
        })
    });
    assert_eq!(message, "the call");
    assert_eq!(lines(&log), [1, 2, 3]);
}

/// N13: and where main cannot be told, or does not listen, it is dropped.
#[test]
fn r89_n13_a_panic_of_a_call_ends_a_main_that_cannot_be_told() {
    for listens in [false, true] {
        let dropped = AtomicUsize::new(0);
        let message = panic_of(|| {
            run_virtual(async || {
                let _dropped = OnDrop(&dropped);
                run_handle().run_soon(|| panic!("the call")).unwrap();
                if !listens {
                    return pending::<()>().await; // foreign
                }
                loop {
                    _ = checkpoint().await; // swallows
                }
            })
        });
        assert_eq!((message.as_str(), dropped.load(SeqCst)), ("the call", 1));
    }
}

// ---- Beside ---------------------------------------------------------------------------------------------------------

#[test]
fn n10_while_somebody_may_call_it_is_no_deadlock() {
    let at_once = || Builder::new().deadlock_after(Some(ms(0)));
    at_once().run(async {
        let event = Arc::new(Event::new());
        let (handle, set) = (run_handle(), event.clone());
        let thread = thread::spawn(move || {
            thread::sleep(ms(5));
            handle.run_soon(move || set.set()).unwrap();
        });
        event.wait().await.unwrap();
        thread.join().unwrap();
    });
    let report = panic_of(|| {
        at_once().run(async {
            let handle = run_handle();
            let thread = thread::spawn(move || {
                thread::sleep(ms(5));
                drop(handle);
            });
            _ = Event::new().wait().await;
            thread.join().unwrap();
        })
    });
    assert!(report.contains("deadlock (N10)"), "{report}");
}

#[test]
fn outside_of_a_run_there_is_no_handle() {
    assert!(panic_of(|| drop(run_handle())).contains("`run_handle` was polled outside of a run"));
}

#[test]
fn each_run_has_its_own() {
    let first = trefoil::run(async { run_handle() });
    run_virtual(async || {
        assert!(first.run_soon(|| panic!("it was refused")).is_err());
        let ran = Arc::new(AtomicBool::new(false));
        let set = ran.clone();
        run_handle().run_soon(move || set.store(true, SeqCst)).unwrap();
        checkpoint().await.unwrap();
        assert!(ran.load(SeqCst));
    });
}

#[test]
fn handles_may_go_between_threads() {
    fn all<T: Send + Sync>(_: &T) {}
    run_virtual(async || {
        let handle = run_handle();
        all(&handle);
        all(&handle.coalesced(|| ()));
        // The closure itself is on one thread at a time.
        all(&handle.coalesced({
            let cell = Cell::new(0);
            move || cell.set(cell.get() + 1)
        }));
    });
}
