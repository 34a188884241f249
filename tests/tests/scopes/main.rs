//! Scopes: cancels, deadlines, shields, and what comes out of them. One binary: to link each file takes longer than to compile it.

mod aborts;
mod cancel;
mod cancel_catch;
mod checkpoints;
mod clock;
mod deadline;
mod drop;
mod errors;
mod every_await;
mod first_poll;
mod first_wins;
mod scope_model;
mod shield;
mod soft;
mod time;
mod who_failed;
mod why_cancelled;
