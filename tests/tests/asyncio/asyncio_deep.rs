//! Long chains of tasks of `asyncio`, each of which waits for the next: they are cancelled from one end to the other, and not by recursion.

use crate::asyncio_support::{Fault, program, turn};
use trefoil::asyncio::{Task, create_task, gather, sleep};
use trefoil_tests::ms;

const DEEP: usize = 20_000;

#[test]
fn aio_c03_r9_a_long_chain_of_tasks_is_cancelled() {
    program(async |_| {
        let mut last: Task<(), Fault> = create_task(async { Ok(sleep(ms(1000)).await?) });
        for _ in 0..DEEP {
            let next = last;
            last = create_task(async move { next.await });
        }
        turn().await?;
        assert!(last.cancel());
        assert_eq!(last.await, Err(Fault::Cancelled));
        Ok(())
    });
}

#[test]
fn aio_g10_r9_a_long_chain_of_tasks_that_gather_is_cancelled() {
    program(async |_| {
        let mut last: Task<(), Fault> = create_task(async { Ok(sleep(ms(1000)).await?) });
        for _ in 0..DEEP {
            let next = last;
            last = create_task(async move { gather([next]).await.map(drop) });
        }
        turn().await?;
        assert!(last.cancel());
        assert_eq!(last.await, Err(Fault::Cancelled));
        Ok(())
    });
}
