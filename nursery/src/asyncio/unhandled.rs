//! What becomes of errors that nobody looks at: asyncio's exception handler.

use super::event_loop::Loop;
use super::here;
use super::task::AnyTask;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;

/// An error that nobody has looked at, as the [exception handler](set_exception_handler) gets it: asyncio's `context`.
#[non_exhaustive]
pub struct Unhandled<'a> {
    /// What it is.
    pub message: &'static str,
    /// Whose it is, where it is a task's.
    pub task: Option<AnyTask>,
    /// The error.
    pub error: &'a dyn fmt::Debug,
    /// Where the task or future was made.
    pub place: &'static Location<'static>,
}

impl fmt::Debug for Unhandled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unhandled")
            .field("message", &self.message)
            .field("task", &self.task)
            .field("error", &self.error)
            .field("place", &format_args!("{}", self.place))
            .finish()
    }
}

/// An [exception handler](set_exception_handler).
pub type ExceptionHandler = Rc<dyn Fn(&Unhandled<'_>)>;

/// Sets who is told of errors of the running loop that nobody looks at: the error of a task or future whose last handle goes. `None`, as at
/// first, logs them with `tracing`, as errors.
///
/// A handler that panics is none: the error is logged then (O5), and the loop lives on.
///
/// # Panics
/// Outside of a loop.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::{cell::RefCell, io, rc::Rc, time::Duration};
/// use trefoil_nursery::asyncio;
/// let told = Rc::new(RefCell::new(Vec::new()));
/// let tell = told.clone();
/// asyncio::set_exception_handler(Some(Rc::new(move |unhandled: &asyncio::Unhandled| {
///     tell.borrow_mut().push(format!("{:?}", unhandled.error));
/// })));
/// drop(asyncio::create_task(async { Err::<(), _>(io::Error::from(io::ErrorKind::NotFound)) }));
/// asyncio::sleep(Duration::from_millis(1)).await?;
/// assert_eq!(*told.borrow(), ["Kind(NotFound)"]);
/// # Ok::<(), io::Error>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn set_exception_handler(handler: Option<ExceptionHandler>) {
    let event_loop = here::running();
    let old = event_loop.handler.replace(handler);
    drop(old);
}

/// Who is told, if somebody was set.
///
/// # Panics
/// Outside of a loop.
#[track_caller]
pub fn exception_handler() -> Option<ExceptionHandler> {
    here::running().handler.borrow().clone()
}

/// Reports what nobody has looked at: to the handler of that loop, or in the log.
pub(crate) fn report(event_loop: Option<&Rc<Loop>>, unhandled: &Unhandled<'_>) {
    let handler = event_loop.and_then(|event_loop| event_loop.handler.borrow().clone());
    if let Some(handler) = handler {
        match catch_unwind(AssertUnwindSafe(|| handler(unhandled))) {
            Ok(()) => return,
            Err(payload) => {
                trefoil_runtime::report_error!("the exception handler of a loop panicked (O5)");
                trefoil_runtime::discard(payload);
            }
        }
    }
    let Unhandled { message, task, error, place } = unhandled;
    match task {
        Some(task) => trefoil_runtime::report_error!(task = %task.name(), made = %place, "{message}: {error:?}"),
        None => trefoil_runtime::report_error!(made = %place, "{message}: {error:?}"),
    }
}
