//! Kernels that have no io_uring, forbid it, or have less of it than this one. A seccomp filter plays them, for one thread each.

mod common;

use common::*;
use futures_util::AsyncReadExt;
use futures_util::FutureExt;
use std::io::{ErrorKind, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trefoil_io::net::{TcpListener, TcpStream};
use trefoil_io::{Builder, DriverKind, RunError};
use trefoil_nursery::{move_on_after, nursery};

/// Runs something on a thread of its own on which `syscall` fails with `errno`.
fn where_it_fails<T: Send + 'static>(syscall: i64, errno: i32, run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut filter = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the call
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, syscall as u32),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the first call has numbers only; the second reads `program`, which lives through it. Both are for this thread.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
        run()
    })
    .join()
    .unwrap()
}

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
        let lines = where_it_fails(libc::SYS_io_uring_setup, errno, move || {
            let lines = Lines::default();
            tracing::subscriber::with_default(lines.clone(), || trefoil_io::run(echo_once()));
            lines.0.lock().unwrap().clone()
        });
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

/// Collects the messages of the log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("trefoil_io")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Message<'a>(&'a mut String);
        impl tracing::field::Visit for Message<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    *self.0 = format!("{value:?}");
                }
            }
        }
        let mut line = String::new();
        event.record(&mut Message(&mut line));
        self.0.lock().unwrap().push(line);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
