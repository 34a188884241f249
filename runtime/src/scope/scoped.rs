//! A future that runs in a scope: sets the scope while it polls, gives up on a body that cannot be told (N13), and decides at the
//! end whether the scope absorbs a cancellation (R24, R25).

use crate::blocks::Put;
use crate::context::{self, Entered, InScope, OpenFrame};
use crate::look::record;
use crate::ready::{self, Header};
use crate::scope::cancelled::CancelAware;
use crate::scope::cause::{Kind, Named};
use crate::scope::{CAUGHT, ENTERED, Scope, WAKER_SET};
use crate::sync::Ordering::Relaxed;
use crate::time::clock::{self, Moment, NEVER};
use crate::tree::Tree;
use std::cell::Cell;
use std::future::Future;
use std::ops::Deref;
use std::panic::Location;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What tells two wakers apart. For comparison only.
pub(crate) type Key = (usize, usize);

/// No waker's.
pub(crate) const NOBODY: Key = (0, 0);

pub(crate) fn key(waker: &Waker) -> Key {
    (waker.data().addr(), ptr::from_ref(waker.vtable()).addr())
}

/// N13 (a), after a poll that was pending: the scope is cancelled, and its body neither was woken nor waits for anything that the
/// library knows of.
///
/// A body that a cancel told meanwhile is woken instead, and judged after its next poll. So is one whose task was woken, since that need
/// not lead back here: a foreign combinator polls again only those whose own waker was woken.
#[inline]
pub(crate) fn is_stuck(scope: &Scope, cx: &mut Context<'_>) -> bool {
    scope.is_cancelled() && is_stuck_cancelled(scope, cx)
}

#[cold]
fn is_stuck_cancelled(scope: &Scope, cx: &mut Context<'_>) -> bool {
    if !scope.lock().is_some_and(|locked| locked.is_idle(scope)) {
        return false;
    }
    // SAFETY: [CURRENT] of the context module.
    let task = unsafe { context::task().as_ref() };
    if task.is_some_and(|task| task.is_scheduled() || task.is_told()) {
        cx.waker().wake_by_ref();
        return false;
    }
    true
}

/// The entry, polls and exit of a scope: what a future that runs in one has beside its body.
///
/// `S` owns the scope, or a count of it, and keeps it in place.
pub struct Entry<S: Deref<Target = Scope>> {
    scope: S,
    linked: bool,
    /// How many cancellations the task had been told at the entry (N13 b).
    strikes: u16,
    /// The waker set in the scope.
    waker: Key,
}

impl<S: Deref<Target = Scope>> std::fmt::Debug for Entry<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scope.fmt(f)
    }
}

impl<S: Deref<Target = Scope>> Entry<S> {
    /// For a scope that keeps its place as long as `S` lives.
    ///
    /// # Safety
    /// `S` owns the scope, or a count of it, so that it is there as long as `S` is, also where that is forgotten; it derefs to the same
    /// scope always, and that does not move.
    pub unsafe fn new(scope: S) -> Self {
        Self { scope, linked: false, strikes: 0, waker: NOBODY }
    }

    /// The scope.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What keeps the scope in its place.
    pub(crate) fn held(&self) -> &S {
        &self.scope
    }

    /// Whether it was entered and not yet left.
    pub fn is_linked(&self) -> bool {
        self.linked
    }

    /// To be called at the begin of every poll: links the scope at the first, finds its place again if it is polled elsewhere, and
    /// registers who must be polled when it is cancelled.
    ///
    /// # Panics
    /// Outside of a run, and when the scope is entered for a second time (R7).
    #[inline]
    pub fn enter(&mut self, cx: &mut Context<'_>) {
        if !self.is_in_place(cx.waker()) {
            self.enter_at(cx, None);
        }
    }

    /// Whether nothing has changed since the last poll, as mostly.
    #[inline]
    fn is_in_place(&self, waker: &Waker) -> bool {
        let (scope, task) = context::scope_and_task();
        // A scope that was let go has no parent, and code outside of a run has no scope.
        !scope.is_null()
            && ptr::eq(self.scope.parent.load(Relaxed), scope)
            && ptr::eq(self.scope.task(), task)
            && self.scope.has(WAKER_SET)
            && key(waker) == self.waker
    }

