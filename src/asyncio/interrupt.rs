//! Ctrl-C: the first one cancels the main of the loop on the main thread, the second ends the process (R5).
//!
//! As in asyncio, that is so on the main thread alone, and only where nobody else handles SIGINT. The handlers only set a flag and write one byte
//! to a pipe, as handlers may; a thread of its own then cancels the scope around the loop. If that does not end the loop within a second, it says so, with
//! what everybody does: a clean-up that blocks, or a function on a thread that never returns, would leave the user before a program that seems to be deaf. Outside of a loop, and after the first Ctrl-C, SIGINT does what it does by default.

use std::future::Future;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use trefoil_nursery::{CancelAware, CancelScope, Cancelled};

const SIGINT: i32 = 2;

/// How long a loop may take to end after Ctrl-C without a word.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Interrupts {
    /// Whether SIGINT does what it does by default. There once the handlers are.
    by_default: Option<Arc<AtomicBool>>,
    /// The scope around the loop that runs.
    running: Option<CancelScope>,
    /// How many loops have ended.
    ended: u64,
}

static INTERRUPTS: Mutex<Interrupts> = Mutex::new(Interrupts { by_default: None, running: None, ended: 0 });

/// A loop has ended.
static ENDED: Condvar = Condvar::new();

fn interrupts() -> MutexGuard<'static, Interrupts> {
    INTERRUPTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a loop, until Ctrl-C at most.
#[track_caller]
pub(super) fn run<T, E: CancelAware>(event_loop: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let scope = CancelScope::new();
    let Some(_listening) = Listening::new(&scope) else { return trefoil_io::run(event_loop) };
    match trefoil_io::run(scope.run(event_loop)) {
        Ok(Some(output)) => Ok(output),
        // Main was cancelled by it, and ended with that.
        Ok(None) => Err(Cancelled::delivered().into()),
        Err(error) => Err(error),
    }
}

/// While it is there, Ctrl-C cancels the scope.
struct Listening {
    by_default: Arc<AtomicBool>,
}

impl Listening {
    fn new(scope: &CancelScope) -> Option<Self> {
        // Where a run goes on, this one will be refused.
        if rustix::thread::gettid() != rustix::process::getpid() || trefoil_runtime::in_run() {
            return None;
        }
        let mut interrupts = interrupts();
        if interrupts.by_default.is_none() {
            if is_taken() {
                return None;
            }
            match register() {
                Ok(by_default) => interrupts.by_default = Some(by_default),
                Err(error) => {
                    trefoil_runtime::report_warn!(%error, "Ctrl-C does not cancel the main of a loop");
                    return None;
                }
            }
        }
        let by_default = interrupts.by_default.clone()?;
        interrupts.running = Some(scope.clone());
        by_default.store(false, Ordering::SeqCst);
        Some(Self { by_default })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.by_default.store(true, Ordering::SeqCst);
        let mut interrupts = interrupts();
        let running = interrupts.running.take();
        interrupts.ended += 1;
        drop(interrupts);
        ENDED.notify_all();
        drop(running);
    }
}

/// Whether somebody handles SIGINT, or ignores it.
fn is_taken() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_none_or(|mask| mask & (1 << (SIGINT - 1)) != 0)
    };
    set("SigCgt:") || set("SigIgn:")
}

/// Waits until the loop has ended before which so many had, but not for long, and then says that it has not. The second Ctrl-C needs nobody: it does what it
/// does by default.
fn tell_if_deaf(ended: u64) {
    let goes_on = |interrupts: &mut Interrupts| interrupts.ended == ended;
    let (interrupts, waited) =
        ENDED.wait_timeout_while(interrupts(), GRACE, goes_on).unwrap_or_else(PoisonError::into_inner);
    drop(interrupts);
    if waited.timed_out() {
        let trees: Vec<String> = trefoil_runtime::trees().iter().map(ToString::to_string).collect();
        trefoil_runtime::report_warn!(
            "Ctrl-C has cancelled the main of the loop, which has not ended {GRACE:?} later (Ctrl-C again ends the process at once):\n{}",
            trees.join("\n")
        );
    }
}

/// Sets the handlers up, in the order in which they are called, and starts the thread. The flag begins as: by default.
fn register() -> io::Result<Arc<AtomicBool>> {
    let by_default = Arc::new(AtomicBool::new(true));
    let (mut reader, writer) = UnixStream::pair()?;
    thread::Builder::new().name("trefoil-interrupt".into()).spawn(move || {
        let _wakes_nobody = trefoil_runtime::ServiceThread::here();
        while matches!(reader.read(&mut [0; 64]), Ok(1..)) {
            let before = interrupts();
            let (running, ended) = (before.running.clone(), before.ended);
            drop(before);
            if let Some(scope) = running {
                scope.cancel();
                tell_if_deaf(ended);
            }
        }
    })?;
    signal_hook::flag::register_conditional_default(SIGINT, by_default.clone())?;
    signal_hook::flag::register(SIGINT, by_default.clone())?;
    signal_hook::low_level::pipe::register(SIGINT, writer)?;
    Ok(by_default)
}
