//! Errands that wait for as long as a test wants: they read from a pipe.

use super::errand::{Job, Slow};
use crate::uring::slots::Key;
use crate::uring::sys::{CURRENT_POSITION, Sqe};
use crate::{Builder, DriverKind, RunError};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use trefoil_nursery::{CancelAware, CancelScope, local_nursery, move_on_after, nursery, sleep};
use trefoil_runtime::{Detection, Reason, metrics, tree};

/// Reads a byte from a pipe. Counts how many of its kind there are.
struct Awaits {
    pipe: Arc<OwnedFd>,
    buf: Box<[u8; 1]>,
    begun: Arc<AtomicUsize>,
    alive: Alive,
}

struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Job for Awaits {
    fn run(&mut self) -> io::Result<usize> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Ok(rustix::io::read(&self.pipe, &mut self.buf[..])?)
    }

    unsafe fn entry(&mut self, key: Key) -> Option<Sqe> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        // SAFETY: one byte, in a box of the job; the caller's promise.
        Some(unsafe { Sqe::read(self.pipe.as_fd(), self.buf.as_mut_ptr(), 1, CURRENT_POSITION, key) })
    }
}

/// A pipe, and what waits for it.
struct Pipe {
    reader: Arc<OwnedFd>,
    writer: OwnedFd,
    alive: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

impl Pipe {
    fn new() -> Self {
        let (reader, writer) = io::pipe().unwrap();
        Self { reader: Arc::new(reader.into()), writer: writer.into(), alive: Arc::default(), begun: Arc::default() }
    }

    fn read(&self) -> impl Future<Output = io::Result<usize>> + Send + use<> {
        let (pipe, alive, begun) = (self.reader.clone(), Alive::new(&self.alive), self.begun.clone());
        let place = Location::caller();
        async move {
            let job = Awaits { pipe, buf: Box::new([0]), begun, alive };
            let (result, job) = Slow::new(job, Reason::Custom("a byte"), place).await;
            assert!(result.is_err() || job.buf[0] == b'x');
            drop(job.alive);
            result
        }
    }

    fn write(&self, n: usize) {
        rustix::io::write(&self.writer, &vec![b'x'; n]).unwrap();
    }

    /// How many the kernel or a thread is at, or was.
    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }
}

/// On each driver, and a ring of 4 entries, with nothing left over; says whether it is a ring.
fn on_each(main: impl AsyncFn(bool)) {
    runs(async |ring| {
        main(ring).await;
        let left = metrics();
        assert_eq!((left.tasks, left.waits, left.in_flight), (0, 0, 0), "left over on {}", left.driver);
    });
}

