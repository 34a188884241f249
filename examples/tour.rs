//! The main job: a nursery that serves echo over loopback TCP, and a crowd of clients, in one process.
//!
//! Every request has a deadline. Some clients stall and are cut. One is cancelled in the middle and says goodbye in a shielded
//! clean-up. One handler fails, and its error arrives, named, at the nursery that owns it. At the end the whole tree is
//! cancelled, and the program shows that nothing is left: it exits with 1 if something is.
//!
//! ```sh
//! cargo run --release --example tour -- --connections 1000 --seconds 5 --driver epoll --seed 7
//! ```

use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{
    CancelAware, CancelScope, DriverKind, ErrorGroup, Local, Metrics, Nursery, fail_after, local_nursery, metrics,
    move_on_after, shield_for, sleep,
};

/// How long a client waits for the answer to one request.
const REQUEST: Duration = Duration::from_secs(2);
/// How long the server waits for the rest of a request that has begun, before it cuts the client.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long a cancelled client may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
const MESSAGE: usize = 64;

const ECHO: u8 = b'e';
const BYE: u8 = b'b';
const BREAK: u8 = b'x';

#[derive(Clone, Debug)]
struct Flags {
    connections: usize,
    seconds: f64,
    driver: Option<DriverKind>,
    seed: u64,
}

/// What happened, for the status line and the end. One worker, so plain cells do.
#[derive(Default)]
struct Tally {
    served: Cell<u64>,
    open: Cell<usize>,
    cut: Cell<u64>,
    late: Cell<u64>,
    failed: Cell<u64>,
    goodbyes: Cell<u64>,
    refused: Cell<u64>,
    latency: RefCell<Option<Histogram<u64>>>,
}

fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

fn main() -> ExitCode {
    let mut flags = match Flags::parse() {
        Ok(flags) => flags,
        Err(error) => {
            eprintln!("tour: {error}\n\n{}", Flags::USAGE);
            return ExitCode::from(2);
        }
    };
    flags.fit_descriptors();
    let before = descriptors();
    let tally = Tally::default();
    *tally.latency.borrow_mut() = Some(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds are in order"));
    let started = Instant::now();
    let mut builder = trefoil::Builder::new();
    if let Some(driver) = flags.driver {
        builder = builder.driver(driver);
    }
    let ended = match builder.try_run(program(&flags, &tally)) {
        Ok(ended) => ended,
        Err(error) => {
            eprintln!("tour: {error}");
            return ExitCode::from(2);
        }
    };
    report(&flags, &tally, started.elapsed(), before, descriptors(), ended)
}

/// The whole tree: a server and a crowd, cancelled together when the time is over. Returns what was left when all had ended.
async fn program(flags: &Flags, tally: &Tally) -> io::Result<Metrics> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let metrics_before = metrics();
    println!(
        "serving echo on {address} with the {} driver; {} clients for {} s, seed {}",
        metrics_before.driver, flags.connections, flags.seconds, flags.seed
    );
    local_nursery(async |n| -> io::Result<()> {
        n.spawn(serve(&listener, tally));
        n.spawn(crowd(address, flags, tally));
        n.spawn(status(flags, tally));
        n.spawn(goodbye(address, flags, tally));
        n.spawn(troublemaker(address, flags));
        sleep(Duration::from_secs_f64(flags.seconds / 2.0)).await?;
        println!("\n--- the task tree, half way ---\n{}\n-------------------------------", trefoil::tree());
        sleep(Duration::from_secs_f64(flags.seconds / 2.0)).await?;
        // The end: everybody is told, cleans up, and is awaited.
        n.cancel();
        Ok(())
    })
    .await?;
    drop(listener);
    // What the kernel still has of dropped sockets comes back within a turn or two.
    let patience = Instant::now() + Duration::from_secs(2);
    while metrics().in_flight > 0 && Instant::now() < patience {
        sleep(Duration::from_millis(1)).await?;
    }
    Ok(metrics())
}

// ---- The server ----------------------------------------------------------------------------------------------------

/// Accepts for ever. Each connection is a child of one nursery, and ends with it.
async fn serve(listener: &TcpListener, tally: &Tally) -> io::Result<()> {
    local_nursery(async |connections| -> io::Result<()> {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => drop(connections.spawn(connection(stream, peer, tally))),
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => {
                    // Out of descriptors, for instance: the loop survives, and service resumes.
                    println!("accept: {error}; going on in 100 ms");
                    add(&tally.refused);
                    sleep(Duration::from_millis(100)).await?;
                }
            }
        }
    })
    .await?;
    Ok(())
}

