//! What io_uring receives and accepts ahead of who asks is bounded, never lost, and holds no connection open. On epoll the same
//! holds trivially.

mod common;

use common::*;
use futures_util::future::{join, join_all};
use futures_util::{AsyncReadExt, FutureExt, poll};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;
use trefoil_io::net::{TcpOptions, TcpStream};
use trefoil_nursery::{CancelScope, move_on_after, sleep};

/// A wait is begun and given up, so that the driver has an operation under way.
async fn arm(stream: &mut TcpStream) {
    assert!(AsyncReadExt::read(stream, &mut [0; 1]).now_or_never().is_none());
    settle().await;
}

#[test]
fn the_peer_of_a_dropped_stream_reads_the_end_at_once() {
    for_each_driver(|builder| {
        builder.run(async {
            // At once: while the loop is not even looked at again.
            let (mut stream, mut other) = pair_with_std().await;
            arm(&mut stream).await;
            other.set_read_timeout(Some(PATIENCE)).unwrap();
            drop(stream);
            assert_eq!(other.read(&mut [0; 1]).unwrap(), 0);
            // In the very turn in which it was armed.
            let (mut stream, mut other) = pair_with_std().await;
            other.set_read_timeout(Some(PATIENCE)).unwrap();
            assert!(AsyncReadExt::read(&mut stream, &mut [0; 1]).now_or_never().is_none());
            drop(stream);
            assert_eq!(other.read(&mut [0; 1]).unwrap(), 0);
            // Dropped by another thread, while the loop sleeps: soon.
            let (mut stream, mut other) = pair_with_std().await;
            arm(&mut stream).await;
            let scope = CancelScope::new();
            let awakes = scope.clone();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                drop(stream);
                other.set_read_timeout(Some(PATIENCE)).unwrap();
                let read = other.read(&mut [0; 1]);
                awakes.cancel();
                read
            });
            // With a deadline: a run without any looks around by itself, for a deadlock.
            assert!(scope.run(sleep(2 * PATIENCE)).await.unwrap().is_none());
            assert_eq!(thread.join().unwrap().unwrap(), 0);
        });
    });
}

#[test]
fn a_reader_that_does_not_read_holds_its_peer_up() {
    for_each_driver(|builder| {
        builder.run(async {
            for piece in [1_000, 60_000] {
                let listener = TcpOptions::new().receive_buffer(4096).listen("127.0.0.1:0").unwrap();
                let mut peer =
                    TcpOptions::new().send_buffer(4096).connect(listener.local_addr().unwrap()).await.unwrap();
                let (mut stream, _) = listener.accept().await.unwrap();
                arm(&mut stream).await;
                let mut written = 0;
                while let Some(n) =
                    move_on_after(Duration::from_millis(50), peer.write(&pattern(written, piece))).await.unwrap()
                {
                    written += n;
                    assert!(written < 1 << 20, "nothing holds the peer up");
                    settle().await;
                }
                println!("{written} bytes were written in pieces of {piece}");
                assert!(written > 0);
                // Nothing of it is lost, and then it goes on.
                let rest = async {
                    peer.write_all(&pattern(written, 100_000)).await.unwrap();
                    drop(peer);
                };
                let mut all = Vec::new();
                let (read, ()) = join(stream.read_to_end(&mut all), rest).await;
                read.unwrap();
                assert!(
                    all == pattern(0, written + 100_000),
                    "{} of {} bytes, or others",
                    all.len(),
                    written + 100_000
                );
            }
        });
    });
}

/// More messages at once than there are buffers to receive them into: readers do not notice, and no slow one starves the others.
#[test]
fn more_messages_than_buffers_arrive_all_the_same() {
    for_each_driver(|builder| {
        builder.run(async {
            const CONNECTIONS: usize = 400;
            let mut pairs = Vec::new();
            for _ in 0..CONNECTIONS {
                pairs.push(pair_with_std().await);
            }
            for (stream, _) in &mut pairs {
                assert!(AsyncReadExt::read(stream, &mut [0; 1]).now_or_never().is_none());
            }
            settle().await;
            for round in 0..3 {
                // While nobody looks at the ring.
                for (at, (_, other)) in pairs.iter_mut().enumerate() {
                    for piece in 0..3 {
                        other.write_all(&pattern(at + round + piece * 700, 700)).unwrap();
                    }
                }
                // Every other one is slow.
                let reads = pairs.iter_mut().enumerate().map(|(at, (stream, _))| async move {
                    if at % 2 == 0 {
                        sleep(Duration::from_millis(10)).await.unwrap();
                    }
                    let mut all = vec![0; 2100];
                    TcpStream::read_exact(stream, &mut all).await.unwrap();
                    assert!(all == pattern(at + round, 2100));
                });
                join_all(reads).await;
            }
        });
    });
}

