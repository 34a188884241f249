//! Reading, writing, connecting and accepting: what they do when nothing is cancelled.

mod common;

use common::*;
use futures_util::{AsyncReadExt, AsyncWriteExt, FutureExt, future::join};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::time::Duration;
use trefoil_io::OperationError;
use trefoil_io::net::{Shutdown, TcpListener, TcpOptions, TcpStream};
use trefoil_nursery::nursery;

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buf = vec![0; 4096];
    loop {
        match stream.read(&mut buf).await? {
            0 => return Ok(()),
            n => stream.write_all(&buf[..n]).await?,
        }
    }
}

#[test]
fn a_nursery_of_clients_is_echoed_by_a_nursery_of_handlers() {
    for_each_driver(|builder| {
        const CLIENTS: usize = 50;
        let (listener, addr) = listen();
        builder.run(async {
            nursery(async |n| -> std::io::Result<()> {
                n.spawn(async move {
                    nursery(async |handlers| -> std::io::Result<()> {
                        for _ in 0..CLIENTS {
                            let (stream, _) = listener.accept().await?;
                            handlers.spawn(echo(stream));
                        }
                        Ok(())
                    })
                    .await?;
                    Ok(())
                });
                for client in 0..CLIENTS {
                    n.spawn(async move {
                        let mut stream = TcpStream::connect(addr).await?;
                        for round in 0..20 {
                            let bytes = pattern(client * 1000 + round, 1 + 37 * round);
                            stream.write_all(&bytes).await?;
                            let mut back = vec![0; bytes.len()];
                            stream.read_exact(&mut back).await?;
                            assert_eq!(back, bytes);
                        }
                        Ok(())
                    });
                }
                Ok(())
            })
            .await
            .unwrap();
        });
    });
}

#[test]
fn a_half_closed_peer_is_read_to_its_end_and_still_written_to() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut client, mut server) = pair().await;
            client.write_all(b"question").await.unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            client.shutdown(Shutdown::Write).unwrap(); // R111: again, without harm
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"question");
            // The end, for ever (R111).
            for _ in 0..3 {
                assert_eq!(TcpStream::read(&mut server, &mut [0; 8]).await.unwrap(), 0);
            }
            TcpStream::write_all(&mut server, b"answer").await.unwrap();
            drop(server);
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"answer");
        });
    });
}

/// The edge that tells of the end may come together with the bytes before it; a short read must not be taken for "drained" then.
#[test]
fn an_end_right_behind_the_bytes_is_not_missed() {
    for_each_driver(|builder| {
        builder.run(async {
            for _ in 0..50 {
                let (mut stream, mut other) = pair_with_std().await;
                // Wait once, so that the source is registered.
                let mut buf = [0; 64];
                other.write_all(b"first").unwrap();
                assert_eq!(TcpStream::read(&mut stream, &mut buf).await.unwrap(), 5);
                let writer = std::thread::spawn(move || {
                    other.write_all(b"last words").unwrap();
                    drop(other);
                });
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, b"last words");
                writer.join().unwrap();
            }
        });
    });
}

#[test]
fn a_read_that_stops_at_urgent_data_is_not_taken_for_drained() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, other) = pair_with_std().await;
            let mut buf = [0; 64];
            // Registered, and waiting, before anything comes.
            let send = |bytes: &[u8], flags| rustix::net::send(&other, bytes, flags).unwrap();
            let (first, ()) = join(TcpStream::read(&mut stream, &mut buf), async {
                settle().await;
                send(b"before", rustix::net::SendFlags::empty());
                send(b"!", rustix::net::SendFlags::OOB);
                send(b"after", rustix::net::SendFlags::empty());
            })
            .await;
            let mut n = first.unwrap();
            while n < 11 {
                let mut more = [0; 64];
                let read = trefoil_nursery::move_on_after(PATIENCE, TcpStream::read(&mut stream, &mut more)).await;
                let read = read.unwrap().expect("the bytes behind the urgent one were not heard of");
                buf[n..n + read].copy_from_slice(&more[..read]);
                n += read;
            }
            assert_eq!(&buf[..n], b"beforeafter");
        });
    });
}

