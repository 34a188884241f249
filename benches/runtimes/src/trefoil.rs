//! This library.

use crate::cached::{Cached, PIECE, PIECES};
use crate::measure::{Alive, HOUR, Series, Timers, alive, pin_to, resident, turn};
use crate::{Load, Metric, Workload};
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use trefoil::fs::File;
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{Builder, DriverKind};
use trefoil::{Cancelled, Receiver, Sender, channel, local_nursery, move_on_after, shield, sleep, sleep_until};

type Ended = Result<(), Cancelled>;

pub fn run(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    Some(match workload {
        Workload::Spawn => in_a_child(spawn(load)),
        Workload::Yield => in_a_child(yields(load)),
        Workload::Turn => in_a_child(turns(load)),
        Workload::Channel => in_a_child(round_trips(load)),
        Workload::ChannelCombined => in_a_child(combined_round_trips(load)),
        Workload::ChannelThreads => between_threads(load),
        Workload::DeadlineReady => in_a_child(deadline_ready(load)),
        Workload::DeadlineWaits => in_a_child(deadline_waits(load)),
        Workload::CancelTold => in_a_child(cancel_told(load)),
        Workload::CancelDropped => in_a_child(cancel_dropped(load)),
        Workload::CancelCleanup => in_a_child(cancel_cleanup(load)),
        Workload::Timers => in_a_child(timers(load)),
        Workload::Bytes => in_a_child(bytes(load)),
        Workload::Nested => in_a_child(nested_turns(load)),
        Workload::EchoTurn => in_a_child(echo_turns(load)),
        Workload::CachedFile => in_a_child(cached_pieces(load)),
    })
}

pub fn run_io_uring(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    run_on(DriverKind::IoUring, workload, load)
}

pub fn run_epoll(workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    run_on(DriverKind::Epoll, workload, load)
}

/// What differs from driver to driver.
fn run_on(driver: DriverKind, workload: Workload, load: &Load) -> Option<Vec<Metric>> {
    match workload {
        Workload::CachedFile => {
            let work = local_nursery(async |n| -> Result<_, Cancelled> {
                n.spawn(async { Ok(cached_pieces(load).await) }).await
            });
            Some(Builder::new().driver(driver).run(work).expect("nobody cancels"))
        }
        _ => None,
    }
}

async fn cached_pieces(load: &Load) -> Vec<Metric> {
    let cached = Cached::new();
    let file = File::open(cached.path()).await.expect("it is there");
    let mut piece = vec![0; PIECE];
    let mut series = Series::of_process_cpu(load);
    while series.goes_on() {
        let begin = series.begin();
        for i in 0..PIECES {
            file.read_exact_at(&mut piece, (i * PIECE) as u64).await.expect("it has so many");
            Cached::check(&piece);
        }
        series.add(begin, PIECES);
    }
    series.metrics()
}

/// Most code runs in a child of some nursery, not in the first task of the run.
fn in_a_child<T>(work: impl Future<Output = T>) -> T {
    let ended =
        builder().run(local_nursery(async |n| -> Result<T, Cancelled> { n.spawn(async { Ok(work.await) }).await }));
    ended.expect("nobody cancels")
}

/// On io_uring, unless `TREFOIL_DRIVER` says another one. Where that cannot be had it is an error, so that what is measured is what was asked for: a run
/// of everything has once measured epoll unnoticed.
fn builder() -> Builder {
    match std::env::var_os("TREFOIL_DRIVER") {
        None => Builder::new().driver(DriverKind::IoUring),
        Some(_) => Builder::new(),
    }
}

async fn spawn(load: &Load) -> Vec<Metric> {
    let mut series = Series::new(load);
    while series.goes_on() {
        let begin = series.begin();
        let ended = local_nursery(async |n| -> Ended {
            for i in 0..load.size {
                n.spawn(async move {
                    black_box(i);
                    Ok(())
                });
            }
            Ok(())
        });
        ended.await.expect("no child fails");
        series.add(begin, load.size);
    }
    series.metrics()
}

async fn yields(load: &Load) -> Vec<Metric> {
    let mut series = Series::new(load);
    while series.goes_on() {
        let begin = series.begin();
        let ended = local_nursery(async |n| -> Ended {
            for i in 0..load.size {
                n.spawn(async move {
                    turn().await;
                    black_box(i);
                    Ok(())
                });
            }
            Ok(())
        });
        ended.await.expect("no child fails");
        series.add(begin, load.size);
    }
    series.metrics()
}

