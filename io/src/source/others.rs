//! Operations to read beside one that has the [claim](super::Source::claim): tasks that accept from one listener.
//!
//! Each brings a park of its own, which the source knows for as long as the operation lasts, in the order in which they first had to wait. An
//! event ends the wait of all of them, behind that of who has the claim, which came before them: each asks again, and what there is goes to
//! the oldest. So it does no harm that one was forgotten (`mem::forget`): it is woken for nothing. Nor does anybody wait for those that were woken:
//! one that begins just then may be faster.

use super::{Begun, Direction, OTHERS, Ready, Source, State, Want};
use crate::error;
use crate::operation::poll_gate;
use crate::reactor::{Home, Reactor};
use crate::readiness::{READ, Seen};
use crate::wake::WakeList;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsRawFd;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use trefoil_runtime::{Completed, Park, poll_budget, poll_cancelled};

/// What a source knows of them: there is at least one.
#[derive(Debug)]
pub(super) struct Others(Vec<Other>);

#[derive(Debug)]
struct Other {
    park: Pin<Arc<Park>>,
    /// It can be found: \[FOUND\].
    waits: bool,
}

impl Others {
    #[cold]
    fn complete(&mut self, wake: &mut WakeList) -> usize {
        let mut ended = 0;
        for other in self.0.iter_mut().filter(|other| other.waits) {
            other.waits = false;
            ended += 1;
            if let Completed::Won(Some(waker)) = other.park.complete() {
                wake.push(waker);
            }
        }
        ended
    }
}

impl State {
    /// Completes all of them that wait for an event with these flags. How many waits ended.
    #[inline]
    pub(super) fn complete_others(&mut self, flags: u32, wake: &mut WakeList) -> usize {
        match &mut self.others {
            Some(others) if flags & READ != 0 => {
                self.waiting &= !OTHERS;
                others.complete(wake)
            }
            _ => 0,
        }
    }

    /// From here on it can be found.
    fn list(&mut self, park: &Pin<Arc<Park>>) {
        self.waiting |= OTHERS;
        let others = &mut self.others.get_or_insert_with(|| Box::new(Others(Vec::new()))).0;
        match others.iter_mut().find(|other| is_same(&other.park, park)) {
            Some(other) => other.waits = true,
            None => others.push(Other { park: park.clone(), waits: true }),
        }
    }

    /// From here on it is not known. Whether it was waiting.
    fn unlist(&mut self, park: &Pin<Arc<Park>>) -> bool {
        let Some(others) = &mut self.others else { return false };
        let others = &mut others.0;
        let Some(at) = others.iter().position(|other| is_same(&other.park, park)) else { return false };
        let waited = others.remove(at).waits;
        if !others.iter().any(|other| other.waits) {
            self.waiting &= !OTHERS;
        }
        if others.is_empty() {
            self.others = None;
        }
        waited
    }
}

fn is_same(a: &Pin<Arc<Park>>, b: &Pin<Arc<Park>>) -> bool {
    std::ptr::eq(&raw const **a, &raw const **b)
}

impl Source {
    /// Those who were forgotten: who still operates borrows the source.
    pub(super) fn end_others(&mut self) {
        let mut state = self.shared.lock();
        let Some(others) = state.others.take() else { return };
        state.waiting &= !OTHERS;
        let waits = others.0.iter().filter(|other| other.waits).count();
        if let Some(registration) = &state.registration {
            registration.home.waits_ended(waits);
        }
        drop(state);
        for other in others.0 {
            // SAFETY: [OWNER]: `&mut self`; who waited is gone. Nobody finds it: [FOUND].
            unsafe { other.park.end() };
        }
    }
}

/// See the module. Only for what several may attempt at once.
#[derive(Debug)]
pub(crate) struct Another<'a> {
    source: &'a Source,
    want: Want,
    place: &'static Location<'static>,
    /// It had to wait.
    park: Option<Pin<Arc<Park>>>,
}

