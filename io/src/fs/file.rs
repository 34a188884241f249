//! An open file: how one is opened, and read and written at positions. In the folder: what is done with a file as a `whole`, and how its `bytes`
//! come and go.

mod bytes;
mod whole;

use super::OpenOptions;
use crate::buf::{IoBuf, IoBufMut};
use crate::error::during;
use rustix::fs::{OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, seek};
use rustix::io::Errno;
use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;

type Place = &'static Location<'static>;

/// An open file, which is read and written at positions.
///
/// Every operation takes `&self`, and many may be under way at once. None blocks the loop: see the [module](super). There is no position that
/// they share, and so none of the traits of futures-io; `book/src/files.md` makes a reader of one. Dropping a file
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

    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> io::Error {
        during(operation, Name(self), error)
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
