//! The end of a run, where several things panic at once.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trefoil_runtime::{Driver, Options, ThreadDriver, Unpark, in_run, run, run_handle};

/// A payload whose destructor panics.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("in the destructor of a payload");
    }
}

/// A driver that panics with what its function makes.
struct PanicsAtItsEnd<F>(ThreadDriver, F);

impl<F> std::fmt::Debug for PanicsAtItsEnd<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PanicsAtItsEnd")
    }
}

impl<P: Any + Send, F: Fn() -> P + 'static> Driver for PanicsAtItsEnd<F> {
    fn name(&self) -> &'static str {
        "one that panics at its end"
    }
    fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.park(timeout)
    }
    fn poll(&self) -> io::Result<()> {
        self.0.poll()
    }
    fn unparker(&self) -> Arc<dyn Unpark> {
        self.0.unparker()
    }
    fn shutdown(&self) {
        panic_any((self.1)());
    }
}

/// R89, N9: the first panic comes out, the others are dropped before. Were one dropped while the first goes on its way, the process would be
/// aborted.
#[test]
fn r89_n9_the_first_of_several_panics_comes_out_of_the_end_of_a_run() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let drops = dropped.clone();
    let driver = Rc::new(PanicsAtItsEnd(ThreadDriver::new(), move || Bomb(drops.clone())));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        run(driver, Options::default(), Location::caller(), async {
            run_handle().run_soon(|| panic_any("a call")).unwrap();
        });
    }));
    assert_eq!(*ended.unwrap_err().downcast::<&str>().unwrap(), "a call");
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

/// A payload that asks, when it goes, whether there is a run.
struct Asks(Arc<Mutex<Vec<bool>>>);

impl Drop for Asks {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(in_run());
    }
}

/// The payloads that are not resumed go when the run's tree has been given back: another thread may have it for its own run by then, and what a destructor
/// does must not find it here.
#[test]
fn what_is_dropped_when_a_run_has_given_back_its_tree_is_in_no_run() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let payloads = asked.clone();
    let driver = Rc::new(PanicsAtItsEnd(ThreadDriver::new(), move || Asks(payloads.clone())));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        run(driver, Options::default(), Location::caller(), async {
            run_handle().run_soon(|| panic_any("a call")).unwrap();
        });
    }));
    assert_eq!(*ended.unwrap_err().downcast::<&str>().unwrap(), "a call");
    assert_eq!(*asked.lock().unwrap(), [false]);
}
