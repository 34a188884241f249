//! Nurseries, and what is made of them. One binary: to link each file takes longer than to compile it.

mod cleanup;
mod combinators;
mod fault;
mod foreign;
mod generator;
mod generator_ends;
mod join_and_until;
mod nursery;
mod nursery_cancel;
mod own_turns;
mod race;
mod race_ends;
mod race_model;
mod schedule;
mod services;
mod services_model;
mod services_started;
mod services_that_fail;
mod start;
mod start_model;
mod start_ready;
mod swallowing;
