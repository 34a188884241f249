//! io_uring: the driver ([`driver`] has the map of it), and the ring that it drives.
//!
//! The rest of this page is about the ring itself: entries, queues, mappings, provided buffers. Who waits for an operation,
//! what it owns and when it is cancelled is the driver's business.
//!
//! | file | its one job |
//! | --- | --- |
//! | [`sys`] | the kernel's ABI: [`Sqe`], [`Cqe`], every number we use and the kernel that brought it |
//! | [`queue`] | who may touch which entry when: heads and tails (modelled in `model-checks/tests/ring.rs`) |
//! | [`ring`] | [`Ring`]: setup with the richest flags, mappings, the one system call (a table of its files is there) |
//! | [`buf_ring`] | [`BufRing`]: the buffers that multishot receives pick from |
//! | [`peer`] | [`PeerPlace`](peer::PeerPlace): where multishot accepts write who connects |
//!
//! # The life of an entry
//!
//! ```text
//!        user space, the worker's thread      :   shared memory              :  kernel
//!                                             :                              :
//!   Sqe::recv(..)                             :                              :
//!        |  Ring::push          (1)           :                              :
//!        v                                    :                              :
//!   in its cell, not visible ---(2) publish---:--> sq.tail (Release) --------:--(3) enter --> takes the entry,
//!                                             :                              :                stores sq.head
//!        ^                                    :                              :                     |
//!        |  the cell is free again <----------:--- sq.head (Acquire) <-------:---------------------+
//!                                             :                              :                     v
//!                                             :                              :               works, or waits;
//!                                             :                              :               MORE: comes here again
//!                                             :                              :                     |
//!   Cqe  <---(5) Ring::pop (Acquire) ---------:--- cq.tail <-----------------:--(4) enter ---------+
//!        |                                    :                              :
//!        +------(6) same pop (Release) -------:--> cq.head                   :   may reuse the cell
//! ```
//!
//! 1. [`Ring::push`] copies the entry into its cell. `Err(Full)` means: [`Ring::enter`], then again.
//! 2. [`Ring::enter`] publishes all that was pushed with one store,
//! 3. and the same system call submits it
//! 4. and waits for completions. With `DEFER_TASKRUN` this is the only place where completions appear; looking at the
//!    queue without entering shows nothing new, [`Ring::needs_enter`] says when entering would.
//! 5. [`Ring::pop`] copies one completion out,
//! 6. and gives its cell back at once.
//!
//! A completion without [`Cqe::more`] is the last one for its key: from there on the kernel has forgotten the
//! operation's memory.
//!
//! # Invariants
//!
//! The SAFETY comments below lean on these, by name.
//!
//! * **THREAD**: [`Ring`] and [`BufRing`] live and die on the thread that made them (`SINGLE_ISSUER`; they are
//!   `!Send`). Our side of every queue is one thread; the other side is the kernel.
//! * **MAPPED**: the words and cells of a queue are inside a mapping that is a field of the same struct, is as large as
//!   the kernel said, and is unmapped only by that struct's drop.
//! * **SQ-CELL**: a submission cell is ours from the kernel's store of a head beyond it to our store of a tail beyond
//!   it; nobody else touches it meanwhile.
//! * **CQ-CELL**: a completion cell is ours from the kernel's store of a tail beyond it to our store of a head beyond
//!   it.
//! * **ONE-HOLDER**: each provided buffer has one holder: the kernel (offered, or picked and not yet told us), or the
//!   one [`Lent`] for it.
//! * **HONEST-ENTRY**: whoever made an [`Sqe`] with an `unsafe` constructor promised that the memory it names stays
//!   valid, and otherwise unused, until the operation's last completion was popped. So [`Ring::push`] and
//!   [`Ring::enter`] are safe, and so is dropping a [`Ring`]: memory is the promiser's.
//!
//! Dropping a [`Ring`] closes it, and closing does *not* wait: the kernel may still write into buffers of operations in
//! flight afterwards. To keep the promise of HONEST-ENTRY, drain first ([`Ring::cancel_all`], then `enter` and `pop`
//! until nothing is in flight), or leak what is in flight together with [`Ring::leak`] and [`BufRing::leak`].

#[allow(dead_code, reason = "some of it is for tests to look at")]
pub mod buf_ring;
mod core;
pub(crate) mod driver;
pub(crate) mod errands;
pub(crate) mod home;
mod outgoing;
pub(crate) mod peer;
#[allow(dead_code, reason = "some of it is for models and tests to look at")]
pub mod queue;
pub(crate) mod requests;
#[allow(dead_code, reason = "some of it is for tests to look at")]
pub mod ring;
pub(crate) mod slots;
#[allow(dead_code, reason = "some of it is for tests to look at")]
pub mod sys;

#[allow(unused_imports, reason = "named by the page above, and by models")]
pub use {
    buf_ring::{BufRing, Lent},
    queue::Full,
    ring::Ring,
    sys::{Cqe, Sqe},
};
