//! N10 where there is no other thread: nobody can wake a task then, and a run in which every task waits ends by itself. This test has no
//! harness, since that has threads; for the same reason its runs are not those of the harness of the others.

use std::time::Instant;
use trefoil::net::TcpListener;
use trefoil::sync::Mutex;
use trefoil::{
    Builder, Deadlock, DriverKind, Event, RunError, checkpoint, move_on_after, nursery, run_handle, sleep_forever,
};
use trefoil_tests::{Ended, ms, panic_of};

fn drivers() -> impl Iterator<Item = Builder> {
    [DriverKind::Epoll, DriverKind::IoUring]
        .into_iter()
        .map(|kind| Builder::new().driver(kind))
        .filter(|builder| builder.clone().try_run(async {}).is_ok())
}

fn deadlock<T>(builder: Builder, main: impl Future<Output = T>) -> Deadlock {
    match builder.try_run(main) {
        Err(RunError::Deadlock(report)) => report,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was to end with a report"),
    }
}

fn n10_two_locks_crossed() {
    for builder in drivers() {
        let report = deadlock(builder, async {
            let (left, right) = (Mutex::new(()), Mutex::new(()));
            nursery(async |n| -> Ended {
                n.spawn(async {
                    let _left = left.lock().await?;
                    checkpoint().await?;
                    right.lock().await.map(drop)
                });
                n.spawn(async {
                    let _right = right.lock().await?;
                    checkpoint().await?;
                    left.lock().await.map(drop)
                });
                Ok(())
            })
            .await
        });
        assert_eq!(report.cycles().count(), 1, "{report}");
        assert!(report.to_string().contains("no other thread is there"), "{report}");
    }
}

fn n10_run_panics_with_the_report() {
    let report = panic_of(|| {
        trefoil::run(async { _ = Event::new().wait().await });
    });
    assert!(report.starts_with("deadlock (N10): every task waits"), "{report}");
    assert!(report.contains("the main task (deadlock_alone.rs:"), "{report}");
}

/// What it waits for is unknown, and yet nobody is there who could wake it.
fn n10_a_foreign_future_that_nobody_completes() {
    for builder in drivers() {
        let report = deadlock(builder, std::future::pending::<()>());
        assert!(report.tasks().is_empty());
    }
}

/// A deadline, an operation in flight, a handle: each is a reason to wait.
fn n10_what_can_still_come_is_waited_for() {
    for builder in drivers() {
        builder.run(async {
            assert_eq!(move_on_after(ms(50), sleep_forever()).await, Ok(None));
        });
    }
    // I/O in flight: a connection comes from another process only, as far as anybody knows. Ended from outside, by a signal.
    for builder in drivers() {
        let begin = Instant::now();
        builder.run(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let accepted = move_on_after(ms(50), listener.accept()).await.unwrap();
            assert!(accepted.is_none());
        });
        assert!(begin.elapsed() >= ms(50));
    }
    // The handle is given away, and comes back from a thread that has ended by the time.
    for builder in drivers() {
        builder.run(async {
            let event = std::sync::Arc::new(Event::new());
            let (handle, remote) = (run_handle(), event.clone());
            let thread = std::thread::spawn(move || {
                std::thread::sleep(ms(30));
                handle.run_soon(move || remote.set()).unwrap();
            });
            event.wait().await.unwrap();
            thread.join().unwrap();
        });
    }
}

/// The last thread ends, and takes the hope with it.
fn n10_a_thread_that_ends_without_a_word() {
    for builder in drivers().take(1) {
        let event = std::sync::Arc::new(Event::new());
        let remote = event.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(30));
            drop(remote);
        });
        deadlock(builder, event.wait());
        thread.join().unwrap();
    }
}

/// Blocking operations of plain threads wait as long as it takes.
fn n10_blocking_operations_are_exempt() {
    assert!(Event::new().wait_blocking_timeout(ms(50)).is_err());
}

fn main() {
    // What panics is expected here, and says enough where it is not.
    for (name, test) in [
        ("n10_two_locks_crossed", n10_two_locks_crossed as fn()),
        ("n10_run_panics_with_the_report", n10_run_panics_with_the_report),
        ("n10_a_foreign_future_that_nobody_completes", n10_a_foreign_future_that_nobody_completes),
        ("n10_what_can_still_come_is_waited_for", n10_what_can_still_come_is_waited_for),
        ("n10_a_thread_that_ends_without_a_word", n10_a_thread_that_ends_without_a_word),
        ("n10_blocking_operations_are_exempt", n10_blocking_operations_are_exempt),
    ] {
        println!("test {name} ...");
        test();
    }
}
