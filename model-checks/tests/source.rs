//! A descriptor that an operation waits on (`io/src/source.rs`, through `io/src/operation.rs`): what a driver reports on one thread, a cancel
//! and the end of the source on others. No report is lost, a cancelled read has read nothing, and nobody is counted as waiting in the end.

use std::cell::RefCell;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use trefoil_io::model::{Beside, Elsewhere, Reading, Source};
use trefoil_model_checks::{Run, Woken, model};
use trefoil_runtime::model::{link, unlink};
use trefoil_runtime::sync::{AtomicBool, Ordering};
use trefoil_runtime::{Kind, Scope};

/// What the kernel has: one byte, or none.
struct Kernel(AtomicBool);

impl Kernel {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn arrive(&self) {
        self.0.swap(true, Ordering::AcqRel);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// An operation that reads.
trait Reads {
    fn poll(&mut self, cx: &mut Context<'_>, kernel: &Kernel) -> Poll<std::io::Result<u8>>;
}

impl Reads for Reading<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, kernel: &Kernel) -> Poll<std::io::Result<u8>> {
        self.poll(cx, || kernel.take())
    }
}

impl Reads for Beside<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, kernel: &Kernel) -> Poll<std::io::Result<u8>> {
        self.poll(cx, || kernel.take())
    }
}

/// A task that reads in a scope.
struct Reader {
    run: Run,
    scope: Pin<Box<Scope>>,
    woken: Woken,
}

impl Reader {
    fn new() -> Self {
        let run = Run::new();
        let scope = Box::pin(Scope::new(Kind::Scope, Location::caller()));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&scope, run.tree, None) };
        Self { run, scope, woken: Woken::new() }
    }

    fn poll(&self, reading: &mut impl Reads, cx: &mut Context<'_>, kernel: &Kernel) -> Poll<Result<u8, i32>> {
        let polled = self.run.within(&self.scope, || reading.poll(cx, kernel));
        polled.map_err(|error| error.raw_os_error().expect("a cancellation"))
    }

    /// Polls once, and then as often as it is woken.
    fn read(&self, reading: &RefCell<impl Reads>, kernel: &Kernel, first: Poll<Result<u8, i32>>) -> Result<u8, i32> {
        let mut polled = first;
        self.woken.settle(|cx| {
            if polled.is_pending() {
                polled = self.poll(&mut *reading.borrow_mut(), cx, kernel);
            }
        });
        match polled {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("the wake-up was lost"),
        }
    }

    fn end(self) {
        unlink(&self.scope);
        assert_eq!(self.woken.wakers(), 0, "a waker was kept");
    }
}

const ECANCELED: i32 = 125;

/// A byte arrives at the kernel and is reported, while a read begins. Seen: whether the first poll was the last.
#[test]
fn an_edge_while_a_read_begins() {
    model("source: notify ‖ read").check([false, true], |order| {
        let (reader, source, kernel) = (Reader::new(), Source::new(), Kernel::new());
        let driver = source.driver();
        // SAFETY: one, on one thread.
        let reading = RefCell::new(unsafe { source.reading() });
        let ((), first) = order.race2(
            || {
                kernel.arrive();
                driver.notify();
            },
            || reader.woken.poll(|cx| reader.poll(&mut *reading.borrow_mut(), cx, &kernel)),
        );
        let at_once = first.is_ready();
        assert_eq!(reader.read(&reading, &kernel, first), Ok(b'k'));
        drop(reading);
        assert_eq!(source.in_flight(), 0);
        reader.end();
        at_once
    });
}

/// The same, received ahead by the driver. Seen: whether the first poll was the last.
#[test]
fn a_delivery_while_a_read_begins() {
    model("source: deliver ‖ read").check([false, true], |order| {
        let (reader, source, kernel) = (Reader::new(), Source::new(), Kernel::new());
        let driver = source.driver();
        // SAFETY: one, on one thread.
        let reading = RefCell::new(unsafe { source.reading() });
        let ((), first) = order.race2(
            || driver.deliver(b'd'),
            || reader.woken.poll(|cx| reader.poll(&mut *reading.borrow_mut(), cx, &kernel)),
        );
        let at_once = first.is_ready();
        assert_eq!(reader.read(&reading, &kernel, first), Ok(b'd'));
        drop(reading);
        assert_eq!((source.in_flight(), driver.queued()), (0, None));
        reader.end();
        at_once
    });
}

