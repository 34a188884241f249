//! Cancelled means it did not happen: at every await, on every operation, no byte and no connection is lost (R36, R37, R41, N5).

mod common;

use common::*;
use futures_util::future::{Either, join, select};
use futures_util::{AsyncReadExt, FutureExt, poll};
use std::io::{Read, Write};
use std::pin::pin;
use std::time::Duration;
use trefoil_io::net::{TcpOptions, TcpStream};
use trefoil_nursery::{CancelScope, move_on_after, shield, sleep};

/// What comes of an operation that is cancelled.
type Cut<T> = Result<Option<T>, std::io::Error>;

#[test]
fn a_result_that_comes_first_beats_the_cancel() {
    // R18: completed, then cancelled, and only then polled.
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            let scope = CancelScope::new();
            let mut buf = [0; 8];
            {
                let mut read = pin!(scope.run(TcpStream::read(&mut stream, &mut buf)));
                assert!(poll!(read.as_mut()).is_pending());
                other.write_all(b"abc").unwrap();
                settle().await;
                scope.cancel();
                let result: Cut<usize> = read.await;
                assert_eq!(result.unwrap(), Some(3));
            }
            assert_eq!(&buf[..3], b"abc");
        });
    });
}

#[test]
fn a_cancel_that_comes_first_leaves_the_bytes() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            let scope = CancelScope::new();
            let mut buf = [0; 8];
            let result: Cut<usize> = {
                let mut read = pin!(scope.run(TcpStream::read(&mut stream, &mut buf)));
                assert!(poll!(read.as_mut()).is_pending());
                scope.cancel();
                other.write_all(b"abc").unwrap();
                settle().await;
                read.await
            };
            // A driver whose kernel reads may tell the truth about a completion that beat the cancel (N8).
            if let Some(n) = result.unwrap() {
                assert_eq!(&buf[..n], b"abc");
                return;
            }
            let n = TcpStream::read(&mut stream, &mut buf).await.unwrap();
            assert_eq!(&buf[..n], b"abc");
        });
    });
}

#[test]
fn cancelled_before_the_start_is_not_attempted() {
    // R37, though each of them could be done at once.
    for_each_driver(|builder| {
        builder.run(async {
            let (listener, addr) = listen();
            let mut client = TcpStream::connect(addr).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            client.write_all(b"here").await.unwrap();
            let waiting = TcpStream::connect(addr).await.unwrap();
            settle().await;
            let before = descriptors();
            let scope = CancelScope::new();
            scope.cancel();
            let result: Cut<()> = scope
                .run(async {
                    assert!(is_cancelled(&TcpStream::read(&mut server, &mut [0; 4]).await));
                    assert!(is_cancelled(&TcpStream::read_exact(&mut server, &mut [0; 4]).await));
                    assert!(is_cancelled(&server.write(b"no").await));
                    assert!(is_cancelled(&server.write_all(b"no").await));
                    let (result, buf) = server.read_owned(Vec::with_capacity(4)).await;
                    assert!(is_cancelled(&result) && buf.is_empty());
                    let (result, buf) = server.write_owned(vec![1]).await;
                    assert!(is_cancelled(&result) && buf == [1]);
                    assert!(is_cancelled(&listener.accept().await));
                    assert!(is_cancelled(&TcpStream::connect(addr).await));
                    assert!(is_cancelled(&AsyncReadExt::read(&mut server, &mut [0; 4]).await));
                    // Even where there is nothing to do.
                    assert!(is_cancelled(&TcpStream::read(&mut server, &mut []).await));
                    assert!(is_cancelled(&server.write_all(b"").await));
                    assert_eq!(descriptors(), before);
                    // Level-triggered, but a shield holds it off: the peer hears a last word.
                    shield(server.write_all(b"bye")).await?;
                    server.read(&mut [0; 4]).await?;
                    unreachable!()
                })
                .await;
            assert_eq!(result.unwrap(), None);
            let mut four = [0; 4];
            TcpStream::read_exact(&mut server, &mut four).await.unwrap();
            assert_eq!(&four, b"here");
            let (accepted, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, waiting.local_addr().unwrap());
            drop((accepted, server));
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"bye");
        });
    });
}

/// Writes a known stream in pieces, with pauses, from a thread; then closes it.
fn dribble(mut to: std::net::TcpStream, len: usize, seed: u64) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let numbers = Numbers::new(seed);
        let mut at = 0;
        while at < len {
            let n = (1 + numbers.below(200) as usize).min(len - at);
            to.write_all(&pattern(at, n)).unwrap();
            at += n;
            if numbers.below(3) == 0 {
                std::thread::sleep(Duration::from_micros(numbers.below(300)));
            }
        }
    })
}

