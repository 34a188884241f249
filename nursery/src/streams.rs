//! Channels and generators as `Stream` and `Sink` of the futures crates: with the feature `futures`.
//!
//! A stream is the handle, and between two items the future of one receive, which owns the handle meanwhile. So an item that was handed
//! over is in that future until the stream is polled, and goes back where it came from if the stream is dropped (N5). A sink is the same
//! around a send.
//!
//! A step may have been begun in a scope that was cancelled since, and left: by a `select!` that did not look at this branch again. That is
//! no cancellation of who polls it now, and the step is begun anew.

use crate::branches::cancelled_here;
use crate::channel::{Receiver, SendError, Sender};
use crate::generator::Items;
use futures_core::{FusedStream, Stream};
use futures_sink::Sink;
use pin_project_lite::pin_project;
use std::borrow::Borrow;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trefoil_runtime::Cancelled;

pin_project! {
    /// Items, each of which is the output of a step.
    struct Steps<H, F, B> {
        handle: Option<H>,
        #[pin]
        step: Option<F>,
        begin: B,
        ended: bool,
    }
}

fn steps<H, F, B: FnMut(H) -> F>(handle: H, begin: B) -> Steps<H, F, B> {
    Steps { handle: Some(handle), step: None, begin, ended: false }
}

impl<T, H, F, B> Stream for Steps<H, F, B>
where
    F: Future<Output = (H, Result<Option<T>, Cancelled>)>,
    B: FnMut(H) -> F,
{
    type Item = Result<T, Cancelled>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        loop {
            let old = this.step.is_some();
            if let Some(handle) = this.handle.take() {
                this.step.set(Some((this.begin)(handle)));
            }
            let step = this.step.as_mut().as_pin_mut().expect("polled after it panicked");
            let (handle, item) = ready!(step.poll(cx));
            this.step.set(None);
            *this.handle = Some(handle);
            if old && item.is_err() && !cancelled_here() {
                continue;
            }
            *this.ended = matches!(item, Ok(None));
            return Poll::Ready(item.transpose());
        }
    }
}

impl<T, H, F, B> FusedStream for Steps<H, F, B>
where
    F: Future<Output = (H, Result<Option<T>, Cancelled>)>,
    B: FnMut(H) -> F,
{
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

fn receives<T, R: Borrow<Receiver<T>>>(
    receiver: R,
    place: &'static Location<'static>,
) -> impl FusedStream<Item = Result<T, Cancelled>> + use<T, R> {
    steps(receiver, move |receiver: R| async move {
        let item = receiver.borrow().recv_at(place).await;
        (receiver, item)
    })
}

impl<T> Receiver<T> {
    /// The items of the channel as a `Stream`; with the feature `futures`.
    ///
    /// A cancellation is an item: `Err(Cancelled)`, at each poll while the scope is cancelled (R1). No item is lost: one that was handed to
    /// the stream while it was not polled is its next one, or that of another receiver when the stream is dropped (N5).
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use futures_util::TryStreamExt;
    /// use trefoil_nursery::channel;
    /// let (sender, receiver) = channel(3);
    /// for i in 1..4 {
    ///     sender.send(i).await.unwrap();
    /// }
    /// drop(sender);
    /// let odd: Vec<i32> = receiver.stream().try_filter(|i| std::future::ready(i % 2 == 1)).try_collect().await.unwrap();
    /// assert_eq!(odd, [1, 3]);
    /// # });
    /// ```
    #[track_caller]
    pub fn stream(&self) -> impl FusedStream<Item = Result<T, Cancelled>> + use<'_, T> {
        receives(self, Location::caller())
    }

    /// The same as [`stream`](Self::stream), with the receiver in it.
    #[track_caller]
    pub fn into_stream(self) -> impl FusedStream<Item = Result<T, Cancelled>> + use<T> {
        receives(self, Location::caller())
    }
}

