//! TCP.
//!
//! | to | use | waits |
//! | --- | --- | --- |
//! | listen | [`TcpListener::bind`], [`TcpOptions::listen`] | never |
//! | take a connection | [`TcpListener::accept`] | until there is one |
//! | connect | [`TcpStream::connect`], [`TcpOptions::connect`] | until connected |
//! | read and write | [`TcpStream`], the futures-io traits | for bytes, for room |
//! | read and write at once | [`TcpStream::split`], [`TcpStream::into_split`] | |
//!
//! Every operation that waits is a cancel point: in a cancelled scope it returns an error whose `raw_os_error()` is `ECANCELED`, and
//! had no effect: no byte was read, no connection accepted. The exceptions are [`TcpStream::write_all`] and its kin, which may have
//! written a part, and [`connect`](TcpStream::connect), which closes its socket. A future that is dropped before it is ready counts as
//! cancelled.
//!
//! Sockets and futures are `Send`. A socket may be used in another run, on another thread, than the one where it was made.
//!
//! A socket that has waited belongs to the run where it did: that run's driver hears of its events, and whoever waits for it elsewhere is
//! woken from there, so that it must not be blocked. The socket moves to the run where it is waited for next when that run is over, or when
//! it is idle: nobody waits for it, and the driver does nothing for it. On epoll that is all it takes. On io_uring the driver goes
//! on receiving for a socket that has waited to read (to accept): hand such a socket on only to where its first run can go on, too.

mod addr;
mod halves;
mod into_std;
mod listener;
mod options;
mod socket;
mod stream;
mod transfer;

pub use addr::ToSocketAddr;
pub use halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use into_std::IntoStdError;
pub use listener::TcpListener;
pub use options::{Connect, TcpOptions};
pub use std::net::Shutdown;
pub use stream::TcpStream;

#[cfg(test)]
pub(crate) use socket::accept as accept_for_tests;
