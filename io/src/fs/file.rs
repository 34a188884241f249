//! An open file.

use super::errand::Slow;
use super::jobs::{Read, Sync, Write, on_thread};
use super::{OpenOptions, cached};
use crate::buf::{IoBuf, IoBufMut};
use crate::error::during;
use crate::operation::poll_gate;
use crate::reactor::Reactor;
use rustix::fs::{OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, seek};
use rustix::io::Errno;
use std::fmt;
use std::fs;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use trefoil_runtime::{Reason, poll_budget};

type Place = &'static Location<'static>;

/// So much is read or written at once without waiting: a copy takes its time, too.
const MOST_AT_ONCE: usize = 256 << 10;

/// A copy of so many bytes takes as long as a small system call: one unit of a task's budget (N11).
const BYTES_PER_UNIT: usize = 16 << 10;

/// An open file, which is read and written at positions.
///
/// Every operation takes `&self`, and many may be under way at once. None blocks the loop: see the [module](super). Dropping a file
/// closes it, when the last operation on it is over; where that may wait, or fail, there is [`close`](Self::close).
///
/// # Examples
/// ```
/// # let path = std::env::temp_dir().join(format!("trefoil-doc-file-{}", std::process::id()));
/// # trefoil_io::run(async {
/// use trefoil_io::fs::File;
///
/// let file = File::create(&path).await?;
/// file.write_all_at(b"three leaves", 0).await?;
/// file.write_all_at(b"L", 6).await?;
///
/// let file = File::open(&path).await?;
/// let mut leaves = [0; 6];
/// file.read_exact_at(&mut leaves, 6).await?;
/// assert_eq!(&leaves, b"Leaves");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct File {
    file: Arc<fs::File>,
    path: Option<Box<Path>>,
    /// Opened with `O_DIRECT`: there is no cache, and `RWF_NOWAIT` would wait for the disk.
    direct: bool,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("File");
        debug.field("fd", &self.fd());
        if let Some(path) = &self.path {
            debug.field("path", path);
        }
        debug.finish()
    }
}

/// The file, for an error: its path, or the number of the descriptor.
struct Name<'a>(&'a File);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.path {
            Some(path) => path.display().fmt(f),
            None => write!(f, "fd {}", self.0.fd()),
        }
    }
}

impl File {
    pub(super) fn new(file: fs::File, path: Option<Box<Path>>) -> io::Result<Self> {
        match seek(&file, SeekFrom::Current(0)) {
            Err(Errno::SPIPE) => {
                let why = "it has no positions: a FIFO, a terminal or the like, which is read and written in order";
                return Err(io::Error::new(io::ErrorKind::NotSeekable, why));
            }
            other => other?,
        };
        let flags = fcntl_getfl(&file)?;
        if flags.contains(OFlags::NONBLOCK) {
            // It means nothing for a file, but that io_uring says `EAGAIN` where it would otherwise wait.
            fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        }
        Ok(Self { file: Arc::new(file), path, direct: flags.contains(OFlags::DIRECT) })
    }

