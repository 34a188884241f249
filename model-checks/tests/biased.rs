//! The lock that favours one thread (`runtime/src/sync/biased.rs`), with the barriers as the real ones that they are in models: no two have it at
//! once, and who has it sees what was done under it before.
//!
//! The value is loom's cell, in which two accesses that are not ordered fail the model.

use trefoil_model_checks::model;
use trefoil_runtime::model::BiasedLock;

/// Adds one under the lock; what there was before. `favoured`: this thread may be the one.
fn add(lock: &BiasedLock<u32>, favoured: bool) -> u32 {
    let mut value = lock.lock(|| favoured);
    *value += 1;
    *value - 1
}

/// The favoured thread takes it twice while another one comes once: favoured at the first, at both, or not any more. Seen: what each found.
#[test]
fn the_favour_is_taken_away() {
    model("biased: favoured twice ‖ another").check([(0, 1, 2), (0, 2, 1), (1, 2, 0)], |order| {
        let lock = BiasedLock::favouring_after(1, 0);
        let ((first, second), other) = order.race2(|| (add(&lock, true), add(&lock, true)), || add(&lock, false));
        assert_eq!(*lock.lock(|| false), 3);
        (first, second, other)
    });
}

/// The same thread becomes favoured again, and the favour is taken away again.
#[test]
fn the_favour_comes_back() {
    model("biased: favoured again ‖ another twice").bound(4).check([0, 1, 2], |order| {
        let lock = BiasedLock::favouring_after(1, 0);
        let (_, before) = order.race2(
            || {
                // After one visit from elsewhere it takes eight times as often: this is more than that.
                for _ in 0..10 {
                    add(&lock, true);
                }
            },
            || {
                let first = add(&lock, false);
                let second = add(&lock, false);
                assert!(first < second);
                u32::from(first > 0) + u32::from(second > first + 1)
            },
        );
        assert_eq!(*lock.lock(|| false), 12);
        before
    });
}

/// Two come at once, and wait for the favoured one and for each other.
#[test]
fn two_take_the_favour_away() {
    model("biased: favoured ‖ another ‖ another").three().bound(3).check([3], |order| {
        let lock = BiasedLock::favouring_after(1, 0);
        let found = order.race3(|| add(&lock, true), || add(&lock, false), || add(&lock, false));
        let mut found = [found.0, found.1, found.2];
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2]);
        *lock.lock(|| false)
    });
}

/// Two that may be favoured, and one that comes from elsewhere: only one of the two ever is, since the other may not know that it is not any more.
#[test]
fn one_is_favoured() {
    model("biased: favoured twice ‖ would be, twice ‖ another").three().bound(3).check([5], |order| {
        // At once, and at once again.
        let lock = BiasedLock::favouring_after(0, 0);
        let twice = || assert!(add(&lock, true) < add(&lock, true));
        order.race3(twice, twice, || add(&lock, false));
        *lock.lock(|| false)
    });
}

/// A thread gives the favour up, another one gets it, and then a third comes.
#[test]
fn the_favour_is_handed_on() {
    model("biased: favoured, gives up ‖ favoured after ‖ another").three().bound(3).check([4], |order| {
        let lock = BiasedLock::favouring_after(0, 0);
        order.race3(
            || {
                add(&lock, true);
                lock.give_up();
            },
            || {
                add(&lock, true);
                add(&lock, true);
            },
            || add(&lock, false),
        );
        *lock.lock(|| false)
    });
}

/// A thread that has given the favour up takes the lock once more, while the one that is favoured now has it: it never takes itself for that one, whose
/// word it would write over.
#[test]
fn who_gave_the_favour_up_comes_back() {
    model("biased: favoured, gives up, comes again ‖ favoured after").bound(4).check([4], |order| {
        let lock = BiasedLock::favouring_after(0, 0);
        order.race2(
            || {
                add(&lock, true);
                lock.give_up();
                add(&lock, false);
            },
            || {
                add(&lock, true);
                add(&lock, true);
            },
        );
        *lock.lock(|| false)
    });
}
