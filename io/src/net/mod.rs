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
