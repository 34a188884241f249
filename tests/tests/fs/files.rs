//! Files, on every driver that has I/O. What is in the page cache is read at once; `cold` sees to it that it is not.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use trefoil::fs::{File, OpenOptions};
use trefoil::{CancelAware, OperationError, move_on_after, nursery, sleep};
use trefoil_runtime::metrics;
use trefoil_tests::{cancel_at, drop_at, ms, run_real};

/// A directory of its own on a real disk, which goes with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("files-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn with(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Takes a file out of the page cache, where the file system has one.
fn cold(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// Bytes of which no two stretches are alike.
fn bytes(n: usize) -> Vec<u8> {
    (0..n as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Runs on each driver that has I/O. Every descriptor that is opened is closed at the end.
fn on_each(main: impl AsyncFn(&Dir)) {
    run_real(async || {
        if metrics().driver == "thread" {
            return;
        }
        let dir = Dir::new();
        main(&dir).await;
        until(|| metrics().in_flight == 0).await;
        // Other tests of this process have descriptors, too; but not in this directory.
        until(|| open_in(&dir.0) == 0).await;
    });
}

fn open_in(dir: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|path| path.starts_with(dir)).count()
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        sleep(ms(1)).await.unwrap();
    }
}

fn is_cancelled<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(CancelAware::is_cancelled)
}

#[test]
fn what_is_written_is_read() {
    on_each(async |dir| {
        let content = bytes(700_000);
        let path = dir.path("file");
        trefoil::fs::write(&path, content.clone()).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        for is_cold in [false, true] {
            if is_cold {
                cold(&path);
            }
            assert!(trefoil::fs::read(&path).await.unwrap() == content);
            let file = File::open(&path).await.unwrap();
            assert_eq!(file.len().await.unwrap(), 700_000);
            for (at, len) in [(0, 10), (65_530, 20), (4_095, 300_000), (0, 700_000), (699_999, 1)] {
                if is_cold {
                    cold(&path);
                }
                let mut buf = vec![0; len];
                file.read_exact_at(&mut buf, at as u64).await.unwrap();
                assert!(buf == content[at..at + len], "{at}, {len}");
                let owned = vec![7; 3];
                let (read, mut owned) = {
                    let mut owned = owned;
                    owned.reserve_exact(len);
                    file.read_owned_at(owned, at as u64).await
                };
                let read = read.unwrap();
                assert!(read >= len, "it fills the room, or the file ends");
                assert!(owned[3..] == content[at..at + read]);
                owned.clear();
            }
        }
    });
}

#[test]
fn a_file_ends() {
    on_each(async |dir| {
        let path = dir.with("file", &bytes(10_000));
        let file = File::open(&path).await.unwrap();
        for is_cold in [false, true] {
            for (at, n) in [(9_990, 10), (9_999, 1), (10_000, 0), (1 << 40, 0)] {
                if is_cold {
                    cold(&path);
                }
                assert_eq!(file.read_at(&mut [0; 100], at).await.unwrap(), n, "at {at}");
                let (read, buf) = file.read_owned_at(Vec::with_capacity(100), at).await;
                assert_eq!((read.unwrap(), buf.len()), (n, n));
                let error = file.read_exact_at(&mut [0; 100], at).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            }
        }
        assert_eq!(file.read_at(&mut [], 0).await.unwrap(), 0);
        file.read_exact_at(&mut [], 1 << 40).await.unwrap();
        let error = file.read_owned_at(Vec::new(), 0).await.0.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        // The kernel would take this for the file's own position.
        for at in [u64::MAX, 1 << 63] {
            assert_eq!(file.read_at(&mut [0], at).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        // A file without a size.
        let status = trefoil::fs::read("/proc/self/status").await.unwrap();
        assert!(String::from_utf8(status).unwrap().contains("Threads:"));
        let empty = dir.with("empty", b"");
        assert_eq!(trefoil::fs::read(&empty).await.unwrap(), b"");
        let exact = dir.with("exact", &bytes(64 << 10));
        assert_eq!(trefoil::fs::read(&exact).await.unwrap(), bytes(64 << 10));
    });
}

#[test]
fn writes_lengths_and_syncs() {
    on_each(async |dir| {
        let path = dir.path("file");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).await.unwrap();
        file.write_all_at(&bytes(300_000), 5).await.unwrap();
        file.sync_all().await.unwrap();
        file.sync_data().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), [&[0; 5], &bytes(300_000)[..]].concat());
        file.set_len(3).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().len(), 3);
        let (written, text) = file.write_all_owned_at("clover", 1).await;
        written.unwrap();
        assert_eq!((fs::read(&path).unwrap(), text), (b"\0clover".to_vec(), "clover"));
        assert_eq!(file.write_at(b"", 0).await.unwrap(), 0);
        assert_eq!(file.write_at(b"!", 7).await.unwrap(), 1);
        let add = OpenOptions::new().append(true).open(&path).await.unwrap();
        add.write_all_at(b"?", 0).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\0clover!?");
        drop(File::create(&path).await.unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"");
        let std: fs::File = file.into_std().unwrap();
        assert_eq!(std.metadata().unwrap().len(), 0);
    });
}