/// A read that waits is cancelled while a byte arrives. Seen: what it returned; if that was a cancellation, the byte is there.
#[test]
fn a_delivery_while_a_read_is_cancelled() {
    model("source: deliver ‖ cancel, then the reader").check([Ok(b'd'), Err(ECANCELED)], |order| {
        let (reader, source, kernel) = (Reader::new(), Source::new(), Kernel::new());
        let driver = source.driver();
        // SAFETY: one, on one thread.
        let reading = RefCell::new(unsafe { source.reading() });
        let first = reader.woken.poll(|cx| reader.poll(&mut *reading.borrow_mut(), cx, &kernel));
        assert!(first.is_pending());
        order.race2(
            || driver.deliver(b'd'),
            || reader.scope.cancel(trefoil_runtime::Source::Explicit, Location::caller()),
        );
        let result = reader.read(&reading, &kernel, Poll::Pending);
        drop(reading);
        assert_eq!(source.in_flight(), 0);
        assert_eq!(driver.queued(), if result.is_ok() { None } else { Some(b'd') });
        reader.end();
        result
    });
}

/// All three at once: a read that begins, a byte, and a cancel. Seen: what the read returned, and whether at once.
#[test]
fn a_read_a_byte_and_a_cancel() {
    let expected = [(Ok(b'd'), false), (Ok(b'd'), true), (Err(ECANCELED), false), (Err(ECANCELED), true)];
    model("source: deliver ‖ cancel ‖ read").three().bound(2).check(expected, |order| {
        let (reader, source, kernel) = (Reader::new(), Source::new(), Kernel::new());
        let driver = source.driver();
        // SAFETY: one, on one thread.
        let reading = RefCell::new(unsafe { source.reading() });
        let ((), (), first) = order.race3(
            || driver.deliver(b'd'),
            || reader.scope.cancel(trefoil_runtime::Source::Explicit, Location::caller()),
            || reader.woken.poll(|cx| reader.poll(&mut *reading.borrow_mut(), cx, &kernel)),
        );
        let at_once = first.is_ready();
        let result = reader.read(&reading, &kernel, first);
        drop(reading);
        assert_eq!(source.in_flight(), 0);
        assert_eq!(driver.queued(), if result.is_ok() { None } else { Some(b'd') });
        reader.end();
        (result, at_once)
    });
}

/// A read is given up, and its source closed, while the driver reports. Seen: whether it was woken.
#[test]
fn an_edge_while_the_source_is_closed() {
    model("source: notify ‖ drop").check([false, true], |order| {
        let (reader, source, kernel) = (Reader::new(), Source::new(), Kernel::new());
        let driver = source.driver();
        order.race2(|| driver.notify(), {
            let (reader, kernel) = (&reader, &kernel);
            move || {
                // SAFETY: one, on one thread.
                let mut reading = unsafe { source.reading() };
                let _ = reader.woken.poll(|cx| reader.poll(&mut reading, cx, kernel));
                drop(reading);
                assert_eq!(source.in_flight(), 0);
                drop(source);
            }
        });
        drop(driver);
        let woken = reader.woken.take();
        reader.end();
        woken
    });
}

/// A source moves to the run where it is waited for next, while the run where it was reports an edge. Seen: whether the first poll was the last.
#[test]
fn an_edge_where_the_source_was_while_it_moves() {
    model("source: edge there ‖ move, read here").check([false, true], |order| {
        let (reader, source, kernel, here) = (Reader::new(), Source::new(), Kernel::new(), Elsewhere::new());
        let there = source.home();
        // SAFETY: one, on one thread.
        let reading = RefCell::new(unsafe { source.reading() });
        let ((), first) = order.race2(
            || {
                kernel.arrive();
                there.dispatch();
            },
            || {
                source.move_from(&there, &here);
                reader.woken.poll(|cx| reader.poll(&mut *reading.borrow_mut(), cx, &kernel))
            },
        );
        let at_once = first.is_ready();
        assert!(here.is(&source.home()));
        if !at_once {
            // What was there already is an edge for who begins to watch.
            source.home().dispatch();
        }
        assert_eq!(reader.read(&reading, &kernel, first), Ok(b'k'));
        drop(reading);
        assert_eq!((source.in_flight(), here.in_flight()), (0, 0), "a wait is counted where it began");
        reader.end();
        at_once
    });
}

/// It moves while the run where it was ends: the end of that run leaves it alone. Seen: whether the read waits here.
#[test]
fn the_end_of_the_run_where_the_source_was_while_it_moves() {
    model("source: end of the run there ‖ move, read here").check([true], |order| {
        let (reader, source, kernel, here) = (Reader::new(), Source::new(), Kernel::new(), Elsewhere::new());
        let there = source.home();
        // SAFETY: one, on one thread.
        let reading = RefCell::new(unsafe { source.reading() });
        let ((), first) = order.race2(
            || there.close(),
            || {
                source.move_from(&there, &here);
                reader.woken.poll(|cx| reader.poll(&mut *reading.borrow_mut(), cx, &kernel))
            },
        );
        assert!(here.is(&source.home()), "it belongs to the run that goes on");
        let waits = first.is_pending();
        assert_eq!(here.in_flight(), 1);
        kernel.arrive();
        source.home().dispatch();
        assert_eq!(reader.read(&reading, &kernel, first), Ok(b'k'));
        drop(reading);
        assert_eq!((source.in_flight(), here.in_flight()), (0, 0));
        reader.end();
        waits
    });
}

