//! What is done with a path, by a thread of the run: std's functions, with the same meaning.

use super::jobs::on_thread;
use super::{File, OpenOptions};
use crate::error::during;
use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::Location;
use std::path::{Path, PathBuf};

type Place = &'static Location<'static>;

/// Has a thread do something with a path. `what` is what is waited for, `operation` what an error says was attempted.
async fn with_path<T: Send + 'static>(
    path: PathBuf,
    (what, operation): (&'static str, &'static str),
    function: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    place: Place,
) -> io::Result<T> {
    let named = path.clone();
    on_thread(move || function(&path), what, place).await.map_err(|error| during(operation, named.display(), error))
}

/// Two paths, for an error.
struct Both(PathBuf, &'static str, PathBuf);

impl fmt::Display for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.0.display(), self.1, self.2.display())
    }
}

/// The same with two paths.
async fn with_both(
    (from, to): (PathBuf, PathBuf),
    (what, operation, between): (&'static str, &'static str, &'static str),
    function: impl FnOnce(&Path, &Path) -> io::Result<()> + Send + 'static,
    place: Place,
) -> io::Result<()> {
    let named = Both(from.clone(), between, to.clone());
    on_thread(move || function(&from, &to), what, place).await.map_err(|error| during(operation, named, error))
}

/// What the file system knows about what a path leads to; links are followed.
///
/// # Errors
/// Those of statx(2).
///
/// # Cancellation
/// Nothing is lost. Once a thread has begun it is waited for, and the result given (R102).
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// let manifest = trefoil_io::fs::metadata("Cargo.toml").await?;
/// assert!(manifest.is_file() && manifest.len() > 100);
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn metadata<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<fs::Metadata>> + Send + use<P> {
    let what = ("the metadata of a file", "read the metadata of");
    with_path(path.as_ref().to_owned(), what, |path| fs::metadata(path), Location::caller())
}

/// What the file system knows about what is at a path, which may be a link.
///
/// # Errors
/// Those of statx(2).
///
/// # Cancellation
/// As for [`metadata`].
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// let link = trefoil_io::fs::symlink_metadata("/proc/self/exe").await?;
/// assert!(link.is_symlink());
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn symlink_metadata<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<fs::Metadata>> + Send + use<P> {
    let what = ("the metadata of a file", "read the metadata of");
    with_path(path.as_ref().to_owned(), what, |path| fs::symlink_metadata(path), Location::caller())
}

/// Whether a path leads to something.
///
/// # Errors
/// Those of statx(2), but that there is nothing: that is `false`.
///
/// # Cancellation
/// As for [`metadata`].
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// assert!(trefoil_io::fs::try_exists("Cargo.toml").await?);
/// assert!(!trefoil_io::fs::try_exists("/clover/with/four/leaves").await?);
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn try_exists<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<bool>> + Send + use<P> {
    let what = ("whether a file exists", "look for");
    with_path(path.as_ref().to_owned(), what, |path| fs::exists(path), Location::caller())
}

/// The path from the root, without links, `.` and `..`.
///
/// # Errors
/// Those of realpath(3): it must lead to something.
///
/// # Cancellation
/// As for [`metadata`].
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// use std::path::Path;
///
/// assert_eq!(trefoil_io::fs::canonicalize("/proc/../proc/./version").await?, Path::new("/proc/version"));
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn canonicalize<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<PathBuf>> + Send + use<P> {
    let what = ("the real path of a file", "find the real path of");
    with_path(path.as_ref().to_owned(), what, |path| fs::canonicalize(path), Location::caller())
}

/// Where a symbolic link leads.
///
/// # Errors
/// Those of readlink(2).
///
/// # Cancellation
/// As for [`metadata`].
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// assert_eq!(trefoil_io::fs::read_link("/proc/self/exe").await?, std::env::current_exe()?);
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn read_link<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<PathBuf>> + Send + use<P> {
    let what = ("where a link leads", "read the link");
    with_path(path.as_ref().to_owned(), what, |path| fs::read_link(path), Location::caller())
}

/// Creates a directory, whose parent must be there.
///
/// # Errors
/// Those of mkdir(2), of kind `AlreadyExists` among them.
///
/// # Cancellation
/// Nothing was created. Once a thread has begun it is waited for, and the result given (R102). When the future is dropped then, it may be
/// created all the same.
///
/// # Examples
/// ```
/// # let path = std::env::temp_dir().join(format!("trefoil-doc-mkdir-{}", std::process::id()));
/// # trefoil_io::run(async {
/// use trefoil_io::fs;
///
/// fs::create_dir(&path).await?;
/// assert!(fs::metadata(&path).await?.is_dir());
/// fs::remove_dir(&path).await?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn create_dir<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<()>> + Send + use<P> {
    let what = ("a thread to create a directory", "create the directory");
    with_path(path.as_ref().to_owned(), what, |path| fs::create_dir(path), Location::caller())
}