impl<'a> Another<'a> {
    pub fn new(source: &'a Source, want: Want, place: &'static Location<'static>) -> Self {
        assert_eq!(want.direction(), Direction::Read, "others write with `&mut`");
        Self { source, want, place, park: None }
    }

    /// As [`Operation::poll`](crate::operation::Operation::poll).
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(Ready<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let (source, place) = (self.source, self.place);
        match &self.park {
            Some(park) if park.is_active() => {
                if !trefoil_runtime::in_run() {
                    return Poll::Ready(Err(error::outside()));
                }
                // SAFETY: [OWNER]: `&mut self`; none other but `end_others` ends it, when this is gone.
                if ready!(unsafe { park.as_ref().poll(cx) }).is_err() {
                    self.forgo(true);
                    return poll_cancelled(place).map(|cancelled| Err(cancelled.into()));
                }
            }
            _ => ready!(poll_gate(cx, place))?,
        }
        loop {
            let blocked = match source.attempt(Direction::Read, &mut attempt) {
                Ok(Err(error)) if error::is(&error, Errno::INTR) => {
                    ready!(poll_budget(cx));
                    continue;
                }
                Ok(result) => return Poll::Ready(result),
                Err(blocked) => blocked,
            };
            match self.begin(cx, blocked) {
                Ok(Begun::Waiting) => return Poll::Pending,
                Ok(Begun::AskAgain) => ready!(poll_budget(cx)),
                Ok(Begun::Cancelled) => return poll_cancelled(place).map(|cancelled| Err(cancelled.into())),
                Ok(Begun::Failed(error)) | Err(error) => {
                    self.forgo(true);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// As [`Source::begin`], with its own park. After an error that may still be found.
    fn begin(&mut self, cx: &mut Context<'_>, blocked: Seen) -> io::Result<Begun> {
        let (source, want) = (self.source, self.want);
        let shared = &source.shared;
        let park = self.park.get_or_insert_with(|| Arc::pin(Park::on_descriptor(source.fd().as_raw_fd())));
        // SAFETY: [OWNER]: `&mut self`; the wait before is over.
        if unsafe { park.as_ref().begin_on_descriptor(cx, want.of_descriptor(), self.place) }.is_err() {
            // SAFETY: [OWNER]; nobody finds it: [FOUND].
            unsafe { park.end() };
            return Ok(Begun::Cancelled);
        }
        let mut state = shared.lock();
        state.clear(blocked, READ);
        let ready = state.look().has(READ);
        if let Some(registration) = &state.registration
            && !ready
            && registration.interest & READ != 0
        {
            registration.home.waits_began(1);
            let order = Home::order(&mut state, want);
            state.list(park);
            drop(state);
            if let Some(order) = order {
                order.send()?;
            }
            return Ok(Begun::Waiting);
        }
        let home = state.registration.as_ref().map(|registration| registration.home.clone());
        drop(state);
        // SAFETY: as above.
        unsafe { park.end() };
        if !ready {
            home.map_or_else(Reactor::current, Ok)?.attach(shared, want)?;
        }
        Ok(Begun::AskAgain)
    }

    /// Gives up the place in the order, and the wait, whatever became of it.
    fn forgo(&mut self, in_vain: bool) {
        let Some(park) = self.park.take() else { return };
        let mut state = self.source.shared.lock();
        if state.unlist(&park)
            && let Some(registration) = &state.registration
        {
            registration.home.waits_ended(1);
        }
        let order = if in_vain { state.abandon() } else { None };
        drop(state);
        // SAFETY: [OWNER]: `&mut self`. Nobody finds it: [FOUND].
        unsafe { park.end() };
        if let Some(order) = order {
            // As for who has the claim.
            let _ = order.send();
        }
    }
}

impl Drop for Another<'_> {
    fn drop(&mut self) {
        let waits = self.park.as_ref().is_some_and(|park| park.is_active());
        self.forgo(waits);
    }
}
