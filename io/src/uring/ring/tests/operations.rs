//! Operations, and their cancels.

use super::*;
use crate::uring::sys::CURRENT_POSITION;
use rustix::net::{RecvFlags, recv};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;

#[test]
fn bytes_go_through_send_recv_write_and_read() {
    let Some(mut ring) = ring(Setup::new(4)) else { return };
    let (a, b) = pair();
    let mut into = [0_u8; 16];
    // SAFETY: each completion is awaited below, before the memory is looked at.
    unsafe {
        ring.push(Sqe::recv(a.as_fd(), into.as_mut_ptr(), 16, 1).poll_first()).unwrap();
        ring.push(Sqe::send(b.as_fd(), b"over".as_ptr(), 4, 2)).unwrap();
    }
    assert_eq!(keys_and_results(collect(&mut ring, 2)), [(1, Ok(4)), (2, Ok(4))]);
    assert_eq!(&into[..4], b"over");
    // SAFETY: likewise.
    unsafe {
        ring.push(Sqe::write(b.as_fd(), b"again".as_ptr(), 5, CURRENT_POSITION, 3)).unwrap();
        collect(&mut ring, 1);
        ring.push(Sqe::read(a.as_fd(), into.as_mut_ptr(), 16, CURRENT_POSITION, 4)).unwrap();
    }
    assert_eq!(keys_and_results(collect(&mut ring, 1)), [(4, Ok(5))]);
    assert_eq!(&into[..5], b"again");
    // SAFETY: given up here; and the memory of the send as above.
    unsafe {
        ring.push(Sqe::close(std::os::fd::IntoRawFd::into_raw_fd(a), 5)).unwrap();
        assert_eq!(keys_and_results(collect(&mut ring, 1)), [(5, Ok(0))]);
        ring.push(Sqe::send(b.as_fd(), b"x".as_ptr(), 1, 6)).unwrap();
    }
    assert_eq!(keys_and_results(collect(&mut ring, 1)), [(6, Err(Errno::PIPE))]);
}

#[test]
fn polls_complete_once_or_at_every_event_and_can_be_removed() {
    let Some(mut ring) = ring(Setup::new(4)) else { return };
    let (a, b) = pair();
    ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 1)).unwrap();
    ring.push(Sqe::poll_add_multishot(a.as_fd(), POLLIN, 2)).unwrap();
    assert_eq!(ring.enter(1, MOMENT).unwrap(), Entered::All);
    assert_eq!(ring.pop(), None);
    say(&b, b"x");
    let mut both = collect(&mut ring, 2);
    both.sort_by_key(Cqe::key);
    assert_eq!(both[0], Cqe::new(1, POLLIN as i32, 0));
    assert!(both[1].key() == 2 && both[1].more());
    say(&b, b"y");
    let again = collect(&mut ring, 1)[0];
    assert!(again.key() == 2 && again.more());
    ring.push(Sqe::poll_remove(2, 3)).unwrap();
    ring.push(Sqe::poll_remove(77, 4)).unwrap();
    assert_eq!(
        keys_and_results(collect(&mut ring, 3)),
        [(2, Err(Errno::CANCELED)), (3, Ok(0)), (4, Err(Errno::NOENT))]
    );
}

#[test]
fn a_cancelled_receive_completes_as_such_and_its_cancel_not_at_all() {
    let Some(mut ring) = ring(Setup::new(8)) else { return };
    let (a, b) = pair();
    let mut into = [0_u8; 3 * 8];
    for part in 0..3 {
        // SAFETY: each completion is awaited below.
        let entry = unsafe { Sqe::recv(a.as_fd(), into.as_mut_ptr().add(8 * part), 8, 1 + part as u64) };
        ring.push(entry).unwrap();
    }
    let _ = ring.enter(0, None).unwrap();
    let quietly = |cancel: Sqe| if ring.skips_success() { Some(cancel.skip_success()) } else { None };
    let Some(cancel) = quietly(Sqe::cancel(2, 10)) else { return println!("skipped: no CQE_SKIP_SUCCESS") };
    ring.push(cancel).unwrap();
    ring.push(Sqe::cancel(99, 11).skip_success()).unwrap();
    assert_eq!(keys_and_results(collect(&mut ring, 2)), [(2, Err(Errno::CANCELED)), (11, Err(Errno::NOENT))]);
    // By descriptor: the rest, and the count.
    ring.push(Sqe::cancel_fd(a.as_fd(), 12)).unwrap();
    let rest = keys_and_results(collect(&mut ring, 3));
    assert_eq!(rest, [(1, Err(Errno::CANCELED)), (3, Err(Errno::CANCELED)), (12, Ok(2))]);
    // No byte was taken by any of them.
    say(&b, b"kept");
    assert_eq!(recv(&a, &mut into[..], RecvFlags::empty()).unwrap().0, 4);
}

#[test]
fn everything_in_flight_can_be_cancelled_by_an_entry() {
    let Some(mut ring) = ring(Setup::new(8)) else { return };
    let (a, b) = pair();
    ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 1)).unwrap();
    ring.push(Sqe::poll_add_multishot(b.as_fd(), POLLIN, 2)).unwrap();
    ring.push(Sqe::cancel_any(3)).unwrap();
    assert_eq!(
        keys_and_results(collect(&mut ring, 3)),
        [(1, Err(Errno::CANCELED)), (2, Err(Errno::CANCELED)), (3, Ok(2))]
    );
    ring.push(Sqe::poll_add(a.as_fd(), POLLIN, 7)).unwrap();
    ring.push(Sqe::poll_add(b.as_fd(), POLLIN, 7)).unwrap();
    ring.push(Sqe::cancel_all_of(7, 8)).unwrap();
    assert_eq!(keys_and_results(collect(&mut ring, 3))[2], (8, Ok(2)));
}

#[test]
fn multishot_accept_gives_close_on_exec_sockets_until_cancelled() {
    let Some(mut ring) = ring(Setup::new(4)) else { return };
    if !ring.multishot_accept() {
        return println!("skipped: no multishot accept");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ring.push(Sqe::accept_multishot(listener.as_fd(), 1)).unwrap();
    let _ = ring.enter(0, None).unwrap();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    }
    for cqe in collect(&mut ring, 5) {
        assert!(cqe.key() == 1 && cqe.more());
        // SAFETY: the completion's descriptor is ours.
        let socket = unsafe { OwnedFd::from_raw_fd(cqe.result().unwrap() as RawFd) };
        assert!(rustix::io::fcntl_getfd(&socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(recv(&socket, &mut [0_u8; 1][..], RecvFlags::empty()).map(|got| got.0), Err(Errno::AGAIN));
    }
    ring.push(Sqe::cancel(1, 2)).unwrap();
    assert_eq!(keys_and_results(collect(&mut ring, 2)), [(1, Err(Errno::CANCELED)), (2, Ok(0))]);
}

#[test]
fn connect_and_one_accept_meet() {
    let Some(mut ring) = ring(Setup::new(4)) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
    let client = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let encoded = rustix::net::SocketAddrAny::from(address);
    ring.push(Sqe::accept(listener.as_fd(), 1)).unwrap();
    // SAFETY: the completion is awaited below, while `encoded` lives.
    let entry = unsafe { Sqe::connect(client.as_fd(), encoded.as_ptr().cast(), encoded.addr_len(), 2) };
    ring.push(entry).unwrap();
    let done = keys_and_results(collect(&mut ring, 2));
    assert_eq!(done[1], (2, Ok(0)));
    // SAFETY: the completion's descriptor is ours.
    drop(unsafe { OwnedFd::from_raw_fd(done[0].1.unwrap() as RawFd) });
}
