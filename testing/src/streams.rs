//! What every byte stream has to do, as a test: R111, as far as it is not what the borrow checker says anyway (two writers at once, a read
//! after one's own close).

use futures_io::{AsyncRead, AsyncWrite};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use trefoil_nursery::{CancelAware, CancelScope, Cancelled, local_nursery};
use trefoil_runtime::{metrics, probe, wait_all_tasks_blocked, yield_now};

/// Waits until both ends do; longer where bytes may be on their way through the kernel.
async fn wait_until_blocked() -> Result<(), Cancelled> {
    let without_io = metrics().driver == "thread";
    wait_all_tasks_blocked(if without_io { Duration::ZERO } else { Duration::from_millis(5) }).await
}

/// How many bytes no stream holds that nobody reads.
const PLENTY: usize = 64 << 20;

/// A stream of bytes in both directions, each of which can be closed alone.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

fn read<'a>(stream: &'a mut impl Stream, buf: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> + 'a {
    poll_fn(move |cx| Pin::new(&mut *stream).poll_read(cx, buf))
}

fn write<'a>(stream: &'a mut impl Stream, buf: &'a [u8]) -> impl Future<Output = io::Result<usize>> + 'a {
    poll_fn(move |cx| Pin::new(&mut *stream).poll_write(cx, buf))
}

async fn write_all(stream: &mut impl Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = write(stream, bytes).await?;
        assert!(n > 0, "a write of some bytes is not done with none");
        bytes = &bytes[n..];
    }
    poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await
}

async fn close(stream: &mut impl Stream) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_close(cx)).await
}

/// Reads one byte; `None` at the end.
async fn byte(stream: &mut impl Stream) -> io::Result<Option<u8>> {
    let mut buf = [0];
    Ok((read(stream, &mut buf).await? == 1).then_some(buf[0]))
}

/// Bytes in an order that tells a byte that is missing, or in the wrong place.
fn pattern(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

fn check_pattern(bytes: &[u8], from: usize) {
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(*byte, pattern(from + at), "the byte at {} is a wrong one", from + at);
    }
}

/// Reads the pattern to its end: how long it was.
async fn drain(stream: &mut impl Stream) -> io::Result<usize> {
    let (mut seen, mut buf) = (0, vec![0; 1 << 16]);
    loop {
        let n = read(stream, &mut buf).await?;
        if n == 0 {
            return Ok(seen);
        }
        check_pattern(&buf[..n], seen);
        seen += n;
    }
}

/// Writes the pattern, until there has been no room for it or `stop` says so, and counts.
async fn fill(stream: &mut impl Stream, written: &Cell<usize>, stop: &Cell<bool>) -> io::Result<()> {
    while !stop.get() {
        assert!(written.get() < PLENTY, "a writer has to wait for a reader some time: {PLENTY} bytes were taken");
        let bytes: Vec<u8> = (written.get()..written.get() + 10_000).map(pattern).collect();
        written.set(written.get() + write(stream, &bytes).await?);
    }
    Ok(())
}

/// Polls once: what it says is the future's business no more.
async fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

fn is_broken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::NotConnected
    )
}

/// Runs both ends at once, to the end of both.
async fn both(
    one: impl Future<Output = io::Result<()>>,
    other: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    local_nursery(async |n| -> io::Result<()> {
        n.spawn(one);
        n.spawn(other);
        Ok(())
    })
    .await?;
    Ok(())
}

/// In a scope that is cancelled already, or becomes so when everybody waits; `ECANCELED` is what is asked for, and all that may come.
async fn cancelled<T>(at_once: bool, operation: impl Future<Output = io::Result<T>>) -> io::Result<()> {
    let scope = CancelScope::new();
    if at_once {
        scope.cancel();
    }
    local_nursery(async |n| -> io::Result<()> {
        n.spawn(async {
            let ended = scope.run(async { operation.await.map(drop) }).await?;
            assert!(
                ended.is_none(),
                "R36, R37: an operation in a cancelled scope, done all the same (at once: {at_once})"
            );
            Ok(())
        });
        wait_until_blocked().await?;
        scope.cancel();
        Ok(())
    })
    .await?;
    Ok(())
}

