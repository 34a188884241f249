//! Waiting until a read or a write would not wait, and doing then what can be done at once: nothing is taken by the wait, whatever becomes of it
//! (R36, R37).

mod common;

use common::*;
use futures_util::{FutureExt, poll};
use std::io::{ErrorKind, Read, Write};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use trefoil_io::net::{Shutdown, TcpOptions, TcpStream};
use trefoil_nursery::{CancelScope, move_on_after, nursery};

const STREAM: usize = 60_000;

#[test]
fn readable_waits_for_bytes_and_leaves_them() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            let mut buf = [0; 8];
            for round in 0..3 {
                assert_eq!(stream.try_read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
                {
                    let mut readable = pin!(stream.readable());
                    assert!(poll!(readable.as_mut()).is_pending(), "in round {round}");
                    other.write_all(b"abc").unwrap();
                    readable.await.unwrap();
                }
                // It still is.
                stream.readable().await.unwrap();
                assert_eq!(stream.try_read(&mut buf[..2]).unwrap(), 2);
                stream.readable().await.unwrap();
                assert_eq!(stream.try_read(&mut buf[2..]).unwrap(), 1);
                assert_eq!(&buf[..3], b"abc");
            }
            assert_eq!(stream.try_read(&mut []).unwrap(), 0);
        });
    });
}

#[test]
fn the_end_and_an_error_are_readable_and_are_told_to_the_read() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, other) = pair_with_std().await;
            other.shutdown(Shutdown::Write).unwrap();
            for _ in 0..2 {
                stream.readable().await.unwrap();
                assert_eq!(stream.try_read(&mut [0; 8]).unwrap(), 0);
            }

            for waits_first in [false, true] {
                let (mut stream, other) = pair_with_std().await;
                let mut waiting = Box::pin(stream.readable());
                if waits_first {
                    assert!(poll!(waiting.as_mut()).is_pending());
                }
                rustix::net::sockopt::set_socket_linger(&other, Some(Duration::ZERO)).unwrap();
                drop(other);
                waiting.await.unwrap();
                assert_eq!(stream.try_read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
                // The error was told; what is left is the end.
                stream.readable().await.unwrap();
                assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
            }
        });
    });
}

#[test]
fn waits_that_are_abandoned_take_nothing() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            let writer = std::thread::spawn(move || {
                let (numbers, mut at) = (Numbers::new(21), 0);
                while at < STREAM {
                    let n = (1 + numbers.below(200) as usize).min(STREAM - at);
                    other.write_all(&pattern(at, n)).unwrap();
                    at += n;
                    if numbers.below(3) == 0 {
                        std::thread::sleep(Duration::from_micros(numbers.below(300)));
                    }
                }
            });
            let (numbers, mut all, mut abandoned) = (Numbers::new(22), Vec::new(), 0);
            loop {
                let patience = Duration::from_micros(numbers.below(100));
                let ready = match numbers.below(4) {
                    // cancelled
                    0 | 1 => move_on_after(patience, stream.readable()).await.unwrap().is_some(),
                    // polled once and dropped
                    2 => stream.readable().now_or_never().is_some(),
                    // forgotten: its wait is left behind
                    _ => {
                        let mut readable = Box::pin(stream.readable());
                        let polled = poll!(readable.as_mut());
                        std::mem::forget(readable);
                        polled.is_ready()
                    }
                };
                abandoned += usize::from(!ready);
                let mut buf = [0; 256];
                let room = 1 + numbers.below(255) as usize;
                // Whatever became of the wait.
                match stream.try_read(&mut buf[..room]) {
                    Ok(0) => break,
                    Ok(n) => all.extend_from_slice(&buf[..n]),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        assert!(!ready, "readable, and there is nothing");
                        trefoil_nursery::checkpoint().await.unwrap();
                    }
                }
            }
            assert!(all == pattern(0, STREAM), "{} of {STREAM} bytes, or others", all.len());
            assert!(abandoned > 0, "nothing was abandoned");
            writer.join().unwrap();
        });
    });
}

#[test]
fn in_a_cancelled_scope_both_are_cancelled_and_a_result_beats_the_cancel() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            other.write_all(b"abc").unwrap();
            settle().await;
            let cancelled = || {
                let scope = CancelScope::new();
                scope.cancel();
                scope
            };
            // R37: though there is something.
            assert!(cancelled().run(stream.readable()).await.unwrap().is_none());
            assert!(cancelled().run(stream.writable()).await.unwrap().is_none());
            // What does not wait is no place to be cancelled at.
            let read: Result<_, std::io::Error> = cancelled().run(async { stream.try_read(&mut [0; 8]) }).await;
            assert_eq!(read.unwrap(), Some(3));

            // R18.
            let scope = CancelScope::new();
            let mut readable = pin!(scope.run(stream.readable()));
            assert!(poll!(readable.as_mut()).is_pending());
            other.write_all(b"d").unwrap();
            settle().await;
            scope.cancel();
            assert!(readable.await.unwrap().is_some());
        });
    });
}

