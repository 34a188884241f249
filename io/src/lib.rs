//! The io_uring and epoll drivers of Trefoil, TCP and files on them.
//!
//! Users want the crate `trefoil`, which re-exports what is here. For who reads, from the outside in:
//!
//! 1. `builder`: [`run`] and [`Builder`]
//! 2. `net`: [TCP](net); `fs`: [files](fs)
//! 3. `operation`: attempt, wait, attempt again: the one shape of all operations
//! 4. `source`: a descriptor that operations wait on, and how a wait comes about
//! 5. `reactor`: which driver a run has, and the seam that drivers fit into
//! 6. `epoll`: the driver for every kernel; `uring`: the one for newer kernels
//!
//! Beside them: `readiness` (what is known without asking the kernel, and the lock of a source), `inbound` (what was received ahead of the reader), `buf`
//! ([buffers that an operation owns](IoBuf)), `bell` (what wakes a driver), `error`, `wake`.
//!
//! ```
//! use trefoil_io::net::{TcpListener, TcpStream};
//!
//! trefoil_io::run(async {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let mut client = TcpStream::connect(listener.local_addr()?).await?;
//!     let (mut server, _) = listener.accept().await?;
//!     client.write_all(b"hello").await?;
//!     let mut hello = [0; 5];
//!     server.read_exact(&mut hello).await?;
//!     assert_eq!(&hello, b"hello");
//!     # Ok::<(), std::io::Error>(())
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("Trefoil runs on Linux only: its drivers are io_uring and epoll");

mod bell;
mod buf;
mod builder;
mod dump;
mod epoll;
mod error;
pub mod fs;
mod inbound;
pub mod net;
mod operation;
mod reactor;
mod readiness;
mod source;
mod uring;
mod wake;

pub use buf::{IoBuf, IoBufMut};
pub use builder::{Builder, RunError, run};
pub use error::OperationError;
pub use reactor::{DriverKind, UnknownDriver};

#[cfg(trefoil_loom)]
pub mod model;
