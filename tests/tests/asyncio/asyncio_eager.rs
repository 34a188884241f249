//! The first step of an eager task is its own, whatever scope of the core the task is in that creates it.

use crate::asyncio_support::{Fault, program};
use trefoil::asyncio::{self, TaskBuilder};
use trefoil::{CancelScope, sleep};
use trefoil_tests::ms;

#[test]
fn aio_eg1_a_scope_around_the_creator_is_not_around_an_eager_task() {
    program(async |_| {
        let scope = CancelScope::new();
        let eager = scope
            .run(async {
                let eager = TaskBuilder::new().eager_start(true).create_task(async {
                    sleep(ms(1)).await?;
                    Ok::<_, Fault>(())
                });
                scope.cancel();
                Ok::<_, Fault>(eager)
            })
            .await?
            .unwrap();
        assert_eq!(eager.await, Ok(()));
        Ok(())
    });
}

#[test]
fn aio_eg1_nor_one_that_is_cancelled_before() {
    program(async |_| {
        let scope = CancelScope::new();
        scope.cancel();
        let eager = scope
            .run(async {
                Ok::<_, Fault>(TaskBuilder::new().eager_start(true).create_task(async {
                    sleep(ms(1)).await?;
                    asyncio::sleep(ms(1)).await?;
                    Ok::<_, Fault>(())
                }))
            })
            .await?
            .unwrap();
        assert_eq!(eager.await, Ok(()));
        Ok(())
    });
}
