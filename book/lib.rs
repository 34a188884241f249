//! Compiles and runs every code block of the book and of the README, as doc-tests: `cargo test -p trefoil-book`.

#[doc = include_str!("../README.md")]
pub mod readme {}

#[doc = include_str!("src/introduction.md")]
pub mod introduction {}

#[doc = include_str!("src/why_nurseries.md")]
pub mod why_nurseries {}

#[doc = include_str!("src/first_program.md")]
pub mod first_program {}

#[doc = include_str!("src/cancellation.md")]
pub mod cancellation {}

#[doc = include_str!("src/deadlines.md")]
pub mod deadlines {}

#[doc = include_str!("src/channels.md")]
pub mod channels {}

#[doc = include_str!("src/locks.md")]
pub mod locks {}

#[doc = include_str!("src/task_locals.md")]
pub mod task_locals {}

#[doc = include_str!("src/races.md")]
pub mod races {}

#[doc = include_str!("src/files.md")]
pub mod files {}

#[doc = include_str!("src/services.md")]
pub mod services {}

#[doc = include_str!("src/testing.md")]
pub mod testing {}

#[doc = include_str!("src/looking_inside.md")]
pub mod looking_inside {}

#[doc = include_str!("src/silent_failures.md")]
pub mod silent_failures {}

#[doc = include_str!("src/how_it_works.md")]
pub mod how_it_works {}

#[doc = include_str!("src/performance.md")]
pub mod performance {}

#[doc = include_str!("src/from_asyncio.md")]
pub mod from_asyncio {}

#[doc = include_str!("src/from_elsewhere.md")]
pub mod from_elsewhere {}

#[doc = include_str!("src/glossary.md")]
pub mod glossary {}

#[doc = include_str!("src/rules.md")]
pub mod rules {}