    /// The same where the time is known, perhaps.
    #[inline(never)]
    fn enter_at(&mut self, cx: &mut Context<'_>, now: Option<u64>) {
        let frame = context::open_frame();
        if self.linked { self.enter_again(frame, cx.waker()) } else { self.link_in(frame, cx.waker().clone(), now) }
    }

    /// The first poll.
    fn link_in(&mut self, frame: OpenFrame, waker: Waker, now: Option<u64>) {
        assert!(
            self.scope.set(ENTERED) & ENTERED == 0,
            "the cancel scope of {} was entered twice: it is for one use (R7)",
            self.scope.place
        );
        self.waker = key(&waker);
        // SAFETY: [HELD]: `leave` unlinks it, at the latest in `drop`.
        unsafe { link(&self.scope, frame, waker, now) };
        self.linked = true;
        self.strikes = context::strikes();
    }

    /// A later poll: finds its place again, where that has changed.
    fn enter_again(&mut self, frame: OpenFrame, polled_with: &Waker) {
        let Some(tree) = frame.tree else { context::outside("a scope") };
        if !ptr::eq(self.scope.parent.load(Relaxed), frame.scope) {
            // SAFETY: it is linked, or was let go.
            unsafe { self.scope.relink(tree, frame.scope, frame.task) };
        } else if !ptr::eq(self.scope.task(), frame.task)
            && let Some(mut locked) = self.scope.lock()
        {
            locked.set_task(&self.scope, frame.task);
        }
        let key = key(polled_with);
        if self.scope.has(WAKER_SET) && key == self.waker {
            return;
        }
        self.waker = key;
        let new = polled_with.clone();
        let old = self.scope.lock().and_then(|mut locked| locked.set_waker(&self.scope, new));
        drop(old);
    }

    /// N13 (a), after a poll that was pending: see `is_stuck`.
    pub fn is_stuck(&self, cx: &mut Context<'_>) -> bool {
        is_stuck(&self.scope, cx)
    }

    /// Leaves the scope. Whether it absorbs a cancellation that comes out of it.
    pub fn leave(&mut self) -> bool {
        if !std::mem::take(&mut self.linked) {
            return false;
        }
        let absorbs = self.scope.unlink();
        record::scope_left(&self.scope);
        if absorbs {
            context::forgive(self.strikes);
        }
        absorbs
    }

    /// The scope did absorb a cancellation (R26).
    pub fn caught(&self) {
        self.scope.set(CAUGHT);
    }
}

impl<S: Deref<Target = Scope>> Drop for Entry<S> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Links a scope at the first poll of what runs in it, with a waker of who polls it. `now`, if that is known.
///
/// # Safety
/// \[HELD\]: it is in no tree, and is unlinked before it goes away.
#[inline]
unsafe fn link(scope: &Scope, frame: OpenFrame, waker: Waker, now: Option<u64>) {
    let Some(tree) = frame.tree else { context::outside("a scope") };
    let now = || now.unwrap_or_else(|| tree.clock.now());
    // With the bit of the waker, which is set below, under the same lock.
    // SAFETY: the caller's word.
    let mut locked = unsafe { scope.link_with(tree, frame.scope, frame.task, WAKER_SET, now) };
    let old = locked.set_waker(scope, waker);
    record::scope_entered(scope, || scope.who());
    drop(locked);
    drop(old);
}

/// A scope that stays in its place.
pub enum Held {
    /// One without handles.
    Own(Put<Scope>),
    /// One with handles.
    Shared(Arc<Scope>),
}

