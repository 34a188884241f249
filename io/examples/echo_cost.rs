//! What an echo costs the server in CPU time, on each driver, against a raw epoll loop that ran just before it.
//!
//! ```sh
//! cargo run --release -p trefoil-io --example echo_cost                      # 64 B on 64 and 1,000 connections, 4 KiB, 64 KiB
//! cargo run --release -p trefoil-io --example echo_cost -- 64 64 9           # one message size, connections, rounds
//! cargo run --release -p trefoil-io --example echo_cost -- accept            # connect, one message, close
//! ```
//!
//! The server is pinned to core 0, the clients (one thread that never sleeps) to core 1. The ratio is what to trust: machines have
//! slow phases.

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{RecvFlags, SendFlags};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use trefoil_io::{Builder, DriverKind};
use trefoil_nursery::{CancelScope, nursery};

const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_millis(700);

#[derive(Clone, Copy, PartialEq)]
enum Server {
    Raw,
    Trefoil(DriverKind),
}

#[derive(Clone, Copy)]
struct Load {
    size: usize,
    connections: usize,
    /// One message per connection.
    accept: bool,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<usize>().ok());
    let (loads, rounds) = if args.first().is_some_and(|arg| arg == "accept") {
        (vec![Load { size: 64, connections: 32, accept: true }], number(1))
    } else if let (Some(size), Some(connections)) = (number(0), number(1)) {
        (vec![Load { size, connections, accept: false }], number(2))
    } else {
        let loads = [(64, 64), (64, 1000), (4096, 64), (65536, 64)];
        (loads.map(|(size, connections)| Load { size, connections, accept: false }).to_vec(), None)
    };
    let rounds = rounds.unwrap_or(7);
    let mut servers = vec![Server::Raw];
    for kind in [DriverKind::Epoll, DriverKind::IoUring] {
        match Builder::new().driver(kind).try_run(async {}) {
            Ok(()) => servers.push(Server::Trefoil(kind)),
            Err(error) => println!("without {kind}: {error}"),
        }
    }
    for load in loads {
        let what = if load.accept { "accept + message + close" } else { "echo" };
        println!("{what}, {} B, {} connections, {rounds} rounds", load.size, load.connections);
        let mut ratios = vec![Vec::new(); servers.len()];
        let mut costs = vec![Vec::new(); servers.len()];
        for _ in 0..rounds {
            for (at, &server) in servers.iter().enumerate() {
                let raw = measure(Server::Raw, load);
                let cost = measure(server, load);
                ratios[at].push(cost / raw);
                costs[at].push(cost);
            }
        }
        for (at, &server) in servers.iter().enumerate() {
            let name = match server {
                Server::Raw => "raw epoll".to_owned(),
                Server::Trefoil(kind) => format!("trefoil on {kind}"),
            };
            let ratio = &mut ratios[at];
            ratio.sort_by(f64::total_cmp);
            costs[at].sort_by(f64::total_cmp);
            let median = ratio[ratio.len() / 2];
            let (first, last) = (ratio[0], ratio[ratio.len() - 1]);
            let cost = costs[at][costs[at].len() / 2];
            println!("  {name:20} {median:.3} x raw epoll [{first:.3}-{last:.3}], {cost:.2} us of server CPU each");
        }
    }
}

/// Microseconds of server CPU per request.
fn measure(server: Server, load: Load) -> f64 {
    let (ready, is_ready) = mpsc::channel();
    let stop = CancelScope::new();
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        pin_to(0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        match server {
            Server::Raw => {
                ready.send(addr).unwrap();
                raw(listener, load.size);
            }
            Server::Trefoil(kind) => {
                ready.send(addr).unwrap();
                Builder::new().driver(kind).run(trefoil(listener, load.size, stop)).unwrap();
            }
        }
    });
    let addr = is_ready.recv().unwrap();
    let pthread = thread.as_pthread_t();
    let cpu = || cpu_time(pthread);
    pin_to(1);
    let cost = if load.accept { accept_load(addr, load, cpu) } else { echo_load(addr, load, cpu) };
    stopped.cancel();
    // The raw loop stops at a connection that says nothing.
    if server == Server::Raw {
        drop(TcpStream::connect(addr).unwrap());
    }
    thread.join().unwrap();
    cost
}

async fn trefoil(listener: TcpListener, size: usize, stop: CancelScope) -> io::Result<()> {
    let listener = trefoil_io::net::TcpListener::from_std(listener)?;
    let served = stop.run(nursery(async |n| -> io::Result<()> {
        loop {
            let (mut stream, _) = listener.accept().await?;
            drop(n.spawn(async move {
                let mut buf = vec![0; size];
                loop {
                    let n = match stream.read(&mut buf).await {
                        Ok(0) => return Ok::<(), io::Error>(()),
                        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                        result => result?,
                    };
                    stream.write_all(&buf[..n]).await?;
                }
            }));
        }
    }));
    match served.await {
        Ok(_) => Ok(()),
        Err(error) => panic!("{error}"),
    }
}

