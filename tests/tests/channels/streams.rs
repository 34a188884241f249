//! `check_stream` over every stream there is, and over some with a fault each, which it has to find; and what streams in memory do beyond
//! it. R111.

use futures::io::{AsyncRead, AsyncWrite};
use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_io::net::{TcpListener, TcpStream};
use trefoil_nursery::{move_on_after, nursery};
use trefoil_runtime::metrics;
use trefoil_testing::{
    MemoryStream, assert_checkpoints, cancel_sweep, check_stream, drop_sweep, lockstep_stream_pair, memory_stream_pair,
};
use trefoil_tests::{drop_at, ms, panic_of, run_real, run_virtual};

#[test]
fn r111_streams_in_memory() {
    for limit in [1, 1000] {
        run_virtual(async || check_stream(async || Ok(memory_stream_pair(limit))).await.unwrap());
    }
}

#[test]
fn r111_streams_in_lockstep() {
    run_virtual(async || check_stream(async || Ok(lockstep_stream_pair())).await.unwrap());
}

#[test]
fn r111_streams_in_memory_in_many_orders() {
    trefoil_testing::seeds(0..10, async || check_stream(async || Ok(memory_stream_pair(300))).await);
    trefoil_testing::seeds(0..10, async || check_stream(async || Ok(lockstep_stream_pair())).await);
}

#[test]
fn r111_tcp() {
    run_real(async || {
        if metrics().driver == "thread" {
            return; // without I/O
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pair = async || {
            let client = TcpStream::connect(address).await?;
            let (server, _) = listener.accept().await?;
            Ok((client, server))
        };
        check_stream(pair).await.unwrap();
    });
}

// ---- Faults --------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// None: the wrapper itself passes.
    None,
    /// A cancelled read says that there is nothing more.
    CancelledIsTheEnd,
    /// Each thousandth byte is lost.
    LosesAByte,
    /// Two bytes change places.
    WrongOrder,
    /// A byte that came with a cancel is thrown away.
    LosesWhatIsCancelled,
    /// The end is read once, and then there is an error.
    EndsOnce,
    /// A close does nothing.
    DoesNotClose,
    /// A close looks for a cancellation before it does anything.
    DoesNotCloseWhenCancelled,
    /// To write nothing is taken for the end.
    NothingIsTheEnd,
    /// A peer that is gone takes everything.
    WritesToNobody,
    /// The first waker is kept.
    WakesTheFirst,
}

struct Faulty {
    inner: MemoryStream,
    fault: Fault,
    count: usize,
    waker: Option<std::task::Waker>,
}

impl Faulty {
    fn new(inner: MemoryStream, fault: Fault) -> Self {
        Self { inner, fault, count: 0, waker: None }
    }
}

