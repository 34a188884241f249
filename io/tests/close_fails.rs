//! Files whose close fails. Alone in its process: the threads of the pool that are started here close nothing any more, and live on.

#[path = "common/kernel.rs"]
mod kernel;

use kernel::where_it_fails;
use trefoil_io::fs::File;
use trefoil_io::{Builder, DriverKind, OperationError};

/// What a network file system says when its file is closed.
#[test]
fn close_tells_what_went_wrong() {
    for kind in [DriverKind::Epoll, DriverKind::IoUring] {
        let builder = Builder::new().driver(kind);
        if builder.clone().try_run(async {}).is_err() {
            println!("skipped: no {kind}");
            continue;
        }
        // Nothing is closed any more there: hence not `for_each_driver`, which counts.
        where_it_fails(libc::SYS_close, libc::EIO, move || {
            builder.run(async {
                let error = File::open("/proc/version").await.unwrap().close().await.unwrap_err();
                let says = OperationError::of(&error).unwrap();
                assert_eq!(
                    (says.operation(), says.on(), says.raw_os_error()),
                    ("close", "/proc/version", Some(libc::EIO))
                );
            });
        });
    }
}
