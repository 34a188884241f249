//! `asyncio`: streams over TCP, and their server (behaviours 56 to 58), on both reactors and on a ring of 4 entries. At the end of each test no
//! task, wait or timer is left over, and no descriptor.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use trefoil::asyncio::{
    self, ReadError, Server, StreamReader, StreamWriter, create_task, event_loop, open_connection, sleep, start_server,
    streams,
};
use trefoil::net::{TcpListener, TcpOptions, TcpStream};
use trefoil::{Builder, CancelAware, DriverKind, RunError, metrics};
use trefoil_tests::{Log, ms};

const SECOND: Duration = Duration::from_secs(1);

/// Descriptors are counted per process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs a test in a loop on every reactor.
fn on_each(test: impl AsyncFn() -> io::Result<()> + Clone + 'static) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let ring = || Builder::new().driver(DriverKind::IoUring);
    for builder in [Builder::new().driver(DriverKind::Epoll), ring(), ring().ring_entries(4)] {
        let test = test.clone();
        let before = descriptors();
        let ran = builder.try_run(async move {
            event_loop(async move { test().await }).await.unwrap();
            let left = metrics();
            assert_eq!((left.tasks, left.scopes, left.waits, left.timers, left.in_flight), (0, 0, 0, 0, 0));
        });
        match ran {
            Ok(()) => assert_eq!(descriptors(), before, "descriptors are left over"),
            Err(error @ RunError::DriverUnavailable { .. }) => println!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Our side as streams, and the other as a socket of the core.
async fn pair() -> io::Result<(StreamReader, StreamWriter, TcpStream)> {
    pair_with(&TcpOptions::new()).await
}

async fn pair_with(options: &TcpOptions) -> io::Result<(StreamReader, StreamWriter, TcpStream)> {
    let listener = options.listen("127.0.0.1:0")?;
    let connect = options.connect(listener.local_addr()?);
    let (reader, writer) = streams(connect.await?);
    let (peer, _) = listener.accept().await?;
    Ok((reader, writer, peer))
}

/// A small buffer of the kernel, so that writes are held up.
async fn narrow() -> io::Result<(StreamReader, StreamWriter, TcpStream)> {
    pair_with(&TcpOptions::new().send_buffer(16 * 1024)).await
}

async fn until(what: impl Fn() -> bool) -> io::Result<()> {
    while !what() {
        sleep(ms(1)).await?;
    }
    Ok(())
}

#[test]
fn aio_read_gives_what_there_is_and_at_the_end_nothing() {
    on_each(async || {
        let (mut reader, _writer, mut peer) = pair().await?;
        assert_eq!(reader.read(0).await?, b"");
        peer.write_all(b"clover").await?;
        assert_eq!(reader.read(4).await?, b"clov");
        assert_eq!(reader.read(100).await?, b"er");
        drop(peer);
        assert!(!reader.at_eof());
        assert_eq!(reader.read(100).await?, b"");
        assert!(reader.at_eof());
        assert_eq!(reader.read(100).await?, b"");
        Ok(())
    });
}

#[test]
fn aio_readexactly_gives_the_partial_bytes_at_the_end() {
    on_each(async || {
        let (mut reader, _writer, mut peer) = pair().await?;
        let more = create_task(async move {
            for part in [&b"ab"[..], b"cde", b"f"] {
                peer.write_all(part).await?;
                sleep(ms(1)).await?;
            }
            Ok::<_, io::Error>(())
        });
        assert_eq!(reader.readexactly(0).await?, b"");
        assert_eq!(reader.readexactly(4).await?, b"abcd");
        match reader.readexactly(3).await {
            Err(ReadError::Incomplete { partial, expected: Some(3) }) => assert_eq!(partial, b"ef"),
            other => panic!("{other:?}"),
        }
        assert!(reader.at_eof());
        more.await
    });
}

#[test]
fn aio_readexactly_reads_more_than_the_limit() {
    on_each(async || {
        let (mut reader, _writer, mut peer) = pair().await?;
        reader.set_limit(10);
        let data: Vec<u8> = (0..1_000_000).map(|n| n as u8).collect();
        let sent = data.clone();
        let sends = create_task(async move { peer.write_all(&sent).await });
        assert_eq!(reader.readexactly(999_999).await?, data[..999_999]);
        assert_eq!(reader.read_to_end().await?, data[999_999..]);
        sends.await
    });
}

#[test]
fn aio_readline_and_readuntil_find_separators_that_come_in_pieces() {
    on_each(async || {
        let (mut reader, _writer, mut peer) = pair().await?;
        let sends = create_task(async move {
            for part in [&b"one\r"[..], b"\ntw", b"o\r\r", b"\n", b"\n", b"last"] {
                peer.write_all(part).await?;
                sleep(ms(1)).await?;
            }
            Ok::<_, io::Error>(())
        });
        assert_eq!(reader.readuntil(b"\r\n").await?, b"one\r\n");
        assert_eq!(reader.readuntil(b"\r\n").await?, b"two\r\r\n");
        assert_eq!(reader.readline().await?, b"\n");
        assert_eq!(reader.readline().await?, b"last");
        assert_eq!(reader.readline().await?, b"");
        match reader.readuntil(b";").await {
            Err(ReadError::Incomplete { partial, expected: None }) => assert_eq!(partial, b""),
            other => panic!("{other:?}"),
        }
        sends.await
    });
}

#[test]
fn aio_a_limit_overrun_keeps_the_buffer() {
    on_each(async || {
        let (mut reader, _writer, mut peer) = pair().await?;
        reader.set_limit(4);
        peer.write_all(b"toolong;x;abcde").await?;
        drop(peer);
        match reader.readuntil(b";").await {
            Err(ReadError::LimitOverrun { consumed }) => assert_eq!(consumed, 7),
            other => panic!("{other:?}"),
        }
        assert_eq!(reader.readexactly(8).await?, b"toolong;");
        assert_eq!(reader.readuntil(b";").await?, b"x;");
        match reader.readuntil(b"\n").await {
            Err(ReadError::LimitOverrun { consumed }) => assert_eq!(consumed, 5),
            other => panic!("{other:?}"),
        }
        assert_eq!(reader.read(100).await?, b"abcde");
        Ok(())
    });
}

#[test]
fn aio_a_line_that_is_too_long_is_passed_over() {
    on_each(async || {
        let (mut reader, _writer, mut peer) = pair().await?;
        reader.set_limit(4);
        peer.write_all(b"toolong\nshor\nlonger").await?;
        drop(peer);
        assert_eq!(reader.readline().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(reader.readline().await?, b"shor\n");
        assert_eq!(reader.readline().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(reader.readline().await?, b"");
        Ok(())
    });
}

#[test]
fn aio_b57_a_cancelled_read_loses_nothing() {
    on_each(async || {
        let (mut reader, _writer, mut peer) = pair().await?;
        peer.write_all(b"ab").await?;
        for _ in 0..3 {
            let late = asyncio::timeout(ms(2), async |_| reader.readexactly(4).await.map_err(io::Error::from)).await;
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
            let late = asyncio::timeout(ms(2), async |_| reader.readline().await).await;
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        // A task, cancelled, gives the reader back.
        let task = create_task(async move {
            let cancelled = reader.readexactly(4).await.unwrap_err();
            assert!(cancelled.is_cancelled());
            Ok::<_, io::Error>(reader)
        });
        sleep(ms(1)).await?;
        assert!(task.cancel());
        let mut reader = task.await?;
        peer.write_all(b"cd\n").await?;
        assert_eq!(reader.readline().await?, b"abcd\n");
        Ok(())
    });
}

#[test]
fn aio_b57_a_connect_that_is_cancelled_leaves_no_descriptor() {
    on_each(async || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        for turns in 0..4 {
            let addr = listener.local_addr()?;
            let task = create_task(async move { open_connection(addr).await.map(drop) });
            for _ in 0..turns {
                sleep(Duration::ZERO).await?;
            }
            task.cancel();
            // It may have been too late.
            _ = task.await;
        }
        let refused = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        assert_eq!(open_connection(refused).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        Ok(())
    });
}

#[test]
fn aio_b56_the_end_a_reset_and_a_cancel_are_three_things() {
    on_each(async || {
        let (mut reader, writer, peer) = pair().await?;
        // A reset: closed with something unread.
        writer.write(b"unread")?;
        sleep(ms(1)).await?;
        rustix_linger(&peer);
        drop(peer);
        let reset = reader.read(10).await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(reader.exception().unwrap().kind(), io::ErrorKind::ConnectionReset);
        assert!(!reader.at_eof());
        // All of them say so from then on, and the writer, too.
        assert_eq!(reader.read(10).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(writer.drain().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(writer.wait_closed().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(writer.is_closing());
        Ok(())
    });
}

/// Closing it resets the connection.
fn rustix_linger(socket: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
}

#[test]
fn aio_b56_much_is_written_in_order_whatever_room_there_is() {
    on_each(async || {
        let (_reader, writer, mut peer) = narrow().await?;
        let data: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
        // Pieces of all sizes, without a drain: some before the flusher, some while it is at it.
        let mut rest = &data[..];
        let mut size = 1;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            writer.write(piece)?;
            (rest, size) = (after, size % 99_730 + 371);
        }
        assert!(writer.get_write_buffer_size() > 0);
        writer.write_eof();
        assert_eq!(writer.write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let reads = create_task(async move {
            let (mut all, mut buf) = (Vec::<u8>::new(), [0; 1111]);
            loop {
                match peer.read(&mut buf).await? {
                    0 => return Ok::<_, io::Error>(all),
                    n => all.extend(&buf[..n]),
                }
            }
        });
        writer.drain().await?;
        assert!(writer.get_write_buffer_size() <= 64 * 1024);
        assert!(reads.await? == data);
        assert_eq!(writer.get_write_buffer_size(), 0);
        Ok(())
    });
}

#[test]
fn aio_b56_drain_waits_from_high_to_low_once_per_crossing() {
    on_each(async || {
        let (_reader, writer, mut peer) = narrow().await?;
        writer.set_write_buffer_limits(50_000, 10_000);
        writer.drain().await?;
        let drained = Rc::new(Cell::new(0));
        writer.write(&vec![1; 4_000_000])?;
        assert!(writer.get_write_buffer_size() > 50_000);
        let waits: Vec<_> = (0..2)
            .map(|_| {
                let (writer, drained) = (writer.clone(), drained.clone());
                create_task(async move {
                    writer.drain().await?;
                    drained.set(drained.get() + 1);
                    Ok::<_, io::Error>(writer.get_write_buffer_size())
                })
            })
            .collect();
        sleep(ms(2)).await?;
        assert_eq!(drained.get(), 0);
        let mut buf = vec![0; 100_000];
        let mut read = 0;
        while drained.get() == 0 {
            read += peer.read(&mut buf).await?;
            sleep(Duration::ZERO).await?;
        }
        for wait in waits {
            assert!(wait.await? <= 10_000);
        }
        // A drain that is cancelled takes nothing along.
        writer.write(&vec![2; 4_000_000])?;
        let late = asyncio::timeout(ms(2), async |_| writer.drain().await).await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        writer.close();
        while read < 8_000_000 {
            read += peer.read(&mut buf).await?;
        }
        assert_eq!(peer.read(&mut buf).await?, 0);
        writer.wait_closed().await
    });
}

#[test]
fn aio_x4_writing_to_a_peer_that_is_gone_is_an_error() {
    on_each(async || {
        let (_reader, writer, peer) = pair().await?;
        rustix_linger(&peer);
        drop(peer);
        let error = loop {
            if let Err(error) = writer.write(b"is anybody there?") {
                break error;
            }
            sleep(ms(1)).await?;
        };
        assert!(matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{error}");
        assert!(writer.drain().await.is_err());
        Ok(())
    });
}

#[test]
fn aio_x4_a_drain_that_waits_is_told_that_the_peer_is_gone() {
    on_each(async || {
        let (_reader, writer, peer) = narrow().await?;
        writer.write(&vec![0; 4_000_000])?;
        let task = create_task({
            let writer = writer.clone();
            async move { writer.drain().await }
        });
        sleep(ms(1)).await?;
        rustix_linger(&peer);
        drop(peer);
        assert!(task.await.is_err());
        assert!(writer.wait_closed().await.is_err());
        Ok(())
    });
}

#[test]
fn aio_d10_what_nobody_drains_has_an_end() {
    on_each(async || {
        let (_reader, writer, _peer) = narrow().await?;
        let piece = vec![0; 8 << 20];
        let error = loop {
            if let Err(error) = writer.write(&piece) {
                break error;
            }
            assert!(writer.get_write_buffer_size() <= 64 << 20);
        };
        assert!(error.to_string().contains("await `drain`"), "{error}");
        assert!(writer.is_closing() && writer.get_write_buffer_size() == 0);
        Ok(())
    });
}

#[test]
fn aio_close_sends_what_was_written_and_the_reader_finds_the_end() {
    on_each(async || {
        let (mut reader, writer, mut peer) = narrow().await?;
        writer.write(&vec![7; 200_000])?;
        writer.close();
        writer.close();
        assert!(writer.is_closing());
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let reads = create_task(async move {
            let mut all = vec![0; 200_000];
            peer.read_exact(&mut all).await?;
            assert_eq!(peer.read(&mut [0]).await?, 0);
            Ok::<_, io::Error>(all)
        });
        writer.wait_closed().await?;
        assert!(reads.await? == [7; 200_000]);
        assert_eq!(reader.read(10).await?, b"");
        assert_eq!(writer.drain().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        Ok(())
    });
}

#[test]
fn aio_abort_drops_what_is_not_sent() {
    on_each(async || {
        let (mut reader, writer, mut peer) = narrow().await?;
        writer.write(&vec![7; 4_000_000])?;
        writer.abort();
        writer.wait_closed().await?;
        assert_eq!((writer.get_write_buffer_size(), reader.read(1).await?), (0, vec![]));
        let (mut read, mut buf) = (0, [0; 4096]);
        // The end, or a reset.
        while let Ok(n @ 1..) = peer.read(&mut buf).await {
            read += n;
        }
        assert!(read < 4_000_000);
        Ok(())
    });
}

#[test]
fn aio_the_last_clone_of_a_writer_closes_the_connection() {
    on_each(async || {
        let (_reader, writer, mut peer) = pair().await?;
        let clone = writer.clone();
        writer.write(b"a")?;
        drop(writer);
        clone.writelines([b"b", b"c"])?;
        drop(clone);
        let mut buf = [0; 3];
        peer.read_exact(&mut buf).await?;
        assert_eq!((&buf, peer.read(&mut [0]).await?), (b"abc", 0));
        Ok(())
    });
}

async fn echo_server() -> io::Result<(Server, SocketAddr)> {
    let echo = async |mut reader: StreamReader, writer: StreamWriter| -> io::Result<()> {
        loop {
            let line = reader.readline().await?;
            if line.is_empty() {
                return Ok(());
            }
            writer.write(&line)?;
            writer.drain().await?;
        }
    };
    let server = start_server(echo, "127.0.0.1:0").await?;
    let addr = server.local_addr()?;
    Ok((server, addr))
}

#[test]
fn aio_a_server_has_a_task_for_each_connection() {
    on_each(async || {
        let (server, addr) = echo_server().await?;
        let clients = (0..20).map(|n| async move {
            let (mut reader, writer) = open_connection(addr).await?;
            for i in 0..10 {
                let line = format!("{n} {i}\n");
                writer.write(line.as_bytes())?;
                assert_eq!(reader.readline().await?, line.as_bytes());
            }
            writer.close();
            writer.wait_closed().await
        });
        asyncio::gather(clients).await?;
        server.close();
        assert!(!server.is_serving());
        server.wait_closed().await?;
        assert!(open_connection(addr).await.is_err());
        Ok(())
    });
}

#[test]
fn aio_a_client_of_another_thread_is_served() {
    on_each(async || {
        let (server, addr) = echo_server().await?;
        let answer = asyncio::to_thread(move || {
            let mut socket = std::net::TcpStream::connect(addr)?;
            socket.write_all(b"from afar\n")?;
            let mut answer = [0; 10];
            socket.read_exact(&mut answer)?;
            Ok::<_, io::Error>(answer)
        })
        .await?;
        assert_eq!(&answer, b"from afar\n");
        server.shutdown(SECOND).await
    });
}

#[test]
fn aio_b58_a_server_is_closed_with_idle_busy_and_half_open_clients() {
    on_each(async || {
        let (server, addr) = echo_server().await?;
        let (mut idle, _idle_writer) = open_connection(addr).await?;
        let (mut busy, busy_writer) = open_connection(addr).await?;
        busy_writer.write(b"half a li")?;
        let (mut half_open, half_writer) = open_connection(addr).await?;
        half_writer.write(b"line\n")?;
        half_writer.write_eof();
        // Its handler ends, and the connection with it.
        assert_eq!(half_open.read_to_end().await?, b"line\n");
        server.close();
        let waits = create_task({
            let server = server.clone();
            async move { server.wait_closed().await }
        });
        sleep(ms(2)).await?;
        assert!(!waits.done(), "the others are still there");
        busy_writer.write(b"ne\n")?;
        assert_eq!(busy.readline().await?, b"half a line\n");
        server.close_clients();
        assert_eq!(idle.read(1).await?, b"");
        assert_eq!(busy.read(1).await?, b"");
        waits.await
    });
}

#[test]
fn aio_b58_a_shutdown_has_two_steps() {
    on_each(async || {
        let told = Rc::new(Cell::new(0));
        let cancelled = told.clone();
        let stubborn = async move |mut reader: StreamReader, _writer: StreamWriter| -> io::Result<()> {
            let ended = reader.read(1).await;
            if ended.as_ref().is_err_and(CancelAware::is_cancelled) {
                cancelled.set(cancelled.get() + 1);
            }
            ended.map(drop)
        };
        let server = start_server(stubborn, "127.0.0.1:0").await?;
        let (mut reader, writer) = open_connection(server.local_addr()?).await?;
        let (mut polite, polite_writer) = open_connection(server.local_addr()?).await?;
        sleep(ms(1)).await?;
        let shutdown = create_task({
            let server = server.clone();
            async move { server.shutdown(ms(50)).await }
        });
        polite_writer.write(b"x")?;
        assert_eq!(polite.read(1).await?, b"");
        assert_eq!((told.get(), shutdown.done()), (0, false));
        assert_eq!(reader.read(1).await?, b"");
        shutdown.await?;
        assert_eq!(told.get(), 1);
        drop(writer);
        Ok(())
    });
}

#[test]
fn aio_serve_forever_serves_until_it_is_cancelled() {
    on_each(async || {
        let (server, addr) = echo_server().await?;
        let serves = create_task({
            let server = server.clone();
            async move { server.serve_forever().await }
        });
        let (mut reader, writer) = open_connection(addr).await?;
        writer.write(b"x\n")?;
        assert_eq!(reader.readline().await?, b"x\n");
        assert_eq!(server.serve_forever().await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        writer.close();
        serves.cancel();
        assert!(serves.clone().await.unwrap_err().is_cancelled() && serves.cancelled());
        assert!(!server.is_serving());
        assert!(open_connection(addr).await.is_err());
        assert_eq!(server.serve_forever().await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        Ok(())
    });
}

#[test]
fn aio_r2_the_end_of_main_ends_servers_and_their_handlers() {
    on_each(async || {
        let ended = Rc::new(RefCell::new(Vec::new()));
        let inside = ended.clone();
        let client = event_loop(async move {
            let handler = async move |mut reader: StreamReader, _writer: StreamWriter| -> io::Result<()> {
                let read = reader.read(1).await;
                inside.borrow_mut().push(read.as_ref().is_err_and(CancelAware::is_cancelled));
                read.map(drop)
            };
            let server = start_server(handler, "127.0.0.1:0").await?;
            // It goes with the result: when it is closed, that is no cancel.
            let client = open_connection(server.local_addr()?).await?;
            sleep(ms(2)).await?;
            Ok::<_, io::Error>(client)
        })
        .await?;
        drop(client);
        assert_eq!(*ended.borrow(), [true]);
        Ok(())
    });
}

#[test]
fn aio_the_error_of_a_handler_is_reported_and_closes_its_connection_only() {
    let seen = std::rc::Rc::new(Log::default());
    on_each(async move || {
        seen.lines().clear();
        let handler = async |mut reader: StreamReader, writer: StreamWriter| -> io::Result<()> {
            match &reader.readline().await?[..] {
                b"fail\n" => Err(io::Error::other("four leaves")),
                line => writer.write(line),
            }
        };
        let server = start_server(handler, "127.0.0.1:0").await?;
        let (mut good, good_writer) = open_connection(server.local_addr()?).await?;
        let (mut bad, bad_writer) = open_connection(server.local_addr()?).await?;
        bad_writer.write(b"fail\n")?;
        assert_eq!(bad.read(1).await?, b"");
        until(|| !seen.lines().is_empty()).await?;
        assert!(seen.lines()[0].contains("four leaves"), "{:?}", seen.lines());
        good_writer.write(b"fine\n")?;
        assert_eq!(good.readline().await?, b"fine\n");
        assert!(server.is_serving());
        Ok(())
    });
}

#[test]
fn aio_x4_what_the_end_of_the_loop_leaves_unsent_is_reported() {
    let seen = std::rc::Rc::new(Log::default());
    on_each(async move || {
        seen.lines().clear();
        let (_reader, _peer) = event_loop(async {
            let (reader, writer, peer) = narrow().await?;
            writer.write(&vec![0; 4_000_000])?;
            Ok::<_, io::Error>((reader, peer))
        })
        .await?;
        let lines = seen.lines().clone();
        assert!(lines.iter().any(|line| line.contains("bytes were not sent")), "{lines:?}");
        Ok(())
    });
}
