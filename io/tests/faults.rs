//! Kernels that have no io_uring, forbid it, or have less of it than this one. A seccomp filter plays them, for one thread each.

mod common;
#[path = "common/kernel.rs"]
mod kernel;
#[path = "common/log.rs"]
mod log;

use common::*;
use futures_util::AsyncReadExt;
use futures_util::FutureExt;
use kernel::{from_here_on, where_it_fails};
use log::said;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use trefoil_io::fs::{self, File, OpenOptions};
use trefoil_io::net::{TcpListener, TcpStream};
use trefoil_io::{Builder, DriverKind, RunError};
use trefoil_nursery::{move_on_after, nursery};
use trefoil_runtime::metrics;

fn has_io_uring() -> bool {
    Builder::new().driver(DriverKind::IoUring).try_run(async {}).is_ok()
}

async fn echo_once() {
    let (mut client, mut server) = pair().await;
    nursery(async |n| -> std::io::Result<()> {
        n.spawn(async {
            let mut buf = [0; 64];
            let n = TcpStream::read(&mut server, &mut buf).await?;
            server.write_all(&buf[..n]).await
        });
        settle().await;
        client.write_all(b"echo").await?;
        let mut back = [0; 4];
        TcpStream::read_exact(&mut client, &mut back).await?;
        assert_eq!(&back, b"echo");
        Ok(())
    })
    .await
    .unwrap();
}

#[test]
fn without_io_uring_it_is_epoll_with_one_line_that_says_why() {
    let _one = alone();
    if std::env::var_os("TREFOIL_DRIVER").is_some() {
        return; // nothing is chosen then
    }
    for (errno, why) in [(libc::ENOSYS, "no io_uring"), (libc::EPERM, "forbidden"), (libc::ENOMEM, "memory")] {
        let lines = where_it_fails(libc::SYS_io_uring_setup, errno, move || said(|| trefoil_io::run(echo_once())).1);
        println!("{lines:?}");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("the driver is epoll, since io_uring cannot be had: "), "{lines:?}");
        assert!(lines[0].contains(why), "{lines:?}");
    }
}

#[test]
fn io_uring_that_is_forced_and_cannot_be_had_is_an_error() {
    let _one = alone();
    for (errno, kind) in [
        (libc::ENOSYS, ErrorKind::Unsupported),
        (libc::EPERM, ErrorKind::PermissionDenied),
        (libc::ENOMEM, ErrorKind::OutOfMemory),
    ] {
        let result = where_it_fails(libc::SYS_io_uring_setup, errno, || {
            Builder::new().driver(DriverKind::IoUring).try_run(echo_once())
        });
        let error = result.unwrap_err();
        println!("{error}");
        let RunError::DriverUnavailable { driver: DriverKind::IoUring, wanted_by: "the builder", source } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!(source.kind(), kind);
        assert!(
            error.to_string().starts_with("the io_uring driver, wanted by the builder, cannot be had: "),
            "{error}"
        );
    }
}

/// Nothing may be registered: no buffers to receive into, no probe of what there is, no way to cancel everything. As on the oldest kernels that
/// we take.
#[test]
fn with_the_bare_ring_of_an_old_kernel_all_is_as_right() {
    let _one = alone();
    if !has_io_uring() {
        println!("skipped: no io_uring");
        return;
    }
    for entries in [256, 4] {
        let (listener, addr) = listen();
        where_it_fails(libc::SYS_io_uring_register, libc::EINVAL, move || {
            let builder = Builder::new().driver(DriverKind::IoUring).ring_entries(entries);
            builder.run(async {
                echo_once().await;
                serve(&listener, addr).await;
                // And a run that ends with much under way.
                let (mut stream, mut other) = pair_with_std().await;
                assert!(AsyncReadExt::read(&mut stream, &mut [0; 1]).now_or_never().is_none());
                assert!(listener.accept().now_or_never().is_none());
                settle().await;
                other.write_all(b"unheard").unwrap();
            });
        });
    }
}

/// A sandbox says of every connection what a firewall says of one.
#[test]
fn accept_that_is_not_permitted_is_an_error_and_no_loop() {
    for_each_driver(|builder| {
        let (listener, _) = listen();
        where_it_fails(libc::SYS_accept4, libc::EPERM, move || {
            let error = builder.run(async { listener.accept().await.unwrap_err() });
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        });
    });
}