impl Deref for Held {
    type Target = Scope;
    fn deref(&self) -> &Scope {
        match self {
            Held::Own(scope) => scope,
            Held::Shared(scope) => scope,
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

/// What a scope without handles is made of, once it is needed.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub kind: Kind,
    pub place: &'static Location<'static>,
    /// Its deadline, in nanoseconds from the first poll on (R43); [`NEVER`] where it has none.
    pub after: u64,
    /// There will be handles of it.
    pub shared: bool,
}

/// As the scope that it will be.
impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Scope");
        debug.field("opened", &format_args!("{}", Named(None, self.place)));
        debug.field("state", &format_args!("not entered"));
        if self.after != NEVER {
            debug.field("deadline_in", &Duration::from_nanos(self.after));
        }
        if self.kind == Kind::Shield {
            debug.field("shield", &true);
        }
        debug.finish()
    }
}

impl Plan {
    fn make(&self) -> Entry<Held> {
        let scope = Scope::new(self.kind, self.place);
        let held = if self.shared { Held::Shared(Arc::new(scope)) } else { Held::Own(Put::new(scope)) };
        // SAFETY: the scope is in a block of its own or an `Arc`.
        unsafe { Entry::new(held) }
    }

    /// Makes a scope that is entered at `then`, or was, and links it; not one that is due then (R44). An [`Edge`](crate::Edge)'s has a handle outside; the
    /// others have none. `waker` is that of who polls it.
    ///
    /// # Safety
    /// What the frame says is current.
    #[inline(always)]
    unsafe fn enter(&self, tree: &'static Tree, frame: Around, waker: Waker, then: u64, strikes: u16) -> Entry<Held> {
        let (key, deadline) = (key(&waker), then.saturating_add(self.after));
        let scope = if self.shared {
            Held::Shared(Arc::new(Scope::entered(self.kind, self.place, deadline, true, tree, frame, waker)))
        } else {
            // Made where it stays, not moved there.
            Held::Own(Put::made(|| Scope::entered(self.kind, self.place, deadline, false, tree, frame, waker)))
        };
        let entry = Entry { scope, linked: true, strikes, waker: key };
        {
            let mut locked = tree.lock();
            // SAFETY: [HELD]: the entry has it, and unlinks it; for the frame, the caller's word.
            unsafe { locked.link_new(&entry.scope) };
            record::scope_entered(&entry.scope, || entry.scope.who());
        }
        entry
    }

    /// From when on the deadline counts, if there is one. Otherwise it is all the same when: a look at the counter takes 10 ns.
    #[inline(always)]
    fn moment(&self, tree: &Tree) -> Moment {
        if self.after == NEVER { Moment::At(0) } else { tree.clock.moment() }
    }

    /// When that was.
    #[inline(always)]
    fn time_of(&self, tree: &Tree, entered: Moment) -> u64 {
        if self.after == NEVER { 0 } else { tree.clock.time_then(entered, tree.turn_time()) }
    }

    /// The deadline of one that was made ahead of its first poll, and the time.
    #[cold]
    fn start_now(&self, scope: &Scope) -> Option<u64> {
        (self.after != NEVER && !scope.is_bound()).then(|| {
            let now = crate::worker::now();
            scope.set_deadline(now.saturating_add(self.after));
            now
        })
    }

    /// A scope that is made and entered at once.
    #[inline(never)]
    fn enter_now(&self, waker: &Waker) -> Entry<Held> {
        let frame = context::open_frame();
        let Some(tree) = frame.tree else { context::outside("a scope") };
        let waker = waker.clone();
        let then = self.time_of(tree, self.moment(tree));
        // SAFETY: [CURRENT] of the context module.
        unsafe { self.enter(tree, (frame.scope, frame.task), waker, then, context::strikes()) }
    }
}

/// The scope and the task around one that is linked.
type Around = (*const Scope, *const Header);

