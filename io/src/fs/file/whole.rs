//! What is done with a file as a whole: its size and permissions, to have it on the disk, to close it.

use super::super::errand::Slow;
use super::super::jobs::{Sync, on_thread};
use super::{File, Name, Place};
use crate::error::during;
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::IntoRawFd;
use std::panic::Location;
use std::sync::Arc;
use trefoil_runtime::Reason;

impl File {
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
            let set = on_thread(move || file.set_len(len), "a thread to set the length of a file", place).await;
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
            let set = on_thread(
                move || file.set_permissions(permissions),
                "a thread to set the permissions of a file",
                place,
            )
            .await;
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
            let closed = on_thread(move || close(file), "a thread to close a file", place).await;
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
        let (result, _) = Slow::new(job, Reason::Custom("a file to be synced"), place).await;
        result.map(drop).map_err(|error| self.failed("sync", error))
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
