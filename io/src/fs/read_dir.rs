//! What is in a directory. A thread of the run reads entries ahead, many at a time: a hand-over costs more than hundreds of them.

use super::errand::{Job, Slow};
use super::jobs::on_thread;
use crate::error::during;
use crate::operation::poll_gate;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use trefoil_runtime::Reason;

/// So many entries are read at once.
const BATCH: usize = 256;

/// Opens a directory, to see what is in it.
///
/// The entries come in the order of the file system, without `.` and `..`.
///
/// # Errors
/// Those of open(2).
///
/// # Cancellation
/// Nothing is lost. Once a thread has begun it is waited for, and the result given (R102).
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// let mut names = Vec::new();
/// let mut entries = trefoil_io::fs::read_dir(".").await?;
/// while let Some(entry) = entries.next_entry().await? {
///     names.push(entry.file_name());
/// }
/// assert!(names.iter().any(|name| name == "Cargo.toml"));
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn read_dir<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<ReadDir>> + Send + use<P> {
    let (path, place) = (path.as_ref().to_owned(), Location::caller());
    async move {
        let begin = {
            let path = path.clone();
            move || {
                let mut listing = Listing { entries: Some(fs::read_dir(path)?), ahead: VecDeque::new() };
                listing.fill();
                Ok(listing)
            }
        };
        match on_thread(begin, "a thread to open a directory", place).await {
            Ok(listing) => Ok(ReadDir { listing: Arc::new(Mutex::new(listing)), path }),
            Err(error) => Err(during("open the directory", path.display(), error)),
        }
    }
}

/// The entries of a directory, one after the other: see [`read_dir`].
pub struct ReadDir {
    /// Locked by a thread while it reads, and by `next_entry` where that need not wait.
    listing: Arc<Mutex<Listing>>,
    path: PathBuf,
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDir").field("path", &self.path).finish_non_exhaustive()
    }
}

struct Listing {
    /// `None` at the end.
    entries: Option<fs::ReadDir>,
    ahead: VecDeque<io::Result<DirEntry>>,
}

impl Listing {
    /// Reads some ahead, unless somebody has.
    fn fill(&mut self) {
        if !self.ahead.is_empty() {
            return;
        }
        let Some(entries) = &mut self.entries else { return };
        self.ahead.extend(entries.take(BATCH).map(|entry| entry.map(DirEntry::new)));
        if self.ahead.len() < BATCH {
            self.entries = None;
        }
    }
}

fn locked(listing: &Mutex<Listing>) -> MutexGuard<'_, Listing> {
    listing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads ahead. What it has read is in the listing, and not lost with the future.
struct Fill(Arc<Mutex<Listing>>);

impl Job for Fill {
    fn run(&mut self) -> io::Result<usize> {
        locked(&self.0).fill();
        Ok(0)
    }
}

impl ReadDir {
    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// Those of getdents(2).
    ///
    /// # Cancellation
    /// No entry is lost, also where the future is dropped (R36, N5).
    #[track_caller]
    pub fn next_entry(&mut self) -> impl Future<Output = io::Result<Option<DirEntry>>> + Send + '_ {
        let place = Location::caller();
        async move {
            poll_fn(|cx| poll_gate(cx, place)).await?;
            loop {
                if let Some(next) = self.read_ahead() {
                    return next.map_err(|error| during("read the directory", self.path.display(), error));
                }
                let job = Fill(self.listing.clone());
                Slow::new(job, Reason::Custom("a thread to read a directory"), place).await.0?;
            }
        }
    }

    /// What was read ahead, if no thread is at it.
    fn read_ahead(&self) -> Option<io::Result<Option<DirEntry>>> {
        let mut listing = match self.listing.try_lock() {
            Ok(listing) => listing,
            Err(TryLockError::Poisoned(listing)) => listing.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        match listing.ahead.pop_front() {
            Some(entry) => Some(entry.map(Some)),
            None => listing.entries.is_none().then_some(Ok(None)),
        }
    }
}

/// An entry of a directory.
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// let mut entries = trefoil_io::fs::read_dir("src").await?;
/// let mut bytes = 0;
/// while let Some(entry) = entries.next_entry().await? {
///     assert!(entry.path().starts_with("src") && entry.path().ends_with(entry.file_name()));
///     if entry.file_type()?.is_file() {
///         bytes += entry.metadata().await?.len();
///     }
/// }
/// assert!(bytes > 1_000);
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DirEntry {
    entry: Arc<fs::DirEntry>,
    /// Found out while a thread was at it: some file systems have to be asked. Or the error of that.
    file_type: Result<fs::FileType, i32>,
}

impl DirEntry {
    fn new(entry: fs::DirEntry) -> Self {
        let file_type = entry.file_type().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
        Self { entry: Arc::new(entry), file_type }
    }

    /// The path of the directory, as it was given to [`read_dir`], with the name.
    pub fn path(&self) -> PathBuf {
        self.entry.path()
    }

    /// The name alone.
    pub fn file_name(&self) -> OsString {
        self.entry.file_name()
    }

    /// What it is: a file, a directory, a link, and so on. It was found out with the name.
    ///
    /// # Errors
    /// Those of lstat(2), on file systems that do not say it with the name.
    pub fn file_type(&self) -> io::Result<fs::FileType> {
        self.file_type.map_err(|code| during("the type of", self.path().display(), io::Error::from_raw_os_error(code)))
    }

    /// The number of its inode.
    pub fn ino(&self) -> u64 {
        self.entry.ino()
    }

    /// What the file system knows about it. A link is not followed.
    ///
    /// # Errors
    /// Those of lstat(2): it may be gone meanwhile.
    ///
    /// # Cancellation
    /// Nothing is lost. Once a thread has begun it is waited for, and the result given (R102).
    #[track_caller]
    pub fn metadata(&self) -> impl Future<Output = io::Result<fs::Metadata>> + Send + '_ {
        let (entry, place) = (self.entry.clone(), Location::caller());
        async move {
            let metadata = on_thread(move || entry.metadata(), "the metadata of a file", place).await;
            metadata.map_err(|error| during("read the metadata of", self.path().display(), error))
        }
    }
}
