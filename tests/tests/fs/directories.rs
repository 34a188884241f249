//! Directories, and what is done with paths, on every driver that has I/O.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use trefoil::{CancelAware, OperationError, move_on_after, nursery, sleep};
use trefoil_runtime::metrics;
use trefoil_tests::{cancel_at, drop_at, ms, run_real};

/// Runs on each driver that has I/O, with a directory, which is closed and goes at the end.
fn on_each(main: impl AsyncFn(&Path)) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    run_real(async || {
        if metrics().driver == "thread" {
            return;
        }
        let name = format!("directories-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&dir).unwrap();
        main(&dir).await;
        idle().await;
        let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        assert_eq!(links.filter(|path| path.starts_with(&dir)).count(), 0, "something is open");
        fs::remove_dir_all(&dir).unwrap();
    });
}

async fn idle() {
    while metrics().in_flight > 0 {
        sleep(ms(1)).await.unwrap();
    }
}

/// The names in a directory, in order.
async fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut entries = trefoil::fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        names.push(entry.file_name().into_string().unwrap());
    }
    assert!(entries.next_entry().await?.is_none(), "the end stays");
    names.sort();
    Ok(names)
}

fn fill(dir: &Path, many: usize) -> Vec<String> {
    let names: Vec<_> = (0..many).map(|i| format!("{i:04}")).collect();
    names.iter().for_each(|name| fs::write(dir.join(name), name).unwrap());
    names
}

#[test]
fn each_entry_comes_once_however_many_there_are() {
    on_each(async |dir| {
        // None; less than a thread reads at once; just so many; one more; and so on.
        for many in [0, 1, 255, 256, 257, 512, 1_000] {
            let part = dir.join(many.to_string());
            fs::create_dir(&part).unwrap();
            assert_eq!(fill(&part, many), names(&part).await.unwrap());
        }
    });
}

#[test]
fn an_entry_says_what_it_is() {
    on_each(async |dir| {
        fs::write(dir.join("file"), "clover").unwrap();
        fs::create_dir(dir.join("folder")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("link")).unwrap();
        let mut entries = trefoil::fs::read_dir(dir).await.unwrap();
        let mut seen = 0;
        while let Some(entry) = entries.next_entry().await.unwrap() {
            let (name, what) = (entry.file_name().into_string().unwrap(), entry.file_type().unwrap());
            assert_eq!(
                (what.is_file(), what.is_dir(), what.is_symlink()),
                (name == "file", name == "folder", name == "link")
            );
            let metadata = entry.metadata().await.unwrap();
            assert_eq!(metadata.is_symlink(), name == "link", "it is not followed");
            assert_eq!(entry.path(), dir.join(&name));
            assert_eq!(entry.ino(), std::os::unix::fs::MetadataExt::ino(&metadata));
            seen += 1;
        }
        assert_eq!(seen, 3);
    });
}

/// R36: a cancel at each wait of a listing loses no entry.
#[test]
fn r36_a_listing_that_is_cancelled_goes_on_where_it_was() {
    on_each(async |dir| {
        let all = fill(dir, 260);
        for k in 0.. {
            let (mut names, mut entries) = (Vec::new(), None);
            let listing =
                async |names: &mut Vec<String>, entries: &mut Option<trefoil::fs::ReadDir>| -> io::Result<()> {
                    if entries.is_none() {
                        *entries = Some(trefoil::fs::read_dir(dir).await?);
                    }
                    while let Some(entry) = entries.as_mut().unwrap().next_entry().await? {
                        names.push(entry.file_name().into_string().unwrap());
                    }
                    Ok(())
                };
            let (result, cancelled) = cancel_at(k, listing(&mut names, &mut entries)).await;
            result.unwrap();
            listing(&mut names, &mut entries).await.unwrap();
            names.sort();
            assert_eq!(names, all);
            if !cancelled {
                assert!(k > 1, "some of it waits");
                return;
            }
        }
    });
}

/// N5: nor does a drop at each of its waits.
#[test]
fn n5_a_listing_that_is_dropped_goes_on_where_it_was() {
    on_each(async |dir| {
        let all = fill(dir, 260);
        for k in 0.. {
            let mut names = Vec::new();
            let mut entries = trefoil::fs::read_dir(dir).await.unwrap();
            let listing = async |names: &mut Vec<String>, entries: &mut trefoil::fs::ReadDir| -> io::Result<()> {
                while let Some(entry) = entries.next_entry().await? {
                    names.push(entry.file_name().into_string().unwrap());
                }
                Ok(())
            };
            let ended = drop_at(k, listing(&mut names, &mut entries)).await;
            listing(&mut names, &mut entries).await.unwrap();
            names.sort();
            assert_eq!(names, all);
            if let Some(result) = ended {
                return result.unwrap();
            }
        }
    });
}

