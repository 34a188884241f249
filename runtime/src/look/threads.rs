//! Which other threads the process has: each of them may hold what wakes a task of a run, and nothing of that can be seen from here.
//! If there is none, nobody but the run itself can wake its tasks.
//!
//! Read from `/proc/self/task`. Not counted are threads that run no code of the process: those of the kernel for io_uring, and the first
//! thread once it has ended. Nor those that belong to this library and wake nobody ([`ServiceThread`]).

use crate::sync::Mutex;
use std::fs;

/// In the flags of a thread in `stat`: a worker of io_uring, which runs in the kernel alone.
const PF_IO_WORKER: u64 = 0x10;

#[cfg(not(trefoil_loom))]
static SERVICE: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Says, while it lives, that the thread that made it wakes no task by itself: it is no reason to think that a run goes on (N10).
#[derive(Debug)]
pub struct ServiceThread {
    id: Option<u32>,
    /// Dropped by the thread that it is about.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl ServiceThread {
    /// For the calling thread.
    #[cfg(not(trefoil_loom))]
    pub fn here() -> Self {
        let id = own_id();
        SERVICE.lock().extend(id);
        Self { id, _not_send: std::marker::PhantomData }
    }

    /// For the first thread of the process, if the caller is another one: for who knows that it belongs to a harness, which runs each test on
    /// a thread of its own, and does nothing there but wait for them.
    #[cfg(not(trefoil_loom))]
    #[doc(hidden)]
    pub fn of_harness() -> Self {
        let first = std::process::id();
        let id = own_id().filter(|own| *own != first).map(|_| first);
        SERVICE.lock().extend(id);
        Self { id, _not_send: std::marker::PhantomData }
    }

    /// The models count no threads.
    #[cfg(trefoil_loom)]
    pub fn here() -> Self {
        Self { id: None, _not_send: std::marker::PhantomData }
    }
}

#[cfg(not(trefoil_loom))]
impl Drop for ServiceThread {
    fn drop(&mut self) {
        let mut all = SERVICE.lock();
        if let Some(at) = self.id.and_then(|id| all.iter().position(|other| *other == id)) {
            all.swap_remove(at);
        }
    }
}

/// `/proc/thread-self` is a link to `PID/task/TID`.
fn own_id() -> Option<u32> {
    fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

/// How often it is looked again where threads end meanwhile.
const TRIES: usize = 100;

/// The names of the other threads that may run code of the program; `None` where that cannot be found out.
#[cfg(not(trefoil_loom))]
pub(crate) fn others() -> Option<Vec<String>> {
    let own = own_id()?;
    for _ in 0..TRIES {
        if let Some(mut names) = list(own)? {
            names.sort();
            return Some(names);
        }
    }
    None
}

/// One look: nothing if it may have missed a thread. One that ends while the kernel lists them may have started another, which is not listed then;
/// it may end the list.
#[cfg(not(trefoil_loom))]
fn list(own: u32) -> Option<Option<Vec<String>>> {
    let (mut names, mut listed) = (Vec::new(), 0);
    for entry in fs::read_dir("/proc/self/task").ok()? {
        let path = entry.ok()?.path();
        let id: u32 = path.file_name()?.to_str()?.parse().ok()?;
        listed += 1;
        if id == own || SERVICE.lock().contains(&id) {
            continue;
        }
        match fs::read_to_string(path.join("stat")) {
            Ok(stat) => match parse(&stat)?.0 {
                Thread::Runs(name) => names.push(name.to_string()),
                Thread::Ended if id != std::process::id() => return Some(None),
                Thread::Ended | Thread::Kernel => {}
            },
            Err(_) => return Some(None),
        }
    }
    // The kernel counts them all at one moment. Only where there are none does it matter that none was missed.
    let complete = !names.is_empty() || parse(&fs::read_to_string("/proc/self/stat").ok()?)?.1 == listed;
    Some(complete.then_some(names))
}

#[cfg(trefoil_loom)]
pub(crate) fn others() -> Option<Vec<String>> {
    None
}

#[derive(Debug, PartialEq, Eq)]
enum Thread<'a> {
    /// It may run code of the process. Its name.
    Runs(&'a str),
    /// One of the kernel.
    Kernel,
    /// The first thread stays like this; others are gone in a moment.
    Ended,
}

/// `TID (name) state ppid pgrp session tty tpgid flags ..`, with anything in the name: the thread, and how many the process has.
fn parse(stat: &str) -> Option<(Thread<'_>, usize)> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    let count = fields.nth(10)?.parse().ok()?;
    let thread = match () {
        () if ended => Thread::Ended,
        () if flags & PF_IO_WORKER != 0 => Thread::Kernel,
        () => Thread::Runs(name),
    };
    Some((thread, count))
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::{ServiceThread, others};
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn who_is_no_other_thread() {
        let parse = |start: &str| {
            super::parse(&format!("{start} 9 9 9 9 9 9 9 9 20 0 3 0 9")).map(|(thread, n)| (format!("{thread:?}"), n))
        };
        assert_eq!(parse("7 (a) b) S 1 1 1 0 -1 4194304"), Some(("Runs(\"a) b\")".into(), 3)));
        assert_eq!(parse("7 (iou-wrk-7) S 1 1 1 0 -1 4194320"), Some(("Kernel".into(), 3)));
        assert_eq!(parse("7 (main) Z 1 1 1 0 -1 4194304"), Some(("Ended".into(), 3)));
        assert_eq!(parse("nothing"), None);
        let own = super::parse(&std::fs::read_to_string("/proc/self/stat").unwrap()).unwrap().1;
        assert!(own >= 1, "{own}");
    }

    /// N10: there is one of these threads at every moment, though each soon starts the next and ends.
    #[test]
    #[cfg_attr(miri, ignore = "it has no other processes, and its threads are not the kernel's")]
    fn a_thread_that_hands_over_to_another_is_seen() {
        // In a process of its own, where no other thread hides that one is missed.
        const ALONE: &str = "TREFOIL_TEST_RELAY";
        if std::env::var_os(ALONE).is_none() {
            let test = "threads::tests::a_thread_that_hands_over_to_another_is_seen";
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let child = child.args([test, "--exact", "--test-threads=1"]).env(ALONE, "1").output().unwrap();
            assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
            return;
        }
        fn next(left: u32, tell: mpsc::Sender<()>) {
            if left > 0 {
                thread::spawn(move || next(left - 1, tell));
            } else {
                drop(tell);
            }
        }
        // The harness keeps the first thread.
        super::SERVICE.lock().push(std::process::id());
        let (tell, told) = mpsc::channel();
        next(1_000, tell);
        let goes_on = || told.try_recv() == Err(mpsc::TryRecvError::Empty);
        while goes_on() {
            let missed = others().is_some_and(|others| others.is_empty());
            assert!(!missed || !goes_on(), "a thread was missed");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "its threads are not the kernel's")]
    fn a_thread_is_seen_unless_it_serves() {
        for serves in [false, true] {
            let ((tell, told), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
            let name = if serves { "clover-serves" } else { "clover" };
            let thread = thread::Builder::new().name(name.into()).spawn(move || {
                let _service = serves.then(ServiceThread::here);
                tell.send(()).unwrap();
                ended.recv().unwrap_err();
            });
            told.recv().unwrap();
            assert_eq!(others().unwrap().iter().any(|other| other == name), !serves);
            drop(end);
            thread.unwrap().join().unwrap();
            assert!(!others().unwrap().iter().any(|other| other == name));
        }
    }
}