#[test]
fn writable_waits_for_room_and_writes_nothing() {
    for_each_driver(|builder| {
        builder.run(async {
            let listener = TcpOptions::new().receive_buffer(2048).listen("127.0.0.1:0").unwrap();
            let mut stream = TcpOptions::new().send_buffer(2048).connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let server = server.into_std().unwrap();
            server.set_nonblocking(false).unwrap();

            stream.writable().await.unwrap();
            let (mut at, mut full, mut reader) = (0, 0, None);
            while at < STREAM {
                let bytes = pattern(at, 777.min(STREAM - at));
                match stream.try_write(&bytes) {
                    Ok(n) => at += n,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        full += 1;
                        if full == 1 {
                            // Nobody reads yet.
                            assert!(poll!(pin!(stream.writable())).is_pending());
                            let cut = move_on_after(Duration::from_millis(2), stream.writable()).await;
                            assert!(cut.unwrap().is_none());
                            let mut server = server.try_clone().unwrap();
                            reader = Some(std::thread::spawn(move || {
                                let mut all = vec![0; STREAM];
                                server.read_exact(&mut all).unwrap();
                                assert!(all == pattern(0, STREAM), "other bytes");
                                server.write_all(b"all").unwrap();
                            }));
                        }
                        stream.writable().await.unwrap();
                    }
                }
            }
            assert!(full > 0, "there was always room");
            stream.read_exact(&mut [0; 3]).await.unwrap();
            reader.unwrap().join().unwrap();
            // A peer that is gone is writable, and says so to the write.
            rustix::net::sockopt::set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
            server.shutdown(Shutdown::Both).unwrap();
            drop(server);
            settle().await;
            stream.writable().await.unwrap();
            stream.try_write(b"x").map(drop).unwrap_or_else(|_| ());
            stream.writable().await.unwrap();
            assert!(stream.try_write(b"x").is_err());
        });
    });
}

/// Nobody has waited, or will: nothing is registered that would say that more has come, or that there is room again.
#[test]
fn a_try_finds_what_came_where_nobody_waits() {
    for_each_driver(|builder| {
        builder.run(async {
            for has_waited in [false, true] {
                let (mut stream, mut other) = pair_with_std().await;
                if has_waited {
                    other.write_all(b"first").unwrap();
                    stream.readable().await.unwrap();
                    assert_eq!(stream.try_read(&mut [0; 8]).unwrap(), 5);
                }
                for round in 0..3 {
                    // The first read is short, which says that there is no more for now, and the second finds nothing.
                    assert_eq!(stream.try_read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
                    other.write_all(b"abc").unwrap();
                    settle().await;
                    assert_eq!(stream.try_read(&mut [0; 8]).unwrap(), 3, "in round {round}, has waited: {has_waited}");
                    other.write_all(b"d").unwrap();
                    settle().await;
                    assert_eq!(stream.try_read(&mut [0; 8]).unwrap(), 1, "in round {round}, has waited: {has_waited}");
                }
                // The other direction, which may wait in the end.
                for _ in 0..3 {
                    let mut written = 0;
                    let full = loop {
                        match stream.try_write(&[b'x'; 50_000]) {
                            Ok(n) => written += n,
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(full.kind(), ErrorKind::WouldBlock);
                    other.read_exact(&mut vec![0; written]).unwrap();
                    settle().await;
                }
                assert_eq!(stream.write(b"more").await.unwrap(), 4);
            }
        });
    });
}

/// Both directions of a stream, of which both wait, each in a task of its own.
#[test]
fn halves_wait_each_for_its_own_direction() {
    for_each_driver(|builder| {
        builder.run(async {
            let listener = TcpOptions::new().receive_buffer(2048).listen("127.0.0.1:0").unwrap();
            let stream = TcpOptions::new().send_buffer(2048).connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut peer, _) = listener.accept().await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            nursery(async |n| -> std::io::Result<()> {
                n.spawn(async {
                    let mut all = Vec::new();
                    while all.len() < 10 {
                        reader.readable().await?;
                        let mut buf = [0; 4];
                        let n = reader.try_read(&mut buf)?;
                        all.extend_from_slice(&buf[..n]);
                    }
                    assert_eq!(all, b"0123456789");
                    Ok(())
                });
                n.spawn(async {
                    let mut at = 0;
                    while at < STREAM {
                        writer.writable().await?;
                        match writer.try_write(&pattern(at, 999.min(STREAM - at))) {
                            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                            written => at += written?,
                        }
                    }
                    Ok(())
                });
                let mut all = vec![0; STREAM];
                for (at, byte) in (b'0'..=b'9').enumerate() {
                    peer.write_all(&[byte]).await?;
                    peer.read_exact(&mut all[at * STREAM / 10..(at + 1) * STREAM / 10]).await?;
                }
                assert!(all == pattern(0, STREAM), "other bytes");
                Ok(())
            })
            .await
            .unwrap();
        });
    });
}

#[test]
fn outside_of_a_run_a_wait_is_an_error_and_a_try_is_not() {
    let _one = alone();
    let (mut stream, other) = trefoil_io::run(pair_with_std());
    let Some(Err(error)) = stream.readable().now_or_never() else { panic!("it should be ready, with an error") };
    assert!(error.to_string().contains("run"), "{error}");
    (&other).write_all(b"abc").unwrap();
    let read = || -> Poll<usize> {
        match stream.try_read(&mut [0; 8]) {
            Ok(n) => Poll::Ready(n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => panic!("{error}"),
        }
    };
    let mut tries = std::iter::repeat_with(read);
    assert_eq!(tries.find(Poll::is_ready), Some(Poll::Ready(3)));
}

fn _they_are_send(stream: &mut TcpStream) {
    drop(assert_send(stream.readable()));
    drop(assert_send(stream.writable()));
}
