//! What a turn of a task costs, in instructions: 100 tasks that give up the turn, over and over.
//!
//! ```sh
//! cargo build --release -p trefoil-nursery --example poll_cost
//! for turns in 1000 2000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/poll_cost $turns; done
//! ```
//! The difference of the two counts, divided by 100,000, is one turn. A second argument adds an instrument that does nothing.

use std::future::Future;
use std::rc::Rc;
use trefoil_nursery::{Cancelled, doc_run, local_nursery, yield_now};
use trefoil_runtime::{Instrument, add_instrument};

const TASKS: u64 = 100;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let turns: u64 = args.next().unwrap_or(1_000);
    let count = Rc::new(std::cell::Cell::new(0));
    let program = async {
        local_nursery(async |n| -> Result<(), Cancelled> {
            for _ in 0..TASKS {
                let count = count.clone();
                n.spawn(async move {
                    for _ in 0..turns {
                        yield_now().await;
                    }
                    count.set(count.get() + 1);
                    Ok(())
                });
            }
            Ok(())
        })
        .await
        .unwrap();
    };
    run(program, args.next().is_some());
    assert_eq!(count.get(), TASKS);
}

fn run(program: impl Future<Output = ()>, instrumented: bool) {
    doc_run(async {
        if instrumented {
            add_instrument(Nothing);
        }
        program.await;
    });
}

struct Nothing;

impl Instrument for Nothing {}