/// Each of them once, with its effect.
async fn everything(dir: &Path) -> io::Result<()> {
    use trefoil::fs;
    fs::create_dir_all(dir.join("a/b/c")).await?;
    fs::create_dir_all(dir.join("a/b/c")).await?;
    fs::create_dir(dir.join("a/d")).await?;
    fs::write(dir.join("a/file"), "clover").await?;
    fs::rename(dir.join("a/file"), dir.join("a/leaf")).await?;
    assert!(!fs::try_exists(dir.join("a/file")).await?);
    assert_eq!(fs::read_to_string(dir.join("a/leaf")).await?, "clover");
    fs::set_permissions(dir.join("a/leaf"), std::fs::Permissions::from_mode(0o640)).await?;
    assert_eq!(fs::copy(dir.join("a/leaf"), dir.join("a/copy")).await?, 6);
    assert_eq!(fs::metadata(dir.join("a/copy")).await?.permissions().mode() & 0o777, 0o640);
    fs::hard_link(dir.join("a/leaf"), dir.join("a/hard")).await?;
    fs::symlink("leaf", dir.join("a/soft")).await?;
    assert_eq!(fs::read_link(dir.join("a/soft")).await?, Path::new("leaf"));
    assert!(fs::symlink_metadata(dir.join("a/soft")).await?.is_symlink());
    assert!(fs::metadata(dir.join("a/soft")).await?.is_file());
    assert_eq!(fs::canonicalize(dir.join("a/b/../soft")).await?, std::fs::canonicalize(dir.join("a/leaf"))?);
    assert_eq!(names(&dir.join("a")).await?, ["b", "copy", "d", "hard", "leaf", "soft"]);
    fs::remove_file(dir.join("a/soft")).await?;
    fs::remove_dir(dir.join("a/d")).await?;
    fs::remove_dir_all(dir.join("a")).await?;
    assert!(!fs::try_exists(dir.join("a")).await?);
    let file = fs::File::create(dir.join("closed")).await?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).await?;
    file.close().await?;
    fs::remove_file(dir.join("closed")).await
}

#[test]
fn each_function_does_what_it_says() {
    on_each(async |dir| everything(dir).await.unwrap());
}

/// R36, R37: a cancel at each wait ends it all.
#[test]
fn r36_a_cancel_at_every_await_of_all_of_them() {
    on_each(async |dir| {
        for k in 0.. {
            let part = dir.join(k.to_string());
            fs::create_dir(&part).unwrap();
            let (result, cancelled) = cancel_at(k, everything(&part)).await;
            assert!(result.is_ok(), "{result:?}");
            if !cancelled {
                assert!(k > 20, "each of them waits: {k}");
                return;
            }
        }
    });
}

/// N5: a drop at each wait leaves nothing open, and nothing under way for long.
#[test]
fn n5_a_drop_at_every_await_of_all_of_them() {
    on_each(async |dir| {
        for k in 0.. {
            let part = dir.join(k.to_string());
            fs::create_dir(&part).unwrap();
            if let Some(result) = drop_at(k, everything(&part)).await {
                return result.unwrap();
            }
        }
    });
}

