//! What must not be lost is written to standard error where no subscriber listens, and to the subscriber alone where one does (N15).
//!
//! Each case is a process of its own: this one, which finds in its environment which it is.

use std::process::Command;
use std::time::Duration;
use trefoil::{Cancelled, nursery};
use trefoil_tests::listen_everywhere;

const CASE: &str = "TREFOIL_TEST_ALOUD";

/// A loop that is held up for longer than it should be, which nobody but the watchdog would tell of.
fn lose() {
    trefoil::Builder::new().blocked_after(Some(Duration::from_millis(20))).run(async {
        let ended = nursery(async |n| -> Result<(), Cancelled> {
            n.spawn_named("greedy", async {
                std::thread::sleep(Duration::from_millis(80));
                Ok(())
            });
            Ok(())
        });
        ended.await.unwrap();
    });
}

fn stderr_of(case: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(CASE, case)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// What the processes do; as a test of its own, nothing.
#[test]
fn child() {
    match std::env::var(CASE).as_deref() {
        Ok("alone") => {
            lose();
            lose();
            // Who uses the crate `log` instead hears no event of `tracing` from then on, if it counts as used.
            assert!(!tracing::dispatcher::has_been_set());
        }
        Ok("heard") => {
            // It hears what is lost, and says nothing.
            listen_everywhere(|_| {});
            lose();
        }
        _ => {}
    }
}

#[test]
fn n15_without_a_subscriber_it_is_on_standard_error() {
    let stderr = stderr_of("alone");
    let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with("trefoil: warning: ")).collect();
    // While it lasts, and when it is over, twice.
    assert!(lines.len() >= 4, "{stderr}");
    assert!(lines.iter().all(|line| line.contains("`greedy`") && line.contains("aloud.rs")), "{stderr}");
}

#[test]
fn n15_with_a_subscriber_it_is_for_that_alone() {
    let stderr = stderr_of("heard");
    assert!(!stderr.contains("trefoil: "), "{stderr}");
}
