//! What tasks say to each other with, and wait for each other at. One binary: to link each file takes longer than to compile it.

mod barrier;
mod blocking;
mod channel;
mod channel_handles;
mod condition;
mod event;
mod exclusion;
mod locks;
mod queue_models;
mod stream_sink;
mod streams;
mod values;
mod wait_queue;
mod waiting;