fn runs(main: impl AsyncFn(bool)) {
    let drivers = [(DriverKind::Epoll, 0), (DriverKind::IoUring, 256), (DriverKind::IoUring, 4)];
    for (kind, entries) in drivers {
        let builder = Builder::new().driver(kind).ring_entries(entries).deadlock(Detection::After(ms(5_000)));
        match builder.try_run(main(kind == DriverKind::IoUring)) {
            Ok(()) => {}
            Err(error @ RunError::DriverUnavailable { .. }) => println!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        sleep(ms(1)).await.unwrap();
    }
}

fn cancelled(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(CancelAware::is_cancelled)
}

/// Polls a future once.
async fn once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn many_at_once_beyond_the_ring_and_the_threads() {
    on_each(async |_| {
        let pipe = Pipe::new();
        nursery(async |n| -> io::Result<()> {
            for _ in 0..100 {
                n.spawn(async { pipe.read().await.map(drop) });
            }
            sleep(ms(5)).await?;
            assert_eq!(metrics().in_flight, 100);
            pipe.write(100);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(pipe.alive(), 0);
    });
}

/// N8, R102: what is under way is waited for. A ring can end it; a thread that is at it cannot be stopped, and its result is given.
#[test]
fn n8_r102_a_cancel_waits_for_the_end_and_tells_the_truth() {
    on_each(async |ring| {
        let pipe = Pipe::new();
        let scope = CancelScope::new();
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                let left = scope.run(async {
                    let result = pipe.read().await;
                    assert_eq!(cancelled(&result), ring, "{result:?}");
                    // The cancel is seen at the next operation at the latest.
                    let next = pipe.read().await;
                    assert!(cancelled(&next));
                    next
                });
                assert_eq!(left.await?, None);
                Ok(())
            });
            until(|| pipe.begun() == 1).await;
            scope.cancel();
            if ring {
                until(|| metrics().in_flight == 0).await;
            } else {
                sleep(ms(5)).await?;
                assert_eq!(metrics().in_flight, 1, "it is waited for");
                pipe.write(1);
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((pipe.alive(), pipe.begun()), (0, 1));
    });
}

/// R102: what no thread has begun is not begun.
#[test]
fn r102_what_waits_for_a_thread_is_cancelled_at_once() {
    on_each(async |ring| {
        let pipe = Pipe::new();
        if ring {
            return;
        }
        local_nursery(async |n| -> io::Result<()> {
            for _ in 0..40 {
                n.spawn(async { pipe.read().await.map(drop) });
            }
            sleep(ms(5)).await?;
            // As many as there can be threads are ahead of it.
            let result = move_on_after(ms(5), pipe.read()).await?;
            assert_eq!(result, None);
            pipe.write(40);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(pipe.begun(), 40);
    });
}

/// R18: what was done when the cancel came is a success.
#[test]
fn r18_a_result_that_was_there_first_wins() {
    on_each(async |_| {
        let pipe = Pipe::new();
        let scope = CancelScope::new();
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                let result = scope.run(async { Ok::<_, io::Error>(pipe.read().await) }).await?;
                assert_eq!(result.expect("not absorbed").unwrap(), 1);
                Ok(())
            });
            until(|| pipe.begun() == 1).await;
            pipe.write(1);
            // Without a turn of the loop in between.
            scope.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// R37, R102: entry is a cancel point.
#[test]
fn r37_in_a_cancelled_scope_nothing_begins() {
    on_each(async |_| {
        let pipe = Pipe::new();
        pipe.write(1);
        let result = move_on_after(Duration::ZERO, pipe.read()).await.unwrap();
        assert_eq!(result, None);
        assert_eq!(pipe.read().await.unwrap(), 1, "nobody has taken it");
    });
}

/// N5: what nobody waits for any more ends by itself, and frees what it has.
#[test]
fn n5_a_dropped_future_leaves_nothing_behind() {
    on_each(async |ring| {
        // 1: in the middle. More: in the turn in which they began, so that a ring may not have them yet; more than it or the threads can take.
        for many in [1, 2, 50] {
            let pipe = Pipe::new();
            let mut reads: Vec<_> = (0..many).map(|_| Box::pin(pipe.read())).collect();
            for read in &mut reads {
                assert!(once(read).await.is_none());
            }
            if many == 1 {
                until(|| pipe.begun() == 1).await;
                assert!(once(&mut reads[0]).await.is_none());
            }
            drop(reads);
            if !ring {
                assert!(many > 1 || metrics().in_flight == 1, "a thread is at it");
                pipe.write(many);
            }
            until(|| metrics().in_flight == 0 && pipe.alive() == 0).await;
        }
    });
}

#[test]
fn a_forgotten_future_is_forgotten_and_nothing_else() {
    runs(async |_| {
        let pipe = Pipe::new();
        let mut read = Box::pin(pipe.read());
        assert!(once(&mut read).await.is_none());
        std::mem::forget(read);
        pipe.write(1);
        until(|| metrics().in_flight == 0).await;
        // Its outcome is kept for it, for ever.
        assert_eq!(pipe.alive(), 1);
    });
}

/// R17, R20: the operation ends as it was asked to, also where a shield came up meanwhile.
#[test]
fn r17_a_shield_that_came_later_does_not_undo_a_cancel() {
    on_each(async |ring| {
        let pipe = Pipe::new();
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                let result = outer.run(inner.run(pipe.read())).await?;
                assert_eq!(result, if ring { None } else { Some(Some(1)) });
                Ok(())
            });
            until(|| pipe.begun() == 1).await;
            outer.cancel();
            inner.set_shield(true);
            sleep(ms(5)).await?;
            if !ring {
                pipe.write(1);
            }
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// N10: the tree says what is waited for, and where; and a run that waits for a thread of its own, or for the kernel, is in no deadlock.
#[test]
fn n10_it_waits_for_something_that_is_in_flight() {
    on_each(async |_| {
        let pipe = Pipe::new();
        local_nursery(async |n| -> io::Result<()> {
            n.spawn(async { pipe.read().await.map(drop) });
            sleep(ms(5)).await?;
            let view = tree().to_string();
            assert!(view.contains("a byte") && view.contains("a byte at tests.rs"), "{view}");
            assert_eq!(trefoil_runtime::wake_sources().in_flight, 1);
            // One that another test has just begun is not known for what it is until it runs.
            until(|| {
                let threads = trefoil_runtime::wake_sources().threads.unwrap();
                !threads.iter().any(|name| name == "trefoil-files")
            })
            .await;
            pipe.write(1);
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// A future that a run has begun is awaited in another one, on another thread.
#[test]
fn a_future_that_moves_to_another_run_is_told() {
    for cancel in [false, true] {
        on_each(async |ring| {
            let pipe = Pipe::new();
            let mut read = Box::pin(pipe.read());
            assert!(once(&mut read).await.is_none());
            until(|| pipe.begun() == 1).await;
            let limit = if cancel { ms(1) } else { ms(60_000) };
            let other = std::thread::spawn(move || crate::run(async move { move_on_after(limit, read).await }));
            sleep(ms(10)).await.unwrap();
            if !cancel || !ring {
                pipe.write(1);
            }
            until(|| other.is_finished()).await;
            let result = other.join().unwrap().unwrap();
            // Under load the thread may come late, and find the byte there.
            assert!(result == Some(1) || cancel && ring, "{result:?}");
            until(|| metrics().in_flight == 0).await;
        });
    }
}

/// The kernel has let go of everything when a run ends.
#[test]
fn the_end_of_a_run_ends_what_is_under_way() {
    let pipe = Pipe::new();
    let mut reads = Vec::new();
    runs(async |ring| {
        if ring {
            let before = pipe.alive();
            let mut read = Box::pin(pipe.read());
            assert!(once(&mut read).await.is_none());
            drop(read);
            assert_eq!(pipe.alive(), before + 1);
        }
    });
    let ended = Builder::new().driver(DriverKind::IoUring).try_run(async {
        let mut read = Box::pin(pipe.read());
        assert!(once(&mut read).await.is_none());
        reads.push(read);
    });
    if ended.is_ok() {
        // Its run is over, and it says so.
        let mut read = reads.remove(0);
        let result = crate::run(async { once(&mut read).await.expect("over") });
        assert!(result.unwrap_err().to_string().contains("is over"));
    }
    assert_eq!(pipe.alive(), 0);
}

/// A job that panics, on the loop or on a thread: code of others, such as a buffer's. Who waits is told, and the threads go on.
#[test]
fn a_panic_in_a_job_is_an_error_of_it() {
    struct Panics;
    impl Job for Panics {
        fn run(&mut self) -> io::Result<usize> {
            panic!("a buffer that is none")
        }

        unsafe fn entry(&mut self, _key: Key) -> Option<Sqe> {
            panic!("a buffer that is none")
        }
    }
    on_each(async |_| {
        for _ in 0..40 {
            let place = Location::caller();
            let (result, Panics) = Slow::new(Panics, Reason::Custom("a panic"), place).await;
            assert_eq!(result.unwrap_err().to_string(), "it panicked: a buffer that is none");
        }
    });
}