/// Checks that a kind of stream does what streams have to: give it a function that makes connected pairs.
///
/// Bytes arrive, all and in order, in both directions at once. An end that was closed is read as the end, for ever, after what was
/// written before; and the other direction goes on. A peer that is gone is an error, also for who waits. Every read and write is a
/// checkpoint (R38, N11). A cancelled one had no effect (R36, R37), and neither has one that was dropped (N5). Closing works in a
/// cancelled scope (R42). In the end nothing is left over. The streams are those of [futures-io](futures_io); closing one ends the
/// direction in which it writes, as there.
///
/// # Errors
/// Those of the streams, where there should be none.
///
/// # Panics
/// If something is not as it has to be.
///
/// # Examples
/// ```
/// use trefoil_testing::{check_stream, memory_stream_pair};
///
/// trefoil_testing::run(0, check_stream(async || Ok(memory_stream_pair(100))))?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn check_stream<S>(mut pair: impl AsyncFnMut() -> io::Result<(S, S)>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let before = metrics();
    let before = (before.tasks, before.scopes, before.waits, before.timers);
    // Each thing both ways, since the ends may have come about differently.
    for swapped in [false, true] {
        let mut pair = async || pair().await.map(|(a, b)| if swapped { (b, a) } else { (a, b) });
        bytes_arrive_in_order(pair().await?).await?;
        nothing_is_not_the_end(pair().await?).await?;
        the_end_comes_after_the_bytes(pair().await?).await?;
        an_end_ends_a_read_that_waits(pair().await?, true).await?;
        an_end_ends_a_read_that_waits(pair().await?, false).await?;
        a_peer_that_is_gone_is_an_error(pair().await?).await?;
        a_peer_that_goes_ends_a_write_that_waits(pair().await?).await?;
        a_write_that_waits_goes_on(pair().await?).await?;
        cancelled_before_it_began(pair().await?).await?;
        cancelled_while_it_waits(pair().await?).await?;
        for turns in 0..4 {
            cancelled_when_it_has_its_bytes(pair().await?, turns).await?;
        }
        dropped_while_it_waits(pair().await?).await?;
        the_last_to_poll_is_woken(pair().await?).await?;
        turns_are_given_up(pair().await?).await?;
        closed_while_cancelled(pair().await?).await?;
    }
    // The kernel may not have let go of everything yet.
    wait_until_blocked().await?;
    let left = metrics();
    assert_eq!((left.tasks, left.scopes, left.waits, left.timers), before, "left over (tasks, scopes, waits, timers)");
    Ok(())
}

/// Writes so many bytes of the pattern in pieces of all sizes, and reads so many, at once.
async fn exchange(stream: &mut impl Stream, size: usize, expected: usize) -> io::Result<()> {
    let (mut written, mut seen, mut piece) = (0, 0, 1);
    let (mut closed, mut over) = (false, false);
    let (bytes, mut buf): (Vec<u8>, _) = ((0..size).map(pattern).collect(), vec![0; 5000]);
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if written < size {
                let some = &bytes[written..size.min(written + piece)];
                if let Poll::Ready(n) = Pin::new(&mut *stream).poll_write(cx, some)? {
                    written += n;
                    piece = 1 + piece * 7 % 3001;
                    progress = true;
                }
            } else if !closed && Pin::new(&mut *stream).poll_close(cx)?.is_ready() {
                closed = true;
                progress = true;
            }
            if !over && let Poll::Ready(n) = Pin::new(&mut *stream).poll_read(cx, &mut buf)? {
                check_pattern(&buf[..n], seen);
                seen += n;
                over = n == 0;
                progress = true;
            }
            if over && closed {
                assert_eq!(seen, expected, "all bytes arrive before the end");
                return Poll::Ready(Ok(()));
            }
            if !progress {
                return Poll::Pending;
            }
        }
    })
    .await
}

async fn bytes_arrive_in_order<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    both(exchange(&mut a, 60_000, 40_001), exchange(&mut b, 40_001, 60_000)).await
}

