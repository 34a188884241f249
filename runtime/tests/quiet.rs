//! N10: how long nothing may come before a run is ended.

use std::future::poll_fn;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;
use trefoil_runtime::{Detection, Driver, Options, ThreadDriver, Unpark, run};

/// Each look at it takes longer than the time between the first two looks for other threads, as on a machine that is busy elsewhere.
#[derive(Debug)]
struct Slow(ThreadDriver);

impl Driver for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }
    fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.park(timeout)
    }
    fn poll(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(20));
        self.0.poll()
    }
    fn unparker(&self) -> Arc<dyn Unpark> {
        self.0.unparker()
    }
}

#[test]
fn n10_a_run_is_not_ended_before_its_time_because_a_look_took_long() {
    let options = Options { deadlock: Detection::After(Duration::from_secs(60)), ..Options::default() };
    let told = Arc::new(Mutex::new((false, None::<Waker>)));
    let tells = told.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        let waker = {
            let mut told = tells.lock().unwrap();
            told.0 = true;
            told.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    });
    run(
        Rc::new(Slow(ThreadDriver::new())),
        options,
        Location::caller(),
        poll_fn(|cx| {
            let mut told = told.lock().unwrap();
            told.1 = Some(cx.waker().clone());
            if told.0 { Poll::Ready(()) } else { Poll::Pending }
        }),
    );
    thread.join().unwrap();
}