    /// Opens a file for reading. It is [`OpenOptions::open`], which has more to say.
    ///
    /// # Errors
    /// Those of [`OpenOptions::open`].
    ///
    /// # Cancellation
    /// As for [`OpenOptions::open`].
    ///
    /// # Examples
    /// ```
    /// # trefoil_io::run(async {
    /// use trefoil_io::fs::File;
    ///
    /// let error = File::open("/clover/with/four/leaves").await.unwrap_err();
    /// assert_eq!(error.to_string(), "open /clover/with/four/leaves: No such file or directory (os error 2)");
    /// # });
    /// ```
    #[track_caller]
    pub fn open<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<Self>> + Send + use<P> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file for writing. It is created if it is not there, and emptied if it is.
    ///
    /// # Errors
    /// Those of [`OpenOptions::open`].
    ///
    /// # Cancellation
    /// As for [`OpenOptions::open`].
    #[track_caller]
    pub fn create<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<Self>> + Send + use<P> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Takes a file of std. If it is set not to block, that is undone, which concerns its duplicates, too.
    ///
    /// # Errors
    /// Of kind `NotSeekable` for what has no positions, such as a pipe.
    ///
    /// # Examples
    /// ```
    /// use trefoil_io::fs::File;
    ///
    /// let file = File::from_std(std::fs::File::open("/proc/self/exe")?)?;
    /// # drop(file);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(file: fs::File) -> io::Result<Self> {
        Self::new(file, None)
    }

    /// Takes the file out of the runtime. If an operation is under way whose future was dropped, this is a duplicate of the descriptor.
    ///
    /// # Errors
    /// Those of making a duplicate.
    pub fn into_std(self) -> io::Result<fs::File> {
        Arc::try_unwrap(self.file).or_else(|file| file.try_clone())
    }

    /// Reads at a position until the buffer is full or the file ends, and says how many bytes that was.
    ///
    /// # Errors
    /// Those of pread(2).
    ///
    /// # Cancellation
    /// Nothing is lost: what is in the buffer then is unspecified, and can be read again.
    ///
    /// # Examples
    /// ```
    /// # trefoil_io::run(async {
    /// use trefoil_io::fs::File;
    ///
    /// let file = File::open("/proc/self/exe").await?;
    /// let mut magic = [0; 4];
    /// assert_eq!(file.read_at(&mut magic, 0).await?, 4);
    /// assert_eq!(&magic, b"\x7fELF");
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn read_at<'a>(
        &'a self,
        buf: &'a mut [u8],
        position: u64,
    ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let place = Location::caller();
        async move { self.read(buf, position, place).await.map_err(|error| self.failed("read from", error)) }
    }

    /// Reads at a position until the buffer is full.
    ///
    /// # Errors
    /// Those of [`read_at`](Self::read_at), and of kind `UnexpectedEof` if the file ends before.
    ///
    /// # Cancellation
    /// As for [`read_at`](Self::read_at).
    #[track_caller]
    pub fn read_exact_at<'a>(
        &'a self,
        buf: &'a mut [u8],
        position: u64,
    ) -> impl Future<Output = io::Result<()>> + Send + 'a {
        let place = Location::caller();
        async move {
            let room = buf.len();
            let result = match self.read(buf, position, place).await {
                Ok(n) if n < room => {
                    let why = format!("the file ended after {n} of {room} bytes");
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
                }
                result => result.map(drop),
            };
            result.map_err(|error| self.failed("read from", error))
        }
    }

    /// Reads at a position into the room behind the bytes of a buffer, until that is full or the file ends. The buffer comes back,
    /// whatever happens.
    ///
    /// Where the file is not cached this saves a copy; it also does for `O_DIRECT`, for which the buffer must be aligned.
    ///
    /// # Errors
    /// Those of pread(2).
    ///
    /// # Cancellation
    /// The buffer may have some bytes more than before. Where the future is dropped, it is freed when the kernel has let go of it.
    ///
    /// # Examples
    /// ```
    /// # trefoil_io::run(async {
    /// use trefoil_io::fs::File;
    ///
    /// let file = File::open("/proc/self/exe").await?;
    /// let (read, page) = file.read_owned_at(Vec::with_capacity(4096), 0).await;
    /// assert_eq!(read?, page.len());
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn read_owned_at<B: IoBufMut>(
        &self,
        buf: B,
        position: u64,
    ) -> impl Future<Output = (io::Result<usize>, B)> + Send + use<'_, B> {
        self.read_owned(buf, position, Location::caller())
    }

    /// Writes at a position, and says how many bytes that was; perhaps not all.
    ///
    /// # Errors
    /// Those of pwrite(2).
    ///
    /// # Cancellation
    /// Nothing was written. Where the future is dropped, it may be, for as long as the kernel or a thread is at it.
    #[track_caller]
    pub fn write_at<'a>(&'a self, buf: &'a [u8], position: u64) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let place = Location::caller();
        async move { self.write(buf, position, place).await.map_err(|error| self.failed("write to", error)) }
    }

    /// Writes all of it at a position.
    ///
    /// # Errors
    /// Those of [`write_at`](Self::write_at). A part may have been written.
    ///
    /// # Cancellation
    /// A part may have been written (R41). Where the future is dropped, see [`write_at`](Self::write_at).
    #[track_caller]
    pub fn write_all_at<'a>(
        &'a self,
        buf: &'a [u8],
        position: u64,
    ) -> impl Future<Output = io::Result<()>> + Send + 'a {
        let place = Location::caller();
        async move {
            let mut written = 0;
            loop {
                let at = position.saturating_add(written as u64);
                match self.write(&buf[written..], at, place).await {
                    Ok(0) if written < buf.len() => {
                        return Err(self.failed("write to", io::ErrorKind::WriteZero.into()));
                    }
                    Ok(n) => written += n,
                    Err(error) => return Err(self.failed("write to", error)),
                }
                if written == buf.len() {
                    return Ok(());
                }
            }
        }
    }

    /// Writes all of a buffer at a position. The buffer comes back, whatever happens.
    ///
    /// # Errors
    /// Those of [`write_at`](Self::write_at). A part may have been written.
    ///
    /// # Cancellation
    /// As for [`write_all_at`](Self::write_all_at).
    ///
    /// # Examples
    /// ```
    /// # let path = std::env::temp_dir().join(format!("trefoil-doc-owned-{}", std::process::id()));
    /// # trefoil_io::run(async {
    /// use trefoil_io::fs::File;
    ///
    /// let file = File::create(&path).await?;
    /// let (written, text) = file.write_all_owned_at(String::from("clover"), 0).await;
    /// written?;
    /// assert_eq!(text, "clover");
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn write_all_owned_at<B: IoBuf>(
        &self,
        buf: B,
        position: u64,
    ) -> impl Future<Output = (io::Result<()>, B)> + Send + use<'_, B> {
        self.write_all_owned(buf, position, Location::caller())
    }

    /// How many bytes the file has.
    ///
    /// # Errors
    /// Those of [`metadata`](Self::metadata).
    ///
    /// # Cancellation
    /// As for [`metadata`](Self::metadata).
    #[track_caller]
    pub fn len(&self) -> impl Future<Output = io::Result<u64>> + Send + '_ {
        let metadata = self.metadata();
        async move { Ok(metadata.await?.len()) }
    }

    /// What the file system knows about the file, asked on a thread of the run.
    ///
    /// # Errors
    /// Those of statx(2).
    ///
    /// # Cancellation
    /// Once a thread has begun it is waited for, and the result given (R102).
    #[track_caller]
    pub fn metadata(&self) -> impl Future<Output = io::Result<fs::Metadata>> + Send + '_ {
        let (file, place) = (self.file.clone(), Location::caller());
        async move {
            let metadata = on_thread(move || file.metadata(), "the metadata of a file", place).await;
            metadata.map_err(|error| self.failed("read the metadata of", error))
        }
    }

    /// Cuts the file off at a length, or fills it up with zeros, on a thread of the run.
    ///
    /// # Errors
    /// Those of ftruncate(2).
    ///
    /// # Cancellation
    /// Once a thread has begun it is waited for, and the result given (R102).
    ///
    /// # Examples
    /// ```
    /// # let path = std::env::temp_dir().join(format!("trefoil-doc-len-{}", std::process::id()));
    /// # trefoil_io::run(async {
    /// use trefoil_io::fs::File;
    ///
    /// let file = File::create(&path).await?;
    /// file.set_len(1 << 20).await?;
    /// assert_eq!(file.len().await?, 1 << 20);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> + Send + '_ {
        let (file, place) = (self.file.clone(), Location::caller());
        async move {
            let set = on_thread(move || file.set_len(len), "set the length of a file", place).await;
            set.map_err(|error| self.failed("set the length of", error))
        }
    }

    /// Sets who may read, write and execute the file, on a thread of the run.
    ///
    /// # Errors
    /// Those of fchmod(2).
    ///
    /// # Cancellation
    /// Once a thread has begun it is waited for, and the result given (R102).
    ///
    /// # Examples
    /// ```
    /// # let path = std::env::temp_dir().join(format!("trefoil-doc-fchmod-{}", std::process::id()));
    /// # trefoil_io::run(async {
    /// use std::fs::Permissions;
    /// use std::os::unix::fs::PermissionsExt;
    /// use trefoil_io::fs::File;
    ///
    /// let file = File::create(&path).await?;
    /// file.set_permissions(Permissions::from_mode(0o600)).await?;
    /// assert_eq!(file.metadata().await?.permissions().mode() & 0o777, 0o600);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn set_permissions(&self, permissions: fs::Permissions) -> impl Future<Output = io::Result<()>> + Send + '_ {
        let (file, place) = (self.file.clone(), Location::caller());
        async move {
            let set =
                on_thread(move || file.set_permissions(permissions), "set the permissions of a file", place).await;
            set.map_err(|error| self.failed("set the permissions of", error))
        }
    }

    /// Closes the file on a thread of the run, and says whether that went well. To drop it closes it on the loop, and an error is lost.
    ///
    /// On a network file system this waits until the server has what was written, or says why not. Elsewhere there is hardly a difference; what
    /// must be on the disk needs [`sync_all`](Self::sync_all) before.
    ///
    /// # Errors
    /// Those of close(2). The file is closed all the same. Where an operation is under way whose future was dropped, it is closed when that is over.
    ///
    /// # Cancellation
    /// The file is closed in any case (R42): by the thread that has begun, which is waited for (R102), or else on the loop.
    ///
    /// # Examples
    /// ```
    /// # let path = std::env::temp_dir().join(format!("trefoil-doc-close-{}", std::process::id()));
    /// # trefoil_io::run(async {
    /// use trefoil_io::fs::File;
    ///
    /// let file = File::create(&path).await?;
    /// file.write_all_at(b"clover", 0).await?;
    /// file.close().await?;
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(()) })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn close(self) -> impl Future<Output = io::Result<()>> + Send {
        let place = Location::caller();
        async move {
            let (name, Self { file, .. }) = (Name(&self).to_string(), self);
            let closed = on_thread(move || close(file), "close a file", place).await;
            closed.map_err(|error| during("close", name, error))
        }
    }

    /// Sees to it that what was written is on the disk, and what the file system knows about the file.
    ///
    /// # Errors
    /// Those of fsync(2). After an error nothing can be said about what was written before: do not just try again.
    ///
    /// # Cancellation
    /// Whether it is on the disk is not known then.
    #[track_caller]
    pub fn sync_all(&self) -> impl Future<Output = io::Result<()>> + Send + '_ {
        self.sync(false, Location::caller())
    }

    /// The same, without what is not needed to read it again, such as the time of the last write.
    ///
    /// # Errors
    /// Those of [`sync_all`](Self::sync_all).
    ///
    /// # Cancellation
    /// As for [`sync_all`](Self::sync_all).
    #[track_caller]
    pub fn sync_data(&self) -> impl Future<Output = io::Result<()>> + Send + '_ {
        self.sync(true, Location::caller())
    }

    async fn sync(&self, data_only: bool, place: Place) -> io::Result<()> {
        let job = Sync { file: self.file.clone(), data_only };
        let (result, _) = Slow::new(job, Reason::Custom("sync a file"), place).await;
        result.map(drop).map_err(|error| self.failed("sync", error))
    }

    pub(super) async fn read_owned<B: IoBufMut>(
        &self,
        mut buf: B,
        position: u64,
        place: Place,
    ) -> (io::Result<usize>, B) {
        let mut read = 0;
        loop {
            let (room, at) = (buf.spare().len(), position.saturating_add(read as u64));
            let (result, back) = self.read_some(buf, room, at, place).await;
            buf = back;
            match result {
                Ok(n) => {
                    read += n;
                    if n == 0 || n == room || self.ends_at(at + n as u64) {
                        return (Ok(read), buf);
                    }
                }
                Err(error) => return (Err(self.failed("read from", error)), buf),
            }
        }
    }

    pub(super) async fn write_all_owned<B: IoBuf>(
        &self,
        mut buf: B,
        position: u64,
        place: Place,
    ) -> (io::Result<()>, B) {
        let mut written = 0;
        loop {
            let at = position.saturating_add(written as u64);
            let (result, back) = self.write_some(buf, written, at, place).await;
            buf = back;
            let len = buf.content().len();
            let result = match result {
                Ok(0) if written < len => Err(io::ErrorKind::WriteZero.into()),
                result => result.map(|n| written += n),
            };
            if result.is_err() || written == len {
                return (result.map_err(|error| self.failed("write to", error)), buf);
            }
        }
    }

    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> io::Error {
        during(operation, Name(self), error)
    }

    /// Whether the file ends at a position, if it is known without waiting.
    fn ends_at(&self, position: u64) -> bool {
        cached::ends_at(self.as_fd(), position)
    }

    /// Before an attempt: a run with I/O, a scope that is not cancelled, a budget, and a position that there can be.
    fn poll_start(&self, cx: &mut Context<'_>, position: u64, place: Place) -> Poll<io::Result<()>> {
        ready!(poll_gate(cx, place))?;
        Reactor::check()?;
        // The kernel takes the last of them for the file's own position.
        Poll::Ready(match i64::try_from(position) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no such position in a file")),
        })
    }

    async fn read(&self, buf: &mut [u8], position: u64, place: Place) -> io::Result<usize> {
        let mut read = 0;
        loop {
            let at = position.saturating_add(read as u64);
            let rest = &mut buf[read..];
            poll_fn(|cx| self.poll_start(cx, at, place)).await?;
            if rest.is_empty() {
                return Ok(read);
            }
            let most = rest.len().min(MOST_AT_ONCE);
            let now = match self.direct {
                true => None,
                // SAFETY: so much of `rest`.
                false => unsafe { cached::read(self.as_fd(), rest.as_mut_ptr(), most, at) },
            };
            let n = match now {
                Some(n) => n,
                None => {
                    let job = Read { file: self.file.clone(), buf: Vec::with_capacity(most), most, position: at };
                    let (result, bytes) = self.read_slowly(job, place).await;
                    rest[..bytes.len()].copy_from_slice(&bytes);
                    result?
                }
            };
            spend(n);
            read += n;
            if n == 0 || read == buf.len() || (n < most && self.ends_at(at + n as u64)) {
                return Ok(read);
            }
        }
    }

    /// Reads once, into at most so much of the room of a buffer.
    async fn read_some<B: IoBufMut>(&self, mut buf: B, most: usize, at: u64, place: Place) -> (io::Result<usize>, B) {
        if let Err(error) = poll_fn(|cx| self.poll_start(cx, at, place)).await {
            return (Err(error), buf);
        }
        if most == 0 {
            let why = "the buffer has no room behind its bytes: reserve some";
            return (Err(io::Error::new(io::ErrorKind::InvalidInput, why)), buf);
        }
        if !self.direct {
            let room = buf.spare();
            let most = room.len().min(MOST_AT_ONCE);
            // SAFETY: so much of the room.
            if let Some(n) = unsafe { cached::read(self.as_fd(), room.as_mut_ptr().cast(), most, at) } {
                // SAFETY: the kernel has written so many.
                unsafe { buf.advance(n) };
                spend(n);
                return (Ok(n), buf);
            }
        }
        let job = Read { file: self.file.clone(), buf, most, position: at };
        self.read_slowly(job, place).await
    }

    async fn read_slowly<B: IoBufMut>(&self, job: Read<B>, place: Place) -> (io::Result<usize>, B) {
        let (result, Read { mut buf, .. }) = Slow::new(job, Reason::Read(self.fd()), place).await;
        if let Ok(n) = result {
            // SAFETY: the kernel has written so many, and the buffer was not touched since.
            unsafe { buf.advance(n) };
        }
        (result, buf)
    }

    async fn write(&self, buf: &[u8], at: u64, place: Place) -> io::Result<usize> {
        poll_fn(|cx| self.poll_start(cx, at, place)).await?;
        if buf.is_empty() {
            return Ok(0);
        }
        let buf = &buf[..buf.len().min(MOST_AT_ONCE)];
        if let Some(n) = self.write_now(buf, at) {
            return Ok(n);
        }
        let job = Write { file: self.file.clone(), buf: buf.to_vec(), from: 0, position: at };
        let (result, _) = Slow::new(job, Reason::Write(self.fd()), place).await;
        result
    }

    /// Writes once, from some byte of a buffer on.
    async fn write_some<B: IoBuf>(&self, buf: B, from: usize, at: u64, place: Place) -> (io::Result<usize>, B) {
        if let Err(error) = poll_fn(|cx| self.poll_start(cx, at, place)).await {
            return (Err(error), buf);
        }
        let bytes = &buf.content()[from..];
        if bytes.is_empty() {
            return (Ok(0), buf);
        }
        if let Some(n) = self.write_now(&bytes[..bytes.len().min(MOST_AT_ONCE)], at) {
            return (Ok(n), buf);
        }
        let job = Write { file: self.file.clone(), buf, from, position: at };
        let (result, Write { buf, .. }) = Slow::new(job, Reason::Write(self.fd()), place).await;
        (result, buf)
    }

    fn write_now(&self, bytes: &[u8], at: u64) -> Option<usize> {
        if self.direct {
            return None;
        }
        let n = cached::write(self.as_fd(), bytes, at)?;
        spend(n);
        // What came to nothing is done again by who may wait, and says why.
        (n > 0).then_some(n)
    }
}

/// Closes a file, and says how that went: `OwnedFd` does not.
fn close(file: Arc<fs::File>) -> io::Result<()> {
    // To close any of its descriptors brings the errors of what was written.
    let file = Arc::try_unwrap(file).or_else(|shared| shared.try_clone())?;
    // SAFETY: it is ours alone.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // It is closed on Linux, and there is nothing to do again.
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}

/// A copy of so many bytes is more than one operation's worth of the task's turn. The next one looks whether something is left.
fn spend(bytes: usize) {
    for _ in 0..bytes / BYTES_PER_UNIT {
        let _ = poll_budget(&mut Context::from_waker(Waker::noop()));
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.fd()
    }
}
