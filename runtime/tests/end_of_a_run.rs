//! The end of a run, where several things panic at once.

use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use trefoil_runtime::{Driver, Options, ThreadDriver, Unpark, run, run_handle};

/// A payload whose destructor panics.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("in the destructor of a payload");
    }
}

#[derive(Debug)]
struct PanicsAtItsEnd(ThreadDriver, Arc<AtomicUsize>);

impl Driver for PanicsAtItsEnd {
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
        panic_any(Bomb(self.1.clone()));
    }
}

/// R89, N9: the first panic comes out, the others are dropped before. Were one dropped while the first goes on its way, the process would be
/// aborted.
#[test]
fn r89_n9_the_first_of_several_panics_comes_out_of_the_end_of_a_run() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let driver = Rc::new(PanicsAtItsEnd(ThreadDriver::new(), dropped.clone()));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        run(driver, Options::default(), Location::caller(), async {
            run_handle().run_soon(|| panic_any("a call")).unwrap();
        });
    }));
    assert_eq!(*ended.unwrap_err().downcast::<&str>().unwrap(), "a call");
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}
