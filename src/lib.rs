//! Structured concurrency for Rust.
