//! Errors and a panic that are kept until all has ended, and are in the log if whoever keeps them is dropped before (N15).

use crate::nursery::message;
use std::panic::Location;
use trefoil_runtime::{self as runtime, CancelAware, Failure, Payload};

/// See the module.
#[derive(Debug)]
pub(crate) struct Unseen<E: CancelAware> {
    pub errors: Vec<Failure<E>>,
    pub payload: Option<Payload>,
    place: &'static Location<'static>,
}

impl<E: CancelAware> Unseen<E> {
    pub fn new(place: &'static Location<'static>) -> Self {
        Self { errors: Vec::new(), payload: None, place }
    }

    /// They are seen.
    pub fn take(&mut self) -> (Vec<Failure<E>>, Option<Payload>) {
        (std::mem::take(&mut self.errors), self.payload.take())
    }
}

impl<E: CancelAware> Drop for Unseen<E> {
    fn drop(&mut self) {
        let (errors, payload) = self.take();
        for error in errors.iter().filter(|error| !error.is_cancelled()) {
            trefoil_runtime::report_error!(block = %self.place, "an error of a block that was dropped: {error:?}");
        }
        if let Some(payload) = payload {
            trefoil_runtime::report_error!(block = %self.place, "a panic in a block that was dropped: {}", message(&payload));
            runtime::discard(payload);
        }
    }
}
