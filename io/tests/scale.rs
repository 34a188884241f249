//! On demand, in release: `cargo test --release -p trefoil-io --test scale -- --ignored --nocapture`.
//!
//! 10,000 connections, each handled by a child of one nursery, on every driver: what an idle one costs in memory, and that all of them
//! end when the nursery is cancelled. The clients are a process of their own, since both ends of 10,000 connections are
//! more descriptors than one process may have.

mod common;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use trefoil_io::net::TcpListener;
use trefoil_nursery::{CancelAware, Event, nursery};

const CONNECTIONS: usize = 10_000;
const CLIENT: &str = "TREFOIL_SCALE_CLIENT";

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The other process: every connection sends a byte and gets it back; then they stay until they are cut.
#[test]
#[ignore = "the clients of the test below"]
fn client() {
    let Ok(address) = std::env::var(CLIENT) else { return };
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.write_all(b"x").unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        streams.push(stream);
    }
    println!("connected");
    for mut stream in streams {
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the server closes");
    }
    println!("closed");
}

#[test]
#[ignore = "large: on demand"]
fn ten_thousand_idle_connections() {
    if std::env::var_os(CLIENT).is_some() {
        return;
    }
    common::for_each_driver(|builder| {
        builder
            .run(async {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let mut clients = Command::new(std::env::current_exe()?)
                    .args(["--ignored", "--exact", "client", "--nocapture"])
                    .env(CLIENT, listener.local_addr()?.to_string())
                    .stdout(Stdio::piped())
                    .spawn()?;
                let (connected, closed) = (Event::new(), std::sync::Arc::new(Event::new()));
                let connected = std::sync::Arc::new(connected);
                let output = BufReader::new(clients.stdout.take().unwrap());
                let reader = {
                    let (connected, closed) = (connected.clone(), closed.clone());
                    std::thread::spawn(move || {
                        for line in output.lines() {
                            match &*line.unwrap() {
                                "connected" => connected.set(),
                                "closed" => closed.set(),
                                _ => {}
                            }
                        }
                    })
                };
                let before = resident();
                nursery(async |n| -> io::Result<()> {
                    n.spawn::<_, ()>(async move {
                        loop {
                            let (mut stream, _) = listener.accept().await?;
                            n.spawn(async move {
                                let mut byte = [0];
                                while stream.read(&mut byte).await? == 1 {
                                    stream.write_all(&byte).await?;
                                }
                                Ok(())
                            });
                        }
                    });
                    connected.wait().await?;
                    let metrics = trefoil_runtime::metrics();
                    println!(
                        "{}: {} tasks, {} resident bytes a connection",
                        metrics.driver,
                        metrics.tasks,
                        (resident() - before) / CONNECTIONS
                    );
                    assert_eq!(metrics.tasks, CONNECTIONS + 1);
                    n.cancel();
                    Ok(())
                })
                .await?;
                closed.wait().await?;
                assert!(clients.wait()?.success());
                reader.join().unwrap();
                let left = trefoil_runtime::metrics();
                assert_eq!((left.tasks, left.waits, left.timers), (0, 0, 0));
                Ok::<_, io::Error>(())
            })
            .unwrap_or_else(|error| panic!("{error}, cancelled: {}", error.is_cancelled()));
    });
}