/// R109: who came first was forgotten, and a byte is reported while another begins to read. Seen: whether the first poll was the last.
#[test]
fn r109_an_edge_while_another_reads_beside_one_that_was_forgotten() {
    model("source: notify ‖ read beside").check([false, true], |order| {
        let (reader, source, kernel) = (Reader::new(), Source::new(), Kernel::new());
        let (driver, nobody) = (source.driver(), Woken::new());
        // SAFETY: one, on one thread.
        let mut forgotten = unsafe { source.reading() };
        assert!(nobody.poll(|cx| reader.poll(&mut forgotten, cx, &kernel)).is_pending());
        std::mem::forget(forgotten);
        let reading = RefCell::new(source.beside());
        let ((), first) = order.race2(
            || {
                kernel.arrive();
                driver.notify();
            },
            || reader.woken.poll(|cx| reader.poll(&mut *reading.borrow_mut(), cx, &kernel)),
        );
        let at_once = first.is_ready();
        assert_eq!(reader.read(&reading, &kernel, first), Ok(b'k'));
        drop(reading);
        assert_eq!(source.in_flight(), 0);
        drop(source);
        assert_eq!(nobody.wakers(), 0, "a waker was kept");
        reader.end();
        at_once
    });
}

/// R109: two wait, and who came first goes, while a byte is reported: it is for the other. Seen: whether who went was woken.
#[test]
fn r109_an_edge_while_the_first_of_two_goes() {
    model("source: notify ‖ drop, with another").check([false, true], |order| {
        let (reader, source, kernel) = (Reader::new(), Source::new(), Kernel::new());
        let (driver, goes) = (source.driver(), Woken::new());
        // SAFETY: one, on one thread.
        let mut first = unsafe { source.reading() };
        assert!(goes.poll(|cx| reader.poll(&mut first, cx, &kernel)).is_pending());
        let other = RefCell::new(source.beside());
        assert!(reader.woken.poll(|cx| reader.poll(&mut *other.borrow_mut(), cx, &kernel)).is_pending());
        assert_eq!(source.in_flight(), 2);
        order.race2(
            || {
                kernel.arrive();
                driver.notify();
            },
            || drop(first),
        );
        assert_eq!(reader.read(&other, &kernel, Poll::Pending), Ok(b'k'));
        drop(other);
        assert_eq!(source.in_flight(), 0);
        let woken = goes.take();
        reader.end();
        woken
    });
}

/// R109: the same, and the second goes.
#[test]
fn r109_an_edge_while_the_second_of_two_goes() {
    model("source: notify ‖ drop the other").check([false, true], |order| {
        let (reader, source, kernel) = (Reader::new(), Source::new(), Kernel::new());
        let (driver, goes) = (source.driver(), Woken::new());
        // SAFETY: one, on one thread.
        let first = RefCell::new(unsafe { source.reading() });
        assert!(reader.woken.poll(|cx| reader.poll(&mut *first.borrow_mut(), cx, &kernel)).is_pending());
        let mut other = source.beside();
        assert!(goes.poll(|cx| reader.poll(&mut other, cx, &kernel)).is_pending());
        order.race2(
            || {
                kernel.arrive();
                driver.notify();
            },
            || drop(other),
        );
        assert_eq!(reader.read(&first, &kernel, Poll::Pending), Ok(b'k'));
        drop(first);
        assert_eq!(source.in_flight(), 0);
        let woken = goes.take();
        reader.end();
        woken
    });
}

/// R109: the second of two is cancelled while a byte is reported. Seen: what it returned; if that was a cancellation, the byte is there.
#[test]
fn r109_an_edge_while_the_second_of_two_is_cancelled() {
    model("source: notify ‖ cancel the other").check([Ok(b'k'), Err(ECANCELED)], |order| {
        let (reader, source, kernel) = (Reader::new(), Source::new(), Kernel::new());
        let (driver, nobody) = (source.driver(), Woken::new());
        // SAFETY: one, on one thread.
        let mut first = unsafe { source.reading() };
        assert!(nobody.poll(|cx| reader.poll(&mut first, cx, &kernel)).is_pending());
        let other = RefCell::new(source.beside());
        assert!(reader.woken.poll(|cx| reader.poll(&mut *other.borrow_mut(), cx, &kernel)).is_pending());
        order.race2(
            || {
                kernel.arrive();
                driver.notify();
            },
            || reader.scope.cancel(trefoil_runtime::Source::Explicit, Location::caller()),
        );
        let result = reader.read(&other, &kernel, Poll::Pending);
        assert_eq!(kernel.take(), result.is_err());
        drop((first, other));
        assert_eq!(source.in_flight(), 0);
        reader.end();
        result
    });
}