impl<T> Items<T> {
    /// The items of a generator as a `Stream`; with the feature `futures`. Each is made when the stream is polled for it (R101), and a
    /// cancellation is an item: `Err(Cancelled)`.
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use futures_util::TryStreamExt;
    /// use std::io;
    /// use trefoil_nursery::generator;
    /// let sum = generator(
    ///     async |mut out| {
    ///         for i in 0..4 {
    ///             out.send(i).await?;
    ///         }
    ///         Ok(())
    ///     },
    ///     async |items| -> io::Result<i32> {
    ///         Ok(items.into_stream().try_fold(0, async |sum, i| Ok(sum + i)).await?)
    ///     },
    /// )
    /// .await?;
    /// assert_eq!(sum, 6);
    /// # Ok::<(), io::Error>(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn into_stream(self) -> impl FusedStream<Item = Result<T, Cancelled>> + use<T> {
        let place = Location::caller();
        steps(self, move |mut items: Items<T>| async move {
            let item = items.next_at(place).await;
            (items, item)
        })
    }
}

pin_project! {
    /// A sink, which has one item on its way at most.
    struct Sends<H, F, B> {
        handle: Option<H>,
        #[pin]
        send: Option<F>,
        begin: B,
    }
}

impl<H, F, B> Sends<H, F, B> {
    fn poll_send<T>(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>>
    where
        F: Future<Output = (H, Result<(), SendError<T>>)>,
        B: FnMut(H, T) -> F,
    {
        let mut this = self.project();
        loop {
            let Some(send) = this.send.as_mut().as_pin_mut() else { return Poll::Ready(Ok(())) };
            let (handle, sent) = ready!(send.poll(cx));
            this.send.set(None);
            match sent {
                // One that begins here is not cancelled.
                Err(SendError::Cancelled(_, item)) if !cancelled_here() => {
                    this.send.set(Some((this.begin)(handle, item)));
                }
                sent => {
                    *this.handle = Some(handle);
                    return Poll::Ready(sent);
                }
            }
        }
    }
}

impl<T, H, F, B> Sink<T> for Sends<H, F, B>
where
    H: Borrow<Sender<T>>,
    F: Future<Output = (H, Result<(), SendError<T>>)>,
    B: FnMut(H, T) -> F,
{
    type Error = SendError<T>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        self.poll_send(cx)
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), SendError<T>> {
        let mut this = self.project();
        let handle = this.handle.take().expect("an item was given to a sink that was not ready");
        this.send.set(Some((this.begin)(handle, item)));
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        self.poll_send(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        ready!(self.as_mut().poll_send(cx))?;
        if let Some(sender) = self.project().handle {
            Borrow::<Sender<T>>::borrow(sender).close();
        }
        Poll::Ready(Ok(()))
    }
}

fn sends<T, S: Borrow<Sender<T>>>(
    sender: S,
    place: &'static Location<'static>,
) -> impl Sink<T, Error = SendError<T>> + use<T, S> {
    Sends {
        handle: Some(sender),
        send: None,
        begin: move |sender: S, item: T| async move {
            let sent = sender.borrow().send_at(item, place).await;
            (sender, sent)
        },
    }
}

impl<T> Sender<T> {
    /// The channel as a `Sink`; with the feature `futures`.
    ///
    /// It has one item on its way at most, which is sent when the sink is flushed or asked whether it is ready for another one. An item that was
    /// not sent is in the error (N6). To close the sink is to [close](Self::close) the sender; to drop it drops an item that was not
    /// flushed.
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use futures_util::{SinkExt, StreamExt, stream};
    /// use std::pin::pin;
    /// use trefoil_nursery::channel;
    /// let (sender, receiver) = channel(3);
    /// let mut sink = pin!(sender.sink());
    /// sink.send_all(&mut stream::iter(1..4).map(Ok)).await?;
    /// sink.close().await?;
    /// assert_eq!(receiver.len(), 3);
    /// # Ok::<(), trefoil_nursery::SendError<i32>>(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn sink(&self) -> impl Sink<T, Error = SendError<T>> + use<'_, T> {
        sends(self, Location::caller())
    }

    /// The same as [`sink`](Self::sink), with the sender in it.
    #[track_caller]
    pub fn into_sink(self) -> impl Sink<T, Error = SendError<T>> + use<T> {
        sends(self, Location::caller())
    }
}
