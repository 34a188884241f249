//! What other threads ask of the one of a driver: a list behind a lock, and a flag beside it.
//!
//! Who asks first since the driver has looked rings its bell; the others know that it will look. The flag is set and unset under the lock, and
//! looked at without: the driver looks before each sleep, and a bell that rings when it has looked ends that sleep. Modelled in
//! `model-checks/tests/requests.rs`.

use trefoil_runtime::sync::{AtomicBool, Mutex, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Requests<R> {
    list: Mutex<List<R>>,
    /// Whether there are some.
    asked: AtomicBool,
}

#[derive(Debug)]
struct List<R> {
    list: Vec<R>,
    closed: bool,
}

impl<R> Requests<R> {
    /// None.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { list: Mutex::new(List { list: Vec::new(), closed: false }), asked: AtomicBool::new(false) }
    }

    /// Asks for something. Whether the bell is to be rung.
    #[must_use = "the driver may sleep"]
    pub fn ask(&self, request: R) -> bool {
        let mut list = self.list.lock();
        if list.closed {
            return false;
        }
        list.list.push(request);
        !self.asked.swap(true, Ordering::Relaxed)
    }

    /// Whether there are some. `Relaxed`: what the bell orders is seen, and what comes later will ring it.
    #[inline]
    pub fn any(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Takes them all, in order.
    pub fn take(&self) -> Vec<R> {
        let mut list = self.list.lock();
        self.asked.store(false, Ordering::Relaxed);
        std::mem::take(&mut list.list)
    }

    /// The run is over: nothing is taken any more, and nothing needs to be, since its sources are orphaned.
    pub fn close(&self) {
        self.list.lock().closed = true;
    }
}
