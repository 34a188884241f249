//! Printing the task trees of all runs at a signal, also while a loop is stuck in a task: a thread of its own waits for the signal and prints.
//!
//! The handler only writes one byte to a pipe, as handlers may.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The environment variable that asks for it.
const VARIABLE: &str = "TREFOIL_DUMP";

/// The signals at which something is printed already.
static SIGNALS: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Prints the task trees of all runs at this signal from now on. Again does nothing.
pub(crate) fn on(signal: i32) -> io::Result<()> {
    let mut signals = SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
    if signals.contains(&signal) {
        return Ok(());
    }
    let (mut reader, writer) = UnixStream::pair()?;
    let thread = thread::Builder::new().name("trefoil-dump".into()).spawn(move || {
        let _wakes_nobody = trefoil_runtime::ServiceThread::here();
        let mut bytes = [0; 64];
        while matches!(reader.read(&mut bytes), Ok(1..)) {
            // Nobody is there to be told if it fails.
            let _ = io::stderr().lock().write_all(text().as_bytes());
        }
    })?;
    drop(thread);
    signal_hook::low_level::pipe::register(signal, writer)?;
    signals.push(signal);
    Ok(())
}

/// What is printed.
fn text() -> String {
    let trees = trefoil_runtime::trees();
    let mut text = format!(
        "trefoil: {} {} in process {}\n",
        trees.len(),
        if trees.len() == 1 { "run" } else { "runs" },
        std::process::id()
    );
    for tree in trees {
        text.push_str(&format!("{tree}\n"));
    }
    text
}

/// What the environment asks for.
pub(crate) fn as_the_environment_says() {
    let Some(asked) = std::env::var(VARIABLE).ok().filter(|asked| !asked.is_empty()) else { return };
    let signal = match asked.to_ascii_uppercase().trim_start_matches("SIG") {
        "1" | "QUIT" => libc::SIGQUIT,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "0" => return,
        _ => {
            return trefoil_runtime::report_warn!(
                "{VARIABLE}={asked}: it names none of the signals QUIT, USR1 and USR2"
            );
        }
    };
    if let Err(error) = on(signal) {
        trefoil_runtime::report_warn!(%error, "the task trees are not printed at a signal");
    }
}
