//! One task, by its address: for who has no more of it, such as the watchdog.

use crate::ready::{Header, look_on};
use crate::scope::Scope;
use crate::scope::cause::Kind;
use crate::tree::Tree;
use std::panic::Location;
use std::sync::Arc;

/// Who a task is, for a report.
pub(crate) struct Found {
    pub name: Option<Arc<str>>,
    pub place: &'static Location<'static>,
    pub body: bool,
    /// What it is the body or a child of.
    pub kind: Kind,
}

/// The task with this address in the run that has this tree, if there is one.
pub(crate) fn find(tree: &'static Tree, task: usize) -> Option<Found> {
    let looking = look_on();
    if !looking.may_walk() {
        return None;
    }
    let locked = tree.lock();
    let root: *const Scope = locked.run()?;
    let mut node = root;
    while !node.is_null() {
        // SAFETY: [LOCKED] of the tree.
        let scope = unsafe { &*node };
        if let Some(queue) = locked.queue(scope) {
            // SAFETY: [LOOKED]; the queue stays while its scope is linked, and that takes the lock.
            let found = unsafe { queue.tasks() }.find(|found| std::ptr::from_ref::<Header>(found).addr() == task);
            if let Some(found) = found {
                return Some(Found {
                    name: if found.is_body() { scope.who().name } else { found.name() },
                    place: found.place,
                    body: found.is_body(),
                    kind: scope.kind,
                });
            }
        }
        node = locked.after(node, root, true);
    }
    None
}
