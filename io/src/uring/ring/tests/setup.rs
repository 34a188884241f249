//! What a kernel gives when a ring is made.

use super::*;

#[test]
fn the_best_this_kernel_has_is_obtained() {
    let Some(ring) = ring(Setup::new(8)) else { return };
    println!("{:?}, {:?}, place {:?}", ring.flags(), ring.features(), ring.registered);
    for opcode in [op::NOP, op::RECV, op::ACCEPT, op::ASYNC_CANCEL] {
        assert!(ring.supports(opcode));
    }
    assert!(!ring.supports(255));
    assert!(ring.multishot_accept() || !ring.multishot_recv(), "6.0 has what 5.19 has");
    let flags = rustix::io::fcntl_getfd(&*ring.fd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn more_rings_than_places_in_the_thread_s_table_work_all_the_same() {
    let Some(first) = ring(Setup::new(4)) else { return };
    let mut rings: Vec<_> = std::iter::once(first).chain((0..20).filter_map(|_| ring(Setup::new(4)))).collect();
    for ring in &mut rings {
        ring.push(Sqe::nop(1)).unwrap();
        collect(ring, 1);
    }
    assert!(rings[0].registered.is_some() != rings[20].registered.is_some() || rings[0].registered.is_none());
    drop(rings);
    // The places came back.
    assert_eq!(ring(Setup::new(4)).unwrap().registered.is_some(), ring(Setup::new(4)).unwrap().registered.is_some());
}
#[test]
fn an_error_says_what_and_what_to_do() {
    let error = failed("setting up".into(), advice(Errno::PERM), Errno::PERM);
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let text = error.to_string();
    assert!(
        text.contains("setting up") && text.contains("TREFOIL_DRIVER=epoll") && text.contains("io_uring_disabled"),
        "{text}"
    );
    // The ring of another thread: made there, moved here by force, since the type forbids it.
    struct Force(Ring);
    // SAFETY: wrong by intent; the kernel refuses every use, and the closing below is allowed from any thread.
    unsafe impl Send for Force {}
    let Some(ring) = ring(Setup::new(4)) else { return };
    if ring.flags().contains(IoringSetupFlags::SINGLE_ISSUER) {
        let forced = Force(ring);
        let error = std::thread::spawn(move || {
            let mut forced = forced;
            let _whole = &mut forced;
            _whole.0.registered = None; // a place of the other thread's table
            _whole.0.enter(0, None).unwrap_err()
        });
        let error = error.join().unwrap();
        assert!(error.to_string().contains("thread"), "{error}");
    }
}
