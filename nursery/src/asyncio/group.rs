//! [`task_group`]: tasks that end together.

use super::control::Control;
use super::event_loop::Loop;
use super::future::Future;
use super::here;
use super::task::{AnyTask, Task, TaskBuilder};
use super::unhandled::{Unhandled, report};
use crate::scope::shield_at;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future as StdFuture;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use trefoil_runtime::{CancelAware, Cancelled, ErrorGroup, FailedBy, Failure, Reason};

struct Inner<E> {
    event_loop: Rc<Loop>,
    parent: Rc<Control>,
    /// Those that are not done, by number.
    tasks: RefCell<BTreeMap<u64, Rc<Control>>>,
    errors: RefCell<Vec<Failure<E>>>,
    /// That of the body, which comes last (K5), while the tasks are waited for.
    body_error: RefCell<Option<Failure<E>>>,
    /// Nobody waits for them any more.
    left: Cell<bool>,
    exiting: Cell<bool>,
    aborting: Cell<bool>,
    parent_cancelled: Cell<bool>,
    completed: RefCell<Option<Future<(), Cancelled>>>,
}

/// The handle of a group of tasks: see [`task_group`]. Clone it, give it to its tasks.
pub struct TaskGroup<E: CancelAware + 'static = Cancelled> {
    inner: Rc<Inner<E>>,
}

impl<E: CancelAware> Clone for TaskGroup<E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<E: CancelAware> fmt::Debug for TaskGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup")
            .field("tasks", &self.inner.tasks.borrow().len())
            .field("aborting", &self.inner.aborting.get())
            .finish()
    }
}

/// A group takes no more tasks (K2). What was to be one is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupClosed {
    /// It has ended.
    Finished,
    /// A task of it failed, or it was cancelled.
    ShuttingDown,
}

impl fmt::Display for GroupClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GroupClosed::Finished => "the task group has ended",
            GroupClosed::ShuttingDown => "the task group is shutting down",
        })
    }
}

impl std::error::Error for GroupClosed {}

impl From<GroupClosed> for io::Error {
    fn from(error: GroupClosed) -> Self {
        io::Error::other(error)
    }
}

impl<E: CancelAware + 'static> TaskGroup<E> {
    /// Starts a task in the group: its error is the group's, which then cancels all others and ends with it (K3).
    ///
    /// Also while the group waits for the tasks in it (K1).
    ///
    /// # Errors
    /// [`GroupClosed`] when the group has ended, or is shutting down (K2).
    #[track_caller]
    pub fn create_task<F, T>(&self, body: F) -> Result<Task<T, E>, GroupClosed>
    where
        F: StdFuture<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        self.create_task_as(TaskBuilder::new(), body)
    }

    /// The same with a name (K17), or with a first step that is made at once (EG1). A task that has failed with that fails the group at once, too
    /// (K21): the next one is refused.
    ///
    /// # Errors
    /// As [`create_task`](Self::create_task).
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
    /// use trefoil_nursery::{Cancelled, asyncio};
    /// asyncio::task_group(async |group: asyncio::TaskGroup| {
    ///     let named = asyncio::TaskBuilder::new().name("fetcher").eager_start(true);
    ///     let task = group.create_task_as(named, async { Ok(1) }).unwrap();
    ///     assert_eq!((&*task.name(), task.done()), ("fetcher", true));
    ///     Ok(())
    /// })
    /// .await
    /// .unwrap();
    /// # Ok::<(), Cancelled>(())
    /// # })).unwrap();
    /// ```
    #[track_caller]
    pub fn create_task_as<F, T>(&self, builder: TaskBuilder, body: F) -> Result<Task<T, E>, GroupClosed>
    where
        F: StdFuture<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        let group = &self.inner;
        if group.exiting.get() && group.tasks.borrow().is_empty() {
            return Err(GroupClosed::Finished);
        }
        if group.aborting.get() {
            return Err(GroupClosed::ShuttingDown);
        }
        let task = builder.create_task(body);
        let control = task.control().clone();
        if task.done() {
            self.task_done(&control, &task);
            return Ok(task);
        }
        group.tasks.borrow_mut().insert(control.number(), control.clone());
        let told = self.clone();
        task.on_done(group.event_loop.clone(), Box::new(move |future| told.task_done(&control, &future)));
        Ok(task)
    }

    fn abort(&self) {
        self.inner.aborting.set(true);
        let tasks: Vec<_> = self.inner.tasks.borrow().values().cloned().collect();
        for task in tasks {
            task.cancel(None);
        }
    }

    fn task_done<T: 'static>(&self, task: &Rc<Control>, future: &Future<T, E>) {
        let group = &self.inner;
        let gone = group.tasks.borrow_mut().remove(&task.number());
        drop(gone);
        let completed = group.completed.borrow().clone().filter(|_| group.tasks.borrow().is_empty());
        if let Some(completed) = completed {
            _ = completed.finish(Ok(()));
        }
        // K6: a child that was cancelled is none that failed.
        if future.cancelled() || !future.failed_unseen() {
            return;
        }
        let Ok(Err(error)) = future.take() else { return };
        if group.left.get() || group.parent.is_done() {
            let (message, place) = ("the error of a task whose group was dropped", task.place());
            let task = Some(AnyTask::new(task.clone()));
            report(Some(&group.event_loop), &Unhandled { message, task, error: &error, place });
            return;
        }
        let failed = FailedBy::Task { name: Some((*task.name()).into()), place: task.place() };
        group.errors.borrow_mut().push(Failure::new(error, failed));
        if !group.aborting.get() && !group.parent_cancelled.get() {
            self.abort();
            group.parent_cancelled.set(true);
            group.parent.cancel(None);
        }
    }

    async fn leave<T>(&self, ended: Result<T, E>, place: &'static Location<'static>) -> Result<T, ErrorGroup<E>> {
        let group = &*self.inner;
        group.exiting.set(true);
        let mut cancelled = ended.as_ref().is_err_and(CancelAware::is_cancelled);
        if ended.is_err() && !group.aborting.get() {
            self.abort();
        }
        let value =
            ended.map_err(|error| group.body_error.replace(Some(Failure::of(error, || FailedBy::Body(place))))).ok();
        let mut told = false;
        while !group.tasks.borrow().is_empty() {
            let completed = Future::pending(Reason::Custom("the tasks of a group"));
            *group.completed.borrow_mut() = Some(completed.clone());
            // K12: more cancels do not end it earlier; nor does that of a scope of the core, which stays.
            let wait = completed.wait_at(place);
            let ended = if told { shield_at(wait, place).await } else { wait.await };
            told = ended.is_err();
            if told && !group.aborting.get() {
                cancelled = true;
                self.abort();
            }
            drop(group.completed.borrow_mut().take());
        }
        // K4.
        if group.parent_cancelled.get() && group.parent.uncancel() == 0 {
            cancelled = false;
        }
        let mut errors = group.errors.take();
        if cancelled && errors.is_empty() {
            return Err(Cancelled::delivered().into());
        }
        let body_error = group.body_error.take();
        // K5: last.
        errors.extend(body_error.filter(|error| errors.is_empty() || !error.is_cancelled()));
        match (ErrorGroup::from_failures(errors), value) {
            (Some(errors), _) => {
                if group.parent.cancelling() > 0 {
                    // K11.
                    group.parent.uncancel();
                    group.parent.cancel(None);
                }
                Err(errors)
            }
            (None, Some(value)) => Ok(value),
            (None, None) => unreachable!("a body without a value has an error"),
        }
    }
}

