//! The watchdog sleeps while every loop does, and is there again as soon as one is awake, whatever has woken it. In a process of its own: other loops
//! would keep it awake.

use std::cell::Cell;
use std::fs;
use std::future::{Future, poll_fn};
use std::net::TcpStream;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::task::{Context, Wake};
use std::thread;
use std::time::{Duration, Instant};
use trefoil::net::TcpListener;
use trefoil::{Builder, CancelScope, Cancelled, DriverKind, Event, RunHandle, nursery, sleep, sleep_forever};
use trefoil_tests::{Watch, listen_everywhere, ms, panic_of};

/// How often the watchdog's thread has gone to sleep, as far as the kernel knows of it. `None` while there is none: a thread has its name once it runs.
fn sleeps() -> Option<String> {
    // Another thread may have ended since it was listed.
    let of_watchdog =
        |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("trefoil-watchdo"));
    let mut tasks = fs::read_dir("/proc/self/task").ok()?.filter_map(|task| Some(task.ok()?.path()));
    let status = fs::read_to_string(tasks.find(of_watchdog)?.join("status")).ok()?;
    Some(status.lines().filter(|line| line.starts_with("voluntary")).collect())
}

/// Of which the watchdog looks ten times, where a loop is awake.
const LIMIT: Duration = ms(20);

/// Waits until the watchdog sleeps: until it has not moved for as long as it would have looked some times.
fn wait_until_it_dozes() {
    let begin = Instant::now();
    loop {
        let before = sleeps();
        thread::sleep(LIMIT * 4);
        if before.is_some() && sleeps() == before {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "every loop sleeps, and the watchdog does not");
    }
}

fn wait_until(what: impl Fn() -> bool) {
    let begin = Instant::now();
    while !what() && begin.elapsed() < Duration::from_secs(60) {
        thread::sleep(ms(1));
    }
}

/// What wakes the loop.
#[derive(Clone, Copy, Debug)]
enum Way {
    Time,
    Kernel,
    Thread,
    Call,
    Deadline,
}

/// How many lines have this in them.
fn count(what: &str) -> usize {
    static HEARD: Mutex<Vec<String>> = Mutex::new(vec![]);
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| listen_everywhere(|line| HEARD.lock().unwrap().push(line.into())));
    HEARD.lock().unwrap().iter().filter(|line| line.contains(what)).count()
}

/// One at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// It has the loop make a call, and panics.
struct Panics(RunHandle, Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        if let Some(call) = self.1.lock().unwrap().take() {
            self.0.run_soon(call).unwrap();
        }
        panic!("a waker of somebody");
    }
}

/// The loop does not come back from its sleep in the ordinary way: a waker panics. What was accepted before is run all the same (R89).
#[test]
fn a_loop_that_a_panic_has_woken_is_watched_again() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // A thread that fails wakes nobody.
    let _watch = Watch::new("a loop that is to be woken is not".into());
    let heard = || count("a call has held up its loop");
    heard();
    for kind in [DriverKind::Epoll, DriverKind::IoUring] {
        let builder = Builder::new().driver(kind).blocked_after(Some(LIMIT));
        if builder.clone().try_run(async {}).is_err() {
            continue;
        }
        let before = heard();
        let blocks = move || wait_until(|| heard() > before);
        let message = panic_of(|| {
            builder.run(async {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                thread::spawn(move || {
                    wait_until_it_dozes();
                    drop(TcpStream::connect(address).unwrap());
                });
                let waker = Arc::new(Panics(trefoil::run_handle(), Mutex::new(Some(Box::new(blocks))))).into();
                let mut accept = pin!(listener.accept());
                poll_fn(|_| accept.as_mut().poll(&mut Context::from_waker(&waker))).await.unwrap();
            });
        });
        assert_eq!(message, "a waker of somebody");
        assert_eq!(heard(), before + 1, "{kind}: nobody has seen it");
    }
}

#[test]
fn whatever_wakes_a_loop_it_is_watched_again() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _watch = Watch::new("a loop that is to be woken is not".into());
    count("");
    for kind in [DriverKind::Epoll, DriverKind::IoUring] {
        for (way, again) in [Way::Time, Way::Kernel, Way::Thread, Way::Call, Way::Deadline]
            .into_iter()
            .flat_map(|way| [(way, false), (way, true)])
        {
            let name = &format!("`{way:?} {kind} {again}`");
            let builder = Builder::new().driver(kind).blocked_after(Some(LIMIT));
            if builder.clone().try_run(async {}).is_err() {
                continue;
            }
            builder.run(async {
                if again {
                    // The second time it was asleep.
                    until_woken(way).await;
                }
                until_woken(way).await;
                nursery(async |n| -> Result<(), Cancelled> {
                    n.spawn_named(name.trim_matches('`'), async {
                        wait_until(|| count(name) == 1);
                        Ok(())
                    });
                    Ok(())
                })
                .await
                .unwrap();
            });
            assert!(count(name) > 0, "{name}: nobody has seen it");
        }
    }
}

/// Sleeps until the watchdog does as well, and then is woken.
async fn until_woken(way: Way) {
    let scope = CancelScope::new();
    let (event, remote, handle) = (Arc::new(Event::new()), scope.clone(), trefoil::run_handle());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, sets) = (listener.local_addr().unwrap(), event.clone());
    let dozed = Arc::new(Mutex::new(false));
    let notes = dozed.clone();
    let other = thread::spawn(move || {
        wait_until_it_dozes();
        *notes.lock().unwrap() = true;
        match way {
            Way::Time => {}
            Way::Kernel => drop(TcpStream::connect(address).unwrap()),
            Way::Thread => sets.set(),
            Way::Call => handle.run_soon(move || sets.set()).unwrap(),
            Way::Deadline => remote.set_deadline(Some(trefoil::now())),
        }
    });
    match way {
        Way::Time => {
            // So long that it goes to sleep meanwhile, as a rule; and then longer.
            let length = Cell::new(ms(100));
            while !*dozed.lock().unwrap() {
                sleep(length.get()).await.unwrap();
                length.set(length.get() * 2);
            }
        }
        Way::Kernel => drop(listener.accept().await.unwrap()),
        Way::Thread | Way::Call => event.wait().await.unwrap(),
        Way::Deadline => assert!(scope.run(sleep_forever()).await.unwrap().is_none()),
    }
    other.join().unwrap();
}