async fn turns(load: &Load) -> Vec<Metric> {
    const EACH: usize = 1_000;
    let mut series = Series::new(load);
    while series.goes_on() {
        let begin = series.begin();
        let ended = local_nursery(async |n| -> Ended {
            for _ in 0..load.size {
                n.spawn(async {
                    for _ in 0..EACH {
                        turn().await;
                    }
                    Ok(())
                });
            }
            Ok(())
        });
        ended.await.expect("no child fails");
        series.add(begin, load.size * EACH);
    }
    series.metrics()
}

/// Sends back what it gets, until there is nobody any more.
async fn echo(there: Receiver<usize>, back: Sender<usize>) -> Ended {
    while let Some(item) = there.recv().await? {
        if back.send(item).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn trips(there: Sender<usize>, back: Receiver<usize>, each: usize, mut series: Series) -> Vec<Metric> {
    while series.goes_on() {
        let begin = series.begin();
        for i in 0..each {
            there.send(i).await.expect("the other one is there");
            assert_eq!(back.recv().await, Ok(Some(i)));
        }
        series.add(begin, each);
    }
    series.metrics()
}

async fn round_trips(load: &Load) -> Vec<Metric> {
    let (there, echo_there) = channel(1);
    let (echo_back, back) = channel(1);
    let ended = local_nursery(async |n| -> Result<Vec<Metric>, Cancelled> {
        n.spawn(echo(echo_there, echo_back));
        n.spawn(async move { Ok(trips(there, back, 10_000, Series::new(load)).await) }).await
    });
    ended.await.expect("no child fails")
}

async fn combined_round_trips(load: &Load) -> Vec<Metric> {
    let (there, echo_there) = channel(1);
    let (echo_back, back) = channel(1);
    let mut metrics = Vec::new();
    let trips = async { metrics = trips(there, back, 10_000, Series::new(load)).await };
    let echo = async { echo(echo_there, echo_back).await.expect("nobody cancels") };
    combined(pin!(echo), pin!(trips)).await;
    metrics
}

/// Polls each of the two when its own waker was woken, as the combinators of others do.
async fn combined(mut one: Pin<&mut impl Future<Output = ()>>, mut other: Pin<&mut impl Future<Output = ()>>) {
    struct Bell(AtomicBool, Waker);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
            self.1.wake_by_ref();
        }
    }
    let around = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let bells = [0, 1].map(|_| Arc::new(Bell(AtomicBool::new(true), around.clone())));
    let wakers = bells.clone().map(Waker::from);
    let mut left = [true; 2];
    poll_fn(|_| {
        for at in [0, 1] {
            if left[at] && bells[at].0.swap(false, Ordering::Relaxed) {
                let cx = &mut Context::from_waker(&wakers[at]);
                left[at] = if at == 0 { one.as_mut().poll(cx) } else { other.as_mut().poll(cx) }.is_pending();
            }
        }
        if left == [false; 2] { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn between_threads(load: &Load) -> Vec<Metric> {
    let (there, echo_there) = channel(1);
    let (echo_back, back) = channel(1);
    thread::scope(|s| {
        s.spawn(|| {
            pin_to(load.core.saturating_sub(1));
            in_a_child(echo(echo_there, echo_back)).expect("nobody cancels");
        });
        in_a_child(trips(there, back, 1_000, Series::of_wall_time(load)))
    })
}

async fn deadline_ready(load: &Load) -> Vec<Metric> {
    const EACH: usize = 10_000;
    let mut series = Series::new(load);
    while series.goes_on() {
        let begin = series.begin();
        for i in 0..EACH {
            let in_time = move_on_after(HOUR, async { Ok::<_, Cancelled>(black_box(i)) }).await;
            assert_eq!(in_time, Ok(Some(i)));
        }
        series.add(begin, EACH);
    }
    series.metrics()
}

async fn deadline_waits(load: &Load) -> Vec<Metric> {
    const EACH: usize = 10_000;
    let (mut with, mut without) = (Series::new(load), Series::new(load));
    while with.goes_on() {
        let begin = with.begin();
        for i in 0..EACH {
            let body = async {
                turn().await;
                Ok::<_, Cancelled>(black_box(i))
            };
            assert_eq!(move_on_after(HOUR, body).await, Ok(Some(i)));
        }
        with.add(begin, EACH);
        let begin = without.begin();
        for i in 0..EACH {
            turn().await;
            black_box(i);
        }
        without.add(begin, EACH);
    }
    vec![("ns", with.median() - without.median())]
}

/// Until all children have begun; they sleep then.
async fn all_asleep(count: usize) {
    while alive() < count {
        turn().await;
    }
}

async fn sleeper() -> Ended {
    let _alive = Alive::begin();
    sleep(HOUR).await
}

async fn cancel_told(load: &Load) -> Vec<Metric> {
    let mut series = Series::new(load);
    while series.goes_on() {
        let mut begin = None;
        let ended = local_nursery(async |n| -> Ended {
            for _ in 0..load.size {
                n.spawn(sleeper());
            }
            all_asleep(load.size).await;
            begin = Some(series.begin());
            n.cancel();
            Ok(())
        });
        ended.await.expect("its own cancel is absorbed");
        series.add(begin.expect("the body has run"), load.size);
        assert_eq!(alive(), 0);
    }
    series.metrics()
}

async fn cancel_dropped(load: &Load) -> Vec<Metric> {
    let mut series = Series::new(load);
    while series.goes_on() {
        let mut nursery = Box::pin(local_nursery(async |n| -> Ended {
            for _ in 0..load.size {
                n.spawn(sleeper());
            }
            Ok(())
        }));
        poll_fn(|cx| {
            assert!(nursery.as_mut().poll(cx).is_pending());
            if alive() == load.size { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let begin = series.begin();
        drop(nursery);
        series.add(begin, load.size);
        assert_eq!(alive(), 0);
    }
    series.metrics()
}

async fn cancel_cleanup(load: &Load) -> Vec<Metric> {
    let mut series = Series::new(load);
    while series.goes_on() {
        let mut begin = None;
        let ended = local_nursery(async |n| -> Ended {
            for _ in 0..load.size {
                n.spawn(async {
                    let slept = sleeper().await;
                    shield(turn()).await;
                    slept
                });
            }
            all_asleep(load.size).await;
            begin = Some(series.begin());
            n.cancel();
            Ok(())
        });
        ended.await.expect("its own cancel is absorbed");
        series.add(begin.expect("the body has run"), load.size);
    }
    series.metrics()
}

async fn timers(load: &Load) -> Vec<Metric> {
    let mut timers = Timers::new();
    let ended = local_nursery(async |n| -> Ended {
        for _ in 0..load.size {
            let target = timers.next();
            n.spawn(async move {
                sleep_until(target).await?;
                Timers::woken(target);
                Ok(())
            });
        }
        Ok(())
    });
    ended.await.expect("nobody cancels");
    timers.metrics(load.size)
}

async fn bytes(load: &Load) -> Vec<Metric> {
    let before = resident();
    let mut bytes = 0.0;
    let ended = local_nursery(async |n| -> Ended {
        for _ in 0..load.size {
            n.spawn(sleeper());
        }
        all_asleep(load.size).await;
        bytes = (resident() - before) as f64 / load.size as f64;
        n.cancel();
        Ok(())
    });
    ended.await.expect("its own cancel is absorbed");
    vec![("bytes", bytes)]
}

/// Opens that many nurseries, one in the other, around some work.
fn nested<'a>(depth: usize, work: Pin<Box<dyn Future<Output = ()> + 'a>>) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    if depth == 0 {
        return work;
    }
    Box::pin(async move {
        let ended = local_nursery(async |n| -> Ended {
            n.spawn(async {
                nested(depth - 1, work).await;
                Ok(())
            });
            Ok(())
        });
        ended.await.expect("nobody cancels");
    })
}

async fn nested_turns(load: &Load) -> Vec<Metric> {
    const EACH: usize = 10_000;
    let mut metrics = Vec::new();
    let work = nested(
        load.size,
        Box::pin(async {
            let mut series = Series::new(load);
            while series.goes_on() {
                let begin = series.begin();
                for _ in 0..EACH {
                    turn().await;
                }
                series.add(begin, EACH);
            }
            metrics = series.metrics();
        }),
    );
    work.await;
    metrics
}

async fn echo_turns(load: &Load) -> Vec<Metric> {
    const EACH: usize = 1_000;
    let mut series = Series::new(load);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let ended = local_nursery(async |n| -> io::Result<()> {
        n.spawn(async {
            let (mut stream, _) = listener.accept().await?;
            let mut message = vec![0; load.size];
            loop {
                match stream.read(&mut message).await? {
                    0 => return Ok(()),
                    length => stream.write_all(&message[..length]).await?,
                }
            }
        });
        let mut stream = TcpStream::connect(addr).await?;
        let mut message = vec![7; load.size];
        while series.goes_on() {
            let begin = series.begin();
            for _ in 0..EACH {
                stream.write_all(&message).await?;
                stream.read_exact(&mut message).await?;
            }
            series.add(begin, EACH);
        }
        Ok(())
    });
    ended.await.expect("loopback");
    series.metrics()
}
