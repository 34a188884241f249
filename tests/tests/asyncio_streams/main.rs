//! `asyncio`: streams over TCP, and their server (behaviours 56 to 58), on both reactors and on a ring of 4 entries. At the end of each test no
//! task, wait or timer is left over, and no descriptor.

mod asyncio_reader;
mod asyncio_server;
mod asyncio_writer;

use std::io::{self};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use trefoil::asyncio::{StreamReader, StreamWriter, event_loop, sleep, streams};
use trefoil::net::{TcpOptions, TcpStream};
use trefoil::{Builder, DriverKind, RunError, metrics};
use trefoil_tests::ms;

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

/// Closing it resets the connection.
fn rustix_linger(socket: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
}