impl AsyncRead for Faulty {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match this.fault {
            Fault::CancelledIsTheEnd if trefoil_nursery::cancel_cause().is_some() => Poll::Ready(Ok(0)),
            Fault::LosesWhatIsCancelled => {
                let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
                if let Poll::Ready(Ok(1..)) = polled
                    && this.count > 0
                    && trefoil_nursery::cancel_cause().is_some()
                {
                    return Poll::Ready(Err(trefoil_nursery::Cancelled::delivered().into()));
                }
                this.count += usize::from(polled.is_pending());
                polled
            }
            Fault::WakesTheFirst => {
                let waker = this.waker.get_or_insert_with(|| cx.waker().clone()).clone();
                let polled = Pin::new(&mut this.inner).poll_read(&mut Context::from_waker(&waker), buf);
                if polled.is_ready() {
                    this.waker = None;
                }
                polled
            }
            _ => {
                let n = ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                match this.fault {
                    Fault::WrongOrder if n > 2 => buf.swap(0, 1),
                    Fault::EndsOnce if n == 0 && !buf.is_empty() => {
                        this.count += 1;
                        if this.count > 1 {
                            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
                        }
                    }
                    _ => {}
                }
                Poll::Ready(Ok(n))
            }
        }
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match this.fault {
            Fault::LosesAByte if this.count >= 1000 && !buf.is_empty() => {
                this.count = 0;
                Poll::Ready(Ok(1))
            }
            Fault::NothingIsTheEnd if buf.is_empty() => {
                this.inner.close()?;
                Poll::Ready(Ok(0))
            }
            _ => {
                let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
                match polled {
                    Poll::Ready(Ok(n)) => this.count += n,
                    Poll::Ready(Err(ref error))
                        if this.fault == Fault::WritesToNobody && error.kind() == ErrorKind::BrokenPipe =>
                    {
                        return Poll::Ready(Ok(buf.len()));
                    }
                    _ => {}
                }
                polled
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let cancelled = trefoil_nursery::cancel_cause().is_some();
        match self.fault {
            Fault::DoesNotClose => Poll::Ready(Ok(())),
            Fault::DoesNotCloseWhenCancelled if cancelled => {
                Poll::Ready(Err(trefoil_nursery::Cancelled::delivered().into()))
            }
            _ => Poll::Ready(self.inner.close()),
        }
    }
}

fn check(fault: Fault) {
    trefoil_testing::Builder::new().deadlock_after(Some(ms(0))).run(async {
        let pair = async || {
            let (a, b) = memory_stream_pair(2000);
            Ok((Faulty::new(a, fault), Faulty::new(b, fault)))
        };
        check_stream(pair).await.unwrap();
    });
}

#[test]
fn r111_every_fault_is_found() {
    check(Fault::None);
    for (fault, told) in [
        (Fault::CancelledIsTheEnd, "R36, R37: an operation in a cancelled scope"),
        (Fault::LosesAByte, "is a wrong one"),
        (Fault::WrongOrder, "is a wrong one"),
        (Fault::LosesWhatIsCancelled, "R36: the cancelled read took nothing"),
        (Fault::EndsOnce, "UnexpectedEof"),
        (Fault::DoesNotClose, "deadlock"),
        (Fault::DoesNotCloseWhenCancelled, "deadlock"),
        (Fault::NothingIsTheEnd, "BrokenPipe"),
        (Fault::WritesToNobody, "a write behind one's own close is an error"),
        (Fault::WakesTheFirst, "deadlock"),
    ] {
        let found = panic_of(|| check(fault));
        assert!(found.contains(told), "{fault:?}: {found}");
    }
}

// ---- In memory -----------------------------------------------------------------------------------------------------

#[test]
fn n5_a_read_that_is_dropped_takes_its_wait_back() {
    run_virtual(async || {
        let (mut a, mut b) = memory_stream_pair(1);
        assert!(drop_at(1, b.read(&mut [0; 10])).await.is_none());
        assert_eq!(metrics().waits, 0);
        assert!(drop_at(1, a.write_all(b"xyz")).await.is_none());
        assert_eq!(metrics().waits, 0);
        let mut got = [0; 10];
        assert_eq!(b.read(&mut got).await.unwrap(), 1);
        assert_eq!(got[0], b'x');
    });
}

#[test]
fn r38_reads_and_writes_are_checkpoints() {
    run_virtual(async || {
        let (mut a, mut b) = memory_stream_pair(10);
        assert_checkpoints(async || a.write_all(b"xyz").await).await.unwrap();
        let mut got = [0; 10];
        assert_eq!(assert_checkpoints(async || b.read(&mut got).await).await.unwrap(), 3);
    });
}

/// No end is ahead of the other by more than it was asked for.
#[test]
fn a_write_in_lockstep_waits_for_a_read() {
    run_virtual(async || {
        let (mut a, mut b) = lockstep_stream_pair();
        assert!(move_on_after(ms(10), a.write_all(b"x")).await.unwrap().is_none());
        let written = Cell::new(0);
        trefoil_nursery::local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                for byte in 0..6 {
                    a.write_all(&[byte]).await?;
                    written.set(written.get() + 1);
                }
                a.write_all(&[6, 7, 8, 9]).await
            });
            let mut one = [0; 1];
            for byte in 0..6 {
                trefoil_testing::wait_all_tasks_blocked(ms(0)).await?;
                assert_eq!(written.get(), usize::from(byte));
                assert_eq!(b.read(&mut one).await?, 1);
                assert_eq!(one[0], byte);
            }
            // Not more than was asked for, and not more than there is.
            let mut three = [0; 3];
            assert_eq!((b.read(&mut three).await?, three), (3, [6, 7, 8]));
            assert_eq!((b.read(&mut three).await?, three[0]), (1, 9));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn r36_no_byte_is_lost_at_any_await() {
    let scenario = |limit: usize| {
        async move |cut: &trefoil_testing::Cut| -> io::Result<()> {
            let (mut a, mut b) = memory_stream_pair(limit);
            let mut got = Vec::new();
            nursery(async |n| -> io::Result<()> {
                n.spawn(async {
                    for byte in 0..10 {
                        a.write_all(&[byte]).await?;
                    }
                    a.close()
                });
                cut.run(async {
                    let mut piece = [0; 3];
                    loop {
                        match b.read(&mut piece).await? {
                            0 => return Ok::<_, io::Error>(()),
                            n => got.extend_from_slice(&piece[..n]),
                        }
                    }
                })
                .await?;
                b.read_to_end(&mut got).await
            })
            .await?;
            assert_eq!(got, (0..10).collect::<Vec<_>>());
            Ok(())
        }
    };
    for limit in [0, 1, 4, 100] {
        assert!(cancel_sweep(scenario(limit)).len() > 5);
        assert!(drop_sweep(scenario(limit)).len() > 5);
    }
}

#[test]
fn they_work_with_the_tools_of_futures() {
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    run_virtual(async || {
        let (mut a, b) = memory_stream_pair(3);
        nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                AsyncWriteExt::write_all(&mut a, b"clover and ivy").await?;
                AsyncWriteExt::close(&mut a).await
            });
            let (mut reads, _writes) = b.split();
            let mut text = String::new();
            reads.read_to_string(&mut text).await?;
            assert_eq!(text, "clover and ivy");
            Ok(())
        })
        .await
        .unwrap();
    });
}