const STREAM: usize = 60_000;

#[test]
fn reads_cut_by_deadlines_lose_no_byte() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, other) = pair_with_std().await;
            let writer = dribble(other, STREAM, 1);
            let numbers = Numbers::new(2);
            let (mut all, mut cut) = (Vec::new(), 0);
            loop {
                let mut buf = [0; 300];
                let room = 1 + numbers.below(300) as usize;
                let patience = Duration::from_micros(numbers.below(150));
                let result: Cut<usize> = move_on_after(patience, TcpStream::read(&mut stream, &mut buf[..room])).await;
                match result.unwrap() {
                    Some(0) => break,
                    Some(n) => all.extend_from_slice(&buf[..n]),
                    None => cut += 1,
                }
            }
            assert!(all == pattern(0, STREAM), "{} of {STREAM} bytes, or others", all.len());
            assert!(cut > 0, "nothing was cut");
            println!("{cut} reads were cut");
            writer.join().unwrap();
        });
    });
}

#[test]
fn frames_cut_by_deadlines_are_read_as_a_whole_or_not_at_all() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, other) = pair_with_std().await;
            let writer = dribble(other, STREAM, 3);
            let numbers = Numbers::new(4);
            let (mut all, mut cut) = (Vec::new(), 0);
            while all.len() < STREAM {
                let mut frame = vec![0; (1 + numbers.below(700) as usize).min(STREAM - all.len())];
                let patience = Duration::from_micros(numbers.below(250));
                let result: Cut<()> = move_on_after(patience, TcpStream::read_exact(&mut stream, &mut frame)).await;
                match result.unwrap() {
                    Some(()) => all.extend_from_slice(&frame),
                    None => cut += 1,
                }
            }
            assert!(all == pattern(0, STREAM));
            assert!(cut > 0, "nothing was cut");
            assert_eq!(TcpStream::read(&mut stream, &mut [0; 8]).await.unwrap(), 0);
            writer.join().unwrap();
        });
    });
}

#[test]
fn owned_reads_that_are_dropped_lose_no_byte() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, other) = pair_with_std().await;
            let writer = dribble(other, STREAM, 5);
            let numbers = Numbers::new(6);
            let mut all = Vec::new();
            loop {
                let patience = pin!(sleep(Duration::from_micros(numbers.below(150))));
                let read = pin!(stream.read_owned(Vec::with_capacity(1 + numbers.below(300) as usize)));
                if let Either::Left(((result, buf), _)) = select(read, patience).await {
                    if result.unwrap() == 0 {
                        break;
                    }
                    all.extend_from_slice(&buf);
                }
            }
            assert!(all == pattern(0, STREAM));
            writer.join().unwrap();
        });
    });
}

/// Each way of reading in turn, each abandoned in its own way: none may trip over what the one before left behind.
#[test]
fn reads_of_every_kind_abandoned_in_every_way_lose_no_byte() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, other) = pair_with_std().await;
            let writer = dribble(other, STREAM, 7);
            let numbers = Numbers::new(8);
            let mut all: Vec<u8> = Vec::new();
            loop {
                let patience = Duration::from_micros(numbers.below(100));
                let mut buf = [0; 256];
                let room = 1 + numbers.below(255) as usize;
                let buf = &mut buf[..room];
                let read = match numbers.below(4) {
                    // futures-io, dropped by a foreign select
                    0 => match select(AsyncReadExt::read(&mut stream, buf), pin!(sleep(patience))).await {
                        Either::Left((result, _)) => Some(result.unwrap()),
                        Either::Right(_) => None,
                    },
                    // futures-io, cut by a scope
                    1 => move_on_after(patience, AsyncReadExt::read(&mut stream, buf)).await.unwrap(),
                    // ours, polled once and dropped
                    2 => TcpStream::read(&mut stream, buf).now_or_never().map(|result| result.unwrap()),
                    // ours, forgotten: its wait is left behind
                    _ => {
                        let mut read = Box::pin(TcpStream::read(&mut stream, buf));
                        let polled = poll!(read.as_mut());
                        std::mem::forget(read);
                        match polled {
                            std::task::Poll::Ready(result) => Some(result.unwrap()),
                            std::task::Poll::Pending => None,
                        }
                    }
                };
                match read {
                    Some(0) => break,
                    Some(n) => all.extend_from_slice(&buf[..n]),
                    None => trefoil_nursery::checkpoint().await.unwrap(),
                }
            }
            assert!(all == pattern(0, STREAM), "{} of {STREAM} bytes, or others", all.len());
            writer.join().unwrap();
        });
    });
}

