//! The task tree as a program sees it (`trefoil::tree`).

use std::io;
use trefoil::{Event, Reason, ScopeView, checkpoint, local_nursery, nursery, sleep_forever, tree};
use trefoil_runtime::Kind;
use trefoil_tests::run_virtual;

/// The only task in a scope that has a scope in it, and that.
fn below(scope: &ScopeView) -> Vec<&ScopeView> {
    scope.tasks.iter().flat_map(|task| &task.scopes).collect()
}

/// What a task in this scope or below waits for, with the line.
fn waits(scope: &ScopeView) -> Vec<(Reason, u32)> {
    let mut all: Vec<_> =
        scope.tasks.iter().flat_map(|task| &task.waits).map(|wait| (wait.reason, wait.place.line())).collect();
    for scope in below(scope) {
        all.extend(waits(scope));
    }
    all
}

/// Case 10: main, nested nurseries, and a child that `start` has not handed over yet: it is beneath its caller (R68), and then beneath the
/// nursery (R71).
#[test]
fn r68_r71_the_task_tree_from_the_root() {
    run_virtual(async || {
        let (go, line) = (Event::new(), std::cell::Cell::new(0));
        let (go, line) = (&go, &line);
        local_nursery(async |outer| -> io::Result<()> {
            outer.spawn(async {
                nursery(async |inner| -> io::Result<()> {
                    inner.spawn(async { Ok(sleep_forever().await?) });
                    Ok(sleep_forever().await?)
                })
                .await?;
                Ok(())
            });
            outer.spawn(async move {
                outer
                    .start(async |started| {
                        go.wait().await?;
                        started.ready(());
                        line.set(line!() + 1);
                        sleep_forever().await?;
                        Ok(())
                    })
                    .await
            });
            checkpoint().await?;
            checkpoint().await?;

            let root = tree();
            assert_eq!((root.kind, root.cancelled, root.cut_off), (Kind::Run, false, false));
            let [outer_view] = below(&root)[..] else { panic!("{root}") };
            assert_eq!(
                (outer_view.kind, outer_view.children),
                (Kind::Nursery, 3),
                "the child that is being started keeps it open"
            );
            let inner_view = below(outer_view).into_iter().find(|scope| scope.kind == Kind::Nursery).unwrap();
            assert_eq!(inner_view.children, 1);
            assert_eq!(waits(inner_view).len(), 2, "body and child: {root}");
            let starting = below(outer_view).into_iter().find(|scope| scope.kind == Kind::Scope).unwrap();
            assert!(waits(starting).iter().any(|(reason, _)| *reason == Reason::Event), "beneath its caller: {root}");

            go.set();
            checkpoint().await?;
            checkpoint().await?;
            let root = tree();
            let [outer_view] = below(&root)[..] else { panic!("{root}") };
            assert_eq!(outer_view.children, 2, "the caller is over: {root}");
            assert!(waits(outer_view).iter().any(|(_, at)| *at == line.get()), "beneath the nursery: {root}");
            outer.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}
