#![doc = "asyncio's vocabulary: see [`trefoil_nursery::asyncio`] for what it means, and [`run`] for where a program begins."]

use trefoil_nursery::CancelAware;
pub use trefoil_nursery::asyncio::*;

/// Runs an event loop on the calling thread until `main` is done: asyncio's `run`.
///
/// What is left over then is cancelled, once, and awaited (R2, R3). Inside of a run of Trefoil there is
/// [`event_loop`], which is the same as a future.
///
/// # Errors
/// Those of `main`.
///
/// # Panics
/// Inside of another run on the same thread (R1). With the first panic of a task or of a callback, when all tasks have ended.
///
/// # Examples
/// ```
/// use std::{io, time::Duration};
/// use trefoil::asyncio;
///
/// async fn say(after: u64, what: &str) -> io::Result<&str> {
///     asyncio::sleep(Duration::from_millis(after)).await?;
///     Ok(what)
/// }
///
/// fn main() -> io::Result<()> {
///     asyncio::run(async {
///         let hello = asyncio::create_task(say(2, "hello"));
///         let world = asyncio::create_task(say(1, "world"));
///         assert_eq!(asyncio::gather([hello, world]).await?, ["hello", "world"]);
///         Ok(())
///     })
/// }
/// ```
#[track_caller]
pub fn run<F, T, E>(main: F) -> Result<T, E>
where
    F: std::future::Future<Output = Result<T, E>> + 'static,
    T: 'static,
    E: CancelAware + 'static,
{
    trefoil_io::run(event_loop(main))
}
