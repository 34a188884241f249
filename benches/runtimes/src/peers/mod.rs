//! The peers. Each module says how its runtime starts tasks, sleeps and so on; the macros are the workloads, written once. They are macros,
//! not generic functions, since the runtimes differ in what they ask of a future (`Send` or not).

#[macro_use]
mod workloads;

pub mod compio;
pub mod futures_concurrency;
pub mod futures_unordered;
pub mod glommio;
pub mod monoio;
pub mod moro;
pub mod smol;
pub mod tokio;
pub mod tokio_handles;
