//! What the tests that try to break this crate share: probes that count, wakers with hooks, and runs.

use std::future::{Future, poll_fn};
use std::panic::{Location, panic_any};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};
use trefoil_nursery::{
    CancelAware, Cancelled, Event, Nursery, Receiver, Sender, move_on_after, nursery, shield, sleep,
};
use trefoil_runtime::{Options, ThreadDriver};

/// How often to repeat what may race.
pub const ROUNDS: usize = if cfg!(miri) { 8 } else { 2_000 };

pub const HOUR: Duration = Duration::from_secs(3600);
pub const MS: Duration = Duration::from_millis(1);

/// A run in real time.
pub fn run<F: Future>(main: F) -> F::Output {
    trefoil_nursery::doc_run(main)
}

/// A run in virtual time.
#[track_caller]
pub fn run_virtual<F: Future>(main: F) -> F::Output {
    trefoil_runtime::run(
        Rc::new(ThreadDriver::new()),
        Options { virtual_time: true, ..Options::default() },
        Location::caller(),
        main,
    )
}

/// Counts the drops of its probes.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<(AtomicUsize, AtomicUsize)>);

impl Drops {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn probe(&self) -> Probe {
        self.0.0.fetch_add(1, SeqCst);
        Probe(self.clone())
    }

    /// How many probes were made.
    pub fn made(&self) -> usize {
        self.0.0.load(SeqCst)
    }

    /// How many probes were dropped.
    pub fn count(&self) -> usize {
        self.0.1.load(SeqCst)
    }

    #[track_caller]
    pub fn assert_all(&self) {
        assert_eq!(self.count(), self.made(), "probes dropped, of those that were made");
    }
}

/// Counts its drop, once.
#[derive(Debug)]
pub struct Probe(Drops);

impl Probe {
    pub fn touch(&self) {}
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.0.1.fetch_add(1, SeqCst);
    }
}

/// Does something when it is dropped.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A payload, or anything else, whose destructor panics.
#[derive(Debug)]
pub struct Bomb(pub &'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("{}", self.0);
        }
    }
}

/// Panics in its destructor, also where that runs because of a cancellation.
pub struct PanicOnDrop(pub &'static str, #[allow(dead_code)] pub Probe);

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        panic_any(self.0);
    }
}

/// Polls a future `k` times at most, whenever it is woken: its output, or the future, half polled.
pub async fn polls<F: Future + ?Sized>(mut future: Pin<Box<F>>, k: usize) -> Result<F::Output, Pin<Box<F>>> {
    let mut polled = 0;
    let output = poll_fn(|cx| {
        if polled == k {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled == k => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    output.ok_or(future)
}

/// As [`polls`], in every turn: woken or not.
pub async fn turns<F: Future + ?Sized>(future: Pin<Box<F>>, k: usize) -> Result<F::Output, Pin<Box<F>>> {
    let mut polled = pin!(polls(future, k));
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        polled.as_mut().poll(cx)
    })
    .await
}

/// Polls once.
pub async fn once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Polls once with another waker than the task's.
pub fn once_with<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// Pends for good, and hands its waker out at every poll.
pub fn pend(slot: &Mutex<Option<Waker>>) -> impl Future<Output = ()> + Send {
    poll_fn(move |cx| {
        let old = slot.lock().unwrap().replace(cx.waker().clone());
        drop(old);
        Poll::Pending
    })
}

/// Pends for good.
pub async fn never<T>() -> Result<T, Cancelled> {
    std::future::pending().await
}

/// A waker that counts.
#[derive(Debug, Default)]
pub struct Count(AtomicUsize);

impl Count {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

pub type Hook = Box<dyn Fn() + Send + Sync>;

/// What a waker does when it is cloned, woken, and dropped.
#[derive(Default)]
pub struct Hooks {
    pub clone: Option<Hook>,
    pub wake: Option<Hook>,
    pub drop: Option<Hook>,
    /// Keeps a hook from running into itself.
    pub inside: AtomicBool,
    pub calls: AtomicUsize,
}

impl Hooks {
    fn call(&self, hook: &Option<Hook>) {
        let Some(hook) = hook else { return };
        if self.inside.swap(true, SeqCst) {
            return;
        }
        self.calls.fetch_add(1, SeqCst);
        let _out = OnDrop(|| self.inside.store(false, SeqCst));
        hook();
    }

    pub fn waker(self) -> Waker {
        static VTABLE: RawWakerVTable = RawWakerVTable::new(
            |data| {
                // SAFETY: made from an `Arc<Hooks>`.
                let hooks = std::mem::ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Hooks>()) });
                hooks.call(&hooks.clone);
                RawWaker::new(Arc::into_raw(Arc::clone(&hooks)).cast(), &VTABLE)
            },
            |data| {
                // SAFETY: as above; the reference is ours.
                let hooks = unsafe { Arc::from_raw(data.cast::<Hooks>()) };
                hooks.call(&hooks.wake);
            },
            |data| {
                // SAFETY: as above; the reference is not ours.
                let hooks = std::mem::ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Hooks>()) });
                hooks.call(&hooks.wake);
            },
            |data| {
                // SAFETY: as above; the reference is ours.
                let hooks = unsafe { Arc::from_raw(data.cast::<Hooks>()) };
                hooks.call(&hooks.drop);
            },
        );
        // SAFETY: the vtable is for `Arc<Hooks>`.
        unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(Arc::new(self)).cast(), &VTABLE)) }
    }
}

