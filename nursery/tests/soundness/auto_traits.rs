//! What is `Send`, `Sync` and `Unpin`, and what is not: checked when this compiles.

use std::cell::Cell;
use std::future::{Future, pending};
use std::rc::Rc;
use std::sync::MutexGuard;
use trefoil_nursery::*;

/// `assert_not!(expression: Trait)`: does not compile if its type implements the trait, since `_` is ambiguous then.
macro_rules! assert_not {
    ($value:expr, $($bound:tt)+) => {{
        trait Ambiguous<A> {
            fn check(&self) {}
        }
        impl<T: ?Sized> Ambiguous<()> for T {}
        #[allow(dead_code)]
        struct Yes;
        impl<T: ?Sized + $($bound)+> Ambiguous<Yes> for T {}
        if false {
            #[allow(unreachable_code)]
            let value = $value;
            Ambiguous::<_>::check(&value);
        }
    }};
}

fn send<T: std::marker::Send>(_: &T) {}
fn sync<T: Sync>(_: &T) {}
fn unpin<T: Unpin>(_: &T) {}
fn send_static<T: std::marker::Send + 'static>(_: &T) {}

type NotSend = Rc<()>;
/// `Sync`, and not `Send`.
type OnlySync = MutexGuard<'static, ()>;
/// `Send`, and not `Sync`.
type OnlySend = Cell<u8>;

fn any<T>() -> T {
    unreachable!("never called")
}

async fn with<T>(_held: T) -> Result<T, Cancelled> {
    pending::<()>().await;
    unreachable!()
}