#[test]
fn errors_say_what_was_attempted_on_what() {
    on_each(async |dir| {
        let missing = dir.path("missing");
        let error = File::open(&missing).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let told = OperationError::of(&error).unwrap();
        assert_eq!((told.operation(), told.on()), ("open", missing.to_str().unwrap()));
        let path = dir.with("file", b"clover");
        let error = OpenOptions::new().write(true).create_new(true).open(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        for (senseless, why) in [
            (OpenOptions::new(), "one of `read`, `write` and `append` must be on"),
            (OpenOptions::new().read(true).truncate(true).clone(), "takes `write` or `append`"),
            (OpenOptions::new().append(true).truncate(true).clone(), "exclude each other"),
        ] {
            let error = senseless.open(&path).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().ends_with(why), "{error}");
        }
        let error = File::open("clo\0ver").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().ends_with("a path cannot contain a NUL byte"), "{error}");
        let file = File::open(&path).await.unwrap();
        let error = file.write_at(b"x", 0).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("write to {}: ", path.display())), "{error}");
        let error = file.set_len(0).await.unwrap_err();
        assert!(error.to_string().starts_with("set the length of "), "{error}");
        let directory = File::open(&dir.0).await.unwrap();
        let error = directory.read_at(&mut [0], 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
        drop(directory.sync_all().await);
    });
}