/// A scope without handles, other than a shield, whose body is being polled for the first time, and in which nothing has waited, opened
/// a scope or asked about it yet. Nobody can tell that it is not there: it is cancelled when the one around it is, and its deadline is not
/// due. Most bodies under a deadline are done at once, and never need it: 10 ns instead of 31 ns.
///
/// It lies on the stack of the poll, and the context points to it meanwhile.
pub(crate) struct Unopened {
    /// Of who polls it, for the length of the poll. Not a copy, which would wait for the fields that were just written.
    plan: *const Plan,
    /// The frame around it, as far as it is needed.
    scope: *const Scope,
    around: *const Unopened,
    task: *const Header,
    tree: &'static Tree,
    /// From when on its deadline counts (R43).
    entered: Moment,
    /// Who polls it. For the length of the poll.
    waker: *const Waker,
    strikes: u16,
    /// The one that is opened after this one.
    inner: Cell<*const Unopened>,
    /// Where it comes when it is opened: a field of who polls it, for the length of the poll.
    entry: *mut Option<Entry<Held>>,
}

impl Unopened {
    #[inline(always)]
    fn new(plan: &Plan, waker: &Waker, entry: &mut Option<Entry<Held>>) -> Self {
        let (tree, scope, around, task) = context::surroundings();
        let Some(tree) = tree else { context::outside("a scope") };
        let entered = plan.moment(tree);
        // SAFETY: [CURRENT] of the context module.
        let strikes = unsafe { task.as_ref() }.map_or(0, Header::strikes);
        let inner = Cell::new(ptr::null());
        Self { plan, scope, around, task, tree, entered, waker, strikes, inner, entry }
    }

    fn plan(&self) -> &Plan {
        // SAFETY: of who polls it; this is on the stack of that poll.
        unsafe { &*self.plan }
    }

    /// It is an [`Edge`](crate::Edge)'s, and what is around it is linked.
    pub(crate) fn is_edge_alone(&self) -> bool {
        self.plan().shared && self.around.is_null()
    }

    /// The scope, if it was opened.
    pub(crate) fn opened(&self) -> Option<*const Scope> {
        // SAFETY: it is there for the length of the poll, and nobody else touches it meanwhile.
        unsafe { (*self.entry).as_ref() }.map(|entry| ptr::from_ref(entry.scope()))
    }

    /// Links it, and before it those between it and the innermost scope that is linked.
    pub(crate) fn open(&self) -> *const Scope {
        // Outward, and back inward: not by recursion, since there may be thousands.
        let mut node: *const Self = self;
        // SAFETY: [CURRENT] of the context module: what is around this is being polled, too.
        unsafe {
            while let Some(outer) = (*node).around.as_ref()
                && outer.opened().is_none()
            {
                outer.inner.set(node);
                node = outer;
            }
            loop {
                (*node).open_in();
                if ptr::eq(node, self) {
                    return self.opened().unwrap_or(self.scope);
                }
                node = (*node).inner.get();
            }
        }
    }

    /// What is around it is open.
    fn open_in(&self) {
        if self.opened().is_some() {
            return;
        }
        // SAFETY: this is on the stack of a poll, to which the waker was given.
        let waker = unsafe { &*self.waker };
        let clone = waker.clone();
        let tree = self.tree;
        // The clone of a foreign executor may do anything: the scope may be open now.
        if self.opened().is_some() {
            return;
        }
        // SAFETY: as in `open`.
        let scope = unsafe { self.around.as_ref() }.and_then(Self::opened).unwrap_or(self.scope);
        // It counts from the begin of this poll. If it is due by now, that is noticed when the loop looks next (R45).
        let then = self.plan().time_of(tree, self.entered);
        // Nothing of others has run since it was looked at: it is empty.
        // SAFETY: [CURRENT] of the context module, and as in `opened`.
        unsafe { self.entry.write(Some(self.plan().enter(tree, (scope, self.task), clone, then, self.strikes))) };
    }

    /// Whether opening it would clone a waker that is not ours.
    pub(crate) fn is_foreign(&self) -> bool {
        let mut node: *const Self = self;
        // SAFETY: as in `open`.
        while let Some(unopened) = unsafe { node.as_ref() } {
            // SAFETY: as in `open_in`.
            if !ready::is_ours(unsafe { &*unopened.waker }) {
                return true;
            }
            node = unopened.around;
        }
        false
    }
}

#[cold]
fn log_cut(scope: &Location<'_>) {
    tracing::debug!(%scope, "a cancelled scope pended on nothing known, and its body was dropped (N13)");
}