#[derive(Debug)]
struct LocalError(#[allow(dead_code)] NotSend);
impl From<Cancelled> for LocalError {
    fn from(_: Cancelled) -> Self {
        LocalError(Rc::new(()))
    }
}
impl CancelAware for LocalError {
    fn is_cancelled(&self) -> bool {
        false
    }
}

#[test]
fn operations_are_send_and_sync() {
    let event = Event::new();
    let (tx, rx) = channel::<u8>(1);
    send_static(&sleep(std::time::Duration::ZERO));
    sync(&sleep(std::time::Duration::ZERO));
    send(&event.wait());
    sync(&event.wait());
    send(&tx.send(1));
    sync(&tx.send(1));
    send(&rx.recv());
    sync(&rx.recv());
    send_static(&checkpoint());
    send_static(&(event, tx, rx, CancelScope::new()));
    // They are pinned once they wait.
    assert_not!(sleep(std::time::Duration::ZERO), Unpin);
    assert_not!(any::<WaitEvent<'static>>(), Unpin);
    assert_not!(any::<RecvFuture<'static, u8>>(), Unpin);
    assert_not!(any::<SendFuture<'static, u8>>(), Unpin);
}

#[test]
fn channels_are_as_send_as_their_items() {
    let (tx, rx) = channel::<OnlySend>(1);
    send(&tx);
    sync(&tx);
    send(&rx);
    sync(&rx);
    send(&rx.recv());
    assert_not!(any::<SendFuture<'static, OnlySend>>(), Sync);
    assert_not!(any::<Sender<NotSend>>(), std::marker::Send);
    assert_not!(any::<Sender<NotSend>>(), Sync);
    assert_not!(any::<Receiver<NotSend>>(), std::marker::Send);
    assert_not!(any::<Receiver<OnlySync>>(), Sync);
    assert_not!(any::<RecvFuture<'static, OnlySync>>(), std::marker::Send);
    assert_not!(any::<RecvFuture<'static, NotSend>>(), Sync);
    assert_not!(any::<SendFuture<'static, NotSend>>(), std::marker::Send);
}

#[test]
fn scopes_are_as_send_as_their_body() {
    send(&move_on_after(std::time::Duration::ZERO, with(1)));
    sync(&move_on_after(std::time::Duration::ZERO, with(1)));
    send(&shield(with(1)));
    unpin(&move_on_after(std::time::Duration::ZERO, Box::pin(with(1))));
    assert_not!(move_on_after(std::time::Duration::ZERO, with(1)), Unpin);
    assert_not!(move_on_after(std::time::Duration::ZERO, with(any::<NotSend>())), std::marker::Send);
    assert_not!(move_on_after(std::time::Duration::ZERO, with(any::<OnlySend>())), Sync);
    assert_not!(shield(with(any::<NotSend>())), std::marker::Send);
    assert_not!(any::<CancelScope>().run(with(any::<NotSend>())), std::marker::Send);
}

#[test]
fn nurseries_are_as_send_as_their_body() {
    send(&nursery(async |_| with(1).await));
    let data = [1];
    send(&nursery(async |n| {
        n.spawn(with(&data));
        Ok::<_, Cancelled>(())
    }));
    let boxed: Box<dyn Future<Output = _> + std::marker::Send> = Box::new(nursery(async |n| n.spawn(with(1)).await));
    drop(boxed);
    // The body holds a thing, returns one, or errors do.
    fn holds() -> impl Future {
        nursery(async |_| with(any::<NotSend>()).await.map(drop))
    }
    fn returns() -> impl Future {
        nursery(async |_| Ok::<_, Cancelled>(any::<NotSend>()))
    }
    fn fails() -> impl Future {
        nursery(async |_| Ok::<_, LocalError>(()))
    }
    fn or_cancelled() -> impl Future {
        nursery(async |_| Ok::<_, LocalError>(())).or_cancelled()
    }
    assert_not!(holds(), std::marker::Send);
    assert_not!(returns(), std::marker::Send);
    assert_not!(fails(), std::marker::Send);
    assert_not!(or_cancelled(), std::marker::Send);
    // Nothing is done with a nursery from several threads.
    assert_not!(nursery(async |_| Ok::<_, Cancelled>(())), Sync);
}

#[test]
fn local_nurseries_are_not_send() {
    assert_not!(local_nursery(async |_| Ok::<_, Cancelled>(())), std::marker::Send);
    assert_not!(local_nursery(async |_| Ok::<_, Cancelled>(())), Sync);
    assert_not!(local_nursery(async |_| Ok::<_, Cancelled>(())).or_cancelled(), std::marker::Send);
    assert_not!(any::<Nursery<'static, 'static, Cancelled, Local>>(), std::marker::Send);
    assert_not!(any::<Nursery<'static, 'static, Cancelled, Local>>(), Sync);
}

#[test]
fn handles_are_as_send_as_they_say() {
    fn both<T: std::marker::Send + Sync + Copy + Unpin>() {}
    both::<Nursery<'static, 'static, Cancelled>>();
    both::<Nursery<'static, 'static, std::io::Error, Shared>>();
    assert_not!(any::<Nursery<'static, 'static, LocalError>>(), std::marker::Send);
    assert_not!(any::<Nursery<'static, 'static, LocalError>>(), Sync);
    fn joined<T: std::marker::Send + Sync + Unpin>() {}
    joined::<Join<'static, u8>>();
    joined::<Join<'static, OnlySend>>();
    assert_not!(any::<Join<'static, NotSend>>(), std::marker::Send);
    assert_not!(any::<Join<'static, NotSend>>(), Sync);
    assert_not!(any::<Join<'static, OnlySync>>(), std::marker::Send);
}

#[test]
fn lifetimes_of_handles_do_not_change() {
    // Neither lifetime may grow or shrink: covariance would let a child of a short life in, contravariance a handle out.
    fn invariant<'a, 'b>(x: Nursery<'a, 'b, Cancelled>) -> Nursery<'a, 'b, Cancelled> {
        x
    }
    let _ = invariant as for<'a, 'b> fn(Nursery<'a, 'b, Cancelled>) -> Nursery<'a, 'b, Cancelled>;
}
