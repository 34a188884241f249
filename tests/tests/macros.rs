//! `#[trefoil::test]` and `#[trefoil::main]`, as users write them. What they refuse is tested in `macros/`, and as `compile_fail`
//! doc-tests of `trefoil`.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{Cancelled, sleep, testing::Clock};

const HOUR: Duration = Duration::from_secs(3600);

#[trefoil::test]
async fn time_is_virtual() {
    let begin = trefoil::now();
    sleep(HOUR).await.unwrap();
    assert_eq!(trefoil::now() - begin, HOUR);
    let _ = Clock::current();
}

#[trefoil::test]
async fn a_test_may_return_a_result() -> Result<(), Cancelled> {
    sleep(HOUR).await
}

#[trefoil::test]
#[should_panic(expected = "the test returned an error: Custom { kind: Other, error: \"no clover\" }")]
async fn an_error_fails_the_test() -> io::Result<()> {
    Err(io::Error::other("no clover"))
}

/// As above. Run by the next test, in a process of its own.
#[trefoil::test]
#[ignore = "fails on purpose"]
async fn returns_an_error() -> io::Result<()> {
    Err(io::Error::other("no clover"))
}

#[trefoil::test(real)]
#[ignore = "fails on purpose"]
async fn returns_an_error_in_real_time() -> io::Result<()> {
    Err(io::Error::other("no clover"))
}

const LAST_OF_THEM: u32 = line!() - 2;

/// At the place of the test, and not in this library.
#[test]
fn an_error_is_reported_at_the_test() {
    for (test, line) in [("returns_an_error", LAST_OF_THEM - 8), ("returns_an_error_in_real_time", LAST_OF_THEM - 2)] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{test}");
        let place = format!("panicked at {}:{line}:", file!());
        assert!(text.contains(&place) && text.contains(r#"the test returned an error: Custom"#), "{place} {text}");
    }
}

#[trefoil::test]
#[should_panic(expected = "deadlock (N10)")]
async fn a_deadlock_fails_the_test() {
    let _ = trefoil::sleep_forever().await;
}

#[trefoil::test(seed = 7)]
async fn with_a_seed() {
    sleep(HOUR).await.unwrap();
}

static RUNS: AtomicU32 = AtomicU32::new(0);

#[trefoil::test(seeds = 10)]
#[should_panic(expected = "the tenth")]
async fn with_several_seeds() {
    assert!(RUNS.fetch_add(1, Ordering::Relaxed) < 9, "the tenth");
}

/// The examples of the documentation, which doc-tests do not run.
mod documented {
    use std::{io, time::Duration};
    use trefoil::{Cancelled, CancelledOrTimedOut, fail_after, sleep, sleep_forever};

    #[trefoil::test] // virtual time
    async fn a_day_is_over_at_once() -> Result<(), Cancelled> {
        sleep(Duration::from_secs(86_400)).await
    }

    #[trefoil::test(seeds = 100)] // and in a hundred orders
    async fn it_times_out() {
        let late = fail_after(Duration::from_secs(60), sleep_forever()).await;
        assert!(matches!(late, Err(CancelledOrTimedOut::TimedOut(_))));
    }

    #[trefoil::test(real)] // as `trefoil::run`: I/O, and the machine's clock
    async fn it_binds() -> io::Result<()> {
        trefoil::net::TcpListener::bind("127.0.0.1:0")?;
        Ok(())
    }
}

async fn connects() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    TcpStream::connect(listener.local_addr()?).await?;
    Ok(())
}

#[trefoil::test(real)]
async fn with_io() -> io::Result<()> {
    connects().await
}

#[trefoil::test(driver = "epoll")]
async fn with_a_driver() -> io::Result<()> {
    assert_eq!(trefoil::metrics().driver, "epoll");
    connects().await
}

#[trefoil::test(driver = "epoll")]
#[should_panic(expected = "no clover")]
async fn with_io_an_error_fails_the_test_too() -> Result<(), &'static str> {
    Err("no clover")
}

#[trefoil::test(real)]
#[should_panic(expected = "deadlock (N10): some tasks wait for each other")]
async fn with_io_a_cycle_fails_the_test_too() -> Result<(), Cancelled> {
    let lock = trefoil::sync::Mutex::new(());
    trefoil::join((
        async {
            // Something goes on.
            loop {
                sleep(Duration::from_millis(1)).await?;
            }
        },
        async {
            let nursery = trefoil::local_nursery(async |n| -> Result<(), Cancelled> {
                n.spawn(async {
                    let _guard = lock.lock().await?;
                    lock.lock().await.map(drop)
                });
                Ok(())
            });
            nursery.await.map_err(Cancelled::from)
        },
    ))
    .await
    .map(|((), ())| ())
    .map_err(Cancelled::from)
}

#[trefoil::test(driver = "epoll")]
#[should_panic(expected = "deadlock (N10): every task waits")]
async fn with_io_a_deadlock_fails_the_test_too() {
    let _ = trefoil::sleep_forever().await;
}

mod program {
    use super::connects;

    #[trefoil::main]
    pub async fn main() -> std::io::Result<()> {
        connects().await
    }

    #[trefoil::main(driver = "epoll", ring_entries = 8)]
    pub async fn on_epoll() -> &'static str {
        trefoil::metrics().driver
    }
}

#[test]
fn a_main_function_runs() {
    program::main().unwrap();
    assert_eq!(program::on_epoll(), "epoll");
}

/// N10: run alone, in a process in which there is no other thread but the harness's, a test that cannot go on need not wait for others.
mod alone {
    use std::process::Command;

    const ALONE: &str = "TREFOIL_TEST_ALONE";

    #[trefoil::test(real)]
    async fn real() {
        if std::env::var_os(ALONE).is_some() {
            let _ = trefoil::sleep_forever().await;
        }
    }

    #[trefoil::test]
    async fn with_virtual_time() {
        if std::env::var_os(ALONE).is_some() {
            let _ = trefoil::sleep_forever().await;
        }
    }

    #[trefoil::test(real)]
    async fn beside_a_thread() {
        if std::env::var_os(ALONE).is_some() {
            std::thread::spawn(std::thread::park);
            let _ = trefoil::sleep_forever().await;
        }
    }

    #[test]
    fn n10_a_test_that_runs_alone_ends_at_once() {
        for (test, alone) in [("real", true), ("with_virtual_time", true), ("beside_a_thread", false)] {
            // With two, each test has a thread of its own.
            let output = Command::new(std::env::current_exe().unwrap())
                .args([&format!("alone::{test}"), "--exact", "--nocapture", "--test-threads=2"])
                .env(ALONE, "1")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains("deadlock (N10): every task waits"), "{text}");
            assert_eq!(text.contains("no other thread is there that could wake one"), alone, "{text}");
        }
    }
}
