//! The io_uring driver.
//!
//! | file | its one job |
//! | --- | --- |
//! | `driver` | [`Uring`]: sleeping, looking, tearing down |
//! | `home` | what sources hold of it, on any thread |
//! | `requests` | what those threads ask of its own |
//! | `core` | what is under way for whom, and what completions mean (a table of its files is there) |
//! | `outgoing` | entries and cancels on their way to the kernel |
//! | `errands` | operations that own what they use: those on files |
//! | `slots` | keys that are never used twice |
//!
//! # Which operations
//!
//! Operations try the plain system call first, as on epoll ([`operation`](crate::operation)); the ring comes in when it says that it would
//! block. Then a receive (an accept) is armed that completes again and again, into the source's queue ([`inbound`](crate::inbound)); for the
//! writing direction, a poll that completes once. One system call per turn of the loop submits all of that, and sleeps.
//!
//! Writing through the ring as well would save a system call for each write. What that brings at best was measured on the raw loop of
//! `benches/runtimes/src/net/raw_uring.rs`, which sends from the buffers that it received into, copies nothing, and has nobody to wake when it is done; against the
//! same loop with a plain `send`. Server CPU for a request, over that of the raw epoll loop just before (median of 5 to 7 pairs, Linux 6.18; 98 % is the kernel's):
//!
//! | | through the ring | plain `send` |
//! | --- | --- | --- |
//! | 64 B, 64 connections | 1.01 | 1.03 |
//! | 64 B, 1,000 connections | 0.97 | 0.98 |
//! | 64 B, 64 connections, 16 under way | 1.01 | 1.02 |
//! | 4 KiB, 64 connections | 1.01 | 1.00 |
//! | 64 KiB, 64 connections | 1.23 | 1.07 |
//!
//! A task would have to wait for the completion (or it could not tell of errors, nor take back what was cancelled): some 550 instructions for the wait and the
//! wake-up (callgrind), and a copy of borrowed bytes into memory of the slot, for what is 2 % at best. So writes are plain calls. That whole has not been built.
//!
//! What is cancelled is a *wait*, and ends at once: the receive goes on, and what it brings stays in the queue. So a cancelled read has not
//! happened (R36), and there is no completion that it would have to wait for (N8).

use super::core::Core;
use super::errands::Finished;
use super::home::Home;
use crate::fs::errand::{Errand, OnThread, Under};
use crate::source::Shared;
use crate::wake::WakeList;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use trefoil_runtime::{Driver, Pool, Unpark, nothing_in_flight};

/// Entries of the submission queue, if nothing else was asked for.
const ENTRIES: u32 = 256;

/// How long the end of a run waits for the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// The driver. See the module.
#[derive(Debug)]
pub(crate) struct Uring {
    home: Arc<Home>,
    /// `None` when the run is over.
    core: RefCell<Option<Box<Core>>>,
    /// For what the ring has no operation for.
    threads: Pool<OnThread>,
}

impl Uring {
    /// For the run that is about to begin on this thread.
    ///
    /// # Errors
    /// Where there is no io_uring, or it is forbidden, or descriptors or memory are short.
    pub fn new(entries: Option<u32>) -> io::Result<Self> {
        let core = Core::new(entries.unwrap_or(ENTRIES))?;
        let threads = crate::fs::errand::threads();
        Ok(Self { home: core.home().clone(), core: RefCell::new(Some(Box::new(core))), threads })
    }

    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// `None` when the run is over, and in the middle of a dispatch.
    pub(super) fn with_core<R>(&self, f: impl FnOnce(&mut Core) -> R) -> Option<R> {
        self.core.try_borrow_mut().ok()?.as_deref_mut().map(f)
    }

