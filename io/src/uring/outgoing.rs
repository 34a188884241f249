//! What goes to the kernel: [`Ring`], and what did not fit into it.
//!
//! Nothing is refused here. An entry that finds the queue full makes the kernel take what is in it; one that finds it full even then
//! (the kernel is short of memory, or wants completions popped first) is kept, in order. Cancels go first, since what they end frees memory;
//! that is safe because [`Outgoing::cancel`] takes back an entry that was kept instead of cancelling it.

use super::ring::{Entered, OUT_OF_MEMORY_PAUSE, Ring};
use super::slots::Key;
use super::sys::Sqe;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Above the bits of a part: the key of a cancel is that of what it cancels, and this. What is cancelled says so itself; a cancel is heard
/// of when it failed.
pub const CANCEL: Key = 4 << super::slots::INDEX_BITS;

/// What became of a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an operation that was never submitted will not complete"]
pub enum Cancelling {
    /// The operation will complete, in one way or the other, unless the cancel fails and says so.
    Sent,
    /// The operation was never submitted. It will not complete.
    TakenBack,
}

/// See the module.
#[derive(Debug)]
pub struct Outgoing {
    pub ring: Ring,
    cancels: VecDeque<Sqe>,
    entries: VecDeque<Sqe>,
}

impl Outgoing {
    pub fn new(ring: Ring) -> Self {
        Self { ring, cancels: VecDeque::new(), entries: VecDeque::new() }
    }

    /// Sends an entry with the next [`enter`](Self::enter), or before.
    ///
    /// # Errors
    /// Those of [`Ring::enter`].
    pub fn submit(&mut self, entry: Sqe) -> io::Result<()> {
        if self.entries.is_empty() && self.ring.push(entry).is_ok() {
            return Ok(());
        }
        self.entries.push_back(entry);
        self.enter(0, None)
    }

    /// Cancels an operation that was submitted.
    ///
    /// # Errors
    /// Those of [`Ring::enter`]. The cancel is queued all the same.
    pub fn cancel(&mut self, target: Key) -> io::Result<Cancelling> {
        if let Some(at) = self.entries.iter().position(|entry| entry.key() == target) {
            self.entries.remove(at);
            return Ok(Cancelling::TakenBack);
        }
        let cancel = Sqe::cancel(target, target | CANCEL);
        let cancel = if self.ring.skips_success() { cancel.skip_success() } else { cancel };
        if self.cancels.is_empty() && self.ring.push(cancel).is_ok() {
            return Ok(Cancelling::Sent);
        }
        self.cancels.push_back(cancel);
        self.enter(0, None).map(|()| Cancelling::Sent)
    }

    /// Whether [`enter`](Self::enter) without a wait would do something.
    pub fn needs_enter(&self) -> bool {
        self.ring.needs_enter() || self.keeps_some()
    }

    /// As if it had not fitted in.
    #[cfg(test)]
    pub fn keep(&mut self, entry: Sqe) {
        self.entries.push_back(entry);
    }

    fn keeps_some(&self) -> bool {
        !self.cancels.is_empty() || !self.entries.is_empty()
    }

    /// Submits everything, and waits with the last system call.
    ///
    /// # Errors
    /// Those of [`Ring::enter`].
    #[inline(always)]
    pub fn enter(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        // What is left goes out when some completions were popped.
        if self.keeps_some() {
            self.send_kept(min_complete, timeout)
        } else {
            self.ring.enter(min_complete, timeout).map(drop)
        }
    }

    /// The same, where not all had found room.
    #[cold]
    fn send_kept(&mut self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        loop {
            for kept in [&mut self.cancels, &mut self.entries] {
                while let Some(&entry) = kept.front()
                    && self.ring.push(entry).is_ok()
                {
                    kept.pop_front();
                }
            }
            let more = self.keeps_some();
            let wait = if more { 0 } else { min_complete };
            match self.ring.enter(wait, timeout)? {
                Entered::All if more => {}
                // The kernel refuses some. Who came to wait must not come back at once, again and again.
                Entered::Backlog if more && min_complete > 0 => {
                    let pause = timeout.unwrap_or(OUT_OF_MEMORY_PAUSE).min(OUT_OF_MEMORY_PAUSE);
                    return self.ring.enter(min_complete, Some(pause)).map(drop);
                }
                // What is left goes out when some completions were popped.
                Entered::All | Entered::Backlog => return Ok(()),
            }
        }
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::super::ring::Setup;
    use super::*;
    use std::time::Instant;

    /// From now on the kernel has no memory for what this thread submits.
    fn without_memory() {
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let (load, compare) = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
        let answer = libc::BPF_RET | libc::BPF_K;
        // Of `seccomp_data`: the number of the call at 0, the arguments from 16 on, 8 bytes each; the lower half counts.
        let to_submit = 24 + if cfg!(target_endian = "big") { 4 } else { 0 };
        let mut filter = [
            step(load, 0, 0, 0),
            step(compare, 0, 3, libc::SYS_io_uring_enter as u32),
            step(load, 0, 0, to_submit),
            step(compare, 1, 0, 0),
            step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32),
            step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the first call has numbers only; the second reads `program`, which lives through it. Both are for this thread.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        assert_eq!(installed, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn who_waits_while_the_kernel_refuses_entries_does_not_spin() {
        let thread = std::thread::spawn(|| {
            let Ok(ring) = Ring::new(Setup::new(4)) else { return };
            without_memory();
            let mut out = Outgoing::new(ring);
            for key in 0..10 {
                out.submit(Sqe::nop(key)).unwrap();
            }
            assert!(out.keeps_some());
            for timeout in [None, Some(Duration::from_secs(1))] {
                let before = Instant::now();
                out.enter(1, timeout).unwrap();
                assert!(before.elapsed() >= OUT_OF_MEMORY_PAUSE);
            }
        });
        thread.join().unwrap();
    }
}
