//! An echo server for real clients (`nc`, a load generator) that stops gracefully on Ctrl-C.
//!
//! ```sh
//! cargo run --release --example echo -- 127.0.0.1:7000
//! nc 127.0.0.1 7000
//! ```
//!
//! At the first Ctrl-C it stops politely: it does not listen any more, says goodbye to clients from which nothing has come, and sends
//! what is in hand, for which it has five seconds. At the second it cuts them. A client that says nothing for a minute, or takes as long for
//! what it is sent, is let go.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{CancelAware, CancelScope, fail_after, nursery, sleep, soft_cancelled, until_soft_cancelled};

/// How long clients may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long a client may say nothing, and how long it may take for an answer.
const IDLE: Duration = Duration::from_secs(60);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_string());
    // A thread waits for signals, and turns them into cancellation: a scope may be cancelled from any thread.
    let serving = CancelScope::new();
    let stop = serving.clone();
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count == 0 {
                println!("stopping: clients have {GRACE:?}; Ctrl-C again cuts them");
                stop.cancel_softly(GRACE);
            } else {
                stop.cancel();
            }
        }
    });
    trefoil::run(serving.run(serve(&address)))?;
    println!("stopped");
    Ok(())
}

async fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("echo on {}; Ctrl-C stops it", listener.local_addr()?);
    nursery(async move |n| -> io::Result<()> {
        // New clients are what a soft cancel keeps away.
        while !soft_cancelled() {
            match until_soft_cancelled(listener.accept()).await {
                Ok(Some((stream, peer))) => drop(n.spawn_named(format!("client {peer}"), client(stream, peer))),
                Ok(None) => break,
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => {
                    // Out of descriptors, for instance.
                    println!("accept: {error}");
                    sleep(Duration::from_millis(100)).await?;
                }
            }
        }
        // Nobody is accepted any more; the nursery ends when the last client has left, or was cut.
        drop(listener);
        Ok(())
    })
    .await?;
    Ok(())
}

async fn client(stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    println!("{peer} connected");
    match echo(stream).await {
        Ok(bytes) => println!("{peer} left after {bytes} bytes"),
        Err(error) if error.is_cancelled() => {
            println!("{peer} was cut");
            return Err(error);
        }
        // What goes wrong with one client is no reason to stop the others.
        Err(error) => println!("{peer}: {error}"),
    }
    Ok(())
}

async fn echo(mut stream: TcpStream) -> io::Result<u64> {
    let (mut buffer, mut total) = (vec![0; 16 * 1024], 0);
    loop {
        // So is the next piece of work of a client; one that has begun is finished.
        let Some(n) = until_soft_cancelled(fail_after(IDLE, stream.read(&mut buffer))).await? else { return Ok(total) };
        if n == 0 {
            return Ok(total);
        }
        fail_after(IDLE, stream.write_all(&buffer[..n])).await?;
        total += n as u64;
    }
}
