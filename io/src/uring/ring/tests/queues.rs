//! Both queues, and the wait.

use super::super::setup::LADDER;
use super::*;

#[test]
fn nops_go_round_on_every_rung_of_the_ladder() {
    for allowed in LADDER {
        let Some(mut ring) = ring(Setup { allowed, ..Setup::new(4) }) else { return };
        println!("{ring:?}");
        assert_eq!(ring.flags() - allowed, IoringSetupFlags::empty());
        assert_eq!(ring.sq_entries(), 4);
        assert_eq!(ring.cq_entries(), if ring.flags().contains(IoringSetupFlags::CQSIZE) { 16 } else { 8 });
        let mut next = 0;
        // Batches of 3 in a ring of 4 start at every cell.
        for _ in 0..5_000 {
            for offset in 0..3 {
                ring.push(Sqe::nop(next + offset)).unwrap();
            }
            assert!(ring.needs_enter());
            assert_eq!(ring.enter(3, None).unwrap(), Entered::All);
            for _ in 0..3 {
                let cqe = ring.pop().unwrap();
                assert_eq!((cqe.key(), cqe.result(), cqe.more()), (next, Ok(0), false));
                next += 1;
            }
            assert_eq!(ring.pop(), None);
            assert!(!ring.needs_enter());
        }
    }
}

#[test]
fn a_full_queue_says_so_and_takes_more_after_an_enter() {
    let Some(mut ring) = ring(Setup::new(4)) else { return };
    for key in 0..4 {
        assert_eq!(ring.push(Sqe::nop(key)), Ok(()));
    }
    assert_eq!((ring.push(Sqe::nop(4)), ring.pending(), ring.space()), (Err(Full), 4, 0));
    assert_eq!(ring.enter(0, None).unwrap(), Entered::All);
    assert_eq!((ring.push(Sqe::nop(4)), ring.pending(), ring.space()), (Ok(()), 1, 3));
    assert_eq!(keys_and_results(collect(&mut ring, 5)), (0..5).map(|key| (key, Ok(0))).collect::<Vec<_>>());
}

#[test]
fn completions_that_overflow_are_fetched_in_order() {
    for allowed in [LADDER[0], LADDER[5]] {
        let Some(mut ring) = ring(Setup { completions: 4, allowed, ..Setup::new(4) }) else { return };
        assert_eq!(ring.cq_entries(), 4);
        let mut pushed = 0;
        while pushed < 20 {
            match ring.push(Sqe::nop(pushed)) {
                Ok(()) => pushed += 1,
                // An old kernel may leave a backlog instead of overflowing further.
                Err(Full) => {
                    assert!(ring.enter(0, None).unwrap() == Entered::All, "not on kernels known to this test")
                }
            }
        }
        let _ = ring.enter(0, None).unwrap();
        assert_eq!(ring.ready(), 4);
        let mut seen = Vec::new();
        while seen.len() < 20 {
            seen.extend(std::iter::from_fn(|| ring.pop()).map(|cqe| cqe.key()));
            assert_eq!(ring.needs_enter(), seen.len() < 20, "the flag tells that more wait");
            let _ = ring.enter(0, None).unwrap();
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn a_wait_ends_with_its_timeout_and_not_before() {
    let Some(mut ring) = ring(Setup::new(4)) else { return };
    let start = Instant::now();
    assert_eq!(ring.enter(1, MOMENT).unwrap(), Entered::All);
    assert!(start.elapsed() >= MOMENT.unwrap() && ring.ready() == 0);
    // Also when the same call submits, and one completion comes where two were asked for.
    ring.push(Sqe::nop(1)).unwrap();
    let start = Instant::now();
    assert_eq!(ring.enter(2, MOMENT).unwrap(), Entered::All);
    assert!(start.elapsed() >= MOMENT.unwrap() && ring.ready() == 1);
    // Zero does not wait, and completions that are there are not waited for.
    let start = Instant::now();
    assert_eq!(ring.enter(9, Some(Duration::ZERO)).unwrap(), Entered::All);
    assert_eq!(ring.enter(1, Some(Duration::MAX)).unwrap(), Entered::All);
    assert!(start.elapsed() < Duration::from_secs(5));
}
#[test]
fn another_thread_s_event_ends_the_wait() {
    let Some(mut ring) = ring(Setup::new(4)) else { return };
    let (a, b) = pair();
    ring.push(Sqe::poll_add_multishot(a.as_fd(), POLLIN, 1)).unwrap();
    let _ = ring.enter(0, None).unwrap();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(MOMENT.unwrap());
        say(&b, b"x");
        b
    });
    assert_eq!(ring.enter(1, None).unwrap(), Entered::All);
    assert_eq!(ring.pop().map(|cqe| cqe.key()), Some(1));
    drop(writer.join().unwrap());
}

#[test]
fn deferred_work_shows_in_the_flag_before_the_enter() {
    let Some(mut ring) = ring(Setup::new(4)) else { return };
    if !ring.defers() {
        println!("skipped: no DEFER_TASKRUN");
        return;
    }
    let (a, b) = pair();
    ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 1)).unwrap();
    let _ = ring.enter(0, None).unwrap();
    assert!(!ring.needs_enter());
    say(&b, b"x");
    assert!(ring.needs_enter() && ring.pop().is_none(), "told, and not yet in the queue");
    let _ = ring.enter(0, None).unwrap();
    assert!(ring.pop().is_some() && !ring.needs_enter());
}
