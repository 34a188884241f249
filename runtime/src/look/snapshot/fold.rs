//! Which tasks look the same: they are one line of the text.

use super::{ScopeView, TaskView};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::panic::Location;

/// A place, for comparison: there may be several copies of one.
struct PlaceKey<'a>(&'a Location<'a>);

impl fmt::Debug for PlaceKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0.file(), self.0.line(), self.0.column())
    }
}

/// How many tasks that look the same, but for their names, are shown one by one.
const NAMED_ALIKE: usize = 4;

/// Puts together the tasks that look the same, in the order of the first of each.
pub(super) fn fold(tasks: Vec<&TaskView>) -> Vec<Vec<&TaskView>> {
    let mut folded: Vec<Vec<&TaskView>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for task in tasks {
        let mut key = String::new();
        task.key(&mut key);
        match known.get(&key) {
            Some(&at) => folded[at].push(task),
            None => {
                known.insert(key, folded.len());
                folded.push(vec![task]);
            }
        }
    }
    let one_by_one =
        |alike: &Vec<&TaskView>| alike.len() <= NAMED_ALIKE && alike.iter().any(|task| task.name.is_some());
    folded
        .into_iter()
        .flat_map(
            |alike| if one_by_one(&alike) { alike.into_iter().map(|task| vec![task]).collect() } else { vec![alike] },
        )
        .collect()
}

impl ScopeView {
    /// What makes two scopes look the same.
    fn key(&self, key: &mut String) {
        let _ =
            write!(key, "{:?}@{:?}{}{}[", self.kind, PlaceKey(self.place), self.cancelled, self.deadline_in.is_some());
        for task in &self.tasks {
            task.key(key);
        }
        key.push(']');
    }
}

impl TaskView {
    /// What makes two tasks look the same: the places, not the times, the names or the descriptors.
    fn key(&self, key: &mut String) {
        let _ = write!(key, "{:?}{:?}", PlaceKey(self.place), self.state);
        for wait in &self.waits {
            let kind = std::mem::discriminant(&wait.reason);
            let _ = write!(key, ",{kind:?}{:?}@{:?}{}", wait.made.map(PlaceKey), PlaceKey(wait.place), wait.unpolled);
        }
        for hold in &self.holds {
            let _ = write!(key, "+{:?}{}@{:?}", hold.held, hold.units, PlaceKey(hold.place));
        }
        for scope in &self.scopes {
            scope.key(key);
        }
    }
}
