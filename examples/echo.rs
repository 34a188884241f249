//! An echo server for real clients (`nc`, a load generator) that stops gracefully on Ctrl-C.
//!
//! ```sh
//! cargo run --release --example echo -- 127.0.0.1:7000
//! nc 127.0.0.1 7000
//! ```
//!
//! At the first Ctrl-C it stops listening and gives the clients that are connected five seconds; at the second it cuts them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{CancelAware, CancelScope, nursery, sleep};

const GRACE: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_string());
    // Two scopes: the one in which the server accepts, and the one around it in which all clients live. A thread waits for
    // signals, and turns them into cancellation: a scope may be cancelled, or given a deadline, from any thread.
    let (accepting, serving) = (CancelScope::new(), CancelScope::new());
    let (stop_accepting, stop_serving) = (accepting.clone(), serving.clone());
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count == 0 {
                println!("stopping: clients have {GRACE:?}; Ctrl-C again cuts them");
                stop_accepting.cancel();
                stop_serving.set_deadline(Some(Instant::now() + GRACE));
            } else {
                stop_serving.cancel();
            }
        }
    });
    trefoil::run(serving.run(serve(&address, &accepting)))?;
    println!("stopped");
    Ok(())
}

async fn serve(address: &str, accepting: &CancelScope) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("echo on {}; Ctrl-C stops it", listener.local_addr()?);
    nursery(async move |n| -> io::Result<()> {
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => drop(n.spawn(client(stream, peer))),
                    Err(error) if error.is_cancelled() => return Err::<(), _>(error),
                    Err(error) => {
                        // Out of descriptors, for instance.
                        println!("accept: {error}");
                        sleep(Duration::from_millis(100)).await?;
                    }
                }
            }
        };
        accepting.run(accept).await?;
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
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(total);
        }
        stream.write_all(&buffer[..n]).await?;
        total += n as u64;
    }
}
