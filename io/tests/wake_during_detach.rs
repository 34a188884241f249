//! Streams are dropped on another thread, which then wakes a task of the home.
mod common;
use common::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

#[test]
fn a_wake_behind_a_foreign_drop_is_not_lost() {
    for_each_driver(|builder| {
        builder.run(async {
            let (to, from) = std::sync::mpsc::channel::<(trefoil_io::net::TcpStream, u64)>();
            let done = Arc::new(AtomicU64::new(0));
            let waker = Arc::new(Mutex::new(None::<Waker>));
            let thread = std::thread::spawn({
                let (done, waker) = (done.clone(), waker.clone());
                move || {
                    for (stream, delay) in from {
                        std::thread::sleep(Duration::from_micros(300)); // the home sleeps
                        drop(stream);
                        let begin = Instant::now();
                        while begin.elapsed() < Duration::from_nanos(delay) {
                            std::hint::spin_loop()
                        }
                        done.fetch_add(1, Ordering::SeqCst);
                        let waker = waker.lock().unwrap().take();
                        if let Some(waker) = waker {
                            waker.wake()
                        }
                    }
                }
            });
            for round in 0..300u64 {
                let (mut stream, _other) = pair_with_std().await;
                let _ = trefoil_nursery::move_on_after(Duration::from_micros(100), async {
                    stream.read(&mut [0; 8]).await.map(drop)
                })
                .await;
                to.send((stream, (round % 300) * 200)).unwrap();
                let told = trefoil_nursery::move_on_after(PATIENCE, async {
                    std::future::poll_fn(|cx| {
                        *waker.lock().unwrap() = Some(cx.waker().clone());
                        if done.load(Ordering::SeqCst) == round + 1 { Poll::Ready(()) } else { Poll::Pending }
                    })
                    .await;
                    trefoil_nursery::checkpoint().await.map_err(std::io::Error::from)
                })
                .await;
                assert!(told.unwrap().is_some(), "a lost wake-up, in round {round}");
            }
            drop(to);
            thread.join().unwrap();
        });
    });
}
