//! How a file is opened.

use super::File;
use super::jobs::on_thread;
use crate::error::during;
use crate::operation::poll_gate;
use crate::reactor::Reactor;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, retry_on_intr};
use std::fs;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::Location;
use std::path::Path;

/// How a file is opened: std's options, with the same meaning.
///
/// # Examples
/// ```
/// # let path = std::env::temp_dir().join(format!("trefoil-doc-options-{}", std::process::id()));
/// # trefoil_io::run(async {
/// use trefoil_io::fs::OpenOptions;
///
/// let file = OpenOptions::new().read(true).write(true).create(true).open(&path).await?;
/// file.write_all_at(b"clover", 0).await?;
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    mode: Option<u32>,
    custom_flags: i32,
}

/// A setter for each: what it says, its type, and an example with a `path` of its own.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $value:ty = $example:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Examples
        /// ```
        /// # trefoil_io::run(async {
        /// use trefoil_io::fs::{self, OpenOptions};
        ///
        #[doc = concat!("# let path = std::env::temp_dir().join(format!(\"trefoil-doc-", stringify!($name), "-{}\", std::process::id()));")]
        #[doc = $example]
        /// # drop(std::fs::remove_file(&path));
        /// # Ok::<(), std::io::Error>(()) })?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub fn $name(&mut self, $name: $value) -> &mut Self {
            self.$name = $name.into();
            self
        }
    )*};
}

impl OpenOptions {
    /// All off. The mode of a file that is created is 0o666, less the umask.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// For reading.
        read: bool = r#"
let exe = OpenOptions::new().read(true).open("/proc/self/exe").await?;
let mut magic = [0; 4];
exe.read_exact_at(&mut magic, 0).await?;
assert_eq!(&magic, b"\x7fELF");"#;

        /// For writing.
        write: bool = r#"
fs::write(&path, "clover").await?;
let file = OpenOptions::new().write(true).open(&path).await?;
file.write_all_at(b"C", 0).await?;
assert_eq!(fs::read(&path).await?, b"Clover");"#;

        /// For writing at the end. On Linux every write goes there then, whatever position it names.
        append: bool = r#"
let log = OpenOptions::new().append(true).create(true).open(&path).await?;
log.write_all_at(b"one ", 0).await?;
log.write_all_at(b"two ", 0).await?;
assert_eq!(fs::read(&path).await?, b"one two ");"#;

        /// What is in the file is removed.
        truncate: bool = r#"
fs::write(&path, "clover").await?;
OpenOptions::new().write(true).truncate(true).open(&path).await?;
assert!(fs::read(&path).await?.is_empty());"#;

        /// A file that is not there is created.
        create: bool = r#"
OpenOptions::new().write(true).create(true).open(&path).await?;
assert!(fs::try_exists(&path).await?);"#;

        /// The file is created, and it is an error if it is there already.
        create_new: bool = r#"
OpenOptions::new().write(true).create_new(true).open(&path).await?;
let again = OpenOptions::new().write(true).create_new(true).open(&path).await.unwrap_err();
assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);"#;

        /// The mode of a file that is created, of which the umask takes away.
        mode: u32 = r#"
use std::os::unix::fs::PermissionsExt;

OpenOptions::new().write(true).create(true).mode(0o600).open(&path).await?;
assert_eq!(fs::metadata(&path).await?.permissions().mode() & 0o777, 0o600);"#;

        /// Further flags of open(2), such as `O_DIRECT`.
        custom_flags: i32 = r#"
let no_links = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open("/proc/self/exe").await;
assert!(no_links.is_err());"#;
    }

    /// Opens a file.
    ///
    /// Where the kernel knows all parts of the path already, and nothing is to be created or truncated, this is done at once (since Linux
    /// 5.12); otherwise on a thread of the run.
    ///
    /// # Errors
    /// Those of open(2), of kind `InvalidInput` for options that make no sense together, and of kind `NotSeekable` for a FIFO, a terminal, and
    /// whatever else has no positions. A FIFO is not waited for.
    ///
    /// # Cancellation
    /// In a cancelled scope nothing is opened (R37). Once a thread has begun, it is waited for, and the file is given (R102). When the future is
    /// dropped then, the file may be created and truncated all the same; it is closed.
    #[track_caller]
    pub fn open<P: AsRef<Path>>(&self, path: P) -> impl Future<Output = io::Result<File>> + Send + use<P> {
        let (options, path, place) = (self.clone(), path.as_ref().to_owned(), Location::caller());
        async move {
            let opened = options.open_file(&path, place).await;
            opened
                .and_then(|file| File::new(file, Some(path.as_path().into())))
                .map_err(|error| during("open", path.display(), error))
        }
    }

    async fn open_file(self, path: &Path, place: &'static Location<'static>) -> io::Result<fs::File> {
        poll_fn(|cx| poll_gate(cx, place)).await?;
        Reactor::check()?;
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(invalid("a path cannot contain a NUL byte"));
        }
        let flags = self.flags()?;
        let creates = OFlags::CREATE | OFlags::TRUNC | OFlags::TMPFILE;
        if !flags.intersects(creates)
            && let Ok(fd) = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)
        {
            return Ok(fd.into());
        }
        let (path, mode) = (path.to_owned(), Mode::from_raw_mode(self.mode.unwrap_or(0o666)));
        on_thread(move || open_blocking(&path, flags, mode).map(fs::File::from), "a thread to open a file", place).await
    }

    /// As std has them.
    fn flags(&self) -> io::Result<OFlags> {
        let access = match (self.read, self.write, self.append) {
            (true, false, false) => OFlags::RDONLY,
            (false, true, false) => OFlags::WRONLY,
            (true, true, false) => OFlags::RDWR,
            (false, _, true) => OFlags::WRONLY | OFlags::APPEND,
            (true, _, true) => OFlags::RDWR | OFlags::APPEND,
            (false, false, false) => return Err(invalid("one of `read`, `write` and `append` must be on")),
        };
        match (self.write, self.append) {
            (false, false) if self.truncate || self.create || self.create_new => {
                return Err(invalid("to create or truncate a file takes `write` or `append`"));
            }
            (_, true) if self.truncate && !self.create_new => {
                return Err(invalid("`truncate` and `append` exclude each other"));
            }
            _ => {}
        }
        let creation = match (self.create, self.truncate, self.create_new) {
            (_, _, true) => OFlags::CREATE | OFlags::EXCL,
            (true, true, false) => OFlags::CREATE | OFlags::TRUNC,
            (true, false, false) => OFlags::CREATE,
            (false, true, false) => OFlags::TRUNC,
            (false, false, false) => OFlags::empty(),
        };
        let custom = OFlags::from_bits_retain(self.custom_flags.cast_unsigned()) - OFlags::ACCMODE;
        // A FIFO would be waited for, by a thread that nothing could stop.
        Ok(access | creation | custom | OFlags::CLOEXEC | OFlags::NONBLOCK)
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn open_blocking(path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    match retry_on_intr(|| openat(CWD, path, flags, mode)) {
        // Somebody has a lease on the file (fcntl(2)), and is asked to let go: it is waited for, as by std.
        Err(Errno::AGAIN) => Ok(retry_on_intr(|| openat(CWD, path, flags - OFlags::NONBLOCK, mode))?),
        result => Ok(result?),
    }
}