/// Polls a body in a scope that is made only if it has to be; at the latest when the body is pending, unless it is an [`Edge`](crate::Edge)'s.
pub(crate) fn poll_first<F: Future>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
    plan: &Plan,
    entry: &mut Option<Entry<Held>>,
) -> Poll<F::Output> {
    let unopened = Unopened::new(plan, cx.waker(), entry);
    let polled = {
        let _entered = InScope::with(unopened.scope, &unopened);
        future.poll(cx)
    };
    if polled.is_pending() && !plan.shared {
        unopened.open();
    }
    polled
}

/// A future in a scope: `Ok(None)` where the scope absorbed a cancellation.
pub struct Scoped<F> {
    // Dropped last: what the body left linked under the scope is taken out before.
    body: Option<F>,
    /// `None` until it is needed.
    entry: Option<Entry<Held>>,
    plan: Plan,
    after: After,
}

/// What is left to do after the body has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Nothing.
    Nothing,
    /// To give up the turn: the cancellation was absorbed, and the task has no budget left (N11).
    Turn,
    /// To say nothing: the task around it has swallowed too many cancellations (N13 b).
    Mute,
}

impl<F> std::fmt::Debug for Scoped<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.entry {
            Some(entry) => entry.fmt(f),
            None => self.plan.fmt(f),
        }
    }
}

impl<F> Scoped<F> {
    /// A body that will run in a scope with handles.
    pub fn shared(scope: Arc<Scope>, body: F) -> Self {
        let plan = Plan { kind: scope.kind, place: scope.place, after: NEVER, shared: false };
        // SAFETY: the scope is in an `Arc`.
        Self { body: Some(body), entry: Some(unsafe { Entry::new(Held::Shared(scope)) }), plan, after: After::Nothing }
    }

    /// A body that will run in a scope of its own, with a deadline relative to its first poll (R43), if there is one.
    pub fn own(kind: Kind, place: &'static Location<'static>, after: Option<Duration>, body: F) -> Self {
        let plan = Plan { kind, place, after: after.map_or(NEVER, clock::length), shared: false };
        Self { body: Some(body), entry: None, plan, after: After::Nothing }
    }

    /// A body that will run in a scope of its own with an absolute deadline.
    pub fn until(place: &'static Location<'static>, at: u64, body: F) -> Self {
        let plan = Plan { kind: Kind::Scope, place, after: NEVER, shared: false };
        let entry = plan.make();
        entry.scope().set_deadline(at);
        Self { body: Some(body), entry: Some(entry), plan, after: After::Nothing }
    }

    /// A body that will run in a scope of its own that a soft cancel from outside cancels.
    pub fn polite(place: &'static Location<'static>, body: F) -> Self {
        let plan = Plan { kind: Kind::Scope, place, after: NEVER, shared: false };
        let entry = plan.make();
        entry.scope().set_polite();
        Self { body: Some(body), entry: Some(entry), plan, after: After::Nothing }
    }

    /// Gives the scope a name, unless it has been entered or has handles. It is made at once then.
    pub fn set_name(&mut self, name: Arc<str>) {
        if self.has_handles() {
            return;
        }
        let plan = self.plan;
        // SAFETY: the scope is this one's alone, which is borrowed, and so not being polled.
        unsafe { self.entry.get_or_insert_with(|| plan.make()).scope().set_name(name) };
    }

    /// Whether others have the scope, too.
    fn has_handles(&self) -> bool {
        matches!(&self.entry, Some(Entry { scope: Held::Shared(_), .. }))
    }

    /// Where the scope was opened.
    pub fn place(&self) -> &'static Location<'static> {
        self.plan.place
    }

    /// What the scope is for.
    pub fn kind(&self) -> Kind {
        self.plan.kind
    }

    /// What the body still holds goes in its own scope.
    fn drop_body(mut body: Pin<&mut Option<F>>, entry: Option<&Entry<Held>>) {
        let _entered = entry.map(|entry| Entered::new(context::frame_in(entry.scope())));
        body.set(None);
    }

