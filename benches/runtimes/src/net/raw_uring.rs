//! The floor on io_uring: a loop without tasks. One multishot accept, a multishot receive for each connection into a ring of buffers that
//! all share, and sends from those same buffers; one system call submits and waits.

use io_uring::cqueue::{self, buffer_select};
use io_uring::squeue::{self, Flags};
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, Ordering};

const GROUP: u16 = 1;

/// What an entry is about: in the upper half of its user data. The connection is in the lower one.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1 << 32;
const SEND: u64 = 2 << 32;

pub fn serve(listener: TcpListener, size: usize) -> io::Result<()> {
    let mut ring = IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun().setup_cqsize(16384);
    let mut server = Server {
        ring: ring.build(4096)?,
        buffers: Buffers::new(size)?,
        listener: Fd(listener.as_raw_fd()),
        connections: Vec::new(),
        free: Vec::new(),
        starved: Vec::new(),
    };
    server.buffers.register(&server.ring)?;
    server.accept()?;
    let mut completions: Vec<cqueue::Entry> = Vec::new();
    loop {
        server.ring.submit_and_wait(1)?;
        completions.extend(server.ring.completion());
        for completion in completions.drain(..) {
            let at = completion.user_data() as u32 as usize;
            match completion.user_data() >> 32 << 32 {
                ACCEPT => server.accepted(&completion)?,
                RECEIVE => server.received(at, &completion)?,
                _ => server.sent(at, completion.result())?,
            }
        }
        // Buffers have come back by now, or will: whoever got none tries again.
        for at in std::mem::take(&mut server.starved) {
            server.receive(at)?;
        }
    }
}

struct Server {
    ring: IoUring,
    buffers: Buffers,
    listener: Fd,
    connections: Vec<Connection>,
    free: Vec<usize>,
    /// Their receive ended because there was no buffer.
    starved: Vec<usize>,
}

struct Connection {
    fd: RawFd,
    /// What is to be sent; the first of it is under way.
    queue: VecDeque<Piece>,
    receives: bool,
}

struct Piece {
    buffer: u16,
    begin: u32,
    end: u32,
}

impl Server {
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: what an entry points to is a buffer of `self.buffers`, which are never unmapped.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        self.push(&opcode::AcceptMulti::new(self.listener).build().user_data(ACCEPT))
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        if !cqueue::more(completion.flags()) {
            self.accept()?;
        }
        if completion.result() < 0 {
            return Ok(());
        }
        let connection = Connection { fd: completion.result(), queue: VecDeque::new(), receives: false };
        let at = match self.free.pop() {
            Some(at) => {
                self.connections[at] = connection;
                at
            }
            None => {
                self.connections.push(connection);
                self.connections.len() - 1
            }
        };
        self.receive(at)
    }

    fn receive(&mut self, at: usize) -> io::Result<()> {
        let connection = &mut self.connections[at];
        connection.receives = true;
        let receive = opcode::RecvMulti::new(Fd(connection.fd), GROUP).build();
        self.push(&receive.user_data(RECEIVE | at as u64))
    }

    fn received(&mut self, at: usize, completion: &cqueue::Entry) -> io::Result<()> {
        let connection = &mut self.connections[at];
        connection.receives = cqueue::more(completion.flags());
        let (receives, result) = (connection.receives, completion.result());
        if let (Some(buffer), 1..) = (buffer_select(completion.flags()), result) {
            connection.queue.push_back(Piece { buffer, begin: 0, end: result as u32 });
            if connection.queue.len() == 1 {
                self.send(at)?;
            }
            return if receives { Ok(()) } else { self.receive(at) };
        }
        if result == -rustix::io::Errno::NOBUFS.raw_os_error() {
            self.connections[at].receives = true;
            self.starved.push(at);
        }
        self.close_if_over(at)
    }

    /// The first piece.
    fn send(&mut self, at: usize) -> io::Result<()> {
        let connection = &self.connections[at];
        let Some(piece) = connection.queue.front() else { return Ok(()) };
        let from = self.buffers.address(piece.buffer).wrapping_add(piece.begin as usize);
        let send = opcode::Send::new(Fd(connection.fd), from, piece.end - piece.begin).flags(no_signal());
        self.push(&send.build().user_data(SEND | at as u64))
    }

    fn sent(&mut self, at: usize, result: i32) -> io::Result<()> {
        let queue = &mut self.connections[at].queue;
        let Some(piece) = queue.front_mut() else { return Ok(()) };
        piece.begin += result.max(0) as u32;
        // Who is gone gets no more; its receive ends by itself.
        if piece.begin == piece.end || result < 0 {
            self.buffers.give_back(piece.buffer);
            queue.pop_front();
        }
        self.send(at)?;
        self.close_if_over(at)
    }

    fn close_if_over(&mut self, at: usize) -> io::Result<()> {
        let connection = &mut self.connections[at];
        if connection.receives || !connection.queue.is_empty() || connection.fd < 0 {
            return Ok(());
        }
        let close = opcode::Close::new(Fd(std::mem::replace(&mut connection.fd, -1))).build();
        self.free.push(at);
        self.push(&close.flags(Flags::SKIP_SUCCESS))
    }
}

fn no_signal() -> i32 {
    rustix::net::SendFlags::NOSIGNAL.bits() as i32
}

/// The ring of buffers, and the buffers. Few and small ones, since they are used in turn and should stay in the cache.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    size: usize,
    count: u16,
    tail: u16,
}

impl Buffers {
    fn new(size: usize) -> io::Result<Self> {
        let (size, count) = (size.max(2048), if size > 4096 { 64 } else { 1024 });
        let map = |length| {
            // SAFETY: a new mapping, which nobody else knows.
            unsafe { mmap_anonymous(null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }
        };
        let entries = map(usize::from(count) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(count) * size)?.cast();
        let mut buffers = Self { entries, memory, size, count, tail: 0 };
        (0..count).for_each(|buffer| buffers.give_back(buffer));
        Ok(buffers)
    }

    fn register(&self, ring: &IoUring) -> io::Result<()> {
        // SAFETY: the mapping is as long as that, and is never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(self.entries as u64, self.count, GROUP, 0) }
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        self.memory.wrapping_add(usize::from(buffer) * self.size)
    }

    fn give_back(&mut self, buffer: u16) {
        let address = self.address(buffer) as u64;
        // SAFETY: the index is less than the count; the kernel does not look at the entry before the tail is past it; the tail is in the
        // part of the first entry that the setters leave alone.
        unsafe {
            let entry = &mut *self.entries.add(usize::from(self.tail % self.count));
            entry.set_addr(address);
            entry.set_len(self.size as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            (*BufRingEntry::tail(self.entries).cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }
}