    /// Begins an errand, on the ring or on a thread.
    ///
    /// # Errors
    /// If it takes a thread, and none can be had.
    pub fn begin(&self, errand: Box<dyn Errand>) -> Result<Under, (io::Error, Box<dyn Errand>)> {
        let mut errand = Some(errand);
        let begun = self.with_core(|core| core.begin_errand(errand.take().expect("there is one")));
        let errand = match begun {
            Some(Ok(key)) => return Ok(Under::Ring(self.home.clone(), key)),
            Some(Err(errand)) => errand,
            None => errand.expect("not taken"),
        };
        Under::on_thread(&self.threads, errand)
    }

    // Not a closure, which the compiler would leave where it is.
    #[inline(always)]
    fn enter(&self, core: &mut Core, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        core.rang = false;
        self.home.take_requests(core)?;
        // A detach may have dispatched: not only what wakes somebody, but also the ring of who wakes this loop, or asks for more;
        // and what is gone is closed below, which its peer waits for.
        let quiet = core.wake.is_empty() && core.gone.is_empty() && !core.errands.has_finished() && !core.rang;
        core.enter(if quiet { min_complete } else { 0 }, timeout)?;
        core.dispatch()
    }

    /// Submits, waits (if nothing happened meanwhile), and dispatches.
    #[inline(never)]
    fn look(&self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.look_inline(min_complete, timeout)
    }

    #[inline(always)]
    fn look_inline(&self, min_complete: u32, timeout: Option<Duration>) -> io::Result<()> {
        let mut core = self.core.borrow_mut();
        let Some(this) = core.as_mut() else { return Ok(()) };
        let looked = self.enter(this, min_complete, timeout);
        let mut wake = std::mem::take(&mut this.wake);
        if this.gone.is_empty() && !this.errands.has_finished() {
            drop(core);
            wake.wake();
        } else {
            let (gone, finished) = (std::mem::take(&mut this.gone), this.errands.take_finished());
            drop(core);
            end_all(finished, &mut wake, gone);
        }
        // The memory is used again.
        if let Ok(mut core) = self.core.try_borrow_mut()
            && let Some(core) = core.as_mut()
        {
            wake.put_back(&mut core.wake);
        }
        looked
    }
}

/// Code of others runs here: what is finished is told so, who waits is woken, and what nobody uses any more goes, with its wakers.
#[cold]
fn end_all(finished: Vec<Finished>, wake: &mut WakeList, gone: Vec<Arc<Shared>>) {
    finished.into_iter().for_each(Finished::finish);
    wake.wake();
    drop(gone);
}