#[test]
fn connections_that_nobody_claims_wait_and_are_closed_with_the_listener() {
    for_each_driver(|builder| {
        builder.run(async {
            const CLIENTS: usize = 100;
            let (listener, addr) = listen();
            let before = descriptors();
            // Between two accepts the driver goes on accepting.
            let first = async {
                settle().await;
                std::net::TcpStream::connect(addr).unwrap()
            };
            let (accepted, first) = join(listener.accept(), first).await;
            drop((accepted.unwrap(), first));
            settle().await;
            let mut clients = Vec::new();
            for at in 0..CLIENTS {
                clients.push(std::net::TcpStream::connect(addr).unwrap());
                // What comes in one turn of the loop is accepted in one go: the bound is looked at in between.
                if at % 10 == 0 {
                    settle().await;
                }
            }
            settle().await;
            let ahead = descriptors() - before - CLIENTS;
            println!("{ahead} were accepted ahead");
            assert!(ahead <= 64, "accepting ahead has no bound");
            // Some are claimed: in order. The others are closed with the listener, those that were accepted and those that were not.
            for client in &clients[..CLIENTS / 2] {
                let (_, peer) = listener.accept().await.unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
            }
            settle().await;
            drop(listener);
            for mut client in clients {
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                match client.read(&mut [0; 1]) {
                    Ok(n) => assert_eq!(n, 0),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
            assert_eq!(descriptors(), before - 1);
        });
    });
}

#[test]
fn nobody_is_accepted_for_who_has_lost_interest() {
    for_each_driver(|builder| {
        builder.run(async {
            let (listener, addr) = listen();
            let other = std::net::TcpListener::from(rustix::io::fcntl_dupfd_cloexec(&listener, 0).unwrap());
            let before = descriptors();
            for dropped in [true, false] {
                if dropped {
                    assert!(listener.accept().now_or_never().is_none());
                } else {
                    assert!(move_on_after(Duration::from_millis(1), listener.accept()).await.unwrap().is_none());
                }
                settle().await;
                // They stay where they are, for whoever else accepts from the same socket.
                let clients: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
                settle().await;
                assert_eq!(descriptors(), before + clients.len());
                for client in &clients {
                    assert_eq!(other.accept().unwrap().1, client.local_addr().unwrap());
                }
                // And it goes on where it was.
                let late = async {
                    settle().await;
                    std::net::TcpStream::connect(addr).unwrap()
                };
                let (accepted, late) = join(listener.accept(), late).await;
                assert_eq!(accepted.unwrap().1, late.local_addr().unwrap());
                // Who accepts next is alone again.
                assert!(listener.accept().now_or_never().is_none());
                settle().await;
            }
        });
    });
}

/// The same for an `accept` that was told of a connection, or cancelled, and dropped before it looked: that connection is there for the next one, and
/// no other is taken.
#[test]
fn nobody_else_is_accepted_for_who_does_not_look() {
    for_each_driver(|builder| {
        builder.run(async {
            for cancelled in [false, true] {
                let (listener, addr) = listen();
                let other = std::net::TcpListener::from(rustix::io::fcntl_dupfd_cloexec(&listener, 0).unwrap());
                let scope = CancelScope::new();
                let mut accept = Box::pin(scope.run(listener.accept()));
                assert!(poll!(accept.as_mut()).is_pending());
                settle().await;
                if cancelled {
                    scope.cancel();
                }
                let first = std::net::TcpStream::connect(addr).unwrap();
                settle().await;
                drop(accept);
                settle().await;
                let before = descriptors();
                let clients: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
                settle().await;
                assert_eq!(descriptors(), before + clients.len(), "cancelled: {cancelled}");
                let (_, peer) = listener.accept().await.unwrap();
                assert_eq!(peer, first.local_addr().unwrap());
                for client in &clients {
                    assert_eq!(other.accept().unwrap().1, client.local_addr().unwrap());
                }
            }
        });
    });
}

/// Bytes that come while nobody waits, the end behind them, and an error behind them: read in this order.
#[test]
fn what_came_ahead_is_read_before_what_came_behind_it() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            arm(&mut stream).await;
            other.write_all(b"last words").unwrap();
            drop(other);
            settle().await;
            let mut all = [0; 4];
            TcpStream::read_exact(&mut stream, &mut all).await.unwrap();
            assert_eq!(&all, b"last");
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b" words");
            assert_eq!(TcpStream::read(&mut stream, &mut all).await.unwrap(), 0);

            let (mut stream, other) = pair_with_std().await;
            arm(&mut stream).await;
            rustix::net::sockopt::set_socket_linger(&other, Some(Duration::ZERO)).unwrap();
            drop(other); // a reset
            settle().await;
            assert_eq!(TcpStream::read(&mut stream, &mut all).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
    });
}

