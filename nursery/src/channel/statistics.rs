//! What a channel is doing, for programs and for a `Debug` output.

use super::{Handle, Queue, RECEIVERS, SENDERS};
use std::fmt;

/// What a channel was doing at one moment (R100).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelStatistics {
    /// How many items are in the buffer.
    pub buffered: usize,
    /// How many it may hold; `usize::MAX` without a bound.
    pub capacity: usize,
    /// How many senders are open.
    pub senders: usize,
    /// How many receivers are open.
    pub receivers: usize,
    /// How many tasks wait to send.
    pub waiting_to_send: usize,
    /// How many tasks wait to receive.
    pub waiting_to_receive: usize,
}

pub(super) fn statistics<T>(queue: &Queue<T>) -> ChannelStatistics {
    let mut queue = queue.lock();
    ChannelStatistics {
        buffered: queue.buffer.len(),
        capacity: queue.capacity,
        senders: queue.senders,
        receivers: queue.receivers,
        waiting_to_send: queue.count(SENDERS),
        waiting_to_receive: queue.count(RECEIVERS),
    }
}

pub(super) fn debug<T>(name: &str, handle: &Handle<T>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let channel = statistics(&handle.queue);
    let mut debug = f.debug_struct(name);
    debug.field("closed", &handle.is_closed()).field("items", &channel.buffered);
    match channel.capacity {
        usize::MAX => debug.field("capacity", &"unbounded"),
        capacity => debug.field("capacity", &capacity),
    };
    debug
        .field("senders", &channel.senders)
        .field("receivers", &channel.receivers)
        .field("waiting_to_send", &channel.waiting_to_send)
        .field("waiting_to_receive", &channel.waiting_to_receive)
        .finish()
}