async fn nothing_is_not_the_end<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    let writes = async {
        assert_eq!(write(&mut a, &[]).await?, 0);
        write_all(&mut a, b"y").await
    };
    let reads = async {
        assert_eq!(read(&mut b, &mut []).await?, 0, "a read that asks for nothing");
        assert_eq!(byte(&mut b).await?, Some(b'y'), "a write of nothing is not the end");
        Ok(())
    };
    both(writes, reads).await
}

async fn the_end_comes_after_the_bytes<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    let closes = async {
        write_all(&mut a, b"y").await?;
        close(&mut a).await?;
        close(&mut a).await?; // again does nothing
        assert_eq!(byte(&mut a).await?, Some(b'z'), "the other direction goes on");
        assert_eq!(byte(&mut a).await?, None);
        let late = write(&mut a, b"late").await.expect_err("a write behind one's own close is an error");
        assert!(!late.is_cancelled());
        Ok(())
    };
    let reads = async {
        wait_until_blocked().await?;
        assert_eq!(byte(&mut b).await?, Some(b'y'), "what was written before the close is read");
        for _ in 0..3 {
            assert_eq!(byte(&mut b).await?, None, "the end, for ever");
        }
        write_all(&mut b, b"z").await?;
        close(&mut b).await
    };
    both(closes, reads).await
}

async fn an_end_ends_a_read_that_waits<S: Stream>((mut a, mut b): (S, S), in_order: bool) -> io::Result<()> {
    let reads = async {
        match byte(&mut b).await {
            Ok(None) => {}
            // Without a close, it may also be told that the peer is gone.
            Err(error) if !in_order && is_broken(&error) => {}
            other => panic!("a read that waits for an end: {other:?}"),
        }
        Ok(())
    };
    let ends = async move {
        wait_until_blocked().await?;
        if in_order {
            close(&mut a).await?;
            // For the reader's sake it stays until that is seen.
            wait_until_blocked().await?;
        }
        drop(a);
        Ok(())
    };
    both(reads, ends).await
}

async fn a_peer_that_is_gone_is_an_error<S: Stream>((mut a, b): (S, S)) -> io::Result<()> {
    drop(b);
    let mut writes = 0;
    let error = loop {
        match write(&mut a, &[0; 100]).await {
            Ok(n) => writes += n,
            Err(error) => break error,
        }
        assert!(writes < PLENTY, "nobody is there, and {writes} bytes were written to them");
    };
    assert!(is_broken(&error), "R111: the peer is gone: {error:?}");
    let again = write(&mut a, &[0; 100]).await.expect_err("it stays broken");
    assert!(is_broken(&again), "{again:?}");
    match byte(&mut a).await {
        Ok(None) => Ok(()),
        Err(error) if is_broken(&error) => Ok(()),
        other => panic!("a read from a peer that is gone: {other:?}"),
    }
}

async fn a_peer_that_goes_ends_a_write_that_waits<S: Stream>((mut a, b): (S, S)) -> io::Result<()> {
    let (written, stop) = (Cell::new(0), Cell::new(false));
    let writes = async {
        let error = fill(&mut a, &written, &stop).await.expect_err("nobody reads");
        assert!(is_broken(&error), "R111: the peer went: {error:?}");
        Ok(())
    };
    let goes = async move {
        wait_until_blocked().await?;
        drop(b);
        Ok(())
    };
    both(writes, goes).await
}

async fn a_write_that_waits_goes_on<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    let (written, stop) = (Cell::new(0), Cell::new(false));
    let writes = async {
        fill(&mut a, &written, &stop).await?;
        close(&mut a).await
    };
    let reads = async {
        wait_until_blocked().await?;
        stop.set(true);
        let seen = drain(&mut b).await?;
        assert_eq!(seen, written.get(), "what was written is read");
        Ok(())
    };
    both(writes, reads).await
}