/// Into and out of the way of receiving that suits large messages, with every size around the border.
#[test]
fn messages_of_all_sizes_take_turns() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut client, mut server) = pair().await;
            let sizes = [1, 2047, 2048, 2049, 64, 4096, 100_000, 1, 2048, 3, 65_536, 64];
            let send = async {
                for (at, size) in sizes.iter().enumerate() {
                    client.write_all(&pattern(at, *size)).await.unwrap();
                    // Sometimes it finds the reader waiting, and sometimes busy.
                    if at % 3 != 0 {
                        settle().await;
                    }
                }
                client
            };
            let receive = async {
                for (at, size) in sizes.iter().enumerate() {
                    let mut message = vec![0; *size];
                    TcpStream::read_exact(&mut server, &mut message).await.unwrap();
                    assert!(message == pattern(at, *size), "message {at} of {size} bytes");
                }
                server
            };
            let (client, mut server) = join(send, receive).await;
            drop(client);
            assert_eq!(TcpStream::read(&mut server, &mut [0; 1]).await.unwrap(), 0);
        });
    });
}

/// A socket that leaves the runtime takes everything with it, or says that it cannot.
#[test]
fn no_byte_is_left_behind_when_a_socket_leaves_the_runtime() {
    for_each_driver(|builder| {
        builder.run(async {
            for written in [false, true] {
                let (mut stream, mut other) = pair_with_std().await;
                arm(&mut stream).await;
                if written {
                    // In flight, if not received: the loop has not looked.
                    other.write_all(b"abc").unwrap();
                }
                match stream.into_std() {
                    Ok(mut stream) => {
                        if !written {
                            other.write_all(b"abc").unwrap();
                        }
                        stream.set_nonblocking(false).unwrap();
                        let mut all = [0; 3];
                        stream.read_exact(&mut all).unwrap();
                        assert_eq!(&all, b"abc");
                    }
                    Err(error) => {
                        assert!(written && error.to_string().contains("received ahead"), "{error}");
                        // And it is still in there.
                        let mut stream = error.into_inner();
                        let mut all = [0; 3];
                        TcpStream::read_exact(&mut stream, &mut all).await.unwrap();
                        assert_eq!(&all, b"abc");
                        drop(stream.into_std().unwrap());
                    }
                }
            }
            // An error is also something to be lost.
            let (mut stream, other) = pair_with_std().await;
            arm(&mut stream).await;
            rustix::net::sockopt::set_socket_linger(&other, Some(Duration::ZERO)).unwrap();
            drop(other); // a reset
            settle().await;
            let error = match stream.into_std() {
                Ok(mut stream) => stream.read(&mut [0; 1]).unwrap_err(),
                Err(error) => {
                    assert!(error.to_string().contains("an error was received ahead"), "{error}");
                    TcpStream::read(&mut error.into_inner(), &mut [0; 1]).await.unwrap_err()
                }
            };
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        });
    });
}

#[test]
fn a_run_ends_promptly_with_much_under_way() {
    for_each_driver(|builder| {
        let mut kept = builder.clone().run(async {
            let mut streams = Vec::new();
            for at in 0..200 {
                let (mut stream, mut other) = pair_with_std().await;
                if at % 4 != 0 {
                    assert!(AsyncReadExt::read(&mut stream, &mut [0; 1]).now_or_never().is_none());
                }
                other.write_all(&pattern(at, 3000)).unwrap();
                streams.push((stream, other));
            }
            streams
        });
        // What arrived until then is there for the next run.
        builder.run(async {
            for (at, (stream, _)) in kept.iter_mut().enumerate() {
                let mut all = vec![0; 3000];
                TcpStream::read_exact(stream, &mut all).await.unwrap();
                assert!(all == pattern(at, 3000), "stream {at}");
            }
        });
    });
}

