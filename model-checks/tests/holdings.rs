//! What tasks hold is noted in cells that others read (`runtime/src/look/holdings.rs`): a note is read whole, or not at all.

use std::panic::Location;
use trefoil_model_checks::model;
use trefoil_runtime::Holding;
use trefoil_runtime::holdings::{Cell, Note};

/// A note is cleared and another one written while it is read. Seen: the task of what was read; 0 for none, 1 for a cell that is being written.
#[test]
fn a_note_is_read_whole_or_not_at_all() {
    model("holdings: clear and write ‖ read").check([0, 1, 10, 20], |order| {
        let place = Location::caller();
        let note = |task: usize| Note { held: Holding::Lock, task, place, units: task + 1, epoch: task as u64 + 2 };
        let cell = Cell::default();
        cell.write(note(10));
        let (_, seen) = order.race2(
            || {
                cell.clear();
                cell.write(note(20));
            },
            || match cell.read() {
                Err(_) => 1,
                Ok(None) => 0,
                Ok(Some(read)) => {
                    assert!(read == note(10) || read == note(20), "{read:?}");
                    read.task
                }
            },
        );
        assert_eq!(cell.read().unwrap(), Some(note(20)));
        seen
    });
}
