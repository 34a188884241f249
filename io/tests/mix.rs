//! Random mixes of operations, cancels and drops, on TCP connections and on pairs of UNIX sockets, in one run and across two: every byte
//! arrives, once and in order; and in the end nothing is in flight, and no descriptor left.

mod common;

use common::*;
use futures_util::future::{Either, join, select};
use futures_util::{AsyncReadExt, AsyncWriteExt, FutureExt};
use proptest::prelude::*;
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use trefoil_io::Builder;
use trefoil_io::net::TcpStream;
use trefoil_nursery::{local_nursery, move_on_after, sleep};

/// What one side does.
#[derive(Clone, Debug)]
enum Action {
    /// Writes, but not longer than so many microseconds.
    Write { len: usize, patience: u64 },
    /// Reads into so much room, in some way, but not longer than so many microseconds.
    Read { room: usize, way: u8, patience: u64 },
    /// Both at once.
    Both { len: usize, room: usize, patience: u64 },
    /// Lets time pass.
    Rest { micros: u64 },
    /// Goes to another thread, with a run of its own, for one read; and comes back.
    Elsewhere { room: usize, patience: u64 },
}

/// A connection: of which kind, and what its two sides do.
#[derive(Clone, Debug)]
struct Plan {
    unix: bool,
    sides: [Vec<Action>; 2],
}

fn action() -> impl Strategy<Value = Action> {
    let len = prop_oneof![4 => 1..300_usize, 2 => 1500..5_000_usize, 1 => 50_000..200_000_usize];
    let room = prop_oneof![4 => 1..300_usize, 2 => 1500..5_000_usize, 1 => 50_000..200_000_usize];
    let patience = || prop_oneof![Just(0_u64), 1..300_u64, Just(3_000_u64)];
    prop_oneof![
        4 => (len.clone(), patience()).prop_map(|(len, patience)| Action::Write { len, patience }),
        6 => (room.clone(), 0..7_u8, patience()).prop_map(|(room, way, patience)| Action::Read { room, way, patience }),
        2 => (len, room.clone(), patience()).prop_map(|(len, room, patience)| Action::Both { len, room, patience }),
        2 => (0..400_u64).prop_map(|micros| Action::Rest { micros }),
        1 => (room, patience()).prop_map(|(room, patience)| Action::Elsewhere { room, patience }),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let actions = || prop::collection::vec(action(), 0..20);
    (any::<bool>(), actions(), actions()).prop_map(|(unix, a, b)| Plan { unix, sides: [a, b] })
}

/// One side, and how far it came: what it writes is a pattern that the other side knows.
struct Side {
    stream: TcpStream,
    written: usize,
    read: usize,
    /// The end was read, or nobody is there any more.
    over: bool,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        Self { stream, written: 0, read: 0, over: false }
    }

    /// Checks what was read.
    fn got(&mut self, bytes: &[u8]) {
        assert!(bytes == pattern(self.read, bytes.len()), "not the bytes from {} on", self.read);
        self.read += bytes.len();
        self.over |= bytes.is_empty();
    }

    async fn act(&mut self, builder: &Builder, action: &Action) {
        match *action {
            Action::Write { len, patience } => {
                let bytes = pattern(self.written, len);
                let patience = Duration::from_micros(patience);
                if let Some(n) = move_on_after(patience, self.stream.write(&bytes)).await.unwrap() {
                    self.written += n;
                }
            }
            Action::Read { room, way, patience } if !self.over => self.read(room, way, patience).await,
            Action::Read { .. } => {}
            Action::Both { len, room, patience } => {
                let bytes = pattern(self.written, len);
                let mut buf = vec![0; room];
                let patience = Duration::from_micros(patience);
                let (mut reader, mut writer) = TcpStream::split(&mut self.stream);
                let (read, written) =
                    join(move_on_after(patience, reader.read(&mut buf)), move_on_after(patience, writer.write(&bytes)))
                        .await;
                self.written += written.unwrap().unwrap_or(0);
                if let Some(n) = read.unwrap()
                    && !self.over
                {
                    self.got(&buf[..n]);
                }
            }
            Action::Rest { micros } => sleep(Duration::from_micros(micros)).await.unwrap(),
            Action::Elsewhere { room, patience } => {
                let (builder, patience) = (builder.clone(), Duration::from_micros(patience));
                let mut buf = vec![0; room];
                let stream = &mut self.stream;
                let read = std::thread::scope(|threads| {
                    let buf = &mut buf;
                    let elsewhere = threads.spawn(move || {
                        builder.run(async move { move_on_after(patience, TcpStream::read(stream, buf)).await.unwrap() })
                    });
                    elsewhere.join().unwrap()
                });
                if let Some(n) = read {
                    self.got(&buf[..n]);
                }
            }
        }
    }

    async fn read(&mut self, room: usize, way: u8, patience: u64) {
        let patience = Duration::from_micros(patience);
        let mut buf = vec![0; room];
        let stream = &mut self.stream;
        let read = match way {
            0 => move_on_after(patience, TcpStream::read(stream, &mut buf)).await.unwrap(),
            1 => match select(AsyncReadExt::read(stream, &mut buf), pin!(sleep(patience))).await {
                Either::Left((n, _)) => Some(n.unwrap()),
                Either::Right(_) => None,
            },
            2 => TcpStream::read(stream, &mut buf).now_or_never().map(Result::unwrap),
            3 => {
                // All or nothing, unless the end comes before.
                match move_on_after(patience, TcpStream::read_exact(stream, &mut buf)).await {
                    Ok(all) => all.map(|()| room),
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
                        None
                    }
                }
            }
            4 => {
                let (a, b) = buf.split_at_mut(room / 2);
                let mut bufs = [IoSliceMut::new(a), IoSliceMut::new(b)];
                move_on_after(patience, TcpStream::read_vectored(stream, &mut bufs)).await.unwrap()
            }
            5 => {
                let read = async {
                    let (result, owned) = stream.read_owned(Vec::with_capacity(room)).await;
                    result.map(|_| owned)
                };
                let owned = move_on_after(patience, read).await.unwrap();
                owned.map(|owned| {
                    buf[..owned.len()].copy_from_slice(&owned);
                    owned.len()
                })
            }
            _ => {
                let read = pin!(stream.read_owned(Vec::with_capacity(room)));
                match select(read, pin!(sleep(patience))).await {
                    Either::Left(((result, owned), _)) => {
                        buf[..owned.len()].copy_from_slice(&owned);
                        Some(result.unwrap())
                    }
                    Either::Right(_) => None,
                }
            }
        };
        if let Some(n) = read {
            self.got(&buf[..n]);
        }
    }
}

