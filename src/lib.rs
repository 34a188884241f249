//! Structured concurrency for Rust: nurseries, cancel scopes and deadlines, on an io_uring or epoll reactor.
//!
//! ```
//! use std::{io, time::Duration};
//! use trefoil::net::{TcpListener, TcpStream};
//! use trefoil::{move_on_after, nursery};
//!
//! fn main() -> io::Result<()> {
//!     trefoil::run(async {
//!         let listener = TcpListener::bind("127.0.0.1:0")?;
//!         let greeting = String::from("hello");
//!         nursery(async |n| -> io::Result<()> {
//!             // Both children borrow from this function. Neither outlives the nursery.
//!             n.spawn(async {
//!                 let (mut stream, _) = listener.accept().await?;
//!                 stream.write_all(greeting.as_bytes()).await
//!             });
//!             let mut stream = TcpStream::connect(listener.local_addr()?).await?;
//!             let mut answer = [0; 5];
//!             let in_time = move_on_after(Duration::from_secs(1), stream.read_exact(&mut answer)).await?;
//!             assert!(in_time.is_some());
//!             assert_eq!(&answer, b"hello");
//!             Ok(())
//!         })
//!         .await?;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # Where to start
//!
//! - [`run`] and [`Builder`]: from a program to its first future
//! - [`nursery`] and [`local_nursery`]: where tasks come from, and where every one of them ends
//! - [`move_on_after`], [`fail_after`], [`shield`], [`CancelScope`]: deadlines and cancellation; [`until_soft_cancelled`]: to stop politely
//! - [`sleep`], [`checkpoint`], [`Event`], [`channel`]: what tasks wait for
//! - [`task_local!`]: values that tasks inherit
//! - the module [`net`]: TCP
//! - [`tree`] and [`metrics`]: what a program is doing
//! - the module [`testing`]: virtual time, schedules by seed, cancel sweeps
//!
//! # The rules in five lines
//!
//! A scope is cancelled by its handle, by its deadline, or because a child of its nursery failed. From then on every operation in it
//! returns [`Cancelled`]; pass it on with `?`. The scope absorbs it at its exit. A [`shield`] holds it off, for clean-up that has to
//! wait. An operation that returned [`Cancelled`] had no effect.

pub use trefoil_io::{Builder, DriverKind, IoBuf, IoBufMut, OperationError, RunError, UnknownDriver, net, run};
pub use trefoil_nursery::*;
pub use trefoil_runtime::{Metrics, Reason, ScopeView, TaskView, WaitView, metrics, tree};
pub use trefoil_testing as testing;
