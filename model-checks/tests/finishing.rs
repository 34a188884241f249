//! A nursery that finishes (`nursery/src/nursery.rs` over `runtime/src/ready.rs`) when its last child was woken from another thread: the
//! real future, polled by hand whenever it is woken, and freed as soon as it is ready or no longer wanted.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Poll, Waker};

use trefoil_model_checks::{Drops, Run, Woken, model};
use trefoil_nursery::{CancelScope, Cancelled, local_nursery, sleep_forever};
use trefoil_runtime::model::{link, unlink};
use trefoil_runtime::sync::{AtomicBool, Ordering};
use trefoil_runtime::{Kind, Scope, Source};

/// A word that a child waits for, and the waker of who does: one that the library knows nothing of.
struct Word {
    said: AtomicBool,
    waker: RefCell<Option<Waker>>,
    drops: Drops,
}

impl Word {
    fn new() -> Self {
        Self { said: AtomicBool::new(false), waker: RefCell::new(None), drops: Drops::new() }
    }

    /// Ready once the word is said. Only the first poll leaves its waker.
    fn wait(&self) -> impl Future<Output = ()> {
        let (mut first, token) = (true, self.drops.token());
        poll_fn(move |cx| {
            let _token = &token;
            if std::mem::take(&mut first) {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
            }
            if self.said.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn waker(&self) -> Waker {
        self.waker.borrow_mut().take().unwrap()
    }
}

/// A run whose one future is the nursery of the model.
struct Main {
    run: Run,
    root: Pin<Box<Scope>>,
    woken: Woken,
}

impl Main {
    fn new() -> Self {
        let run = Run::new();
        let root = Box::pin(Scope::new(Kind::Run, Location::caller()));
        // SAFETY: it is pinned, and unlinked in `end`.
        unsafe { link(&root, run.tree, None) };
        Self { run, root, woken: Woken::new() }
    }

    fn poll<F: Future>(&self, future: &mut Pin<Box<F>>) -> Poll<F::Output> {
        self.woken.poll(|cx| self.run.within(&self.root, || future.as_mut().poll(cx)))
    }

    /// Polls whenever it was woken, until it is ready.
    fn settle<F: Future>(&self, future: &mut Pin<Box<F>>) -> F::Output {
        while self.woken.take() {
            if let Poll::Ready(output) = self.poll(future) {
                return output;
            }
        }
        panic!("a wake-up was lost");
    }

    /// Drops the future, as who runs it does.
    fn drop_in<F>(&self, future: Pin<Box<F>>) {
        self.run.within(&self.root, || drop(future));
    }

    fn end(self) {
        unlink(&self.root);
        assert_eq!(self.woken.wakers(), 0, "a queue or a scope leaked");
    }
}

/// The last child is woken, by its last waker, while the nursery is polled; once it is ready it is freed at once, under the feet of the
/// waking thread. Seen: whether the poll in the race was the last.
#[test]
fn the_last_child_is_woken() {
    model("finishing: wake the last child ‖ poll, free").check([false, true], |order| {
        let word = Word::new();
        let main = Main::new();
        let mut open = Box::pin(local_nursery(async |n| -> Result<u32, Cancelled> {
            n.spawn(async {
                word.wait().await;
                Ok(())
            });
            Ok(7)
        }));
        assert!(main.poll(&mut open).is_pending());
        assert!(main.woken.take() && main.poll(&mut open).is_pending());
        let waker = word.waker();
        let (_, (left, at_once)) = order.race2(
            || {
                word.said.store(true, Ordering::Relaxed);
                waker.wake();
            },
            || match main.poll(&mut open) {
                Poll::Ready(output) => {
                    assert_eq!(output.unwrap(), 7);
                    main.drop_in(open);
                    (None, true)
                }
                Poll::Pending => (Some(open), false),
            },
        );
        if let Some(mut open) = left {
            assert_eq!(main.settle(&mut open).unwrap(), 7);
            main.drop_in(open);
        }
        assert!(word.drops.all());
        main.end();
        at_once
    });
}

/// Two children are woken from two threads. Seen: whether the poll in the race was the last.
#[test]
fn two_children_are_woken() {
    model("finishing: wake ‖ wake ‖ poll").three().bound(2).check([false, true], |order| {
        let words = [Word::new(), Word::new()];
        let main = Main::new();
        let mut open = Box::pin(local_nursery(async |n| -> Result<u32, Cancelled> {
            for word in &words {
                n.spawn(async move {
                    word.wait().await;
                    Ok(())
                });
            }
            Ok(7)
        }));
        assert!(main.poll(&mut open).is_pending());
        assert!(main.woken.take() && main.poll(&mut open).is_pending());
        let wakers = words.each_ref().map(Word::waker);
        let [a, b] = wakers;
        let say = |word: &Word, waker: Waker| {
            word.said.store(true, Ordering::Relaxed);
            waker.wake();
        };
        let (_, _, polled) = order.race3(|| say(&words[0], a), || say(&words[1], b), || main.poll(&mut open));
        let at_once = polled.is_ready();
        let output = match polled {
            Poll::Ready(output) => output,
            Poll::Pending => main.settle(&mut open),
        };
        assert_eq!(output.unwrap(), 7);
        main.drop_in(open);
        assert!(words.iter().all(|word| word.drops.all()));
        main.end();
        at_once
    });
}

/// The body and the last child are woken from two threads, and both end. Seen: whether the poll in the race was the last.
#[test]
fn body_and_child_are_woken() {
    model("finishing: wake the body ‖ wake the child ‖ poll").three().bound(2).check([false, true], |order| {
        let words = [Word::new(), Word::new()];
        let main = Main::new();
        let mut open = Box::pin(local_nursery(async |n| -> Result<u32, Cancelled> {
            n.spawn(async {
                words[1].wait().await;
                Ok(())
            });
            words[0].wait().await;
            Ok(7)
        }));
        assert!(main.poll(&mut open).is_pending());
        assert!(main.woken.take() && main.poll(&mut open).is_pending());
        let wakers = words.each_ref().map(Word::waker);
        let [a, b] = wakers;
        let say = |word: &Word, waker: Waker| {
            word.said.store(true, Ordering::Relaxed);
            waker.wake();
        };
        let (_, _, polled) = order.race3(|| say(&words[0], a), || say(&words[1], b), || main.poll(&mut open));
        let at_once = polled.is_ready();
        let output = match polled {
            Poll::Ready(output) => output,
            Poll::Pending => main.settle(&mut open),
        };
        assert_eq!(output.unwrap(), 7);
        main.drop_in(open);
        assert!(words.iter().all(|word| word.drops.all()));
        main.end();
        at_once
    });
}

/// The nursery is dropped half way, by a frame that goes away, while its child is woken: the child is destroyed before the frame, whatever
/// the wake does. Seen: nothing but that.
#[test]
fn dropped_while_a_child_is_woken() {
    model("finishing: wake a child ‖ drop the nursery").check([()], |order| {
        let word = Word::new();
        let main = Main::new();
        let mut open = Box::pin(local_nursery(async |n| -> Result<u32, Cancelled> {
            n.spawn(async {
                word.wait().await;
                Ok(())
            });
            Ok(7)
        }));
        assert!(main.poll(&mut open).is_pending());
        assert!(main.woken.take() && main.poll(&mut open).is_pending());
        let waker = word.waker();
        order.race2(
            || {
                word.said.store(true, Ordering::Relaxed);
                waker.wake();
            },
            || {
                main.drop_in(open);
                assert!(word.drops.all(), "a child outlived its nursery");
            },
        );
        main.end();
    });
}

/// Cancels the scope around a future from another thread, while it is polled. It sleeps for ever, at one place, and has to be told that it
/// is cancelled: it is not dropped where it waits (N13), which is for those that wait for something that the library does not know. Seen:
/// whether the poll in the race was the last.
fn cancelled_from_elsewhere<T>(
    name: &'static str,
    bound: usize,
    future: impl AsyncFn(&Cell<u32>) -> T + Copy + Send + Sync + 'static,
) {
    model(name).bound(bound).check([false, true], move |order| {
        let (main, told) = (Main::new(), Cell::new(0));
        let mut future = Box::pin(future(&told));
        assert!(main.poll(&mut future).is_pending());
        main.woken.take();
        // Whatever is scheduled at first has been polled.
        assert!(main.poll(&mut future).is_pending());
        let cancel = || main.root.cancel(Source::Explicit, Location::caller());
        let ((), polled) = order.race2(cancel, || main.poll(&mut future));
        let at_once = polled.is_ready();
        if !at_once {
            main.settle(&mut future);
        }
        assert_eq!(told.get(), 1, "it was dropped where it waits, and not told");
        main.drop_in(future);
        main.end();
        at_once
    });
}

async fn sleep_and_tell(told: &Cell<u32>) -> Result<(), Cancelled> {
    let slept = sleep_forever().await;
    told.set(told.get() + 1);
    slept.map(|_| ())
}

/// The body of a scope.
#[test]
fn the_body_of_a_scope_is_told() {
    cancelled_from_elsewhere("finishing: cancel ‖ poll a scope", 1, async |told| {
        let _ = local_nursery(async |_| CancelScope::new().run(sleep_and_tell(told)).await).await;
    });
}

/// The body of a nursery.
#[test]
fn the_body_of_a_nursery_is_told() {
    cancelled_from_elsewhere("finishing: cancel ‖ poll the body of a nursery", 2, async |told| {
        let _ = local_nursery(async |_| -> Result<(), Cancelled> { sleep_and_tell(told).await }).await;
    });
}

/// A child of a nursery.
#[test]
fn a_child_is_told() {
    cancelled_from_elsewhere("finishing: cancel ‖ poll a child", 2, async |told| {
        let _ = local_nursery(async |n| -> Result<(), Cancelled> {
            n.spawn(async { sleep_and_tell(told).await });
            Ok(())
        })
        .await;
    });
}

/// The same, with a child in a foreign future that another thread wakes (N13): it ends by itself or is dropped where it waits. Seen: whether
/// it was cut.
#[test]
fn cancelled_while_a_foreign_child_is_woken() {
    model("finishing: cancel ‖ wake a foreign child ‖ poll").three().bound(2).check([false, true], |order| {
        let word = Word::new();
        let main = Main::new();
        let finished = Cell::new(false);
        let scope = CancelScope::new();
        let mut open = Box::pin(scope.run(async {
            let ended = local_nursery(async |n| -> Result<u32, Cancelled> {
                n.spawn(async {
                    word.wait().await;
                    finished.set(true);
                    Ok(())
                });
                Ok(7)
            })
            .await;
            ended.map_err(|_| Cancelled::delivered())
        }));
        assert!(main.poll(&mut open).is_pending());
        assert!(main.woken.take() && main.poll(&mut open).is_pending());
        let waker = word.waker();
        let ((), _, polled) = order.race3(
            || scope.cancel(),
            || {
                word.said.store(true, Ordering::Relaxed);
                waker.wake();
            },
            || main.poll(&mut open),
        );
        let output = match polled {
            Poll::Ready(output) => output,
            Poll::Pending => main.settle(&mut open),
        };
        // Who was cut makes the nursery a cancelled one; otherwise its body had its value.
        assert_eq!(output, Ok(finished.get().then_some(7)));
        main.drop_in(open);
        assert!(word.drops.all());
        main.end();
        !finished.get()
    });
}