/// Creates a directory, and those above it that are not there. It is no error if all are.
///
/// # Errors
/// Those of mkdir(2). Some of those above it may have been created.
///
/// # Cancellation
/// As for [`create_dir`].
///
/// # Examples
/// ```
/// # let dir = std::env::temp_dir().join(format!("trefoil-doc-mkdirs-{}", std::process::id()));
/// # trefoil_io::run(async {
/// use trefoil_io::fs;
///
/// fs::create_dir_all(dir.join("meadow/clover")).await?;
/// fs::write(dir.join("meadow/clover/leaf"), "green").await?;
/// fs::remove_dir_all(&dir).await?;
/// assert!(!fs::try_exists(&dir).await?);
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn create_dir_all<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<()>> + Send + use<P> {
    let what = ("a thread to create directories", "create the directory");
    with_path(path.as_ref().to_owned(), what, |path| fs::create_dir_all(path), Location::caller())
}

/// Removes an empty directory.
///
/// # Errors
/// Those of rmdir(2), of kind `DirectoryNotEmpty` among them.
///
/// # Cancellation
/// As for [`remove_file`].
///
/// # Examples
/// ```
/// # trefoil_io::run(async {
/// let error = trefoil_io::fs::remove_dir("/proc").await.unwrap_err();
/// assert!(error.to_string().starts_with("remove the directory /proc: "));
/// # });
/// ```
#[track_caller]
pub fn remove_dir<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<()>> + Send + use<P> {
    let what = ("a thread to remove a directory", "remove the directory");
    with_path(path.as_ref().to_owned(), what, |path| fs::remove_dir(path), Location::caller())
}

/// Removes a directory with all that is in it. A symbolic link is removed, and not followed.
///
/// # Errors
/// Those of [`remove_dir`] and [`remove_file`]. A part may have been removed.
///
/// # Cancellation
/// As for [`remove_file`]: a thread that has begun removes all of it, however long that takes.
///
/// # Examples
/// ```
/// # let dir = std::env::temp_dir().join(format!("trefoil-doc-rmdirs-{}", std::process::id()));
/// # trefoil_io::run(async {
/// use trefoil_io::fs;
///
/// fs::create_dir(&dir).await?;
/// fs::write(dir.join("leaf"), "green").await?;
/// fs::remove_dir_all(&dir).await?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn remove_dir_all<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<()>> + Send + use<P> {
    let what = ("a thread to remove a directory with all in it", "remove the directory");
    with_path(path.as_ref().to_owned(), what, |path| fs::remove_dir_all(path), Location::caller())
}

