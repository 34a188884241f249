//! Reading from a stream, and opening one.

use crate::{on_each, pair, rustix_linger};
use std::io;
use std::time::Duration;
use trefoil::CancelAware;
use trefoil::asyncio::{self, ReadError, create_task, open_connection, sleep};
use trefoil::net::TcpListener;
use trefoil_tests::ms;

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