async fn cancelled_before_it_began<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    let writes = async {
        write_all(&mut a, b"x").await?;
        cancelled(true, write(&mut a, b"lost")).await?;
        write_all(&mut a, b"y").await
    };
    let reads = async {
        wait_until_blocked().await?;
        cancelled(true, byte(&mut b)).await?;
        assert_eq!(byte(&mut b).await?, Some(b'x'), "R37: the cancelled read took nothing");
        assert_eq!(byte(&mut b).await?, Some(b'y'), "R37: the cancelled write wrote nothing");
        Ok(())
    };
    both(writes, reads).await
}

async fn cancelled_while_it_waits<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    let (written, stop) = (Cell::new(0), Cell::new(false));
    cancelled(false, byte(&mut b)).await?;
    cancelled(false, fill(&mut a, &written, &stop)).await?;
    let reads = async {
        let seen = drain(&mut b).await?;
        assert_eq!(seen, written.get(), "R36: the cancelled write wrote nothing, and those before it all");
        Ok(())
    };
    both(reads, close(&mut a)).await
}

/// R18: it returns the byte, or leaves it for the next.
async fn cancelled_when_it_has_its_bytes<S: Stream>((mut a, mut b): (S, S), turns: usize) -> io::Result<()> {
    let (scope, got) = (CancelScope::new(), Cell::new(None));
    local_nursery(async |n| -> io::Result<()> {
        n.spawn(async {
            let read = scope.run(byte(&mut b)).await?;
            got.set(read.flatten());
            Ok(())
        });
        wait_until_blocked().await?;
        write_all(&mut a, b"x").await?;
        for _ in 0..turns {
            yield_now().await;
        }
        scope.cancel();
        Ok(())
    })
    .await?;
    close(&mut a).await?;
    match got.get() {
        Some(byte) => assert_eq!(byte, b'x'),
        None => assert_eq!(byte(&mut b).await?, Some(b'x'), "R36: the cancelled read took nothing"),
    }
    assert_eq!(byte(&mut b).await?, None, "the byte is there once");
    Ok(())
}

async fn dropped_while_it_waits<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    assert!(poll_once(byte(&mut b)).await.is_pending(), "a read without bytes waits");
    let mut written = 0;
    for _ in 0..300 {
        let bytes: Vec<u8> = (written..written + 10_000).map(pattern).collect();
        match poll_once(write(&mut a, &bytes)).await {
            Poll::Ready(n) => written += n?,
            Poll::Pending => yield_now().await,
        }
    }
    let reads = async {
        assert_eq!(drain(&mut b).await?, written, "N5: the dropped writes wrote nothing, and those before them all");
        Ok(())
    };
    both(reads, close(&mut a)).await
}

async fn the_last_to_poll_is_woken<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    assert!(poll_once(byte(&mut b)).await.is_pending(), "a read without bytes waits");
    // Elsewhere, with another waker.
    let reads = async move {
        assert_eq!(byte(&mut b).await?, Some(b'x'));
        Ok(())
    };
    let writes = async {
        wait_until_blocked().await?;
        write_all(&mut a, b"x").await
    };
    both(reads, writes).await
}

async fn turns_are_given_up<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    let without_budget = async |operation: &mut dyn FnMut(&mut Context<'_>) -> bool| {
        poll_fn(|cx| {
            probe::spend_budget();
            Poll::Ready(operation(cx))
        })
        .await
    };
    let writes = async {
        let pending = without_budget(&mut |cx| Pin::new(&mut a).poll_write(cx, b"x").is_pending()).await;
        assert!(pending, "N11: a write gives up its turn when there is no budget");
        write_all(&mut a, b"x").await
    };
    let reads = async {
        wait_until_blocked().await?;
        let pending = without_budget(&mut |cx| Pin::new(&mut b).poll_read(cx, &mut [0]).is_pending()).await;
        assert!(pending, "N11: a read gives up its turn when there is no budget");
        assert_eq!(byte(&mut b).await?, Some(b'x'));
        Ok(())
    };
    both(writes, reads).await
}

async fn closed_while_cancelled<S: Stream>((mut a, mut b): (S, S)) -> io::Result<()> {
    let scope = CancelScope::new();
    scope.cancel();
    scope.run(close(&mut a)).await?;
    assert_eq!(byte(&mut b).await?, None, "R42: it is closed all the same");
    Ok(())
}
