//! What it costs to look for tasks that wait for each other (N10), where there are many: it is done on the thread of the loop, under the lock of the
//! tree. Were it quadratic, these would take minutes and gigabytes.

use trefoil::sync::{Mutex, Semaphore};
use trefoil::{local_nursery, sleep};
use trefoil_tests::{Ended, ms, run_virtual};

/// Many wait for what many hold.
#[test]
fn n10_many_holders_and_many_who_wait() {
    const HOLDERS: usize = 10_000;
    run_virtual(async || {
        let permits = Semaphore::new(HOLDERS);
        local_nursery(async |n| -> Ended {
            for _ in 0..2 * HOLDERS {
                n.spawn(async {
                    let _permit = permits.acquire(1).await?;
                    sleep(ms(1)).await
                });
            }
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// Each holds one lock and waits for the next; the last one sleeps.
#[test]
fn n10_a_long_chain() {
    const LENGTH: usize = 20_000;
    run_virtual(async || {
        let locks: Vec<Mutex<()>> = (0..=LENGTH).map(|_| Mutex::new(())).collect();
        local_nursery(async |n| -> Ended {
            for at in 0..LENGTH {
                let locks = &locks;
                n.spawn(async move {
                    let _first = locks[at].lock().await?;
                    trefoil::yield_now().await;
                    let _second = locks[at + 1].lock().await?;
                    if at + 1 == LENGTH { sleep(ms(1)).await } else { Ok(()) }
                });
            }
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// In virtual time it is looked before time goes on. Each instant has a wait of its own that begins, and a graph of thousands is there all the time: were
/// all of it looked at each time, there would be 10⁸ steps.
#[test]
fn n10_ten_thousand_instants_cost_what_is_linear_in_them() {
    const TASKS: usize = 10_000;
    run_virtual(async || {
        let (busy, free) = (Mutex::new(()), Semaphore::new(TASKS));
        local_nursery(async |n| -> Ended {
            let guard = busy.lock().await?;
            let (busy, free) = (&busy, &free);
            for at in 0..TASKS {
                n.spawn(async move {
                    let _one = free.acquire(1).await?;
                    sleep(ms(1 + at as u64)).await?;
                    busy.lock().await.map(drop)
                });
            }
            sleep(ms(2 * TASKS as u64)).await?;
            drop(guard);
            Ok(())
        })
        .await
        .unwrap();
        let steps = trefoil_runtime::probe::search_steps();
        assert!(steps > TASKS, "it was looked");
        println!("{steps} steps for {TASKS} instants");
        assert!(steps < 100 * TASKS, "{steps} steps for {TASKS} tasks");
    });
}
