//! What it costs to look for tasks that wait for each other (N10), where there are many: it is done on the thread of the loop, under the lock of the
//! tree. Were it quadratic, these would take minutes and gigabytes.

use trefoil::sync::{Mutex, Semaphore};
use trefoil::{Cancelled, local_nursery, sleep};
use trefoil_tests::{ms, run_virtual};

type Ended = Result<(), Cancelled>;

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
