//! Which loop and which task the code that runs now belongs to: asyncio's `get_running_loop` and `current_task`.
//!
//! Set while a task or a callback is polled or dropped, and restored by a guard, as the core's own context is.

use super::control::Control;
use super::event_loop::Loop;
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Clone)]
pub(crate) struct Here {
    pub event_loop: Rc<Loop>,
    pub task: Option<Rc<Control>>,
}

thread_local! {
    // No code of others runs while it is borrowed: what is put in or taken out is moved, and dropped after.
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// Sets where we are until the guard is dropped.
pub(crate) struct Entered {
    before: Option<Here>,
}

pub(crate) fn enter(here: Here) -> Entered {
    Entered { before: swap(Some(here)) }
}

fn swap(here: Option<Here>) -> Option<Here> {
    HERE.try_with(|slot| slot.replace(here)).unwrap_or_default()
}

impl Drop for Entered {
    fn drop(&mut self) {
        drop(swap(self.before.take()));
    }
}

/// Where we are; `None` outside of every loop.
pub(crate) fn here() -> Option<Here> {
    HERE.try_with(|slot| slot.borrow().clone()).unwrap_or_default()
}

/// The running loop.
///
/// # Panics
/// Outside of every loop.
#[track_caller]
pub(crate) fn running() -> Rc<Loop> {
    match HERE.try_with(|slot| slot.borrow().as_ref().map(|here| here.event_loop.clone())) {
        Ok(Some(event_loop)) => event_loop,
        _ => panic!("no running event loop: call this from what `asyncio::run` or `asyncio::event_loop` runs"),
    }
}

/// Whether that is the task that is being polled; of none, whether none is.
pub(crate) fn is_task(task: Option<&Rc<Control>>) -> bool {
    let same = |slot: &RefCell<Option<Here>>| {
        let here = slot.borrow();
        here.as_ref().and_then(|here| here.task.as_ref()).map(Rc::as_ptr) == task.map(Rc::as_ptr)
    };
    HERE.try_with(same).unwrap_or(task.is_none())
}

/// The task that is being polled.
pub(crate) fn task() -> Option<Rc<Control>> {
    HERE.try_with(|slot| slot.borrow().as_ref().and_then(|here| here.task.clone())).unwrap_or_default()
}
