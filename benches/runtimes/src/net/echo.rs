//! Messages there and back: so many under way on each connection, and the next is sent when one has come back.

use super::Load;
use super::process::{Process, many_files};
use crate::Metric;
use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

pub fn run(server: &str, load: &Load) -> Result<Vec<Metric>, Box<dyn Error>> {
    many_files()?;
    let process = Process::start(server, load)?;
    let mut clients = Clients::connect(&process, load)?;
    let [warm_up, length, counted] = super::lengths(load);
    clients.run(warm_up)?;
    clients.latencies.reset();
    let (cpu, waited, begin) = (process.cpu()?, process.waited()?, Instant::now());
    let requests = clients.run(length)?;
    let (cpu, waited, took) = (process.cpu()? - cpu, process.waited()? - waited, begin.elapsed());
    if requests == 0 {
        return Err("no message came back".into());
    }
    let quantile = |q| clients.latencies.value_at_quantile(q) as f64 / 1e3;
    let mut metrics = vec![
        ("cpu_us", cpu.as_secs_f64() * 1e6 / requests as f64),
        ("p50_us", quantile(0.5)),
        ("p99_us", quantile(0.99)),
        ("p999_us", quantile(0.999)),
        ("rate", requests as f64 / took.as_secs_f64()),
        ("waited", waited.as_secs_f64() / took.as_secs_f64()),
    ];
    let (requests, calls) = process.syscalls(|| clients.run(counted));
    if let (Ok(requests @ 1..), Some(calls)) = (requests, calls) {
        metrics.push(("syscalls", calls as f64 / requests as f64));
    }
    Ok(metrics)
}

/// All connections, on one thread that never sleeps.
struct Clients {
    poll: OwnedFd,
    all: Vec<Client>,
    events: Vec<Event>,
    message: Vec<u8>,
    buffer: Vec<u8>,
    latencies: Histogram<u64>,
    requests: u64,
}

struct Client {
    stream: TcpStream,
    /// Bytes to write as soon as there is room, and bytes of the message that is coming back.
    to_write: usize,
    read: usize,
    /// When the messages that are under way were sent.
    sent: VecDeque<Instant>,
}

impl Clients {
    fn connect(process: &Process, load: &Load) -> Result<Self, Box<dyn Error>> {
        let mut clients = Self {
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            all: Vec::new(),
            events: Vec::with_capacity(1024),
            message: vec![7; load.size * load.depth],
            buffer: vec![0; (load.size * load.depth).max(4096)],
            latencies: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            requests: 0,
        };
        for at in 0..load.connections {
            let mut stream = process.connect()?;
            check(&mut stream, at, load.size)?;
            stream.set_nonblocking(true)?;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&clients.poll, &stream, EventData::new_u64(at as u64), flags)?;
            let sent = vec![Instant::now(); load.depth].into();
            clients.all.push(Client { stream, to_write: load.size * load.depth, read: 0, sent });
        }
        Ok(clients)
    }

    /// How many messages have come back.
    fn run(&mut self, length: Duration) -> io::Result<u64> {
        let (before, until) = (self.requests, Instant::now() + length);
        while Instant::now() < until {
            self.turn()?;
        }
        Ok(self.requests - before)
    }

    fn turn(&mut self) -> io::Result<()> {
        self.events.clear();
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut self.events), Some(&zero))?;
        for event in &self.events {
            let client = &mut self.all[event.data.u64() as usize];
            let size = self.message.len() / client.sent.len();
            loop {
                let read = client.read(&mut self.buffer)?;
                client.read += read;
                let now = Instant::now();
                while client.read >= size {
                    client.read -= size;
                    client.to_write += size;
                    let sent = client.sent.pop_front().unwrap_or(now);
                    client.sent.push_back(now);
                    self.latencies.saturating_record((now - sent).as_nanos() as u64);
                    self.requests += 1;
                }
                client.write(&self.message)?;
                // A short read: the next edge tells of more.
                if read < self.buffer.len() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) => Err(io::Error::other("the server has closed a connection")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }

    fn write(&mut self, message: &[u8]) -> io::Result<()> {
        while self.to_write > 0 {
            match self.stream.write(&message[..self.to_write.min(message.len())]) {
                Ok(written) => self.to_write -= written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// That what comes back is what was sent: each connection has its own text.
pub fn check(stream: &mut TcpStream, seed: usize, size: usize) -> Result<(), Box<dyn Error>> {
    let message: Vec<u8> = (0..size).map(|at| (at.wrapping_mul(31) ^ seed.wrapping_mul(7)) as u8).collect();
    let mut back = vec![0; size];
    stream.write_all(&message)?;
    stream.read_exact(&mut back)?;
    if back == message { Ok(()) } else { Err("something else came back".into()) }
}
