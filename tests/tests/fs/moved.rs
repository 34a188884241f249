//! Operations on files that begin in one run and go on in another, on another thread; and whose run ends meanwhile.

use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;
use trefoil::fs::{self, File};
use trefoil::{CancelAware, CancelScope, sleep};
use trefoil_io::{Builder, DriverKind};
use trefoil_tests::ms;

type Begun = Pin<Box<dyn Future<Output = io::Result<usize>> + Send>>;

struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("moved-{name}-{}", std::process::id()));
        std::fs::write(&path, vec![7; 1 << 16]).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn cold(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// What takes a while: reading what is not cached, syncing, looking into a directory, copying.
fn operations(path: &Path) -> Vec<Begun> {
    let (read, sync, copy) = (path.to_owned(), path.to_owned(), path.to_owned());
    vec![
        Box::pin(async move {
            let file = File::open(&read).await?;
            cold(&read);
            let (n, bytes) = file.read_owned_at(Vec::with_capacity(1 << 16), 0).await;
            assert!(bytes.iter().all(|byte| *byte == 7));
            n
        }),
        Box::pin(async move {
            let file = fs::OpenOptions::new().write(true).open(&sync).await?;
            file.write_all_at(&[7; 100], 50).await?;
            file.sync_all().await?;
            Ok(1)
        }),
        Box::pin(async move {
            let mut entries = fs::read_dir("/proc/self").await?;
            let mut n = 0;
            while entries.next_entry().await?.is_some() {
                n += 1;
            }
            Ok(n)
        }),
        Box::pin(async move {
            let to = copy.with_extension("copy");
            let n = fs::copy(&copy, &to).await?;
            fs::remove_file(&to).await?;
            Ok(n as usize)
        }),
    ]
}

fn drivers() -> Vec<(DriverKind, Option<u32>)> {
    let all = [(DriverKind::Epoll, None), (DriverKind::IoUring, None), (DriverKind::IoUring, Some(4))];
    all.into_iter().filter(|(kind, _)| builder((*kind, None)).try_run(async {}).is_ok()).collect()
}

fn builder((kind, entries): (DriverKind, Option<u32>)) -> Builder {
    let builder = Builder::new().driver(kind);
    match entries {
        Some(entries) => builder.ring_entries(entries),
        None => builder,
    }
}

/// Polls it so many times; whether it goes on.
async fn polls(begun: &mut Begun, n: usize) -> bool {
    let mut left = n;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(true);
        }
        left -= 1;
        match begun.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(ended) => {
                ended.unwrap();
                Poll::Ready(false)
            }
        }
    })
    .await
}

#[test]
fn an_operation_goes_on_in_another_run_on_another_thread() {
    let file = Temporary::new("goes-on");
    for from in drivers() {
        for to in drivers() {
            for (which, _) in operations(&file.0).iter().enumerate() {
                for n in 1..6 {
                    for stays in [true, false] {
                        for cancels in [false, true] {
                            goes_on(&file.0, from, to, which, n, stays, cancels);
                        }
                    }
                }
            }
        }
    }
}

fn goes_on(
    path: &Path,
    from: (DriverKind, Option<u32>),
    to: (DriverKind, Option<u32>),
    which: usize,
    n: usize,
    stays: bool,
    cancels: bool,
) {
    let mut begun = operations(path).swap_remove(which);
    let (give, given) = mpsc::channel::<Begun>();
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|s| {
        s.spawn(move || {
            let Ok(begun) = given.recv() else { return };
            let result = builder(to).run(async {
                let scope = CancelScope::new();
                if cancels {
                    scope.cancel();
                }
                scope.run(async { Ok::<_, io::Error>(begun.await) }).await
            });
            let _ = done.send(());
            match result {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) if cancels && error.is_cancelled() => {}
                Ok(Some(Err(error))) if !stays && error.to_string().contains("is over") => {}
                other => panic!("{from:?} {to:?} {which} {n} {stays} {cancels}: {other:?}"),
            }
        });
        builder(from).run(async {
            let pending = polls(&mut begun, n).await;
            if pending {
                give.send(begun).unwrap();
                while stays && ended.try_recv().is_err() {
                    sleep(ms(1)).await.unwrap();
                }
            }
            drop(give);
        });
    });
}
