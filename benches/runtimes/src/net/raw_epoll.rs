//! The floor on epoll: a loop without tasks. Edge-triggered, registered once; a short read means that nothing is left.

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use std::hint::spin_loop;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

const LISTENER: u64 = u64::MAX;

pub fn serve(listener: TcpListener, size: usize) -> io::Result<()> {
    run(listener, size, None)
}

/// It never sleeps.
pub fn spinning(listener: TcpListener, size: usize) -> io::Result<()> {
    run(listener, size, Some(Timespec { tv_sec: 0, tv_nsec: 0 }))
}

fn run(listener: TcpListener, size: usize, timeout: Option<Timespec>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN | EventFlags::ET)?;
    let mut streams: Vec<Option<OwnedFd>> = Vec::new();
    let mut free = Vec::new();
    let mut events = Vec::with_capacity(1024);
    // One for all.
    let mut buffer = super::buffer(size);
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref())?;
        for event in &events {
            if event.data.u64() == LISTENER {
                while let Ok(stream) = rustix::net::accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
                {
                    let at = free.pop().unwrap_or_else(|| {
                        streams.push(None);
                        streams.len() - 1
                    });
                    let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
                    epoll::add(&poll, &stream, EventData::new_u64(at as u64), flags)?;
                    streams[at] = Some(stream);
                }
                continue;
            }
            let at = event.data.u64() as usize;
            let over = { event.flags }.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            if let Some(stream) = &streams[at]
                && !echo(stream, &mut buffer, over)
            {
                streams[at] = None;
                free.push(at);
            }
        }
    }
}

/// Whether the connection stays.
fn echo(stream: &OwnedFd, buffer: &mut [u8], over: bool) -> bool {
    loop {
        let read = match rustix::net::recv(stream, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return false,
            Ok((_, read)) => read,
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        };
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            match rustix::net::send(stream, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(written) => rest = &rest[written..],
                // The load reads at once: there is room in a moment.
                Err(Errno::AGAIN) => spin_loop(),
                Err(_) => return false,
            }
        }
        if read < buffer.len() && !over {
            return true;
        }
    }
}