impl Driver for Uring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    /// The timeout of a wait for completions has none.
    fn slack(&self) -> Duration {
        Duration::ZERO
    }

    fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.look(1, timeout)
    }

    fn poll(&self) -> io::Result<()> {
        let news = self.with_core(|core| core.has_news() || !core.wake.is_empty() || !core.gone.is_empty());
        if news == Some(true) || self.home.is_asked() { self.look(0, None) } else { Ok(()) }
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.home.bell().clone()
    }

    /// Who waits, and what is cancelled and not over. A receive that goes on between two reads is not counted: nothing comes of it
    /// until somebody reads.
    fn in_flight(&self) -> usize {
        self.home.seat.waits() + self.with_core(|core| core.leaving()).unwrap_or(0)
    }

    // What a loop does all the time: a copy of its own, in which nothing is asked of a timeout.
    #[inline(never)]
    fn park_in_flight(&self) -> io::Result<()> {
        // Who waits is asked first: as a rule somebody does.
        if !cfg!(trefoil_blind) && self.home.seat.waits() == 0 && self.in_flight() == 0 {
            return Err(nothing_in_flight());
        }
        self.look_inline(1, None)
    }

    fn shutdown(&self) {
        self.home.close();
        let Some(mut core) = self.core.borrow_mut().take() else { return };
        // Detached sources are dealt with by the drain, too; armed ones need not be any more.
        match core.drain(PATIENCE) {
            Ok(true) => {}
            outcome => {
                let error = outcome.err();
                trefoil_runtime::report_error!(
                    operations = core.under_way(),
                    error = error.as_ref().map(tracing::field::display),
                    "the kernel did not let go of all operations of this run: their memory is leaked"
                );
            }
        }
        core.orphan_all();
        let (mut wake, gone) = (std::mem::take(&mut core.wake), std::mem::take(&mut core.gone));
        let finished = core.errands.take_finished();
        drop(core);
        end_all(finished, &mut wake, gone);
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::super::core::Kind;
    use super::super::ring::whims::Whimsical;
    use super::*;
    use crate::net::{Shutdown, TcpListener, TcpStream};
    use crate::source::Source;
    use crate::{Builder, DriverKind, fs};
    use futures_util::future::join;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::time::Instant;
    use trefoil_nursery::{move_on_after, nursery, sleep};

    /// Calls that take a part or nothing, end early or fail as they may, and entries that find no room; and where nothing has to end but on its own, in
    /// every other round, operations that end for no reason. Nobody hears of it, and nothing is left.
    #[test]
    fn a_kernel_with_whims_loses_nothing() {
        if Uring::new(Some(4)).is_err() {
            return;
        }
        for seed in 0..16 {
            let (entries, cancels) = (if seed % 4 < 2 { 4 } else { 256 }, seed % 2 == 1);
            let _whims = Whimsical::new(seed, cancels);
            let builder = Builder::new().driver(DriverKind::IoUring).ring_entries(entries);
            let done = builder.run(async { move_on_after(Duration::from_secs(60), serve_and_sync(!cancels)).await });
            assert_eq!(done.unwrap(), Some(()), "something was lost with seed {seed}");
        }
    }

    async fn serve_and_sync(syncs: bool) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        nursery(async |n| -> io::Result<()> {
            for client in 0..10 {
                n.spawn(async move {
                    let mut stream = TcpStream::connect(addr).await?;
                    for message in 0..4 {
                        let len = [1, 700, 5_000, 100_000][(client + message) % 4];
                        let (sent, mut back) = (vec![(client * 16 + message) as u8; len], vec![0; len]);
                        let (mut reader, mut writer) = TcpStream::split(&mut stream);
                        let (written, read) = join(writer.write_all(&sent), reader.read_exact(&mut back)).await;
                        written.and(read)?;
                        assert!(back == sent);
                    }
                    stream.shutdown(Shutdown::Write)?;
                    assert_eq!(stream.read(&mut [0; 1]).await?, 0);
                    Ok(())
                });
                let (mut stream, _) = listener.accept().await?;
                n.spawn(async move {
                    let mut buf = vec![0; 30_000];
                    loop {
                        // Cut, and begun again.
                        match move_on_after(Duration::from_micros(100), stream.read(&mut buf)).await? {
                            Some(0) => return Ok(()),
                            Some(n) => stream.write_all(&buf[..n]).await?,
                            None => {}
                        }
                    }
                });
            }
            if syncs {
                n.spawn(async {
                    let file = fs::File::open("/proc/self/exe").await?;
                    for _ in 0..20 {
                        file.sync_data().await?;
                    }
                    Ok(())
                });
            }
            Ok(())
        })
        .await?;
        // What the kernel has not let go of at once.
        while trefoil_runtime::metrics().in_flight > 0 {
            sleep(Duration::from_millis(1)).await?;
        }
        Ok(())
    }

    #[test]
    fn a_bell_that_rings_while_a_source_is_taken_out_ends_the_sleep() {
        let Ok(uring) = Uring::new(Some(4)) else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, _theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let source = Source::new(ours);
        uring.with_core(|core| core.attach(source.shared()));
        let key = source.shared().lock().registration.as_ref().unwrap().key;
        uring.with_core(|core| core.arm(key, Kind::Receive)).unwrap().unwrap();
        uring.park(Some(Duration::ZERO)).unwrap();
        // Outside of a run, so as from another thread: a request.
        drop(source);
        // A task is woken when the loop has decided to sleep.
        uring.unparker().unpark();
        let before = Instant::now();
        uring.park(Some(Duration::from_secs(2))).unwrap();
        assert!(before.elapsed() < Duration::from_secs(1), "the wake-up was lost");
    }
}