struct Forgotten(#[allow(dead_code)] *const ());
// SAFETY: kept, never followed.
unsafe impl Send for Forgotten {}
static FORGOTTEN: Mutex<Vec<Forgotten>> = Mutex::new(Vec::new());

/// As `mem::forget`, but for a leak checker, which finds the memory.
pub fn forget<F: ?Sized>(future: Pin<Box<F>>) {
    // SAFETY: the memory stays, as `Pin` asks.
    let future = Box::into_raw(unsafe { Pin::into_inner_unchecked(future) });
    FORGOTTEN.lock().unwrap().push(Forgotten(future.cast_const().cast()));
}

/// Ends the process, with the name of the test, if that hangs.
pub struct Watchdog {
    done: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    #[track_caller]
    pub fn new() -> Self {
        let place = Location::caller();
        let done = Arc::new(AtomicBool::new(false));
        let seen = done.clone();
        let until = Instant::now() + Duration::from_secs(if cfg!(miri) { 600 } else { 120 });
        let thread = thread::spawn(move || {
            while !seen.load(SeqCst) {
                if Instant::now() > until {
                    eprintln!("the test at {place} hangs");
                    std::process::abort();
                }
                thread::park_timeout(Duration::from_secs(1));
            }
        });
        Self { done, thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.done.store(true, SeqCst);
        let thread = self.thread.take().unwrap();
        thread.thread().unpark();
        thread.join().unwrap();
    }
}

/// The text of a panic.
pub fn panic_of<R>(f: impl FnOnce() -> R) -> String {
    let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) else {
        panic!("it did not panic");
    };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().map_or("(no text)".into(), |text| text.to_string()),
    }
}

/// An error that is dropped once.
#[derive(Debug)]
pub enum Failure {
    Cancelled,
    Own(#[allow(dead_code)] Probe),
}

impl From<Cancelled> for Failure {
    fn from(_: Cancelled) -> Self {
        Failure::Cancelled
    }
}

impl CancelAware for Failure {
    fn is_cancelled(&self) -> bool {
        matches!(self, Failure::Cancelled)
    }
}

/// A closure that spawns at once, and whose body is `Unpin`: says its signature.
pub fn eager<'env, F>(body: F) -> F
where
    F: for<'s> FnOnce(Nursery<'s, 'env, Cancelled>) -> std::future::Ready<Result<(), Cancelled>>,
{
    body
}

/// One of each future that waits, for ever if nobody helps it.
pub fn each_wait<'a>(
    event: &'a Event,
    tx: &'a Sender<u8>,
    rx: &'a Receiver<u8>,
) -> Vec<Pin<Box<dyn Future<Output = ()> + 'a>>> {
    vec![
        Box::pin(async {
            let _ = sleep(HOUR).await;
        }),
        Box::pin(async {
            let _ = event.wait().await;
        }),
        Box::pin(async {
            let _ = tx.send(1).await;
        }),
        Box::pin(async {
            let _ = rx.recv().await;
        }),
        Box::pin(async {
            let _ = move_on_after(HOUR, sleep(HOUR)).await;
        }),
        Box::pin(async {
            let _ = shield(sleep(HOUR)).await;
        }),
        Box::pin(async {
            let _ = nursery(async |n| -> Result<(), Cancelled> { n.spawn(sleep(HOUR)).await }).await;
        }),
    ]
}