/// Ends with the first connection that is closed without a word.
fn raw(listener: TcpListener, size: usize) {
    listener.set_nonblocking(true).unwrap();
    let poll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    epoll::add(&poll, &listener, EventData::new_u64(u64::MAX), EventFlags::IN | EventFlags::ET).unwrap();
    let mut streams: Vec<Option<(OwnedFd, bool)>> = Vec::new();
    let mut free = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut buf = vec![0; size];
    loop {
        events.clear();
        if epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None).is_err() {
            continue;
        }
        for event in &events {
            let key = event.data.u64();
            if key == u64::MAX {
                while let Ok(stream) = rustix::net::accept_with(
                    &listener,
                    rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
                ) {
                    let at = free.pop().unwrap_or_else(|| {
                        streams.push(None);
                        streams.len() - 1
                    });
                    let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
                    epoll::add(&poll, &stream, EventData::new_u64(at as u64), flags).unwrap();
                    streams[at] = Some((stream, false));
                }
                continue;
            }
            let at = key as usize;
            let Some((stream, spoke)) = &mut streams[at] else { continue };
            loop {
                match rustix::net::recv(&*stream, &mut buf, RecvFlags::DONTWAIT) {
                    Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => {
                        if !*spoke {
                            return;
                        }
                        streams[at] = None;
                        free.push(at);
                        break;
                    }
                    Ok((_, n)) => {
                        *spoke = true;
                        // Never full in this measurement, but for a moment with large messages.
                        let mut rest = &buf[..n];
                        while !rest.is_empty() {
                            match rustix::net::send(&*stream, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                                Ok(n) => rest = &rest[n..],
                                Err(rustix::io::Errno::AGAIN) => std::hint::spin_loop(),
                                Err(_) => break,
                            }
                        }
                        // A short read: nothing is left, and an edge tells of more.
                        if n < size && !{ event.flags }.contains(EventFlags::RDHUP) {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
        }
    }
}

/// Every connection has one message under way.
fn echo_load(addr: SocketAddr, load: Load, cpu: impl Fn() -> Duration) -> f64 {
    let message = vec![7; load.size];
    let mut buf = vec![0; load.size];
    let poll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let mut streams = Vec::new();
    for at in 0..load.connections {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&message).unwrap();
        stream.read_exact(&mut buf).unwrap();
        stream.set_nonblocking(true).unwrap();
        epoll::add(&poll, &stream, EventData::new_u64(at as u64), EventFlags::IN | EventFlags::OUT | EventFlags::ET)
            .unwrap();
        streams.push((stream, 0, load.size));
    }
    let mut requests = 0_u64;
    let mut events = Vec::with_capacity(1024);
    let mut start: Option<(Instant, Duration, u64)> = None;
    let begin = Instant::now();
    // What was written and read of the message under way: `written == size` at first, so that the first event begins one.
    for (_, read, written) in &mut streams {
        (*read, *written) = (0, 0);
    }
    loop {
        let now = Instant::now();
        match start {
            None if now - begin >= WARM_UP => start = Some((now, cpu(), requests)),
            Some((at, before, counted)) if now - at >= MEASURED => {
                return (cpu() - before).as_secs_f64() * 1e6 / (requests - counted) as f64;
            }
            _ => {}
        }
        events.clear();
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&zero)).unwrap();
        for event in &events {
            let (stream, read, written) = &mut streams[event.data.u64() as usize];
            loop {
                let before = (*read, *written);
                if *written < load.size
                    && let Ok(n) = stream.write(&message[*written..])
                {
                    *written += n;
                }
                if let Ok(n) = stream.read(&mut buf[..load.size - *read]) {
                    *read += n;
                }
                if *read == load.size {
                    requests += 1;
                    (*read, *written) = (0, 0);
                    continue;
                }
                if (*read, *written) == before {
                    break;
                }
            }
        }
    }
}

/// Connect, one message, close; so many at a time.
fn accept_load(addr: SocketAddr, load: Load, cpu: impl Fn() -> Duration) -> f64 {
    let message = vec![7; load.size];
    let mut buf = vec![0; load.size];
    let mut start: Option<(Instant, Duration, u64)> = None;
    let (begin, mut requests) = (Instant::now(), 0_u64);
    loop {
        let now = Instant::now();
        match start {
            None if now - begin >= WARM_UP => start = Some((now, cpu(), requests)),
            Some((at, before, counted)) if now - at >= MEASURED => {
                return (cpu() - before).as_secs_f64() * 1e6 / (requests - counted) as f64;
            }
            _ => {}
        }
        let mut streams: Vec<_> = (0..load.connections).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for stream in &mut streams {
            // No state of this connection is left behind on the client's side, where it would eat all ports.
            rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO)).unwrap();
            stream.write_all(&message).unwrap();
        }
        for stream in &mut streams {
            stream.read_exact(&mut buf).unwrap();
        }
        requests += streams.len() as u64;
    }
}

fn pin_to(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

fn cpu_time(thread: std::os::unix::thread::RawPthread) -> Duration {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the thread is not joined yet; both calls write to the variables that are given to them.
    let result = unsafe {
        libc::pthread_getcpuclockid(thread, &raw mut clock);
        libc::clock_gettime(clock, &raw mut time)
    };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}
