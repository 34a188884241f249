//! The end of a ring.

use super::super::setup::LADDER;
use super::*;
use rustix::net::{RecvFlags, recv};
use std::net::TcpListener;
use std::ptr::NonNull;

#[test]
fn teardown_cancels_all_without_an_entry_and_drains() {
    for allowed in LADDER {
        let Some(mut ring) = ring(Setup { allowed, ..Setup::new(4) }) else { return };
        let (a, b) = pair();
        let (r, _w) = std::io::pipe().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut into = [0_u8; 16];
        // SAFETY: each completion is awaited below.
        unsafe {
            ring.push(Sqe::recv(a.as_fd(), into.as_mut_ptr(), 8, 1)).unwrap();
            ring.push(Sqe::read(r.as_fd(), into.as_mut_ptr().add(8), 8, 0, 2)).unwrap();
        }
        ring.push(Sqe::poll_add_multishot(b.as_fd(), POLLIN, 3)).unwrap();
        ring.push(Sqe::accept_multishot(listener.as_fd(), 4)).unwrap();
        assert_eq!(ring.enter(0, None).unwrap(), Entered::All);
        match ring.cancel_all() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                println!("{error}");
                ring.push(Sqe::cancel_any(9)).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        let ended = collect(&mut ring, 4);
        assert!(ended.iter().all(|cqe| !cqe.more()), "{ended:?}");
        // A pipe's read is done by a kernel thread on some kernels, which is interrupted.
        let is_end = |error| matches!(error, Err(Errno::CANCELED | Errno::INTR));
        assert!(ended.iter().all(|cqe| is_end(cqe.result())), "{ended:?}");
        ring.cancel_all().expect("nothing left is not an error");
        assert_eq!(ring.enter(1, MOMENT).unwrap(), Entered::All);
        assert_eq!(ring.pop(), None);
    }
}

#[test]
fn a_leaked_ring_is_closed_and_stays_mapped() {
    let Some(ring) = ring(Setup::new(4)) else { return };
    let fd = Rc::downgrade(&ring.fd);
    let word: NonNull<AtomicU32> = ring.rings.at(0);
    ring.leak();
    assert_eq!(fd.strong_count(), 0);
    // SAFETY: never unmapped, which is what is tested.
    unsafe { word.as_ref() }.load(std::sync::atomic::Ordering::Relaxed);
}

#[test]
fn a_dropped_ring_is_really_closed() {
    let Some(mut ring) = ring(Setup::new(4)) else { return };
    // A poll in flight holds the socket's file: only closing the *ring* lets the peer see the end.
    let (a, b) = pair();
    ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 1)).unwrap();
    let _ = ring.enter(0, None).unwrap();
    drop(a);
    assert_eq!(recv(&b, &mut [0_u8; 1][..], RecvFlags::empty()).map(|got| got.0), Err(Errno::AGAIN));
    drop(ring);
    let start = Instant::now();
    while recv(&b, &mut [0_u8; 1][..], RecvFlags::empty()).map(|got| got.0) != Ok(0) {
        assert!(start.elapsed() < Duration::from_secs(5), "the ring lives on");
        std::thread::sleep(Duration::from_millis(1));
    }
}
