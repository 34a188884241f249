//! For tests of what happens where no thread can be had: each goes on in a process of its own.

use std::env;
use std::process::Command;

/// In such a process a stack is larger than the memory that there can be.
const NO_THREADS: (&str, &str) = ("RUST_MIN_STACK", "140737488355328");

/// Whether this is the process of this test, in which there are none; otherwise it is run there.
///
/// # Panics
/// If it fails there, or does not run.
pub(crate) fn is_here(test: &str) -> bool {
    if env::var(NO_THREADS.0).as_deref() == Ok(NO_THREADS.1) {
        return true;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    let child = child.args([test, "--exact", "--test-threads=1"]).env(NO_THREADS.0, NO_THREADS.1).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "it ran there");
    false
}