#[test]
fn a_peer_that_resets_is_an_error_that_names_it() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, other) = pair_with_std().await;
            let peer = other.local_addr().unwrap();
            let mut buf = [0; 8];
            let (read, ()) = join(TcpStream::read(&mut stream, &mut buf), async move {
                settle().await;
                rustix::net::sockopt::set_socket_linger(&other, Some(Duration::ZERO)).unwrap();
                drop(other);
            })
            .await;
            let error = read.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            assert!(error.to_string().starts_with(&format!("read from {peer}: ")), "{error}");
            assert_eq!(OperationError::of(&error).unwrap().raw_os_error(), Some(104));
            let error = TcpStream::write_all(&mut stream, b"x").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            assert_eq!(stream.peer_addr().unwrap(), peer);
        });
    });
}

#[test]
fn writes_are_short_where_there_is_no_room_and_go_on_when_there_is() {
    for_each_driver(|builder| {
        builder.run(async {
            const ALL: usize = 1 << 20;
            let listener = TcpOptions::new().receive_buffer(2048).listen("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let mut client = TcpOptions::new().send_buffer(2048).connect(addr).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let bytes = pattern(0, ALL);
            let n = TcpStream::write(&mut client, &bytes).await.unwrap();
            assert!(0 < n && n < ALL, "{n} bytes fit into tiny buffers");
            let rest = &bytes[n..];
            let write = async {
                let half = rest.len() / 2;
                TcpStream::write_all(&mut client, &rest[..half]).await.unwrap();
                // The same again through the vectored path, in many pieces.
                let pieces: Vec<&[u8]> = rest[half..].chunks(1000).collect();
                let (mut piece, mut at) = (0, 0);
                while piece < pieces.len() {
                    let slices: Vec<_> = std::iter::once(&pieces[piece][at..])
                        .chain(pieces[piece + 1..].iter().copied())
                        .map(IoSlice::new)
                        .collect();
                    let mut n = TcpStream::write_vectored(&mut client, &slices).await.unwrap();
                    while piece < pieces.len() && n >= pieces[piece].len() - at {
                        n -= pieces[piece].len() - at;
                        (piece, at) = (piece + 1, 0);
                    }
                    at += n;
                }
                client.shutdown(Shutdown::Write).unwrap();
            };
            let read = async {
                let mut all = Vec::new();
                server.read_to_end(&mut all).await.unwrap();
                all
            };
            let ((), all) = join(write, read).await;
            assert_eq!(all.len(), bytes.len());
            assert!(all == bytes, "bytes were mixed up");
        });
    });
}

/// A direction that is first waited for when the other has long been watched.
#[test]
fn who_has_waited_to_read_is_told_of_room_to_write() {
    for_each_driver(|builder| {
        builder.run(async {
            const ALL: usize = 300_000;
            let listener = TcpOptions::new().send_buffer(2048).listen("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let mut client = TcpOptions::new().receive_buffer(2048).connect(addr).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let serve = async {
                assert_eq!(TcpStream::read(&mut server, &mut [0; 8]).await.unwrap(), 2);
                TcpStream::write_all(&mut server, &pattern(0, ALL)).await.unwrap();
                drop(server);
            };
            let ask = async {
                settle().await;
                TcpStream::write_all(&mut client, b"go").await.unwrap();
                settle().await;
                let mut all = Vec::new();
                client.read_to_end(&mut all).await.unwrap();
                assert!(all == pattern(0, ALL));
            };
            join(serve, ask).await;
        });
    });
}

#[test]
fn vectored_operations_take_more_buffers_than_the_kernel_and_empty_ones() {
    for_each_driver(|builder| {
        builder.run(async {
            const EMPTY: usize = 1500;
            let (mut client, mut server) = pair().await;
            for ahead in [false, true] {
                // Empty ones first, more than the kernel takes at once; then one byte each.
                let bytes = pattern(0, EMPTY);
                let slices: Vec<IoSlice<'_>> =
                    std::iter::repeat_n(IoSlice::new(&[]), EMPTY).chain(bytes.chunks(1).map(IoSlice::new)).collect();
                if ahead {
                    assert!(TcpStream::read(&mut server, &mut [0; 1]).now_or_never().is_none());
                    settle().await;
                }
                let n = TcpStream::write_vectored(&mut client, &slices).await.unwrap();
                assert!(n > 0);
                client.write_all(&bytes[n..]).await.unwrap();
                if ahead {
                    settle().await;
                }
                let mut read = vec![0; EMPTY];
                let mut at = 0;
                while at < EMPTY {
                    let mut none: [[u8; 0]; EMPTY] = [[]; EMPTY];
                    let mut bufs: Vec<IoSliceMut<'_>> = none
                        .iter_mut()
                        .map(|buf| IoSliceMut::new(buf))
                        .chain(read[at..].chunks_mut(1).map(IoSliceMut::new))
                        .collect();
                    let n = TcpStream::read_vectored(&mut server, &mut bufs).await.unwrap();
                    assert!(n > 0, "that is no end");
                    at += n;
                }
                assert!(read == bytes);
            }
        });
    });
}

#[test]
fn vectored_reads_fill_one_buffer_after_the_other() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut client, mut server) = pair().await;
            let n = TcpStream::write_vectored(
                &mut client,
                &[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cdefg")],
            )
            .await
            .unwrap();
            assert_eq!(n, 7);
            let (mut a, mut b, mut c) = ([0; 3], [0; 0], [0; 10]);
            let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b), IoSliceMut::new(&mut c)];
            assert_eq!(TcpStream::read_vectored(&mut server, &mut bufs).await.unwrap(), 7);
            assert_eq!((&a, &c[..4]), (b"abc", &b"defg"[..]));
            assert_eq!(TcpStream::read_vectored(&mut server, &mut []).await.unwrap(), 0);
            assert_eq!(TcpStream::read(&mut server, &mut []).await.unwrap(), 0);
        });
    });
}

