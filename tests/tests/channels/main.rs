//! What tasks say to each other with, and wait for each other at. One binary: to link each file takes longer than to compile it.

mod blocking;
mod channel;
mod channel_handles;
mod event;
mod queue_models;
mod stream_sink;
mod streams;
mod sync;
mod wait_queue;