/// One connection. What its handler fails with arrives at the nursery here, which owns it; the server goes on.
async fn connection(stream: TcpStream, peer: SocketAddr, tally: &Tally) -> io::Result<()> {
    tally.open.set(tally.open.get() + 1);
    let ended: Result<(), ErrorGroup<io::Error>> = local_nursery(async |owner: Nursery<'_, '_, io::Error, Local>| {
        owner.spawn(handle(stream, peer, tally));
        Ok(())
    })
    .await;
    tally.open.set(tally.open.get() - 1);
    match ended {
        Err(group) if group.is_cancelled() => Err(group.into()),
        Err(group) => {
            add(&tally.failed);
            println!("the nursery of {peer} got an error: {group}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Answers requests until the peer closes, stalls, says goodbye or breaks it.
async fn handle(mut stream: TcpStream, peer: SocketAddr, tally: &Tally) -> io::Result<()> {
    let mut message = [0; MESSAGE];
    loop {
        // The first byte may take as long as it likes; the rest of a request may not.
        match stream.read(&mut message[..]).await {
            Ok(0) => return Ok(()),
            Ok(MESSAGE) => {}
            Ok(n) => match move_on_after(PATIENCE, stream.read_exact(&mut message[n..])).await? {
                Some(()) => {}
                None => {
                    add(&tally.cut);
                    return Ok(());
                }
            },
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
        match message[0] {
            BREAK => {
                return Err(io::Error::other(format!(
                    "handler of {peer}: the request {:?} is broken",
                    message[0] as char
                )));
            }
            BYE => {
                add(&tally.goodbyes);
                println!("{peer} said goodbye after it was cancelled");
            }
            _ => {}
        }
        match stream.write_all(&message).await {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => return Ok(()),
            other => other?,
        }
    }
}

// ---- The clients ---------------------------------------------------------------------------------------------------

/// Many clients, of which one in fifty stalls in the middle of a request.
async fn crowd(address: SocketAddr, flags: &Flags, tally: &Tally) -> io::Result<()> {
    let mut random = fastrand::Rng::with_seed(flags.seed);
    local_nursery(async |n| -> io::Result<()> {
        for _ in 0..flags.connections {
            let stalls = random.u8(..50) == 0;
            let after = random.u32(1..200);
            n.spawn(client(address, stalls.then_some(after), random.fork(), tally));
        }
        Ok(())
    })
    .await?;
    Ok(())
}

async fn client(
    address: SocketAddr,
    stall_after: Option<u32>,
    mut random: fastrand::Rng,
    tally: &Tally,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    for count in 0u32.. {
        if stall_after == Some(count) {
            // Half a request, and then nothing: the server cuts the connection, and this reads the end.
            stream.write_all(&[ECHO; MESSAGE / 2]).await?;
            let _ = stream.read(&mut [0; 1]).await?;
            return Ok(());
        }
        let sent = Instant::now();
        match fail_after(REQUEST, request(&mut stream, ECHO, random.u64(..))).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                // The machine is too slow for this crowd: the answer may still come, so this connection is of no use any more.
                add(&tally.late);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        add(&tally.served);
        if let Some(latency) = &mut *tally.latency.borrow_mut() {
            latency.saturating_record(sent.elapsed().as_nanos() as u64);
        }
    }
    Ok(())
}

/// One message there and back; an answer that is not the question is an error.
async fn request(stream: &mut TcpStream, kind: u8, stamp: u64) -> io::Result<()> {
    let mut message = [kind; MESSAGE];
    message[1..9].copy_from_slice(&stamp.to_le_bytes());
    stream.write_all(&message).await?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer).await?;
    if answer != message {
        return Err(io::Error::other("the echo is not what was sent"));
    }
    Ok(())
}

/// A client that is cancelled in the middle, and uses what time a shield gives it to say goodbye.
async fn goodbye(address: SocketAddr, flags: &Flags, tally: &Tally) -> io::Result<()> {
    let scope = CancelScope::new();
    let cancel = scope.clone();
    local_nursery(async |n| -> io::Result<()> {
        n.spawn(async move {
            sleep(Duration::from_secs_f64(flags.seconds / 3.0)).await?;
            cancel.cancel();
            Ok(())
        });
        let ended = scope
            .run(async {
                let mut stream = TcpStream::connect(address).await?;
                let interrupted = loop {
                    match request(&mut stream, ECHO, 0).await {
                        Ok(()) => match sleep(Duration::from_millis(5)).await {
                            Ok(()) => add(&tally.served),
                            Err(cancelled) => break io::Error::from(cancelled),
                        },
                        Err(error) => break error,
                    }
                };
                if interrupted.is_cancelled() {
                    // A request that was cut in the middle leaves half an answer on the way: a clean goodbye takes a new connection.
                    drop(stream);
                    shield_for(GOODBYE, async {
                        let mut stream = TcpStream::connect(address).await?;
                        request(&mut stream, BYE, 0).await
                    })
                    .await?;
                }
                Err::<(), _>(interrupted)
            })
            .await?;
        assert!(ended.is_none(), "the scope absorbs its own cancellation");
        Ok(())
    })
    .await?;
    Ok(())
}

/// A client whose request makes its handler fail.
async fn troublemaker(address: SocketAddr, flags: &Flags) -> io::Result<()> {
    sleep(Duration::from_secs_f64(flags.seconds / 4.0)).await?;
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[BREAK; MESSAGE]).await?;
    match stream.read(&mut [0; 1]).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error),
    }
}

// ---- What is shown -------------------------------------------------------------------------------------------------

/// One line on a terminal that tells how it goes.
async fn status(flags: &Flags, tally: &Tally) -> io::Result<()> {
    let line = indicatif::ProgressBar::new_spinner();
    let started = Instant::now();
    let mut before = 0;
    loop {
        sleep(Duration::from_millis(200)).await.inspect_err(|_| line.finish_and_clear())?;
        let served = tally.served.get();
        line.set_message(format!(
            "{:.1} of {} s   {} connections   {} requests/s   {} cut   {} failed",
            started.elapsed().as_secs_f64(),
            flags.seconds,
            tally.open.get(),
            (served - before) * 5,
            tally.cut.get(),
            tally.failed.get(),
        ));
        line.tick();
        before = served;
    }
}

fn report(
    flags: &Flags,
    tally: &Tally,
    took: Duration,
    before: usize,
    after: usize,
    ended: io::Result<Metrics>,
) -> ExitCode {
    let left = match ended {
        Ok(left) => left,
        Err(error) => {
            eprintln!("tour: {error}");
            return ExitCode::FAILURE;
        }
    };
    let latency = tally.latency.take().expect("made in main");
    let micros = |q: f64| latency.value_at_quantile(q) as f64 / 1e3;
    println!("driver              {}", left.driver);
    println!(
        "requests            {} in {:.2} s: {:.0}/s",
        tally.served.get(),
        took.as_secs_f64(),
        tally.served.get() as f64 / flags.seconds
    );
    println!(
        "latency             p50 {:.0} µs, p90 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, most {:.0} µs",
        micros(0.5),
        micros(0.9),
        micros(0.99),
        micros(0.999),
        latency.max() as f64 / 1e3
    );
    println!("clients cut         {} (stalled in the middle of a request)", tally.cut.get());
    println!("requests too late   {}", tally.late.get());
    println!("accepts refused     {}", tally.refused.get());
    println!("handlers failed     {}", tally.failed.get());
    println!("goodbyes            {}", tally.goodbyes.get());
    println!(
        "left over           {} tasks, {} scopes, {} waits, {} timers, {} operations in flight, {} descriptors ({before} before, {after} after)",
        left.tasks,
        left.scopes,
        left.waits,
        left.timers,
        left.in_flight,
        after as i64 - before as i64
    );
    let nothing_left =
        (left.tasks, left.scopes, left.waits, left.timers, left.in_flight) == (0, 0, 0, 0, 0) && before == after;
    let as_told = tally.failed.get() == 1 && tally.goodbyes.get() == 1 && tally.served.get() > 0;
    if !nothing_left {
        eprintln!("tour: something was left over");
    }
    if !as_told {
        eprintln!("tour: one handler was to fail and one client to say goodbye");
    }
    if nothing_left && as_told { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many descriptors the process has open.
fn descriptors() -> usize {
    // Without the one that reads the directory.
    std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() - 1)
}

impl Flags {
    const USAGE: &'static str = "usage: tour [--connections N] [--seconds S] [--driver io_uring|epoll] [--seed N]";

    fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let mut flags = Self { connections: 1000, seconds: 5.0, driver: None, seed: 1 };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("connections") => flags.connections = parser.value()?.parse()?,
                Long("seconds") => {
                    flags.seconds = parser.value()?.parse()?;
                    if !(0.5..=3600.0).contains(&flags.seconds) {
                        return Err("--seconds is to be from 0.5 to 3600".into());
                    }
                }
                Long("driver") => flags.driver = Some(parser.value()?.parse()?),
                Long("seed") => flags.seed = parser.value()?.parse()?,
                Long("help") => {
                    println!("{}", Self::USAGE);
                    std::process::exit(0);
                }
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(flags)
    }

    /// Both ends of each connection are here: asks for as many descriptors as may be had, and takes fewer clients if that is too few.
    fn fit_descriptors(&mut self) {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let most = limit.maximum.unwrap_or(1 << 20).min(1 << 20);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum }).is_err() {
            return;
        }
        let fit = (most as usize).saturating_sub(64) / 2;
        if self.connections > fit {
            println!("only {most} descriptors may be open here: {fit} clients instead of {}", self.connections);
            self.connections = fit;
        }
    }
}
