//! Bytes that the driver has, or gets, while a stream is taken out of the runtime on a thread that is not its home's.
mod common;
use common::*;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::task::Poll;
use std::time::Duration;

#[test]
fn into_std_on_another_thread_loses_nothing_in_silence() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            let mut idle = Vec::new();
            for _ in 0..8 {
                idle.push(pair_with_std().await);
            }
            // A read that is given up leaves a receive under way.
            let _ = trefoil_nursery::move_on_after(Duration::from_millis(5), async {
                stream.read(&mut [0; 8]).await.map(drop)
            })
            .await;
            settle().await;
            other.write_all(b"x").unwrap();
            // So many waits begin that a ring of four entries is entered, and the byte received, in the middle of this poll.
            let mut bufs = [[0; 8]; 8];
            let mut reads: Vec<_> = idle.iter_mut().zip(&mut bufs).map(|((s, _), buf)| Box::pin(s.read(buf))).collect();
            poll_fn(|cx| {
                for read in &mut reads {
                    assert!(read.as_mut().poll(cx).is_pending());
                }
                Poll::Ready(())
            })
            .await;
            let std = std::thread::spawn(move || stream.into_std()).join().unwrap();
            match std {
                Ok(mut std) => {
                    std.set_nonblocking(false).unwrap();
                    std.set_read_timeout(Some(PATIENCE)).unwrap();
                    assert_eq!(std.read(&mut [0; 8]).unwrap_or(0), 1, "into_std said Ok, and the byte is gone");
                }
                Err(back) => {
                    // It is as good as before, and its run has been asked to stop receiving.
                    drop(reads);
                    let mut stream = back.into_inner();
                    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 1);
                    settle().await;
                    let mut std = std::thread::spawn(move || stream.into_std()).join().unwrap().unwrap();
                    other.write_all(b"yz").unwrap();
                    std.set_nonblocking(false).unwrap();
                    std.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut two = [0; 2];
                    std.read_exact(&mut two).unwrap();
                    assert_eq!(&two, b"yz");
                }
            }
        });
    });
}