/// A user may watch so many descriptors with epoll: the error says what to raise, and not that a disk is full.
#[test]
fn more_descriptors_than_may_be_watched_are_an_error_that_says_what_to_do() {
    let _one = alone();
    let error = std::thread::spawn(|| {
        Builder::new().driver(DriverKind::Epoll).run(async {
            let (mut stream, mut other) = pair_with_std().await;
            from_here_on(libc::SYS_epoll_ctl, libc::ENOSPC);
            let error = TcpStream::read(&mut stream, &mut [0; 1]).await.unwrap_err();
            // What need not wait goes on.
            other.write_all(b"x").unwrap();
            settle().await;
            assert_eq!(stream.try_read(&mut [0; 1]).unwrap(), 1);
            error
        })
    });
    let error = error.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
    assert!(error.to_string().starts_with("read from 127.0.0.1:"), "{error}");
    assert!(error.to_string().contains("fs.epoll.max_user_watches"), "{error}");
}

/// A file with some bytes, which are not cached where the file system has a cache, and its name.
fn cold_file() -> (std::path::PathBuf, Vec<u8>) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}-{n}", std::process::id()));
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i ^ i >> 8) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    (path, bytes)
}

/// No thread can be had, for more operations than there could be threads: each says so, and nothing waits for ever. What the ring does, or the
/// cache, goes on.
#[test]
fn r108_a_thread_that_cannot_be_had_is_an_error_each_time() {
    for_each_driver(|builder| {
        let (path, bytes) = cold_file();
        where_it_fails(libc::SYS_clone3, libc::EAGAIN, move || {
            from_here_on(libc::SYS_clone, libc::EAGAIN); // older libraries
            builder.run(async {
                for i in 0..100 {
                    let error = match i % 3 {
                        0 => fs::metadata(&path).await.unwrap_err(),
                        1 => fs::remove_file(&path).await.unwrap_err(),
                        _ => File::create(&path).await.map(drop).unwrap_err(),
                    };
                    assert_eq!(error.kind(), ErrorKind::WouldBlock, "EAGAIN of clone3: {error}");
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                    assert_eq!(metrics().in_flight, 0);
                }
                let all = nursery(async |n| -> Result<(), trefoil_nursery::Cancelled> {
                    for _ in 0..100 {
                        n.spawn(async {
                            assert!(fs::metadata(&path).await.is_err());
                            Ok(())
                        });
                    }
                    Ok(())
                });
                all.await.unwrap();
                let file = File::from_std(std::fs::File::open(&path).unwrap()).unwrap();
                let mut buf = vec![0; bytes.len()];
                match file.read_exact_at(&mut buf, 0).await {
                    Ok(()) => assert!(buf == bytes),
                    Err(error) => {
                        assert!(metrics().driver == "epoll" && error.kind() == ErrorKind::WouldBlock, "{error}")
                    }
                }
                std::fs::remove_file(&path).unwrap();
            });
        });
    });
}

/// There is one thread, and no more can be had: it does all, one after the other.
#[test]
fn r108_one_thread_does_what_more_were_wanted_for() {
    for_each_driver(|builder| {
        std::thread::spawn(move || {
            builder.run(async {
                fs::metadata("/").await.unwrap();
                from_here_on(libc::SYS_clone3, libc::EAGAIN);
                from_here_on(libc::SYS_clone, libc::EAGAIN);
                nursery(async |n| -> std::io::Result<()> {
                    for _ in 0..100 {
                        n.spawn(async { fs::metadata("/").await.map(drop) });
                    }
                    Ok(())
                })
                .await
                .unwrap();
            });
        })
        .join()
        .unwrap();
    });
}