/// Cancels the tasks of a group whose body was dropped.
struct Leave<'a, E: CancelAware + 'static>(&'a TaskGroup<E>);

impl<E: CancelAware + 'static> Drop for Leave<'_, E> {
    fn drop(&mut self) {
        let group = &self.0.inner;
        group.exiting.set(true);
        group.left.set(true);
        if !group.tasks.borrow().is_empty() {
            self.0.abort();
        }
        let (errors, body_error) = (group.errors.take(), group.body_error.take());
        for error in errors.into_iter().chain(body_error).filter(|error| !error.is_cancelled()) {
            let (message, place) = ("an error of a task group that nobody was given", group.parent.place());
            let task = Some(AnyTask::new(group.parent.clone()));
            report(Some(&group.event_loop), &Unhandled { message, task, error: &error.error, place });
        }
    }
}

/// Runs a body with a group of tasks, and ends when the body and all of them have: asyncio's `TaskGroup`.
///
/// When one of them fails, or the body does, all others are cancelled, and so is the body (K3). The tasks are the loop's, as all are; a
/// [`nursery`](crate::nursery()) of the core is the same with children that may borrow.
///
/// # Errors
/// All of them in one [`ErrorGroup`], in the order in which they came, that of the body last (K5). A task that was cancelled is none that failed
/// (K6).
///
/// # Cancellation
/// The tasks are cancelled, and awaited (K10). More cancels do not end that earlier (K12). Where tasks have failed as well, their errors come
/// out, and the cancellation at the next wait (K11).
///
/// # Panics
/// Outside of a task.
///
/// # Examples
/// ```
/// # trefoil_nursery::doc_run(trefoil_nursery::asyncio::event_loop(async {
/// use std::{io, time::Duration};
/// use trefoil_nursery::asyncio;
/// let failed = asyncio::task_group(async |group: asyncio::TaskGroup<io::Error>| {
///     group.create_task(async { Err::<(), _>(io::Error::other("no")) })?;
///     group.create_task(async { Ok(asyncio::sleep(Duration::from_secs(3600)).await?) })?;
///     Ok(())
/// })
/// .await;
/// assert_eq!(failed.unwrap_err().first().to_string(), "no");
/// # Ok::<(), io::Error>(())
/// # })).unwrap();
/// ```
#[track_caller]
pub fn task_group<F, T, E>(body: F) -> impl StdFuture<Output = Result<T, ErrorGroup<E>>>
where
    F: AsyncFnOnce(TaskGroup<E>) -> Result<T, E>,
    E: CancelAware + 'static,
{
    run(body, Location::caller())
}

async fn run<F, T, E>(body: F, place: &'static Location<'static>) -> Result<T, ErrorGroup<E>>
where
    F: AsyncFnOnce(TaskGroup<E>) -> Result<T, E>,
    E: CancelAware + 'static,
{
    let event_loop = here::running();
    let Some(parent) = here::task() else { panic!("a task group is for a task, which it cancels (K18)") };
    let group = TaskGroup {
        inner: Rc::new(Inner {
            event_loop,
            parent,
            tasks: RefCell::new(BTreeMap::new()),
            errors: RefCell::new(Vec::new()),
            body_error: RefCell::new(None),
            left: Cell::new(false),
            exiting: Cell::new(false),
            aborting: Cell::new(false),
            parent_cancelled: Cell::new(false),
            completed: RefCell::new(None),
        }),
    };
    let _leave = Leave(&group);
    let ended = body(group.clone()).await;
    group.leave(ended, place).await
}
