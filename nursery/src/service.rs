//! `Nursery::service`: children that stop last, in the reverse order of their start.
//!
//! A service is a child like any other, in a scope of its own with its shield up, so that the nursery's cancellation does not reach it.
//! The nursery has a list of these scopes. When its body has ended and nothing is left but services, it cancels the last one in the list,
//! and the next when that has ended.
//!
//! A service joins the list at its first poll, and leaves it when it ends or is destroyed: both happen where the nursery is polled or
//! dropped. Until its first poll it counts as an ordinary child, so that the list is never longer than what is there. Its place in the
//! list is that of its start: first polls may come in another order, under a seed, or where one was started from a nursery further in.

use crate::branches::lock;
use crate::join::Join;
use crate::nursery::{Local, Nursery, Shared};
use crate::scope::CancelScope;
use std::future::Future;
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use trefoil_runtime::{CancelAware, Scope};

/// The services of a nursery that run, in the order of their start.
pub(crate) struct Services {
    list: Mutex<Vec<Service>>,
    /// How many were started: for every poll of a nursery that has none.
    started: AtomicUsize,
}

struct Service {
    scope: Arc<Scope>,
    number: usize,
    /// It has been told to stop.
    stopping: bool,
}

impl Services {
    pub const fn new() -> Self {
        Self { list: Mutex::new(Vec::new()), started: AtomicUsize::new(0) }
    }

    /// Whether the nursery ever had one. Who starts the first one makes it a child after that, which the thread that asks takes in before.
    pub fn any(&self) -> bool {
        self.started.load(Ordering::Relaxed) > 0
    }

    /// One more is started: its number.
    fn start(&self) -> usize {
        self.started.fetch_add(1, Ordering::Relaxed)
    }

    /// The scope of the service to be cancelled now. There is one if services are all that is left of `live` children, and none of
    /// them is stopping already.
    pub fn stop_next(&self, live: usize) -> Option<Arc<Scope>> {
        let mut list = lock(&self.list);
        if list.len() != live || list.iter().any(|service| service.stopping) {
            return None;
        }
        let last = list.last_mut()?;
        last.stopping = true;
        Some(last.scope.clone())
    }

    fn list(&self, scope: Arc<Scope>, number: usize) -> Listed<'_> {
        let mut list = lock(&self.list);
        let at = list.partition_point(|service| service.number < number);
        list.insert(at, Service { scope: scope.clone(), number, stopping: false });
        drop(list);
        Listed { services: self, scope }
    }
}

/// Takes a service off the list.
struct Listed<'a> {
    services: &'a Services,
    scope: Arc<Scope>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.services.list).retain(|service| !Arc::ptr_eq(&service.scope, &self.scope));
    }
}

impl<'s, E: CancelAware + 's> Nursery<'s, '_, E, Shared> {
    /// Starts a service: a child that the others rely on, like a pool of connections or a writer of logs, and that stops after them.
    ///
    /// A service is shielded from the cancellation of the nursery, and of what is around it, until the body and all ordinary children have
    /// ended. Then services are cancelled one after the other, last started first, each awaited before the next is told: so one may rely
    /// on those that were started before it. Otherwise it is a child like any other: it may end by itself, its error or panic cancels
    /// the nursery, and N13 applies once it is told to stop. It may be started by the body, by children and by services.
    ///
    /// An ordinary child that never ends keeps the services running: cancel the nursery to stop all of it in order. If the nursery is
    /// *dropped*, services are destroyed with the other children (N12).
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{channel, nursery};
    /// let (log, lines) = channel(8);
    /// let mut written = vec![];
    /// nursery(async |n| -> std::io::Result<()> {
    ///     n.service(async {
    ///         while let Ok(Some(line)) = lines.recv().await {
    ///             written.push(line);
    ///         }
    ///         // It is told to stop: what was sent before that is still there.
    ///         while let Ok(line) = lines.try_recv() {
    ///             written.push(line);
    ///         }
    ///         Ok(())
    ///     });
    ///     let log = &log;
    ///     for worker in 0..3 {
    ///         n.spawn(async move { Ok(log.send(format!("{worker} was here")).await?) });
    ///     }
    ///     Ok(())
    /// })
    /// .await?; // the workers end, and then the service is stopped
    /// assert_eq!(written.len(), 3);
    /// # Ok::<(), std::io::Error>(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn service<B>(self, service: B) -> Join<'s, ()>
    where
        B: Future<Output = Result<(), E>> + Send + 's,
    {
        self.service_at(None, service, Location::caller())
    }

    /// [`service`](Self::service), with a name, as that of [`spawn_named`](Self::spawn_named).
    ///
    /// # Examples
    /// ```
    /// # trefoil_nursery::doc_run(async {
    /// use trefoil_nursery::{Cancelled, checkpoint, nursery, sleep_forever};
    /// nursery(async |n| -> Result<(), Cancelled> {
    ///     n.service_named("log", sleep_forever());
    ///     checkpoint().await?;
    ///     assert!(trefoil_runtime::tree().to_string().contains("task `log`"));
    ///     Ok(())
    /// })
    /// .await
    /// .unwrap();
    /// # });
    /// ```
    #[track_caller]
    pub fn service_named<B>(self, name: impl Into<Arc<str>>, service: B) -> Join<'s, ()>
    where
        B: Future<Output = Result<(), E>> + Send + 's,
    {
        self.service_at(Some(name.into()), service, Location::caller())
    }
}

impl<'s, E: CancelAware + 's> Nursery<'s, '_, E, Local> {
    /// Starts a service that need not be `Send`. Otherwise as for [`nursery`](crate::nursery).
    #[track_caller]
    pub fn service<B>(self, service: B) -> Join<'s, ()>
    where
        B: Future<Output = Result<(), E>> + 's,
    {
        self.service_at(None, service, Location::caller())
    }

    /// Starts a service with a name that need not be `Send`.
    #[track_caller]
    pub fn service_named<B>(self, name: impl Into<Arc<str>>, service: B) -> Join<'s, ()>
    where
        B: Future<Output = Result<(), E>> + 's,
    {
        self.service_at(Some(name.into()), service, Location::caller())
    }
}

impl<'s, E: CancelAware + 's, M: 's> Nursery<'s, '_, E, M> {
    fn service_at<B>(self, name: Option<Arc<str>>, service: B, place: &'static Location<'static>) -> Join<'s, ()>
    where
        B: Future<Output = Result<(), E>> + 's,
    {
        let number = self.services().start();
        let child = async move {
            let scope = CancelScope::at(place);
            scope.set_shield(true);
            let _listed = self.services().list(scope.shared(), number);
            // Its own cancellation is absorbed: to be stopped is how a service ends.
            scope.run(service).await.map(|_| ())
        };
        self.spawn_perhaps_named(name, child, place)
    }
}