/// Removes a file. Who has it open keeps it.
///
/// # Errors
/// Those of unlink(2).
///
/// # Cancellation
/// Nothing was removed. Once a thread has begun it is waited for, and the result given (R102). When the future is dropped then, it may be
/// removed all the same.
///
/// # Examples
/// ```
/// # let path = std::env::temp_dir().join(format!("trefoil-doc-rm-{}", std::process::id()));
/// # trefoil_io::run(async {
/// use trefoil_io::fs;
///
/// fs::write(&path, "clover").await?;
/// fs::remove_file(&path).await?;
/// assert!(!fs::try_exists(&path).await?);
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn remove_file<P: AsRef<Path>>(path: P) -> impl Future<Output = io::Result<()>> + Send + use<P> {
    let what = ("a thread to remove a file", "remove");
    with_path(path.as_ref().to_owned(), what, |path| fs::remove_file(path), Location::caller())
}

/// Gives a file or directory another name, on the same file system. What had that name is replaced, at one stroke.
///
/// # Errors
/// Those of rename(2), of kind `CrossesDevices` among them.
///
/// # Cancellation
/// Nothing was renamed. Once a thread has begun it is waited for, and the result given (R102). When the future is dropped then, it may be
/// renamed all the same.
///
/// # Examples
/// Others see the old file or the new one, and never a half:
/// ```
/// # let dir = std::env::temp_dir().join(format!("trefoil-doc-mv-{}", std::process::id()));
/// # std::fs::create_dir(&dir)?;
/// # trefoil_io::run(async {
/// use trefoil_io::fs::{self, File};
///
/// let new = File::create(dir.join("leaf.new")).await?;
/// new.write_all_at(b"green", 0).await?;
/// new.sync_all().await?;
/// fs::rename(dir.join("leaf.new"), dir.join("leaf")).await?;
/// # fs::remove_dir_all(&dir).await?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn rename<P, Q>(from: P, to: Q) -> impl Future<Output = io::Result<()>> + Send + use<P, Q>
where
    P: AsRef<Path>,
    Q: AsRef<Path>,
{
    let paths = (from.as_ref().to_owned(), to.as_ref().to_owned());
    with_both(paths, ("a thread to rename a file", "rename", "to"), |from, to| fs::rename(from, to), Location::caller())
}

/// Gives a file one more name.
///
/// # Errors
/// Those of link(2).
///
/// # Cancellation
/// As for [`create_dir`].
///
/// # Examples
/// ```
/// # let dir = std::env::temp_dir().join(format!("trefoil-doc-ln-{}", std::process::id()));
/// # std::fs::create_dir(&dir)?;
/// # trefoil_io::run(async {
/// use trefoil_io::fs;
///
/// fs::write(dir.join("leaf"), "green").await?;
/// fs::hard_link(dir.join("leaf"), dir.join("blade")).await?;
/// assert_eq!(fs::read(dir.join("blade")).await?, b"green");
/// # fs::remove_dir_all(&dir).await?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn hard_link<P, Q>(original: P, link: Q) -> impl Future<Output = io::Result<()>> + Send + use<P, Q>
where
    P: AsRef<Path>,
    Q: AsRef<Path>,
{
    let paths = (original.as_ref().to_owned(), link.as_ref().to_owned());
    let what = ("a thread to make a link", "link", "as");
    with_both(paths, what, |original, link| fs::hard_link(original, link), Location::caller())
}

/// Makes a symbolic link, which leads to `original`, be it there or not.
///
/// # Errors
/// Those of symlink(2).
///
/// # Cancellation
/// As for [`create_dir`].
///
/// # Examples
/// ```
/// # let dir = std::env::temp_dir().join(format!("trefoil-doc-symlink-{}", std::process::id()));
/// # std::fs::create_dir(&dir)?;
/// # trefoil_io::run(async {
/// use trefoil_io::fs;
///
/// fs::symlink("leaf", dir.join("blade")).await?;
/// fs::write(dir.join("leaf"), "green").await?;
/// assert_eq!(fs::read(dir.join("blade")).await?, b"green");
/// # fs::remove_dir_all(&dir).await?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn symlink<P, Q>(original: P, link: Q) -> impl Future<Output = io::Result<()>> + Send + use<P, Q>
where
    P: AsRef<Path>,
    Q: AsRef<Path>,
{
    let paths = (original.as_ref().to_owned(), link.as_ref().to_owned());
    let what = ("a thread to make a link", "link", "as");
    with_both(paths, what, |original, link| std::os::unix::fs::symlink(original, link), Location::caller())
}

