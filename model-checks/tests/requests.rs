//! What other threads ask of a driver's own (`io/src/uring/requests.rs`), which sleeps until its bell rings: a bell that is not rung when it has to be is
//! a deadlock, which loom reports.

use loom::sync::{Condvar, Mutex};
use trefoil_io::model::Requests;
use trefoil_model_checks::model;
use trefoil_runtime::sync::{AtomicU32, Ordering};

/// An eventfd with somebody who waits for its edges: one that comes early is kept.
struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
    times: AtomicU32,
}

impl Bell {
    fn new() -> Self {
        Self { rung: Mutex::new(false), rings: Condvar::new(), times: AtomicU32::new(0) }
    }

    fn ring(&self) {
        self.times.fetch_add(1, Ordering::Relaxed);
        *self.rung.lock().unwrap() = true;
        self.rings.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.rings.wait(rung).unwrap();
        }
        *rung = false;
    }
}

fn ask(requests: &Requests<char>, bell: &Bell, what: char) {
    if requests.ask(what) {
        bell.ring();
    }
}

/// The driver: looks, and sleeps, until it has so many.
fn drive(requests: &Requests<char>, bell: &Bell, many: usize) -> String {
    let mut taken = String::new();
    loop {
        if requests.any() {
            taken.extend(requests.take());
        }
        if taken.len() >= many {
            return taken;
        }
        bell.sleep();
    }
}

/// One asks twice. Seen: how often the bell was rung, which is once where the driver has not looked in between.
#[test]
fn no_request_is_slept_through() {
    model("requests: ask, ask ‖ look, sleep").check([1, 2], |order| {
        let (requests, bell) = (Requests::new(), Bell::new());
        let ((), taken) = order.race2(
            || {
                ask(&requests, &bell, 'a');
                ask(&requests, &bell, 'b');
            },
            || drive(&requests, &bell, 2),
        );
        assert_eq!(taken, "ab");
        assert!(!requests.any() && requests.take().is_empty());
        bell.times.load(Ordering::Relaxed)
    });
}

/// Two ask at once. Seen: in which order it was taken, and how often the bell was rung.
#[test]
fn requests_of_two_threads_are_not_slept_through() {
    let expected = ["ab", "ba"].into_iter().flat_map(|taken| [(taken.to_owned(), 1), (taken.to_owned(), 2)]);
    model("requests: ask ‖ ask ‖ look, sleep").three().bound(3).check(expected, |order| {
        let (requests, bell) = (Requests::new(), Bell::new());
        let ((), (), taken) =
            order.race3(|| ask(&requests, &bell, 'a'), || ask(&requests, &bell, 'b'), || drive(&requests, &bell, 2));
        assert!(!requests.any() && requests.take().is_empty());
        (taken, bell.times.load(Ordering::Relaxed))
    });
}

/// The run ends meanwhile: what was asked before is there for a last look, and nothing after it. Seen: whether it was, and whether the bell was rung.
#[test]
fn what_is_asked_of_a_run_that_is_over_is_not_kept() {
    model("requests: ask ‖ close").check([(true, 1), (false, 0)], |order| {
        let (requests, bell) = (Requests::new(), Bell::new());
        order.race2(|| ask(&requests, &bell, 'a'), || requests.close());
        let taken = requests.take().len() == 1;
        assert!(!requests.ask('b') && requests.take().is_empty());
        (taken, bell.times.load(Ordering::Relaxed))
    });
}
