//! Functions on threads that do not return: a program that waits for them says so (rows 31 and 47 of the list of silent failures).

use std::sync::{Mutex, mpsc};
use trefoil::asyncio::{OnCancel, event_loop, run_in_executor, set_executor_timeout, to_thread};
use trefoil::{Cancelled, local_nursery, tree};
use trefoil_tests::{Log, listen, ms, run_real};

const WAITS: &str = "the loop has come to its end, and waits for functions on threads (1), for 300s at most";

/// For a second it waits without a word.
#[test]
fn aio_r4_the_end_of_a_loop_says_for_which_function_it_waits() {
    run_real(async || {
        let (go, wait) = mpsc::channel();
        let (say, said) = mpsc::channel();
        let _listens = listen(move |line| {
            say.send(line.to_string()).unwrap();
            go.send(()).unwrap();
        });
        let base = line!();
        event_loop(async move {
            // Whoever held it is gone.
            drop(run_in_executor(OnCancel::Wait, move || {
                wait.recv().unwrap();
                Ok::<_, Cancelled>(())
            }));
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
        let said: Vec<String> = said.try_iter().collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with(WAITS) && said[0].contains(&format!("silent_threads.rs:{}:", base + 3)),
            "{said:?}"
        );
    });
}

/// Then it goes, and says what it leaves.
#[test]
fn aio_r4_the_functions_that_are_left_alone_are_named() {
    run_real(async || {
        let log = Log::default();
        let (go, wait) = mpsc::channel::<()>();
        let wait = std::sync::Arc::new(Mutex::new(wait));
        let base = line!();
        event_loop(async move {
            set_executor_timeout(ms(1));
            for _ in 0..2 {
                let wait = wait.clone();
                drop(run_in_executor(OnCancel::Abandon, move || {
                    _ = wait.lock().unwrap().recv();
                    Ok::<_, Cancelled>(())
                }));
            }
            Ok::<_, Cancelled>(())
        })
        .await
        .unwrap();
        let said = log.lines().clone();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("functions on threads (2) did not end in time, and are left alone"), "{said:?}");
        assert_eq!(said[0].matches(&format!("silent_threads.rs:{}:", base + 5)).count(), 1, "{said:?}");
        drop(go);
        // They let go of the run.
        while trefoil::wake_sources().handles > 0 {
            std::thread::yield_now();
        }
    });
}

/// Who waits for one is seen to, in the tree.
#[test]
fn aio_a_function_on_a_thread_is_in_the_tree() {
    run_real(async || {
        let (go, wait) = mpsc::channel::<()>();
        let base = line!();
        local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async {
                let ended = event_loop(async move {
                    to_thread(move || {
                        _ = wait.recv();
                        Ok::<_, Cancelled>(())
                    })
                    .await
                });
                ended.await
            });
            let waits = format!("waits for a function on a thread at silent_threads.rs:{} since", base + 4);
            while !tree().to_string().contains(&waits) {
                trefoil::sleep(ms(1)).await?;
            }
            drop(go);
            Ok(())
        })
        .await
        .unwrap();
    });
}