/// Sets who may read, write and execute what a path leads to.
///
/// # Errors
/// Those of chmod(2).
///
/// # Cancellation
/// Nothing was changed. Once a thread has begun it is waited for, and the result given (R102).
///
/// # Examples
/// ```
/// # let path = std::env::temp_dir().join(format!("trefoil-doc-chmod-{}", std::process::id()));
/// # trefoil_io::run(async {
/// use std::fs::Permissions;
/// use std::os::unix::fs::PermissionsExt;
/// use trefoil_io::fs;
///
/// fs::write(&path, "clover").await?;
/// fs::set_permissions(&path, Permissions::from_mode(0o600)).await?;
/// assert_eq!(fs::metadata(&path).await?.permissions().mode() & 0o777, 0o600);
/// # fs::remove_file(&path).await?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn set_permissions<P>(path: P, permissions: fs::Permissions) -> impl Future<Output = io::Result<()>> + Send + use<P>
where
    P: AsRef<Path>,
{
    let what = ("a thread to set the permissions of a file", "set the permissions of");
    let set = move |path: &Path| fs::set_permissions(path, permissions);
    with_path(path.as_ref().to_owned(), what, set, Location::caller())
}

/// So much is copied between two looks at the scope.
const PIECE: u64 = 8 << 20;

/// Copies what is in a file, and its permissions, and says how many bytes that was. What was in the other is replaced.
///
/// The kernel copies, without a way through this process where the file system can.
///
/// # Errors
/// Those of opening both, and of copy_file_range(2); of kind `InvalidInput` where the first is no regular file, or both are the same.
///
/// # Cancellation
/// A part may have been copied (R41). It is noticed after every few megabytes.
///
/// # Examples
/// ```
/// # let path = std::env::temp_dir().join(format!("trefoil-doc-cp-{}", std::process::id()));
/// # trefoil_io::run(async {
/// use trefoil_io::fs;
///
/// let n = fs::copy("Cargo.toml", &path).await?;
/// assert_eq!(fs::read(&path).await?.len() as u64, n);
/// # fs::remove_file(&path).await?;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn copy<P, Q>(from: P, to: Q) -> impl Future<Output = io::Result<u64>> + Send + use<P, Q>
where
    P: AsRef<Path>,
    Q: AsRef<Path>,
{
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    let place = Location::caller();
    async move {
        let named = Both(from.clone(), "to", to.clone());
        copy_at(&from, &to, place).await.map_err(|error| during("copy", named, error))
    }
}

async fn copy_at(from: &Path, to: &Path, place: Place) -> io::Result<u64> {
    let from = File::open(from).await?.into_std()?;
    let (from, before) = on_thread(
        move || {
            let before = from.metadata()?;
            if !before.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the first is no regular file"));
            }
            Ok((from, before))
        },
        "the metadata of a file",
        place,
    )
    .await?;
    let mode = before.permissions().mode();
    let to = OpenOptions::new().write(true).create(true).mode(mode).open(to).await?.into_std()?;
    let mut files = on_thread(
        move || {
            let there = to.metadata()?;
            if (there.dev(), there.ino()) == (before.dev(), before.ino()) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "both are the same file"));
            }
            if there.is_file() {
                to.set_len(0)?;
                to.set_permissions(before.permissions())?;
            }
            Ok((from, to))
        },
        "a thread to empty a file",
        place,
    )
    .await?;
    let mut copied = 0;
    loop {
        let (mut from, mut to) = files;
        let piece = move || {
            let n = io::copy(&mut io::Read::take(&mut from, PIECE), &mut to)?;
            Ok((n, from, to))
        };
        let (n, from, to) = on_thread(piece, "a thread to copy a file", place).await?;
        copied += n;
        if n == 0 {
            return Ok(copied);
        }
        files = (from, to);
    }
}
