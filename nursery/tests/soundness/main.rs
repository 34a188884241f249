//! Attempts to break this crate: futures of every shape, polled, woken, moved, dropped and forgotten in every place, by code that panics and calls back. One
//! binary: to link each file takes longer than to compile it.

mod auto_traits;
mod counted;
mod destructors;
mod moved;
mod moved_tasks;
mod outside;
mod panics;
mod panics_outside;
mod reentrant;
mod shapes;
mod support;
mod threads;
mod wakes;