/// A kernel or a file system that cannot say what it has in its cache: all is done by who may wait.
#[test]
fn without_a_look_into_the_cache_files_are_read_and_written_all_the_same() {
    for errno in [libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL] {
        for (syscall, name) in
            [(libc::SYS_preadv2, "reads"), (libc::SYS_pwritev2, "writes"), (libc::SYS_openat2, "opens")]
        {
            for_each_driver(|builder| {
                let (path, bytes) = cold_file();
                println!("{name} fail with {errno}");
                where_it_fails(syscall, errno, move || {
                    builder.run(async {
                        let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
                        let mut buf = vec![0; bytes.len()];
                        file.read_exact_at(&mut buf, 0).await.unwrap();
                        assert!(buf == bytes);
                        file.write_all_at(b"clover", 50_000).await.unwrap();
                        let (read, tail) = file.read_owned_at(Vec::with_capacity(60_000), 50_000).await;
                        assert_eq!(read.unwrap(), 50_000);
                        assert!(tail.starts_with(b"clover") && tail[6..] == bytes[50_006..]);
                        assert_eq!(file.read_at(&mut buf, 1 << 20).await.unwrap(), 0, "behind the end");
                    });
                    std::fs::remove_file(&path).unwrap();
                });
            });
        }
    }
}

/// As on Linux 5.9 and 5.10, where a look into the cache says that the file ends where nothing is cached: that is not believed.
#[test]
fn an_end_that_is_none_is_not_believed() {
    for_each_driver(|builder| {
        let (path, bytes) = cold_file();
        // An errno of 0 is a result of 0.
        where_it_fails(libc::SYS_preadv2, 0, move || {
            builder.run(async {
                let file = File::open(&path).await.unwrap();
                let mut buf = vec![0; bytes.len()];
                file.read_exact_at(&mut buf, 0).await.unwrap();
                assert!(buf == bytes);
                assert_eq!(file.read_at(&mut buf, bytes.len() as u64).await.unwrap(), 0);
                let (read, all) = file.read_owned_at(Vec::with_capacity(200_000), 0).await;
                assert!(read.unwrap() == bytes.len() && all == bytes);
            });
            std::fs::remove_file(&path).unwrap();
        });
    });
}

/// Who has a lease on the file is asked to let go, and waited for by a thread: the loop goes on.
#[test]
fn a_lease_is_waited_for() {
    for_each_driver(|builder| {
        let (path, _) = cold_file();
        let holder = std::fs::File::open(&path).unwrap();
        let lease = |kind: i32| {
            // SAFETY: numbers only. The signal that asks is SIGIO, whose default would end the process: SIGURG is ignored instead.
            unsafe {
                let fd = std::os::fd::AsRawFd::as_raw_fd(&holder);
                assert_eq!(libc::fcntl(fd, 10 /* F_SETSIG */, libc::SIGURG), 0);
                libc::fcntl(fd, libc::F_SETLEASE, kind)
            }
        };
        if lease(libc::F_RDLCK) != 0 {
            return println!("skipped: no leases here");
        }
        let was_opened = AtomicBool::new(false);
        builder.run(async {
            nursery(async |n| -> std::io::Result<()> {
                let open = n.spawn(async {
                    let file = OpenOptions::new().write(true).open(&path).await;
                    was_opened.store(true, Ordering::Relaxed);
                    file
                });
                while metrics().in_flight == 0 {
                    trefoil_nursery::checkpoint().await?;
                }
                trefoil_nursery::sleep(Duration::from_millis(20)).await?;
                assert!(!was_opened.load(Ordering::Relaxed) && metrics().in_flight == 1, "a thread waits");
                assert_eq!(lease(libc::F_UNLCK), 0);
                open.await?.write_all_at(b"clover", 0).await
            })
            .await
            .unwrap();
        });
        std::fs::remove_file(&path).unwrap();
    });
}

/// Reads that are cut, large messages, and clients that come and go.
async fn serve(listener: &TcpListener, addr: std::net::SocketAddr) {
    const MESSAGE: usize = 300_000;
    nursery(async |n| -> std::io::Result<()> {
        for _ in 0..20 {
            n.spawn(async move {
                let mut stream = TcpStream::connect(addr).await?;
                stream.write_all(&pattern(0, MESSAGE)).await
            });
            let (mut stream, _) = listener.accept().await?;
            let mut message = vec![0; MESSAGE];
            while move_on_after(Duration::from_millis(2), TcpStream::read_exact(&mut stream, &mut message))
                .await?
                .is_none()
            {}
            assert!(message == pattern(0, MESSAGE));
            assert_eq!(TcpStream::read(&mut stream, &mut message).await?, 0);
        }
        Ok(())
    })
    .await
    .unwrap();
}
