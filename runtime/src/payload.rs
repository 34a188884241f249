//! What a panic carried: how to drop it, and to report it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a panic carried.
pub type Payload = Box<dyn Any + Send>;

/// Drops what a panic carried, in a place that cannot panic: a payload whose destructor does leaves another, which is leaked.
pub fn discard(payload: Payload) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

/// The same, of a panic that nobody will hear of since another goes first, or since there is nobody to tell: it is reported.
#[cold]
pub(crate) fn report_panic(payload: Payload, of: &str) {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|text| &**text));
    // A subscriber is code of others, and this may be half way through an end.
    let said = catch_unwind(AssertUnwindSafe(|| {
        crate::report_error!("{of}: {}", text.unwrap_or("(a payload that is not text)"))
    }));
    if let Err(another) = said {
        discard(another);
    }
    discard(payload);
}
