//! A wait that is not ours to end: code outside of this crate decides when it is over, and polls its owner then. It is shown as any wait
//! is, in the tree and in the report of a deadlock (N10), and it learns that a scope around it is cancelled.
//!
//! A cancel that is told once ([`Scope::cancel_once`](crate::Scope::cancel_once)) passes it over: whoever asks for that tells it itself.

use crate::context;
use crate::look::deadlock;
use crate::look::holders::Thing;
use crate::park::{Abort, Ahead, Known, Park, Tail, Wait};
use crate::ready::RawJoin;
use crate::scope::cancelled::Cancelled;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Names a child, to be compared only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildKey(usize);

impl ChildKey {
    /// That of the child of a handle.
    pub fn of<T>(join: &RawJoin<T>) -> Self {
        Self(join.addr())
    }
}

/// Who could end such a wait, where that is known (N10).
#[derive(Clone, Copy, Debug, Default)]
pub enum Ender {
    /// Nobody who is known.
    #[default]
    Unknown,
    /// A child, when it ends.
    Child(ChildKey),
    /// Those that hold this, when they give back so many units.
    Holders(Thing, u32),
    /// Nobody who is known, of something that was made there.
    Made(&'static Location<'static>),
}

/// See the module.
#[derive(Debug, Default)]
pub struct GuestWait {
    /// There once it was begun in a run.
    park: Option<Pin<Box<Park<Known>>>>,
}

impl GuestWait {
    /// One that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// To be called when the owner is polled and has to wait, and has kept a clone of the waker for whoever ends the wait. Ready in a cancelled scope: it does not wait any more then. Outside of a run nothing is
    /// shown.
    pub fn poll(&mut self, cx: &mut Context<'_>, wait: Wait, by: Ender) -> Poll<Cancelled> {
        let place = wait.place;
        if let Some(park) = self.park.as_ref().filter(|park| park.is_active()) {
            if context::tree().is_none() {
                return Poll::Pending;
            }
            // SAFETY: [OWNER] of the park: `&mut self`.
            return match unsafe { park.as_ref().poll_lasting(cx) } {
                // Nobody completes it.
                Poll::Pending | Poll::Ready(Ok(())) => Poll::Pending,
                Poll::Ready(Err(_)) => context::poll_cancelled(place),
            };
        }
        if context::tree().is_none() {
            return Poll::Pending;
        }
        let park = self.park.get_or_insert_with(|| Box::pin(Park::new_at(place)));
        let wait = Wait { abort: Abort::Lasting, ..wait };
        let known = match by {
            Ender::Unknown => Known::NEW,
            Ender::Child(child) => Known::of_child(child.0),
            Ender::Holders(thing, units) => Known::of(Some(thing), units as usize),
            Ender::Made(place) => Known::made(place),
        };
        // SAFETY: as above.
        let begun = unsafe {
            park.make_anew(place, known);
            park.as_ref().begin_as_made(cx, wait, Ahead::NONE)
        };
        match begun {
            Ok(()) => {
                if matches!(by, Ender::Holders(thing, _) if thing.is_closed()) {
                    deadlock::suspect();
                }
                Poll::Pending
            }
            Err(_) => {
                // It has kept the waker.
                // SAFETY: as above.
                unsafe { park.end() };
                context::poll_cancelled(place)
            }
        }
    }

    /// The wait is over.
    pub fn end(&mut self) {
        if let Some(park) = self.park.as_ref().filter(|park| park.is_active()) {
            // SAFETY: [OWNER] of the park: `&mut self`. Nobody can find it to complete it.
            unsafe { park.end() };
        }
    }
}

impl Drop for GuestWait {
    fn drop(&mut self) {
        self.end();
    }
}
