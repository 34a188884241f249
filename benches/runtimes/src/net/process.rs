//! The process of a server, seen from the load.

use super::{Load, syscalls};
use crate::measure::pin_to;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// In the server: pinned, with a listener that the load knows of, and gone when the load is.
pub fn begin(core: usize) -> Result<TcpListener, Box<dyn Error>> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    pin_to(core);
    many_files()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    rustix::net::listen(&listener, 4096)?;
    // Accepted sockets have it from here, on all runtimes, without a call for each.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    println!("{}", listener.local_addr()?.port());
    Ok(listener)
}

/// As many files as this process may have.
pub fn many_files() -> rustix::io::Result<u64> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    Ok(most.unwrap_or(u64::MAX))
}

/// Ends the process when it is dropped.
pub struct Process {
    child: Child,
    clock: ClockId,
    pub addr: SocketAddr,
}

impl Process {
    pub fn start(server: &str, load: &Load) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", server, "--size", &load.size.to_string(), "--core", &load.core.to_string()]);
        if load.without_buffers {
            command.arg("--without-buffers");
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let clock = clock_getcpuclockid(Pid::from_raw(child.id().try_into()?))?;
        let mut port = String::new();
        BufReader::new(child.stdout.take().ok_or("it is piped")?).read_line(&mut port)?;
        let mut process = Self { child, clock, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
        process.addr.set_port(port.trim().parse().map_err(|_| "the server did not start")?);
        pin_to(if load.core > 0 { load.core - 1 } else { 1 });
        Ok(process)
    }

    /// A connection that does not wait for ever.
    pub fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Its end leaves no state behind, which would eat all ports in a minute.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        Ok(stream)
    }

    /// User and system time of all its threads, those of io_uring too, to the nanosecond.
    pub fn cpu(&self) -> Result<Duration, Box<dyn Error>> {
        Ok(self.clock.now()?.into())
    }

    /// How long the threads of the server and of this program have waited for their cores: other programs had them.
    pub fn waited(&self) -> Result<Duration, Box<dyn Error>> {
        let mut waited = 0;
        for process in ["self", &self.child.id().to_string()] {
            for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
                // One that has ended meanwhile does not wait.
                let Ok(times) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
                waited += times.split(' ').nth(1).ok_or("schedstat")?.parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(waited))
    }

    /// Bytes in memory.
    pub fn resident(&self) -> Result<usize, Box<dyn Error>> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: usize = statm.split(' ').nth(1).ok_or("statm")?.parse()?;
        Ok(pages * rustix::param::page_size())
    }

    /// Counts the system calls that it makes while something is done. None where the kernel does not count for us.
    pub fn syscalls<T>(&self, work: impl FnOnce() -> T) -> (T, Option<u64>) {
        syscalls::of(self.child.id(), work)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