#[test]
fn accepts_cut_by_deadlines_lose_no_connection() {
    for_each_driver(|builder| {
        builder.run(async {
            const CLIENTS: usize = 200;
            let (listener, addr) = listen();
            let clients = std::thread::spawn(move || {
                let numbers = Numbers::new(9);
                let mut ports = Vec::new();
                for _ in 0..CLIENTS {
                    let mut client = std::net::TcpStream::connect(addr).unwrap();
                    ports.push(client.local_addr().unwrap().port());
                    client.write_all(b"hi").unwrap();
                    if numbers.below(2) == 0 {
                        std::thread::sleep(Duration::from_micros(numbers.below(300)));
                    }
                }
                ports
            });
            let numbers = Numbers::new(10);
            let (mut ports, mut cut) = (Vec::new(), 0);
            while ports.len() < CLIENTS {
                let patience = Duration::from_micros(numbers.below(150));
                let accepted = if numbers.below(2) == 0 {
                    move_on_after(patience, listener.accept()).await.unwrap()
                } else {
                    match select(Box::pin(listener.accept()), pin!(sleep(patience))).await {
                        Either::Left((result, _)) => Some(result.unwrap()),
                        Either::Right(_) => None,
                    }
                };
                let Some((mut stream, peer)) = accepted else {
                    cut += 1;
                    continue;
                };
                let mut hi = [0; 2];
                TcpStream::read_exact(&mut stream, &mut hi).await.unwrap();
                ports.push(peer.port());
            }
            assert_eq!(ports, clients.join().unwrap(), "all of them, in order");
            assert!(cut > 0, "nothing was cut");
        });
    });
}

#[test]
fn a_connect_that_is_cut_closes_its_socket() {
    // R41. The backlog is full, so that connecting waits.
    for_each_driver(|builder| {
        builder.run(async {
            let listener = TcpOptions::new().backlog(1).listen("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let mut filling = Vec::new();
            let mut cut = false;
            for _ in 0..16 {
                let before = descriptors();
                match move_on_after(Duration::from_millis(30), TcpStream::connect(addr)).await.unwrap() {
                    Some(stream) => filling.push(stream),
                    None => {
                        assert_eq!(descriptors(), before);
                        cut = true;
                        break;
                    }
                }
            }
            assert!(cut, "a full backlog was expected to let nobody in");
            let mut dropped = Box::pin(TcpStream::connect(addr));
            let before = descriptors();
            assert!(poll!(dropped.as_mut()).is_pending());
            assert_eq!(descriptors(), before + 1);
            drop(dropped);
            assert_eq!(descriptors(), before);
        });
    });
}

#[test]
fn a_write_that_waits_and_is_cut_has_written_nothing() {
    for_each_driver(|builder| {
        builder.run(async {
            let listener = TcpOptions::new().receive_buffer(2048).listen("127.0.0.1:0").unwrap();
            let mut client = TcpOptions::new().send_buffer(2048).connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let reader = async {
                let mut all = Vec::new();
                let mut buf = [0; 1000];
                loop {
                    sleep(Duration::from_micros(50)).await.unwrap();
                    match TcpStream::read(&mut server, &mut buf).await.unwrap() {
                        0 => return all,
                        n => all.extend_from_slice(&buf[..n]),
                    }
                }
            };
            let writer = async {
                let numbers = Numbers::new(11);
                let (mut at, mut cut) = (0, 0);
                while at < STREAM {
                    let bytes = pattern(at, (1 + numbers.below(3000) as usize).min(STREAM - at));
                    let patience = Duration::from_micros(numbers.below(100));
                    let result: Cut<usize> = if numbers.below(2) == 0 {
                        move_on_after(patience, TcpStream::write(&mut client, &bytes)).await
                    } else {
                        move_on_after(patience, async { client.write_owned(bytes).await.0 }).await
                    };
                    match result.unwrap() {
                        Some(n) => at += n,
                        None => cut += 1,
                    }
                }
                drop(client);
                cut
            };
            let (all, cut) = join(reader, writer).await;
            assert!(all == pattern(0, STREAM), "{} of {STREAM} bytes, or others", all.len());
            assert!(cut > 0, "nothing was cut");
        });
    });
}

/// A wait that a `poll_*` function left behind was aborted by a cancel. The next read, outside of that scope, must not hear of it.
#[test]
fn an_abandoned_wait_that_was_aborted_is_nobodys_cancellation() {
    for_each_driver(|builder| {
        builder.run(async {
            for ours in [true, false] {
                let (mut stream, mut other) = pair_with_std().await;
                let scope = CancelScope::new();
                let mut buf = [0; 8];
                {
                    let result: Cut<()> = scope
                        .run(async {
                            let read = AsyncReadExt::read(&mut stream, &mut buf);
                            assert!(read.now_or_never().is_none());
                            scope.cancel();
                            Ok(())
                        })
                        .await;
                    result.unwrap();
                }
                other.write_all(b"x").unwrap();
                let read = if ours {
                    TcpStream::read(&mut stream, &mut buf).await
                } else {
                    AsyncReadExt::read(&mut stream, &mut buf).await
                };
                assert_eq!(read.unwrap(), 1);
            }
        });
    });
}

/// Cancels reach an operation in a foreign combinator, and end it.
#[test]
fn a_cancel_reaches_operations_inside_foreign_combinators() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut a, _a) = pair_with_std().await;
            let (mut b, _b) = pair_with_std().await;
            let (mut x, mut y) = ([0; 8], [0; 8]);
            let result: Cut<()> = move_on_after(Duration::from_millis(10), async {
                let reads = vec![TcpStream::read(&mut a, &mut x).boxed(), AsyncReadExt::read(&mut b, &mut y).boxed()];
                for result in futures_util::future::join_all(reads).await {
                    assert!(is_cancelled(&result));
                }
                Err(std::io::Error::from_raw_os_error(125))
            })
            .await;
            assert_eq!(result.unwrap(), None);
        });
    });
}