#[test]
fn owned_buffers_come_back() {
    for_each_driver(|builder| {
        builder.run(async {
            let (mut client, mut server) = pair().await;
            let (result, buf) = client.write_all_owned(pattern(0, 5000)).await;
            result.unwrap();
            assert_eq!(buf, pattern(0, 5000));
            let mut got = Vec::with_capacity(100);
            while got.len() < 5000 {
                let before = got.len();
                let (result, buf) = server.read_owned(got).await;
                got = buf;
                assert_eq!(got.len(), before + result.unwrap());
                got.reserve(100);
            }
            assert_eq!(got, pattern(0, 5000));
            let (result, buf) = server.read_owned(Vec::new()).await;
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert!(buf.is_empty());
            let (result, text) = server.write_owned("static").await;
            assert_eq!((result.unwrap(), text), (6, "static"));
        });
    });
}

#[test]
fn halves_read_and_write_at_the_same_time() {
    for_each_driver(|builder| {
        builder.run(async {
            const ALL: usize = 3 << 20;
            let (mut client, server) = pair().await;
            let (mut server_reader, mut server_writer) = server.into_split();
            let (mut reader, mut writer) = TcpStream::split(&mut client);
            let send = async {
                writer.write_all(&pattern(0, ALL)).await.unwrap();
                AsyncWriteExt::close(&mut writer).await.unwrap();
            };
            let receive = async {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).await.unwrap();
                assert!(all == pattern(0, ALL));
            };
            let echo = async {
                futures_util::io::copy(&mut server_reader, &mut server_writer).await.unwrap();
                drop(server_writer); // shuts down: the client reads the end
                server_reader
            };
            let (((), ()), server_reader) = join(join(send, receive), echo).await;
            drop(server_reader);
        });
    });
}

#[test]
fn owned_halves_are_made_one_again() {
    for_each_driver(|builder| {
        builder.run(async {
            let (client, mut server) = pair().await;
            let (reader, mut writer) = client.into_split();
            writer.write_all(b"1").await.unwrap();
            let mut client = reader.reunite(writer).unwrap();
            TcpStream::write_all(&mut client, b"2").await.unwrap();
            let mut both = [0; 2];
            TcpStream::read_exact(&mut server, &mut both).await.unwrap();
            assert_eq!(&both, b"12");
            let (mut reader, writer) = client.into_split();
            writer.leave_open();
            TcpStream::write_all(&mut server, b"3").await.unwrap();
            assert_eq!(reader.read(&mut both).await.unwrap(), 1);
        });
    });
}

