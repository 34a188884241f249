//! Servers under load: an echo server of each runtime in a process of its own, on one core, and one raw epoll program of ours as the load
//! for all of them, on another. Loopback only.
//!
//! Each server is what its runtime's documentation shows: accept, a task for each connection, read into its buffer, write it back. All
//! get the same listener, with the same options.

mod connect;
mod echo;
mod idle;
mod process;
mod raw_epoll;
mod raw_uring;
mod syscalls;

mod compio;
mod glommio;
mod monoio;
mod smol;
mod tokio;
mod trefoil;

use crate::Metric;
use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

/// Serves for ever, messages of about so many bytes. Ends with an error if it cannot begin.
type Serve = fn(TcpListener, usize) -> io::Result<()>;

/// In the order of the report.
const SERVERS: &[(&str, Serve)] = &[
    ("trefoil-io_uring", trefoil::on_io_uring),
    ("trefoil-epoll", trefoil::on_epoll),
    ("tokio", tokio::current_thread),
    ("tokio-mt", tokio::multi_thread),
    ("smol", smol::serve),
    ("monoio", monoio::serve),
    ("compio", compio::by_default),
    ("compio-tuned", compio::tuned),
    ("glommio", glommio::serve),
    ("raw-io_uring", raw_uring::serve),
    ("raw-epoll", raw_epoll::serve),
    // These look for a while before they sleep.
    ("trefoil-io_uring-spin", trefoil::on_io_uring_spinning),
    ("trefoil-epoll-spin", trefoil::on_epoll_spinning),
    ("glommio-spin", glommio::spinning),
    ("raw-epoll-spin", raw_epoll::spinning),
];

/// For how long a server that spins looks before it sleeps: longer than anything takes here.
const SPIN: Duration = Duration::from_millis(1);

/// Servers that hold no buffer for a connection from which nothing comes, as far as a runtime lets them; for its memory.
const WITHOUT_BUFFERS: &[(&str, Serve)] = &[
    ("trefoil-io_uring", trefoil::on_io_uring_without_buffers),
    ("trefoil-epoll", trefoil::on_epoll_without_buffers),
    ("tokio", tokio::without_buffers),
    ("smol", smol::without_buffers),
    ("monoio", monoio::without_buffers),
    ("compio", compio::without_buffers),
    ("raw-io_uring", raw_uring::serve),
    ("raw-epoll", raw_epoll::serve),
];

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of a message.
    pub size: usize,
    pub connections: usize,
    /// So many messages are under way on each connection.
    pub depth: usize,
    /// That of the server. The load takes the one before it, or after it.
    pub core: usize,
    pub quick: bool,
    /// By a server of `WITHOUT_BUFFERS`.
    pub without_buffers: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    /// Messages there and back.
    Echo,
    /// Connect, one message, close.
    Accept,
    /// Memory of a connection that has had one message.
    Idle,
    /// Be the server.
    Serve,
}

impl Job {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "echo" => Self::Echo,
            "accept" => Self::Accept,
            "idle" => Self::Idle,
            "serve" => Self::Serve,
            _ => return None,
        })
    }
}

/// Does it, or says that there is no such server; a server does not return.
pub fn run(job: Job, server: &str, load: &Load) -> Result<Option<Vec<Metric>>, Box<dyn Error>> {
    let servers = if load.without_buffers { WITHOUT_BUFFERS } else { SERVERS };
    let Some((name, serve)) = servers.iter().find(|(name, _)| *name == server) else {
        return if load.without_buffers { Ok(None) } else { Err(format!("no server {server}").into()) };
    };
    let metrics = match job {
        Job::Serve => {
            serve(process::begin(load.core)?, load.size)?;
            return Err("the server has come to an end".into());
        }
        Job::Echo => echo::run(name, load),
        Job::Accept => connect::run(name, load),
        Job::Idle => idle::run(name, load),
    };
    metrics.map(Some)
}

/// How long the load runs to warm up, how long it is measured, and how long system calls are counted.
fn lengths(load: &Load) -> [Duration; 3] {
    let milliseconds = if load.quick { [25, 80, 25] } else { [50, 160, 40] };
    milliseconds.map(Duration::from_millis)
}

/// A buffer for messages of that size. The same for all that have one for each connection.
fn buffer(size: usize) -> Vec<u8> {
    vec![0; size.max(4096)]
}
