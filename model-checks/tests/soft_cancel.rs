//! A soft cancel (`runtime/src/scope.rs`, `tree.rs`) that comes from another thread while scopes are entered, left, shielded and cancelled: a
//! polite scope below it is told, once it is in the tree, and nobody else is.

use std::panic::Location;
use std::pin::Pin;
use std::time::Duration;

use trefoil_model_checks::{Run, model};
use trefoil_runtime::model::{link, unlink};
use trefoil_runtime::{Kind, Scope, Source};

const GRACE: Duration = Duration::from_secs(3600);

fn scope() -> Pin<Box<Scope>> {
    Box::pin(Scope::new(Kind::Scope, Location::caller()))
}

fn polite() -> Pin<Box<Scope>> {
    let scope = scope();
    scope.set_polite();
    scope
}

fn enter(scope: &Scope, run: &Run, parent: Option<&Scope>) {
    // SAFETY: the models pin their scopes, and unlink them at their end.
    unsafe { link(scope, run.tree, parent) }
}

fn ask(scope: &Scope) {
    scope.cancel_softly(GRACE, Location::caller());
}

/// A scope is cancelled softly while it is entered: the request counts, with its deadline. Seen: whether the scope was in the tree before a
/// polite one was put under it, which is told at its entry or later.
#[test]
fn ask_and_enter() {
    model("soft: ask ‖ enter, enter a polite one").check([false, true], |order| {
        let run = Run::new();
        let (outer, inner) = (scope(), polite());
        let (_, at_once) = order.race2(
            || ask(&outer),
            || {
                enter(&outer, &run, None);
                enter(&inner, &run, Some(&outer));
                inner.is_cancelled()
            },
        );
        assert!(inner.is_cancelled() && inner.is_soft_cancelled());
        assert!(outer.is_soft_cancelled() && !outer.is_cancelled() && outer.soft_cancel_called());
        assert_ne!(outer.deadline(), u64::MAX);
        assert_eq!(run.tree.lock().next_deadline(), outer.deadline(), "the grace is in the heap");
        assert_eq!(inner.cause().unwrap().source, Source::Soft);
        assert!(unlink(&inner), "it absorbs");
        assert!(!unlink(&outer));
        at_once
    });
}

/// Two ask at once, with times of their own: the shorter one counts. Seen: whether a third thread found that the polite scope had
/// been told by then.
#[test]
fn ask_and_ask_for_less() {
    model("soft: ask ‖ ask for less ‖ look").three().bound(3).check([false, true], |order| {
        let run = Run::new();
        let (outer, inner) = (scope(), polite());
        enter(&outer, &run, None);
        enter(&inner, &run, Some(&outer));
        let (_, _, seen) = order.race3(
            || ask(&outer),
            || outer.cancel_softly(GRACE / 3600, Location::caller()),
            || inner.is_cancelled(),
        );
        let by = trefoil_runtime::now_nanos() + 1_000_000_000;
        assert!(outer.deadline() <= by && run.tree.lock().next_deadline() == outer.deadline());
        assert!(inner.is_cancelled() && !outer.is_cancelled());
        unlink(&inner);
        unlink(&outer);
        seen
    });
}

/// A shield comes up in between, or goes down. Seen: whether it was told in the first case for a moment, as a cancel may.
#[test]
fn ask_and_shield() {
    for up in [true, false] {
        let expected = if up { vec![false, true] } else { vec![false] };
        model("soft: ask ‖ shield").check(expected, move |order| {
            let run = Run::new();
            let (outer, between, inner) = (scope(), scope(), polite());
            between.set_shield(!up);
            enter(&outer, &run, None);
            enter(&between, &run, Some(&outer));
            enter(&inner, &run, Some(&between));
            let (_, told) = order.race2(
                || ask(&outer),
                || {
                    let told = inner.is_cancelled();
                    between.set_shield(up);
                    told
                },
            );
            assert_eq!((inner.is_cancelled(), inner.is_soft_cancelled()), (!up, !up));
            unlink(&inner);
            unlink(&between);
            unlink(&outer);
            told
        });
    }
}

/// The polite scope is left meanwhile: it absorbs, or there was nothing. Seen: which.
#[test]
fn ask_and_leave() {
    model("soft: ask ‖ leave").check([false, true], |order| {
        let run = Run::new();
        let (outer, inner) = (scope(), polite());
        enter(&outer, &run, None);
        enter(&inner, &run, Some(&outer));
        let (_, absorbs) = order.race2(|| ask(&outer), || unlink(&inner));
        assert_eq!(inner.is_cancelled(), absorbs, "it says afterwards what was");
        assert!(!unlink(&outer));
        absorbs
    });
}

/// Asked, and cancelled by another thread: it is cancelled, for that reason, and the polite scope does not absorb any more. Seen:
/// whether a third thread found the polite scope cancelled by then.
#[test]
fn ask_and_cancel() {
    model("soft: ask ‖ cancel ‖ look").three().bound(3).check([false, true], |order| {
        let run = Run::new();
        let (outer, inner) = (scope(), polite());
        enter(&outer, &run, None);
        enter(&inner, &run, Some(&outer));
        let (_, _, seen) =
            order.race3(|| ask(&outer), || outer.cancel(Source::Explicit, Location::caller()), || inner.is_cancelled());
        assert!(outer.is_cancelled() && inner.is_cancelled());
        assert_eq!(
            (outer.cause().unwrap().source, inner.cause().unwrap().source),
            (Source::Explicit, Source::Explicit)
        );
        assert_eq!(run.tree.lock().next_deadline(), u64::MAX, "a cancelled scope has no entry in the heap");
        assert!(!unlink(&inner) && unlink(&outer));
        seen
    });
}