/// R110, in the form that types allow: whoever else may use the stream shuts it down, and who waits is woken.
#[test]
fn shutting_down_wakes_who_waits() {
    for_each_driver(|builder| {
        builder.run(async {
            let (client, _server) = pair().await;
            let (mut reader, mut writer) = client.into_split();
            let mut buf = [0; 8];
            let (read, ()) = join(reader.read(&mut buf), async {
                settle().await;
                rustix::net::shutdown(&writer, rustix::net::Shutdown::Both).unwrap();
            })
            .await;
            assert_eq!(read.unwrap(), 0);
            assert_eq!(writer.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        });
    });
}
/// One alone, and many in one turn of the loop, more than fit into a small ring; of both families, where there are two.
#[test]
fn each_connection_comes_with_the_address_of_its_own_peer() {
    async fn accept(listener: &TcpListener, n: usize) -> Vec<std::net::SocketAddr> {
        let mut peers = Vec::new();
        for _ in 0..n {
            let (stream, peer) = listener.accept().await.unwrap();
            let asked = rustix::net::getpeername(&stream).unwrap().unwrap();
            assert_eq!(std::net::SocketAddr::try_from(asked).unwrap(), peer);
            peers.push(peer);
        }
        peers
    }
    for_each_driver(|builder| {
        builder.run(async {
            let one = TcpListener::bind("127.0.0.1:0").unwrap();
            let other = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
            for (n, m) in [
                (1, 0),
                (0, 1),
                (1, 1),
                (1, 0),
                (3, 0),
                (0, 2),
                (1, 1),
                (30, 1),
                (0, 1),
                (1, 30),
                (1, 0),
                (30, 30),
                (1, 1),
            ] {
                let connect = async {
                    // Both wait by now. What follows is one turn.
                    trefoil_nursery::sleep(Duration::from_millis(1)).await.unwrap();
                    [(&one, n), (&other, m)].map(|(to, n)| {
                        let connect = |_| std::net::TcpStream::connect(to.local_addr().unwrap()).unwrap();
                        (0..n).map(connect).collect::<Vec<_>>()
                    })
                };
                let ((peers, other_peers), clients) = join(join(accept(&one, n), accept(&other, m)), connect).await;
                let ours = clients
                    .map(|clients| clients.iter().map(|client| client.local_addr().unwrap()).collect::<Vec<_>>());
                assert_eq!([peers, other_peers], ours, "in order");
            }
        });
    });
}

#[test]
fn options_of_the_listener_hold_for_what_it_accepts() {
    for_each_driver(|builder| {
        builder.run(async {
            for nodelay in [true, false] {
                let listener = TcpOptions::new().nodelay(nodelay).reuse_port(true).listen("127.0.0.1:0").unwrap();
                let addr = listener.local_addr().unwrap();
                let client = TcpOptions::new().nodelay(nodelay).connect(addr).await.unwrap();
                let (server, _) = listener.accept().await.unwrap();
                assert_eq!((client.nodelay().unwrap(), server.nodelay().unwrap()), (nodelay, nodelay));
                server.set_nodelay(!nodelay).unwrap();
                assert_eq!(server.nodelay().unwrap(), !nodelay);
                // A second one on the same port.
                let _second = TcpOptions::new().reuse_port(true).listen(addr).unwrap();
            }
        });
    });
}

#[test]
fn descriptors_are_closed_on_exec_and_do_not_block() {
    for_each_driver(|builder| {
        builder.run(async {
            use rustix::{fs::OFlags, io::FdFlags};
            let (listener, addr) = listen();
            let client = TcpStream::connect(addr).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            use std::os::fd::AsFd;
            for fd in [listener.as_fd(), client.as_fd(), server.as_fd()] {
                assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
                assert!(rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK));
            }
            // And the driver's own.
            for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
                let entry = entry.unwrap();
                let fd: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
                let target = std::fs::read_link(entry.path()).unwrap_or_default();
                if target.to_string_lossy().starts_with("anon_inode:") {
                    let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
                    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
                    assert!(
                        i64::from_str_radix(flags, 8).unwrap() & 0o2_000_000 != 0,
                        "{target:?} would survive an exec"
                    );
                }
            }
        });
    });
}