/// A FIFO has no positions. Nobody waits for its other end, which no cancel could stop.
#[test]
fn what_has_no_positions_is_refused() {
    on_each(async |dir| {
        let fifo = dir.path("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let error = File::open(&fifo).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotSeekable, "{error}");
        File::create(&fifo).await.unwrap_err();
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = fs::File::from(std::os::fd::OwnedFd::from(reader));
        assert_eq!(File::from_std(pipe).unwrap_err().kind(), ErrorKind::NotSeekable);
        let zeros = File::open("/dev/zero").await.unwrap();
        let mut buf = [1; 100_000];
        assert_eq!(zeros.read_at(&mut buf, 0).await.unwrap(), buf.len());
        assert!(buf.iter().all(|byte| *byte == 0));
    });
}

/// A file that is set not to block is waited for all the same.
#[test]
fn a_file_of_std_may_be_set_not_to_block() {
    on_each(async |dir| {
        let path = dir.with("file", &bytes(100_000));
        let std = fs::File::open(&path).unwrap();
        rustix::io::ioctl_fionbio(&std, true).unwrap();
        let file = File::from_std(std).unwrap();
        cold(&path);
        let mut buf = vec![0; 100_000];
        file.read_exact_at(&mut buf, 0).await.unwrap();
        assert_eq!(buf, bytes(100_000));
        assert!(!rustix::fs::fcntl_getfl(file.as_fd()).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    });
}

/// A buffer for `O_DIRECT`.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

struct Aligned(Box<Page>, bool);

// SAFETY: the bytes are on the heap.
unsafe impl trefoil::IoBuf for Aligned {
    fn content(&self) -> &[u8] {
        if self.1 { &self.0.0 } else { &[] }
    }
}

// SAFETY: as above; a page is read whole.
unsafe impl trefoil::IoBufMut for Aligned {
    fn spare(&mut self) -> &mut [std::mem::MaybeUninit<u8>] {
        let len = if self.1 { 0 } else { 4096 };
        // SAFETY: initialized bytes, to which the kernel writes others.
        unsafe { std::slice::from_raw_parts_mut(self.0.0.as_mut_ptr().cast(), len) }
    }

    unsafe fn advance(&mut self, n: usize) {
        assert!(n == 4096 || n == 0);
        self.1 |= n > 0;
    }
}

#[test]
fn direct_io_takes_aligned_buffers() {
    on_each(async |dir| {
        let path = dir.with("file", &bytes(8192));
        cold(&path);
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        let opened = OpenOptions::new().read(true).custom_flags(direct).open(&path).await;
        let Ok(file) = opened else { return println!("skipped: no O_DIRECT here") };
        let buf = Aligned(Box::new(Page([0; 4096])), false);
        let (read, buf) = file.read_owned_at(buf, 4096).await;
        assert_eq!(read.unwrap(), 4096);
        assert_eq!(buf.0.0, bytes(8192)[4096..]);
    });
}

#[test]
fn many_files_at_once() {
    on_each(async |dir| {
        let content = bytes(50_000);
        let paths: Vec<_> = (0..60).map(|i| dir.with(&i.to_string(), &content[i..])).collect();
        paths.iter().for_each(|path| cold(path));
        nursery(async |n| -> io::Result<()> {
            for (i, path) in paths.iter().enumerate() {
                let content = &content;
                n.spawn(async move {
                    let file = File::open(path).await?;
                    let mut buf = vec![0; 50_000 - i];
                    file.read_exact_at(&mut buf, 0).await?;
                    assert!(buf == content[i..]);
                    file.sync_data().await
                });
            }
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// A read and a write of every kind, where nothing is cached.
async fn everything(path: &Path, other: &Path) -> io::Result<()> {
    cold(path);
    let file = File::open(path).await?;
    let mut buf = vec![0; 100_000];
    file.read_exact_at(&mut buf, 0).await?;
    cold(path);
    let (read, buf) = file.read_owned_at(Vec::with_capacity(100_000), 0).await;
    read?;
    let out = OpenOptions::new().write(true).create(true).open(other).await?;
    out.write_all_at(&buf[..1_000], 0).await?;
    let (written, buf) = out.write_all_owned_at(buf, 0).await;
    written?;
    out.sync_all().await?;
    out.set_len(50_000).await?;
    assert_eq!(out.len().await?, 50_000);
    assert!(trefoil::fs::read(other).await? == buf[..50_000]);
    Ok(())
}

/// R36, R37: a cancel at each wait ends it all; and what was done before is whole.
#[test]
fn r36_a_cancel_at_every_await() {
    on_each(async |dir| {
        let path = dir.with("file", &bytes(100_000));
        let other = dir.path("other");
        for k in 0.. {
            let (result, cancelled) = cancel_at(k, everything(&path, &other)).await;
            if !cancelled {
                result.unwrap();
                assert!(k > 1, "some of it waits");
                break;
            }
            // What was cancelled at the last wait may have been done.
            assert!(result.is_ok(), "{result:?}");
        }
    });
}

/// N5: likewise dropped.
#[test]
fn n5_a_drop_at_every_await() {
    on_each(async |dir| {
        let path = dir.with("file", &bytes(100_000));
        let other = dir.path("other");
        for k in 0.. {
            if let Some(result) = drop_at(k, everything(&path, &other)).await {
                result.unwrap();
                break;
            }
            // A write that goes on is over before the next one begins: they would mix.
            until(|| metrics().in_flight == 0).await;
        }
    });
}

/// R37: where it need not wait, too.
#[test]
fn r37_nothing_is_attempted_in_a_cancelled_scope() {
    on_each(async |dir| {
        let path = dir.with("file", b"clover");
        let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
        let created = dir.path("created");
        let left = move_on_after(Duration::ZERO, async {
            assert!(is_cancelled(&File::open(&path).await));
            assert!(is_cancelled(&File::create(&created).await));
            assert!(is_cancelled(&file.read_at(&mut [0; 6], 0).await));
            assert!(is_cancelled(&file.read_at(&mut [], 0).await));
            let (result, buf) = file.read_owned_at(vec![0; 6], 0).await;
            assert!(is_cancelled(&result) && buf.len() == 6, "it comes back (N6)");
            assert!(is_cancelled(&file.write_at(b"xxxxxx", 0).await));
            assert!(is_cancelled(&file.set_len(0).await));
            assert!(is_cancelled(&file.sync_all().await));
            file.metadata().await.map(drop)
        });
        assert_eq!(left.await.unwrap(), None);
        assert!(!created.exists());
        assert_eq!(fs::read(&path).unwrap(), b"clover");
    });
}

/// N11: a task that reads what is cached does not keep the others from running.
#[test]
fn n11_a_loop_of_cached_reads_gives_up_its_turn() {
    on_each(async |dir| {
        let path = dir.with("file", &bytes(64 << 10));
        let file = File::open(&path).await.unwrap();
        let turns = std::cell::Cell::new(0);
        trefoil::local_nursery(async |n| -> io::Result<()> {
            n.spawn(async {
                let run = async || -> io::Result<()> {
                    trefoil::checkpoint().await?;
                    turns.set(turns.get() + 1);
                    Ok(())
                };
                while run().await.is_ok() {}
                Ok(())
            });
            let mut buf = vec![0; 64 << 10];
            for _ in 0..1_000 {
                file.read_exact_at(&mut buf, 0).await?;
            }
            // Of 128 units, each of these takes five.
            assert!(turns.get() >= 30, "{}", turns.get());
            n.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// In a run without I/O that is said, also of what is cached.
#[test]
fn a_run_without_io_says_so() {
    let dir = Dir::new();
    let path = dir.with("file", b"clover");
    let file = File::from_std(fs::File::open(&path).unwrap()).unwrap();
    let error = trefoil::testing::run(1, async { file.read_at(&mut [0], 0).await.unwrap_err() });
    assert!(error.to_string().contains("this run has no I/O"), "{error}");
}

/// A run's threads end with it.
#[test]
fn threads_end_with_their_run() {
    let dir = Dir::new();
    let path = dir.with("file", b"clover");
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
        tasks
            .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "trefoil-files\n"))
            .count()
    };
    // In a process of its own, without the other tests.
    if std::env::var_os("TREFOIL_TEST_ALONE").is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let child = child
            .args(["--exact", "files::threads_end_with_their_run"])
            .env("TREFOIL_TEST_ALONE", "1")
            .output()
            .unwrap();
        return assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    }
    trefoil::run(async {
        let file = File::open(&path).await.unwrap();
        file.metadata().await.unwrap();
        assert_eq!(threads(), 1);
    });
    while threads() > 0 {
        std::thread::sleep(ms(1));
    }
}