    /// Polls the body in the scope: what it returned, `None` where it was cut (N13).
    pub fn poll_body<O>(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<O>>
    where
        F: Future<Output = O>,
    {
        // SAFETY: the body is pinned, and only set to `None`, in place; nothing else is.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let mut body = unsafe { Pin::new_unchecked(&mut this.body) };
        let future = body.as_mut().as_pin_mut().expect("polled after it was ready");
        if this.entry.is_none() && this.plan.after == 0 {
            // It is due at once, which has to be noticed (R44).
            this.entry = Some(this.plan.make());
        }
        let polled = match &mut this.entry {
            // A shield has to be there to hold anything off.
            None if this.plan.kind != Kind::Shield => poll_first(future, cx, &this.plan, &mut this.entry),
            entry => {
                let entry = match entry {
                    Some(entry) => {
                        if entry.linked {
                            entry.enter(cx)
                        } else {
                            entry.enter_at(cx, this.plan.start_now(&entry.scope))
                        }
                        entry
                    }
                    None => entry.insert(this.plan.enter_now(cx.waker())),
                };
                let _entered = InScope::new(entry.scope());
                let polled = future.poll(cx);
                if polled.is_ready() {
                    // Here, where its scope is set.
                    body.set(None);
                }
                polled
            }
        };
        match polled {
            Poll::Ready(output) => {
                if body.is_some() {
                    Self::drop_body(body, this.entry.as_ref());
                }
                Poll::Ready(Some(output))
            }
            Poll::Pending if this.entry.as_ref().is_some_and(|entry| entry.is_stuck(cx)) => {
                log_cut(this.plan.place);
                Self::drop_body(body, this.entry.as_ref());
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The same, with the scope left at the end and its cancellation absorbed: `Ok(None)`.
    pub fn poll_caught<T, E: CancelAware>(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Option<T>, E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        match self.after {
            After::Nothing => {}
            After::Turn => return context::poll_budget(cx).map(|()| Ok(None)),
            After::Mute => {
                // Who polls it next, outside of the scope in which too much was swallowed, is told: there it would be dropped by nobody.
                let cancelled = std::task::ready!(context::poll_cancelled(self.plan.place));
                // SAFETY: nothing but the body is pinned.
                unsafe { self.get_unchecked_mut() }.after = After::Nothing;
                return Poll::Ready(Err(cancelled.into()));
            }
        }
        let output = std::task::ready!(self.as_mut().poll_body(cx));
        // SAFETY: nothing but the body is pinned.
        let this = unsafe { self.get_unchecked_mut() };
        let absorbs = this.entry.as_mut().is_some_and(Entry::leave);
        let error = match output {
            Some(Ok(value)) => return Poll::Ready(Ok(Some(value))),
            Some(Err(error)) => error,
            // The code around is told a cancellation that no operation has counted: a loop of such scopes, too, has to end.
            None if !absorbs && context::poll_cancelled(this.plan.place).is_pending() => {
                this.after = After::Mute;
                return Poll::Pending;
            }
            None => E::from(crate::Cancelled::delivered()),
        };
        if !absorbs {
            return Poll::Ready(Err(error));
        }
        // R27, R28, R31: only the cancellations go.
        if error.has_cancelled() {
            this.entry.as_ref().inspect(|entry| entry.caught());
        }
        if let Some(error) = error.without_cancelled() {
            return Poll::Ready(Err(error));
        }
        // R12: a loop of scopes that are cancelled at once lets others run. What it absorbs is forgiven, so nothing else would end it: neither
        // a deadline further out nor whoever sets what it waits for.
        if context::poll_budget(cx).is_pending() {
            this.after = After::Turn;
            return Poll::Pending;
        }
        Poll::Ready(Ok(None))
    }
}

impl<F> Drop for Scoped<F> {
    fn drop(&mut self) {
        if self.body.is_some() {
            // SAFETY: dropped in place, never moved after.
            Self::drop_body(unsafe { Pin::new_unchecked(&mut self.body) }, self.entry.as_ref());
        }
    }
}
