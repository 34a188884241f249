//! Which other threads the process has: each of them may hold what wakes a task of a run, and nothing of that can be seen from here.
//! If there is none, nobody but the run itself can wake its tasks.
//!
//! Read from `/proc/self/task`. Not counted are threads that run no code of the process: those of the kernel for io_uring, and the first
//! thread once it has ended. Nor those that belong to this library and wake nobody ([`ServiceThread`]).

use crate::sync::Mutex;
use std::fs;
use std::path::Path;

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

/// The names of the other threads that may run code of the program; `None` where that cannot be found out.
#[cfg(not(trefoil_loom))]
pub(crate) fn others() -> Option<Vec<String>> {
    let own = own_id()?;
    let mut names = Vec::new();
    for entry in fs::read_dir("/proc/self/task").ok()? {
        let path = entry.ok()?.path();
        let id: u32 = path.file_name()?.to_str()?.parse().ok()?;
        if id == own || SERVICE.lock().contains(&id) {
            continue;
        }
        // One that cannot be read has ended meanwhile.
        if let Some(name) = running(&path) {
            names.push(name);
        }
    }
    names.sort();
    Some(names)
}

#[cfg(trefoil_loom)]
pub(crate) fn others() -> Option<Vec<String>> {
    None
}

/// The name of a thread, if it runs code of the process.
fn running(path: &Path) -> Option<String> {
    let stat = fs::read_to_string(path.join("stat")).ok()?;
    parse(&stat).map(str::to_string)
}

/// `TID (name) state ppid pgrp session tty tpgid flags ..`, with anything in the name.
fn parse(stat: &str) -> Option<&str> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    (!ended && flags & PF_IO_WORKER == 0).then_some(name)
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::{ServiceThread, others, parse};
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn who_is_no_other_thread() {
        assert_eq!(parse("7 (a) b) S 1 1 1 0 -1 4194304 0"), Some("a) b"));
        assert_eq!(parse("7 (iou-wrk-7) S 1 1 1 0 -1 4194320 0"), None);
        assert_eq!(parse("7 (main) Z 1 1 1 0 -1 4194304 0"), None);
        assert_eq!(parse("nothing"), None);
    }

    #[test]
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
