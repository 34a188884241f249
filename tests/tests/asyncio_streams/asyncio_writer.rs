//! Writing to a stream, and closing it.

use crate::{narrow, on_each, pair, rustix_linger};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use trefoil::asyncio::{self, create_task, sleep};
use trefoil_tests::ms;

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