async fn connect(unix: bool) -> std::io::Result<(TcpStream, TcpStream)> {
    if unix {
        let (a, b) = std::os::unix::net::UnixStream::pair()?;
        let stream = |end| TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(end)));
        return Ok((stream(a)?, stream(b)?));
    }
    let (listener, addr) = listen();
    let client = TcpStream::connect(addr).await?;
    Ok((client, listener.accept().await?.0))
}

async fn carry_out(builder: Builder, plan: Plan) {
    let (a, b) = connect(plan.unix).await.unwrap();
    let (mut a, mut b) = (Side::new(a), Side::new(b));
    let [for_a, for_b] = &plan.sides;
    let run = async |side: &mut Side, actions: &[Action]| {
        for action in actions {
            side.act(&builder, action).await;
        }
    };
    join(run(&mut a, for_a), run(&mut b, for_b)).await;
    // Both stop writing, and read what is left.
    let finish = async |side: &mut Side| {
        AsyncWriteExt::close(&mut side.stream).await.unwrap();
        while !side.over {
            let before = side.read;
            side.read(1 << 16, 0, 5_000_000).await;
            assert!(side.over || side.read > before, "nothing was heard of for 5 s, unix: {}", plan.unix);
        }
    };
    join(finish(&mut a), finish(&mut b)).await;
    assert_eq!((a.read, b.read), (b.written, a.written));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_and_in_order(plans in prop::collection::vec(plan(), 1..8)) {
        let plans = Arc::new(plans);
        for_each_driver(|builder| {
            builder.clone().run(async {
                local_nursery(async |n| -> Result<(), std::io::Error> {
                    for plan in plans.iter().cloned() {
                        let builder = builder.clone();
                        drop(n.spawn(async move {
                            carry_out(builder, plan).await;
                            Ok::<(), std::io::Error>(())
                        }));
                    }
                    Ok(())
                })
                .await
                .unwrap();
                let metrics = trefoil_runtime::metrics();
                assert_eq!((metrics.in_flight, metrics.waits), (0, 0));
            });
        });
    }

    /// The same without patience for the end: everything is cut at some moment, by a cancel or by dropping the lot, and nothing is left.
    #[test]
    fn nothing_is_left_of_what_is_cut(
        plans in prop::collection::vec(plan(), 1..8),
        after in 0..3_000_u64,
        by_dropping in any::<bool>(),
    ) {
        for_each_driver(|builder| {
            builder.clone().run(async {
                let all = async {
                    local_nursery(async |n| -> Result<(), std::io::Error> {
                        for plan in plans.iter().cloned() {
                            drop(n.spawn::<_, ()>(async move {
                                let (a, b) = connect(plan.unix).await?;
                                let (mut a, mut b) = (Side::new(a), Side::new(b));
                                loop {
                                    // `act` unwraps: what is cancelled from outside is not attempted here.
                                    trefoil_nursery::checkpoint().await?;
                                    for at in 0..plan.sides[0].len().max(plan.sides[1].len()) {
                                        let (for_a, for_b) = (plan.sides[0].get(at), plan.sides[1].get(at));
                                        let one = async |side: &mut Side, action: Option<&Action>| match action {
                                            Some(Action::Read { room, .. } | Action::Elsewhere { room, .. }) => {
                                                let mut buf = vec![0; *room];
                                                let n = TcpStream::read(&mut side.stream, &mut buf).await?;
                                                side.got(&buf[..n]);
                                                Ok(())
                                            }
                                            Some(Action::Write { len, .. } | Action::Both { len, .. }) => {
                                                let bytes = pattern(side.written, *len);
                                                side.written += side.stream.write(&bytes).await?;
                                                Ok(())
                                            }
                                            Some(Action::Rest { micros }) => {
                                                Ok(sleep(Duration::from_micros(*micros)).await?)
                                            }
                                            None => Ok::<(), std::io::Error>(()),
                                        };
                                        let (x, y) = join(one(&mut a, for_a), one(&mut b, for_b)).await;
                                        x.and(y)?;
                                    }
                                }
                            }));
                        }
                        Ok(())
                    })
                    .await
                };
                let patience = Duration::from_micros(after);
                if by_dropping {
                    drop(select(pin!(all), pin!(sleep(patience))).await);
                } else {
                    let _cut = move_on_after(patience, async { all.await.map_err(|_| std::io::Error::from_raw_os_error(125)) }).await;
                }
                settle().await;
                let metrics = trefoil_runtime::metrics();
                assert_eq!(metrics.in_flight, 0);
            });
        });
    }
}