#[test]
fn sockets_come_from_std_and_go_back() {
    for_each_driver(|builder| {
        builder.run(async {
            let listener = TcpListener::from_std(std::net::TcpListener::bind("[::1]:0").unwrap()).unwrap();
            let addr = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(addr).unwrap();
            let mut client = TcpStream::from_std(client).unwrap();
            assert_eq!(client.peer_addr().unwrap(), addr);
            let (mut server, _) = listener.accept().await.unwrap();
            // Registered by waiting once.
            let (read, ()) = join(TcpStream::read(&mut server, &mut [0; 4]), async {
                settle().await;
                TcpStream::write_all(&mut client, b"x").await.unwrap();
            })
            .await;
            assert_eq!(read.unwrap(), 1);
            let mut client = client.into_std().unwrap();
            let mut server = server.into_std().unwrap();
            server.set_nonblocking(false).unwrap();
            client.write_all(b"blocking").unwrap();
            let mut buf = [0; 8];
            server.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"blocking");
            let listener = listener.into_std().unwrap();
            assert_eq!(listener.local_addr().unwrap(), addr);
        });
    });
}

#[test]
fn errors_say_what_was_attempted_and_on_what() {
    for_each_driver(|builder| {
        builder.run(async {
            let (listener, addr) = listen();
            let error = TcpListener::bind(addr).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(error.to_string().starts_with(&format!("bind {addr}: ")), "{error}");
            drop(listener);
            let error = TcpStream::connect(addr).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert!(error.to_string().starts_with(&format!("connect to {addr}: ")), "{error}");
            // So it is when it comes out of nurseries.
            let inner = || async {
                Ok(nursery(async |n| -> std::io::Result<()> {
                    n.spawn(async { TcpStream::connect(addr).await.map(drop) });
                    Ok(())
                })
                .await?)
            };
            let outer = nursery(async |n| -> std::io::Result<()> {
                n.spawn(inner());
                Ok(())
            });
            let error = std::io::Error::from(outer.await.unwrap_err());
            let of = OperationError::of(&error).unwrap();
            assert_eq!((of.operation(), of.on(), of.raw_os_error()), ("connect to", &*addr.to_string(), Some(111)));
            for name in ["localhost:80", "nonsense", "127.0.0.1"] {
                let error = TcpStream::connect(name).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert!(error.to_string().contains(name), "{error}");
                assert_eq!(TcpListener::bind(name).unwrap_err().kind(), ErrorKind::InvalidInput);
            }
            // Without a peer it is the descriptor.
            let no_socket = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
            let stream = TcpStream::from_std(no_socket.into()).unwrap();
            let error = stream.shutdown(Shutdown::Both).unwrap_err();
            let fd = std::os::fd::AsRawFd::as_raw_fd(&stream);
            assert!(error.to_string().starts_with(&format!("shut down fd {fd}: ")), "{error}");
        });
    });
}

