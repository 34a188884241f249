//! What the loom models share: a runner that counts and compares, threads that race, wakers and values that are counted, and an
//! allocator that finds what is used after it was freed.
//!
//! How a model is made. It sets something up, lets two or three closures race ([`Order::race2`], [`Order::race3`]), then polls
//! whatever was woken until nothing is ([`Woken::settle`]), and looks at the end: what should be over is, each value was
//! dropped once, each count of references is back where it began. It returns what it saw; all that was seen over all
//! executions must be exactly what was expected.
//!
//! **Orders.** Loom 0.7 remembers one last access per atomic, so a thread that loads a word before it stores to it hides the load
//! that another thread did before: loom then never tries the store first. Which thread comes first in the first execution decides
//! what is hidden. Hence each model runs once for every rotation of its threads, which puts every pair in both orders.
//!
//! **Memory.** Loom sees the accesses to its own atomics and cells, but not that they were freed. [`Poison`] is the allocator of every
//! model: what is freed is overwritten and kept back for a while. A loom object there has an index that no execution has, so
//! that its next access fails the model; a plain write is found when the block is let go.

#![cfg(trefoil_loom)]

mod children;
mod counted;
mod poison;
mod runner;
mod task;

pub use children::{Child, Hatched, Nest, Spawner, Value};
pub use counted::{Drops, Token, Woken};
pub use poison::Poison;
pub use runner::{Model, Order, model};
pub use task::{Run, Task};