/// What was read ahead and put back is in front, for every way of reading; and a socket does not leave the runtime with it.
#[test]
fn bytes_that_were_put_back_come_first() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            other.write_all(b"abcdef").unwrap();
            settle().await;
            let mut big = [0; 100];
            for patience in [5, 0] {
                let patience = Duration::from_millis(patience);
                let result: Cut<()> = move_on_after(patience, TcpStream::read_exact(&mut stream, &mut big)).await;
                assert_eq!(result.unwrap(), None);
            }
            other.write_all(b"ghij").unwrap();
            settle().await;
            let mut two = [0; 2];
            TcpStream::read_exact(&mut stream, &mut two).await.unwrap();
            assert_eq!(&two, b"ab");
            let (mut c, mut d) = ([0; 1], [0; 1]);
            let mut bufs = [std::io::IoSliceMut::new(&mut c), std::io::IoSliceMut::new(&mut d)];
            assert_eq!(TcpStream::read_vectored(&mut stream, &mut bufs).await.unwrap(), 2);
            assert_eq!((c, d), ([b'c'], [b'd']));
            let (result, buf) = stream.read_owned(Vec::with_capacity(1)).await;
            assert_eq!((result.unwrap(), &buf[..1]), (1, &b"e"[..]));
            let mut rest = [0; 5];
            TcpStream::read_exact(&mut stream, &mut rest).await.unwrap();
            assert_eq!(&rest, b"fghij");
            other.write_all(b"k").unwrap();
            let result: Cut<()> =
                move_on_after(Duration::from_millis(5), TcpStream::read_exact(&mut stream, &mut big)).await;
            assert_eq!(result.unwrap(), None);
            let error = stream.into_std().unwrap_err();
            assert!(error.to_string().contains("received ahead"), "{error}");
            drop(error);
            let mut gone = Vec::new();
            let _ = other.read_to_end(&mut gone);
        });
    });
}

/// A run that ends with operations in flight, abandoned and not.
#[test]
fn a_run_may_end_with_operations_in_flight() {
    for_each_driver(|builder| {
        let (listener, addr) = listen();
        let mut kept = builder.run(async {
            let (mut stream, _other) = pair_with_std().await;
            assert!(AsyncReadExt::read(&mut stream, &mut [0; 8]).now_or_never().is_none());
            assert!(listener.accept().now_or_never().is_none());
            let mut kept = TcpStream::connect(addr).await.unwrap();
            assert!(AsyncReadExt::read(&mut kept, &mut [0; 8]).now_or_never().is_none());
            kept
        });
        // Both go on in another run.
        builder_again().run(async {
            let (mut server, _) = listener.accept().await.unwrap();
            let mut buf = [0; 2];
            let (read, written) = join(AsyncReadExt::read_exact(&mut kept, &mut buf), server.write_all(b"ok")).await;
            read.unwrap();
            written.unwrap();
            assert_eq!(&buf, b"ok");
        });
    });
}

fn builder_again() -> trefoil_io::Builder {
    trefoil_io::Builder::new()
}