/// The end, a reset or not, right behind the last bytes: the kernel may take both for one event.
#[test]
fn an_end_that_comes_together_with_the_last_bytes_is_heard_of() {
    for_each_driver(|builder| {
        builder.run(async {
            const ROUNDS: u32 = 600;
            for unix in [false, true] {
                for round in 0..ROUNDS {
                    let reset = round % 2 == 1;
                    let (mut stream, mut other) = if unix {
                        let (ours, other) = std::os::unix::net::UnixStream::pair().unwrap();
                        let std = |end| std::net::TcpStream::from(std::os::fd::OwnedFd::from(end));
                        (TcpStream::from_std(std(ours)).unwrap(), std(other))
                    } else {
                        pair_with_std().await
                    };
                    assert!(AsyncReadExt::read(&mut stream, &mut [0; 1]).now_or_never().is_none());
                    if round % 3 == 0 {
                        sleep(Duration::from_micros(100)).await.unwrap();
                    }
                    let writer = move || {
                        other.write_all(b"last words").unwrap();
                        if unix {
                            rustix::net::shutdown(&other, rustix::net::Shutdown::Write).unwrap();
                        } else if reset {
                            rustix::net::sockopt::set_socket_linger(&other, Some(Duration::ZERO)).unwrap();
                        }
                        // Kept open, where the end was said.
                        unix.then_some(other)
                    };
                    // On this thread, so that the loop does not look in between; or on another, at any moment.
                    let thread = if round % 5 < 2 {
                        std::thread::spawn(writer)
                    } else {
                        let other = writer();
                        std::thread::spawn(move || other)
                    };
                    let mut all = Vec::new();
                    let read = move_on_after(PATIENCE, stream.read_to_end(&mut all)).await;
                    match read {
                        Ok(Some(n)) => assert_eq!(n, 10),
                        Ok(None) => {
                            panic!("the end was not heard of in round {round}, unix: {unix}, after {} bytes", all.len())
                        }
                        Err(error) => assert!(reset && error.kind() == ErrorKind::ConnectionReset, "{error}"),
                    }
                    drop(thread.join().unwrap());
                }
            }
        });
    });
}

/// Word from the kernel that a send without a copy is done comes as an error in a queue, which is no end: the end that comes later is heard of, too.
#[test]
fn an_error_that_is_no_end_does_not_hide_the_end() {
    for_each_driver(|builder| {
        builder.run(async {
            for round in 0..12 {
                let (mut stream, mut other) = pair_with_std().await;
                let fd = stream.as_raw_fd();
                let on: libc::c_int = 1;
                // SAFETY: `on` lives through the call, and is as large as said.
                let set = unsafe {
                    libc::setsockopt(
                        fd,
                        libc::SOL_SOCKET,
                        libc::SO_ZEROCOPY,
                        (&raw const on).cast(),
                        size_of_val(&on) as u32,
                    )
                };
                if set != 0 {
                    return println!("skipped: the kernel copies always");
                }
                arm(&mut stream).await;
                // SAFETY: one byte, which is there for ever.
                assert_eq!(unsafe { libc::send(fd, b"x".as_ptr().cast(), 1, libc::MSG_ZEROCOPY) }, 1);
                other.read_exact(&mut [0; 1]).unwrap();
                let mut queue = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::empty())];
                assert_eq!(rustix::event::poll(&mut queue, None).unwrap(), 1);
                assert_eq!(queue[0].revents(), rustix::event::PollFlags::ERR);
                settle().await;
                if round % 2 == 0 {
                    let flags = rustix::net::RecvFlags::ERRQUEUE | rustix::net::RecvFlags::DONTWAIT;
                    let mut none = rustix::net::RecvAncillaryBuffer::default();
                    rustix::net::recvmsg(&stream, &mut [], &mut none, flags).unwrap();
                }
                assert!(AsyncReadExt::read(&mut stream, &mut [0; 1]).now_or_never().is_none());
                if round % 3 == 0 {
                    settle().await;
                }
                other.write_all(b"last words").unwrap();
                rustix::net::sockopt::set_socket_linger(&other, Some(Duration::ZERO)).unwrap();
                drop(other);
                let mut all = Vec::new();
                match move_on_after(PATIENCE, stream.read_to_end(&mut all)).await {
                    Ok(read) => assert_eq!(
                        read,
                        Some(10),
                        "the end was not heard of in round {round}, after {} bytes",
                        all.len()
                    ),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
                }
            }
        });
    });
}
