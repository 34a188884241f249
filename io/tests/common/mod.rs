//! The harness: every test on every driver that can be had, one at a time, and no descriptor left over.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trefoil_io::net::{TcpListener, TcpStream};
use trefoil_io::{Builder, DriverKind, RunError};

/// How long to wait for what has to come: a machine may stand still for seconds where others want its processors.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Descriptors are counted per process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// No other test of this process runs until it is dropped.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test on every driver (`TREFOIL_DRIVER` narrows it down), and on a ring of 4 entries.
pub fn for_each_driver(test: impl Fn(Builder)) {
    let _one = alone();
    let only: Option<DriverKind> = std::env::var("TREFOIL_DRIVER").ok().map(|name| name.parse().unwrap());
    let ring = || Builder::new().driver(DriverKind::IoUring);
    let drivers = [
        ("epoll", DriverKind::Epoll, Builder::new().driver(DriverKind::Epoll)),
        ("io_uring", DriverKind::IoUring, ring()),
        ("io_uring, 4 entries", DriverKind::IoUring, ring().ring_entries(4)),
    ];
    for (name, kind, builder) in drivers {
        if only.is_some_and(|only| only != kind) {
            continue;
        }
        if let Err(error @ RunError::DriverUnavailable { .. }) = builder.clone().try_run(async {}) {
            assert_ne!(only, Some(kind), "{error}");
            println!("skipped on {name}: {error}");
            continue;
        }
        println!("on {name}");
        let before = descriptors();
        test(builder);
        assert_eq!(descriptors(), before, "descriptors are left over on {name}");
    }
}

/// How many descriptors are open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A listener, and its address.
pub fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Both ends of a connection.
pub async fn pair() -> (TcpStream, TcpStream) {
    let (listener, addr) = listen();
    let client = TcpStream::connect(addr).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    (client, server)
}

/// One end of a connection, and the other for blocking use.
pub async fn pair_with_std() -> (TcpStream, std::net::TcpStream) {
    let (listener, addr) = listen();
    let other = std::net::TcpStream::connect(addr).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (stream, other)
}

/// Gives the driver the time to hear of what has happened.
pub async fn settle() {
    trefoil_nursery::sleep(Duration::from_millis(5)).await.unwrap();
}

pub fn is_cancelled<T: std::fmt::Debug>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(125))
}

/// Bytes that are easy to check.
pub fn pattern(at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(|i| (i.wrapping_mul(31) ^ (i >> 8)) as u8).collect()
}

/// Numbers that look random: xorshift.
pub struct Numbers(Cell<u64>);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    pub fn below(&self, n: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        (x >> 11) % n
    }
}

pub fn assert_send<T: Send>(value: T) -> T {
    value
}

/// Runs a future on a thread of its own, in a run of its own.
pub fn on_thread<T: Send + 'static, F: Future<Output = T>>(
    builder: Builder,
    main: impl FnOnce() -> F + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || builder.run(main()))
}