/// Word from the kernel that a send without a copy is done, which nobody fetches, is an error that stays: who waits sleeps all the same.
#[test]
fn an_error_that_stays_keeps_nobody_busy() {
    use std::future::{Future, poll_fn};
    use std::os::fd::AsRawFd;

    for_each_driver(|builder| {
        builder.run(async {
            let (mut stream, mut other) = pair_with_std().await;
            let on: libc::c_int = 1;
            let (level, option) = (libc::SOL_SOCKET, libc::SO_ZEROCOPY);
            // SAFETY: `on` lives through the call, and is as large as said.
            let set = unsafe {
                libc::setsockopt(stream.as_raw_fd(), level, option, (&raw const on).cast(), size_of_val(&on) as u32)
            };
            if set != 0 {
                return println!("skipped: the kernel copies always");
            }
            // SAFETY: one byte, which is there for ever.
            assert_eq!(unsafe { libc::send(stream.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_ZEROCOPY) }, 1);
            other.read_exact(&mut [0; 1]).unwrap();
            settle().await;
            let (mut reader, mut writer) = TcpStream::split(&mut stream);
            let (mut polls, mut byte, bytes) = (0, [0], vec![b'y'; 16 << 20]);
            let mut both = std::pin::pin!(join(reader.read(&mut byte), writer.write_all(&bytes)));
            let mut pause = std::pin::pin!(trefoil_nursery::sleep(Duration::from_millis(50)));
            let waited = poll_fn(|cx| {
                polls += 1;
                assert!(both.as_mut().poll(cx).is_pending());
                pause.as_mut().poll(cx)
            });
            waited.await.unwrap();
            assert!(polls < 50, "polled {polls} times");
            // And it is told of room.
            let drain = std::thread::spawn(move || {
                other.read_exact(&mut vec![0; 16 << 20]).unwrap();
                other.write_all(b"z").unwrap();
                other
            });
            both.await.1.unwrap();
            drop(drain.join().unwrap());
        });
    });
}

/// A descriptor that is closed behind our back wakes no stranger, and crashes nothing (R110).
#[test]
fn a_descriptor_that_is_taken_away_harms_nobody() {
    for_each_driver(|builder| {
        builder.run(async {
            use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
            let (mut client, server) = pair().await;
            let mut buf = [0; 8];
            assert!(futures_util::poll!(std::pin::pin!(TcpStream::read(&mut client, &mut buf))).is_pending());
            let (stranger_end, mut other_end) = std::os::unix::net::UnixStream::pair().unwrap();
            let number = client.as_raw_fd();
            // SAFETY: that this is not ours to close is what the test is about: the number is given back below.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
            // The number goes to somebody else.
            let stranger = rustix::io::fcntl_dupfd_cloexec(&stranger_end, number).unwrap();
            assert_eq!(stranger.as_raw_fd(), number);
            drop(server);
            let _ = other_end.write_all(b"not for us");
            settle().await;
            // It may wait for ever, since its wake-up is lost with the socket; or it reads what the number now means.
            let reading =
                trefoil_nursery::move_on_after(Duration::from_millis(50), TcpStream::read(&mut client, &mut buf));
            println!("the reader: {:?}", reading.await);
            // It closes the stranger's number, as std would: whoever closed it took that upon himself.
            std::mem::forget(stranger);
            drop(client);
        });
    });
}

#[test]
fn every_future_can_be_sent() {
    for_each_driver(|builder| {
        builder.run(async {
            let (listener, addr) = listen();
            let mut client = assert_send(TcpStream::connect(addr)).await.unwrap();
            let (mut server, _) = assert_send(listener.accept()).await.unwrap();
            assert_send(client.write(b"1")).await.unwrap();
            assert_send(client.write_all(b"2")).await.unwrap();
            assert_send(TcpStream::write_vectored(&mut client, &[IoSlice::new(b"3")])).await.unwrap();
            assert_send(client.write_owned(vec![4])).await.0.unwrap();
            assert_send(client.write_all_owned(vec![5])).await.0.unwrap();
            let mut buf = [0; 1];
            assert_send(TcpStream::read(&mut server, &mut buf)).await.unwrap();
            assert_send(TcpStream::read_exact(&mut server, &mut buf)).await.unwrap();
            assert_send(TcpStream::read_vectored(&mut server, &mut [IoSliceMut::new(&mut buf)])).await.unwrap();
            assert_send(server.read_owned(Vec::with_capacity(8))).await.0.unwrap();
            fn assert_both<T: Send + Sync + Unpin>(_: &T) {}
            assert_both(&listener);
            assert_both(&client);
            let (r, w) = TcpStream::split(&mut client);
            assert_both(&r);
            assert_both(&w);
            let (r, w) = client.into_split();
            assert_both(&r);
            assert_both(&w);
        });
    });
}
