//! Large numbers: R9, R50, and the memory of a sleeping child.
//!
//! The largest are run on demand, and print what they found:
//! `cargo test --release -p trefoil-tests --test scale -- --ignored --nocapture --test-threads 1`

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;
use trefoil_nursery::{
    CancelScope, Cancelled, local_nursery, move_on_at, now, nursery, sleep, sleep_forever, sleep_until, yield_now,
};
use trefoil_runtime::metrics;
use trefoil_tests::{Ended, ms, run_virtual};

/// Counts the bytes that each thread has allocated and not freed.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
}

// SAFETY: everything is passed on to `System`; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's word.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's word.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn live_bytes() -> isize {
    LIVE.get()
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// R50.
#[test]
fn r50_a_hundred_thousand_moves_of_a_deadline_do_not_grow_the_heap() {
    run_virtual(async || {
        let begin = now();
        let scope = CancelScope::new();
        scope
            .run(async {
                // Ten others, so that there is something to move among.
                local_nursery(async |n| -> Ended {
                    for i in 0..10 {
                        n.spawn(async move {
                            move_on_at(begin + ms(1000 * i), sleep_forever()).await?;
                            Ok(())
                        });
                    }
                    yield_now().await;
                    // Later, earlier, none.
                    let set = |i: u64| match i % 7 {
                        6 => scope.set_deadline(None),
                        _ => scope.set_deadline(Some(begin + ms(20_000 + i.wrapping_mul(7919) % 80_000))),
                    };
                    // What is kept for deadlines of that range, for good, is there then.
                    (0..5_000).for_each(set);
                    let before = live_bytes();
                    let mut most = before;
                    for i in 5_000..100_000 {
                        set(i);
                        most = most.max(live_bytes());
                    }
                    assert!(metrics().timers <= 11);
                    assert_eq!((most, live_bytes()), (before, before), "bytes");
                    scope.set_deadline(None);
                    Ok(())
                })
                .await?;
                Ok::<_, Cancelled>(())
            })
            .await
            .unwrap();
    });
}

#[test]
fn r50_sleeps_and_scopes_that_end_early_leave_nothing() {
    run_virtual(async || {
        let far = now() + ms(1_000_000);
        let mut before = 0;
        for i in 0..20_000 {
            trefoil_tests::drop_at(1, sleep_until(far)).await;
            trefoil_tests::drop_at(1, move_on_at(far, sleep_forever())).await;
            if i == 100 {
                before = live_bytes();
            }
        }
        assert_eq!((live_bytes() - before, metrics().timers), (0, 0));
    });
}

#[test]
fn r9_a_hundred_thousand_children_are_cancelled_and_each_is_told() {
    run_virtual(async || {
        let told = Cell::new(0u32);
        let mut took = None;
        local_nursery(async |n| -> Ended {
            for _ in 0..100_000 {
                n.spawn(async { sleep_forever().await.inspect_err(|_| told.set(told.get() + 1)) });
            }
            sleep(ms(1)).await?;
            assert_eq!((metrics().tasks, metrics().waits), (100_000, 100_000));
            let begin = Instant::now();
            n.cancel();
            assert_eq!(metrics().waits, 0);
            took = Some(begin.elapsed());
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(told.get(), 100_000);
        println!("cancel() of 100,000 sleeping children took {:?}", took.unwrap());
    });
}

/// R9: the time to cancel grows with the number of scopes, not with its square: four times the depth takes less than twelve times as
/// long.
#[test]
#[ignore = "run on demand: it measures"]
fn r9_cancelling_nested_scopes_is_linear() {
    fn nest<'a>(scopes: &'a [CancelScope]) -> Pin<Box<dyn Future<Output = Ended> + 'a>> {
        Box::pin(async move {
            match scopes {
                [] => sleep_forever().await,
                [scope, inner @ ..] => scope.run(nest(inner)).await.map(|_| ()),
            }
        })
    }
    let cancel = |depth: usize| {
        run_virtual(async || {
            let scopes: Vec<CancelScope> = (0..depth).map(|_| CancelScope::new()).collect();
            let mut took = None;
            local_nursery(async |n| -> Ended {
                n.spawn(nest(&scopes));
                sleep(ms(1)).await?;
                let begin = Instant::now();
                scopes[0].cancel();
                took = Some(begin.elapsed());
                Ok(())
            })
            .await
            .unwrap();
            took.unwrap()
        })
    };
    let work = move || {
        let least = |depth| (0..20).map(|_| cancel(depth)).min().unwrap();
        let (few, many) = (least(1_000), least(4_000));
        println!("cancelling 1,000 nested scopes took {few:?}, 4,000 {many:?}");
        assert!(many < few * 12);
    };
    std::thread::Builder::new().stack_size(256 << 20).spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_sleeping_child_is_small() {
    run_virtual(async || {
        const CHILDREN: isize = 20_000;
        nursery(async |n| -> Ended {
            let before = live_bytes();
            for i in 0..CHILDREN as u64 {
                n.spawn(sleep(ms(1000 + i % 1000)));
            }
            sleep(ms(1)).await?;
            let each = (live_bytes() - before) / CHILDREN;
            println!("{each} bytes for a sleeping child");
            assert!(each < 400, "{each}");
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
#[ignore = "run on demand: takes a few hundred megabytes"]
fn a_million_sleeping_children() {
    run_virtual(async || {
        const CHILDREN: usize = 1_000_000;
        let before = resident();
        let begin = Instant::now();
        nursery(async |n| -> Ended {
            let allocated = live_bytes();
            for i in 0..CHILDREN as u64 {
                n.spawn(sleep(ms(1000 + i % 1000)));
            }
            println!("spawned after {:?}", begin.elapsed());
            sleep(ms(1)).await?;
            assert_eq!((metrics().tasks, metrics().waits), (CHILDREN, CHILDREN));
            println!(
                "{CHILDREN} children asleep after {:?}: {} bytes each allocated, {} resident",
                begin.elapsed(),
                (live_bytes() - allocated) as usize / CHILDREN,
                resident().saturating_sub(before) / CHILDREN
            );
            Ok(())
        })
        .await
        .unwrap();
        println!("all have slept and ended after {:?}", begin.elapsed());
    });
}

#[test]
#[ignore = "run on demand: takes a few hundred megabytes"]
fn a_million_sleeping_children_are_cancelled() {
    run_virtual(async || {
        const CHILDREN: usize = 1_000_000;
        let begin = Instant::now();
        nursery(async |n| -> Ended {
            for i in 0..CHILDREN as u64 {
                n.spawn(sleep(ms(1000 + i % 1000)));
            }
            sleep(ms(1)).await?;
            println!("asleep after {:?}", begin.elapsed());
            n.cancel();
            println!("cancelled after {:?}", begin.elapsed());
            Ok(())
        })
        .await
        .unwrap();
        println!("ended after {:?}", begin.elapsed());
    });
}
