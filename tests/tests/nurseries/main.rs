//! Nurseries, and what is made of them. One binary: to link each file takes longer than to compile it.

mod cleanup;
mod foreign;
mod generator;
mod nursery;
mod race;
mod services;
mod start;
mod start_model;
