//! What the work costs without any runtime: a box and a poll of each child, a heap of instants, threads.

use crate::cached::{Cached, PIECE, PIECES};
use crate::measure::{Alive, HOUR, Series, Timers, pin_to, resident, turn};
use crate::{Load, Metric, Workload};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::{Future, pending};
use std::hint::{black_box, spin_loop};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Instant;

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

pub fn run(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    match workload {
        Workload::Spawn => Some(batches(load, |i| {
            Box::pin(async move {
                black_box(i);
            })
        })),
        Workload::Yield => Some(batches(load, |i| {
            Box::pin(async move {
                turn().await;
                black_box(i);
            })
        })),
        Workload::Turn => Some(turns(load)),
        Workload::ChannelThreads => Some(spinning(load)),
        Workload::CancelDropped => Some(dropped(load)),
        Workload::Timers => Some(timers(load)),
        Workload::CachedFile => Some(cached_pieces(load)),
        Workload::Bytes => {
            let before = resident();
            let children = sleepers(load.size);
            let bytes = (resident() - before) as f64 / load.size as f64;
            drop(children);
            Some(vec![("bytes", bytes)])
        }
        _ => None,
    }
}

/// A plain pread(2).
fn cached_pieces(load: &Load) -> Vec<Metric> {
    use std::os::unix::fs::FileExt;
    let cached = Cached::new();
    let file = std::fs::File::open(cached.path()).expect("it is there");
    let mut piece = vec![0; PIECE];
    let mut series = Series::of_process_cpu(load);
    while series.goes_on() {
        let begin = series.begin();
        for i in 0..PIECES {
            file.read_exact_at(&mut piece, (i * PIECE) as u64).expect("it has so many");
            Cached::check(&piece);
        }
        series.add(begin, PIECES);
    }
    series.metrics()
}

/// Polls what is in the queue until all have ended.
fn drain(queue: &mut VecDeque<Boxed>) {
    let mut cx = Context::from_waker(Waker::noop());
    while let Some(mut child) = queue.pop_front() {
        if child.as_mut().poll(&mut cx).is_pending() {
            queue.push_back(child);
        }
    }
}

fn batches(load: &Load, child: impl Fn(usize) -> Boxed) -> Vec<Metric> {
    let mut series = Series::new(load);
    let mut queue = VecDeque::new();
    while series.goes_on() {
        let begin = series.begin();
        queue.extend((0..load.size).map(&child));
        drain(&mut queue);
        series.add(begin, load.size);
    }
    series.metrics()
}

fn turns(load: &Load) -> Vec<Metric> {
    const EACH: usize = 1_000;
    let mut series = Series::new(load);
    let mut queue = VecDeque::new();
    while series.goes_on() {
        queue.extend((0..load.size).map(|_| -> Boxed {
            Box::pin(async {
                for _ in 0..EACH {
                    turn().await;
                }
            })
        }));
        let begin = series.begin();
        drain(&mut queue);
        series.add(begin, load.size * EACH);
    }
    series.metrics()
}

/// Two threads that spin on a word.
fn spinning(load: &Load) -> Vec<Metric> {
    const EACH: usize = 1_000;
    const OVER: usize = usize::MAX;
    let (there, back) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut series = Series::of_wall_time(load);
    thread::scope(|s| {
        s.spawn(|| {
            pin_to(load.core.saturating_sub(1));
            let mut seen = 0;
            loop {
                let now = there.load(Ordering::Acquire);
                if now == OVER {
                    return;
                }
                if now == seen {
                    spin_loop();
                } else {
                    seen = now;
                    back.store(now, Ordering::Release);
                }
            }
        });
        let mut trip = 0;
        while series.goes_on() {
            let begin = series.begin();
            for _ in 0..EACH {
                trip += 1;
                there.store(trip, Ordering::Release);
                while back.load(Ordering::Acquire) != trip {
                    spin_loop();
                }
            }
            series.add(begin, EACH);
        }
        there.store(OVER, Ordering::Release);
    });
    series.metrics()
}

/// As large as a sleeping child has to be: it knows its instant.
fn sleepers(count: usize) -> Vec<Boxed> {
    let mut cx = Context::from_waker(Waker::noop());
    (0..count)
        .map(|_| -> Boxed {
            let until = Instant::now() + HOUR;
            let mut child: Boxed = Box::pin(async move {
                let _alive = Alive::begin();
                pending::<()>().await;
                black_box(until);
            });
            assert!(child.as_mut().poll(&mut cx).is_pending());
            child
        })
        .collect()
}

fn dropped(load: &Load) -> Vec<Metric> {
    let mut series = Series::new(load);
    while series.goes_on() {
        let children = sleepers(load.size);
        let begin = series.begin();
        drop(children);
        series.add(begin, load.size);
    }
    series.metrics()
}

/// A heap, and a sleep until the first.
fn timers(load: &Load) -> Vec<Metric> {
    let mut timers = Timers::new();
    let mut heap: BinaryHeap<_> = (0..load.size).map(|_| Reverse(timers.next())).collect();
    while let Some(&Reverse(first)) = heap.peek() {
        match first.checked_duration_since(Instant::now()) {
            Some(rest) if !rest.is_zero() => thread::sleep(rest),
            _ => {
                heap.pop();
                Timers::woken(first);
            }
        }
    }
    timers.metrics(load.size)
}
