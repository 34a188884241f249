//! `assert_checkpoints` and `assert_no_checkpoints`: R38.

use super::NONE;
use trefoil_nursery::{Event, channel, checkpoint, checkpoint_if_cancelled, shield, sleep, sync, yield_now};
use trefoil_testing::{assert_checkpoints, assert_no_checkpoints};
use trefoil_tests::{ms, panic_of, run_virtual};

#[test]
fn r38_every_operation_is_a_checkpoint() {
    run_virtual(async || {
        let event = Event::new();
        event.set();
        assert_checkpoints(async || event.wait().await).await.unwrap();
        assert_checkpoints(async || sleep(NONE).await).await.unwrap();
        assert_checkpoints(async || sleep(ms(1)).await).await.unwrap();
        assert_checkpoints(async || checkpoint().await).await.unwrap();
        let (tx, rx) = channel(1);
        assert_checkpoints(async || tx.send(1).await).await.unwrap();
        // R36: the one that was cancelled took nothing.
        assert_eq!(assert_checkpoints(async || rx.recv().await).await, Ok(Some(1)));
        let lock = sync::Mutex::new(());
        drop(assert_checkpoints(async || lock.lock().await).await.unwrap());
        let permits = sync::Semaphore::new(1);
        drop(assert_checkpoints(async || permits.acquire(1).await).await.unwrap());
    });
}

#[test]
fn r38_what_is_no_checkpoint_is_found_out() {
    let no_cancel_point = panic_of(|| run_virtual(async || assert_checkpoints(async || yield_now().await).await));
    assert!(no_cancel_point.starts_with("no cancel point at tests/tests/testing/assertions.rs"), "{no_cancel_point}");
    let no_turn = panic_of(|| {
        run_virtual(async || assert_checkpoints(async || checkpoint_if_cancelled().await).await.unwrap());
    });
    assert!(no_turn.starts_with("no checkpoint at tests/tests/testing/assertions.rs"), "{no_turn}");
}

#[test]
fn r38_no_checkpoints() {
    run_virtual(async || {
        let (tx, rx) = channel(1);
        assert_no_checkpoints(async { tx.try_send(1) }).await.unwrap();
        assert_no_checkpoints(async { rx.try_recv() }).await.unwrap();
        // R13: under a shield, it does nothing.
        assert_no_checkpoints(shield(checkpoint_if_cancelled())).await.unwrap();
    });
    let told = panic_of(|| {
        run_virtual(async || {
            let (tx, _rx) = channel(1);
            assert_no_checkpoints(tx.send(1)).await.unwrap();
        });
    });
    assert!(told.starts_with("a cancel point at tests/tests/testing/assertions.rs"), "{told}");
    // R12: it gives up the turn first.
    let turns = panic_of(|| run_virtual(async || assert_no_checkpoints(checkpoint_if_cancelled()).await.unwrap()));
    assert!(turns.starts_with("it waits, or gives up its turn, at tests/tests/testing/assertions.rs"), "{turns}");
    let waits = panic_of(|| run_virtual(async || assert_no_checkpoints(yield_now()).await));
    assert!(waits.starts_with("it waits, or gives up its turn, at tests/tests/testing/assertions.rs"), "{waits}");
}