/// R37: in a cancelled scope nothing is done.
#[test]
fn r37_in_a_cancelled_scope_nothing_is_created_or_removed() {
    on_each(async |dir| {
        fs::write(dir.join("leaf"), "clover").unwrap();
        let path = |name: &str| -> PathBuf { dir.join(name) };
        let is_cancelled = |result: io::Result<()>| assert!(result.is_err_and(|error| error.is_cancelled()));
        let mut entries = trefoil::fs::read_dir(dir).await.unwrap();
        let left = move_on_after(Duration::ZERO, async {
            is_cancelled(trefoil::fs::create_dir(path("new")).await);
            is_cancelled(trefoil::fs::create_dir_all(path("new/new")).await);
            is_cancelled(trefoil::fs::remove_file(path("leaf")).await);
            is_cancelled(trefoil::fs::remove_dir_all(dir).await);
            is_cancelled(trefoil::fs::rename(path("leaf"), path("new")).await);
            is_cancelled(trefoil::fs::hard_link(path("leaf"), path("new")).await);
            is_cancelled(trefoil::fs::symlink("leaf", path("new")).await);
            is_cancelled(trefoil::fs::copy(path("leaf"), path("new")).await.map(drop));
            is_cancelled(trefoil::fs::read_dir(dir).await.map(drop));
            is_cancelled(entries.next_entry().await.map(drop));
            trefoil::fs::metadata(path("leaf")).await.map(drop)
        });
        assert_eq!(left.await.unwrap(), None);
        assert_eq!(names(dir).await.unwrap(), ["leaf"]);
        assert!(entries.next_entry().await.unwrap().is_some(), "it was not taken");
    });
}

/// R42: what is closed in a cancelled scope is closed.
#[test]
fn r42_a_file_is_closed_in_a_cancelled_scope_too() {
    on_each(async |dir| {
        let file = trefoil::fs::File::create(dir.join("leaf")).await.unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        assert_eq!(fs::read_link(format!("/proc/self/fd/{fd}")).unwrap(), dir.join("leaf"));
        assert_eq!(move_on_after(Duration::ZERO, file.close()).await.unwrap(), None);
        let still = fs::read_link(format!("/proc/self/fd/{fd}"));
        assert!(still.is_err() || still.unwrap() != dir.join("leaf"));
    });
}

#[test]
fn errors_say_what_was_attempted_on_what() {
    on_each(async |dir| {
        std::fs::write(dir.join("leaf"), [0xff]).unwrap();
        let (leaf, gone) = (dir.join("leaf"), dir.join("gone"));
        let says = |error: io::Error, operation: &str, kind: ErrorKind| {
            assert_eq!((OperationError::of(&error).unwrap().operation(), error.kind()), (operation, kind), "{error}");
            assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
        };
        use trefoil::fs;
        says(fs::metadata(&gone).await.unwrap_err(), "read the metadata of", ErrorKind::NotFound);
        says(fs::create_dir(&leaf).await.unwrap_err(), "create the directory", ErrorKind::AlreadyExists);
        says(fs::remove_dir(dir).await.unwrap_err(), "remove the directory", ErrorKind::DirectoryNotEmpty);
        says(fs::remove_file(&gone).await.unwrap_err(), "remove", ErrorKind::NotFound);
        says(fs::rename(&gone, &leaf).await.unwrap_err(), "rename", ErrorKind::NotFound);
        says(fs::read_dir(&leaf).await.unwrap_err(), "open the directory", ErrorKind::NotADirectory);
        says(fs::read_to_string(&leaf).await.unwrap_err(), "read from", ErrorKind::InvalidData);
        says(fs::copy(&gone, &leaf).await.unwrap_err(), "open", ErrorKind::NotFound);
        says(fs::copy(dir, &leaf).await.unwrap_err(), "copy", ErrorKind::InvalidInput);
        says(fs::copy(&leaf, &leaf).await.unwrap_err(), "copy", ErrorKind::InvalidInput);
        assert_eq!(fs::read(&leaf).await.unwrap(), [0xff], "it is as it was");
    });
}

/// A copy of several pieces: whole, and shorter than what it replaces.
#[test]
fn a_copy_replaces_what_was_there() {
    on_each(async |dir| {
        let content = b"clover\n".repeat(1_300_000);
        fs::write(dir.join("from"), &content).unwrap();
        fs::write(dir.join("to"), vec![1; content.len() + 1]).unwrap();
        assert_eq!(trefoil::fs::copy(dir.join("from"), dir.join("to")).await.unwrap(), content.len() as u64);
        assert!(fs::read(dir.join("to")).unwrap() == content);
    });
}

#[test]
fn many_at_once() {
    on_each(async |dir| {
        nursery(async |n| -> io::Result<()> {
            for i in 0..100 {
                let path = dir.join(i.to_string());
                n.spawn(async move {
                    trefoil::fs::create_dir(&path).await?;
                    trefoil::fs::write(path.join("leaf"), "clover").await?;
                    assert_eq!(names(&path).await?, ["leaf"]);
                    trefoil::fs::remove_dir_all(&path).await
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        assert!(names(dir).await.unwrap().is_empty());
    });
}
