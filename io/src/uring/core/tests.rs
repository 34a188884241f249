use super::*;
use crate::inbound::Next;
use crate::source::Direction;
use crate::source::{Source, Want};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, socketpair};
use std::os::fd::OwnedFd;

fn core() -> Option<Core> {
    Core::new(4).inspect_err(|error| println!("skipped: {error}")).ok()
}

fn attached(core: &mut Core, fd: OwnedFd) -> (Source, Key) {
    let source = Source::new(fd);
    core.attach(source.shared());
    let key = source.shared().lock().registration.as_ref().unwrap().key;
    (source, key)
}

fn socket() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).unwrap()
}

fn under(core: &mut Core, key: Key, part: Part) -> &mut Under {
    core.sources.get_mut(key).unwrap().under(part)
}

fn over(mut core: Core) {
    assert!(core.drain(Duration::from_secs(5)).unwrap());
    core.orphan_all();
}

#[test]
fn a_cancel_that_failed_is_tried_again() {
    let Some(mut core) = core() else { return };
    let (fd, _peer) = socket();
    let (_source, key) = attached(&mut core, fd);
    core.arm(key, Kind::Receive).unwrap();
    core.enter(0, None).unwrap();
    core.dispatch().unwrap();
    let Under::Way(kind) = *under(&mut core, key, Part::Read) else { panic!("it should wait") };
    // As if the kernel had said that it was just being worked on.
    *under(&mut core, key, Part::Read) = Under::Stopping(kind);
    core.cancelled(&Cqe::new(Part::Read.key(key) | CANCEL, Errno::ALREADY.raw_os_error().wrapping_neg(), 0));
    for _ in 0..5 {
        if *under(&mut core, key, Part::Read) == Under::Idle {
            return over(core);
        }
        // Nothing else would end this sleep.
        core.enter(1, Some(Duration::from_secs(1))).unwrap();
        core.dispatch().unwrap();
    }
    panic!("nobody has cancelled it again");
}

#[test]
fn cancels_that_find_nothing_any_more_are_not_repeated() {
    let Some(mut core) = core() else { return };
    core.cancelled(&Cqe::new(BELL | CANCEL, Errno::NOENT.raw_os_error().wrapping_neg(), 0));
    let (fd, _peer) = socket();
    let (_source, key) = attached(&mut core, fd);
    core.cancelled(&Cqe::new(Part::End.key(key) | CANCEL, Errno::NOENT.raw_os_error().wrapping_neg(), 0));
    assert!(core.again.is_empty());
    over(core);
}

#[test]
fn a_cancel_that_came_too_late_is_forgotten_with_what_it_was_for() {
    let Some(mut core) = core() else { return };
    let (fd, _peer) = socket();
    let (_source, key) = attached(&mut core, fd);
    *under(&mut core, key, Part::Read) = Under::Stopping(Kind::Receive);
    core.under_way += 1;
    core.cancelled(&Cqe::new(Part::Read.key(key) | CANCEL, Errno::NOENT.raw_os_error().wrapping_neg(), 0));
    core.enter(0, None).unwrap();
    core.dispatch().unwrap();
    assert!(core.has_news(), "it goes on, as far as is known");
    core.complete(&Cqe::new(Part::Read.key(key), 0, 0)).unwrap();
    core.dispatch().unwrap();
    assert!(!core.has_news(), "a loop that is busy looks at the ring for nothing");
    over(core);
}

#[test]
fn one_by_one_everything_is_cancelled_the_bell_too() {
    for unsent in [false, true] {
        let Some(mut core) = core() else { return };
        // With others there, their cancels make room for it.
        let pairs: Vec<_> = (0..if unsent { 0 } else { 10 }).map(|_| socket()).collect();
        let mut sources = Vec::new();
        let mut peers = Vec::new();
        for (fd, peer) in pairs {
            let (source, key) = attached(&mut core, fd);
            core.arm(key, Kind::Receive).unwrap();
            sources.push(source);
            peers.push(peer);
        }
        core.enter(0, None).unwrap();
        core.closing = true;
        if unsent {
            // The bell has rung, and the poll that is to follow does not fit into the ring.
            let _ = core.out.cancel(BELL).unwrap();
            while core.bell_armed {
                core.enter(1, None).unwrap();
                core.dispatch().unwrap();
            }
            let poll = core.home.edges(core.home.bell().as_fd(), bits(PollFlags::IN), BELL);
            core.out.keep(poll);
            core.bell_armed = true;
        }
        core.cancel_each().unwrap();
        assert_eq!(core.bell_armed, !unsent, "what was never sent will not complete");
        while core.under_way > 0 || core.bell_armed {
            core.enter(1, None).unwrap();
            core.dispatch().unwrap();
        }
        over(core);
    }
}

#[test]
fn what_one_listener_cannot_do_is_done_for_the_others() {
    let Some(mut core) = core() else { return };
    if !core.out.ring.multishot_accept() {
        return println!("skipped: no multishot accept");
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let deaf = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let (deaf, key) = attached(&mut core, deaf);
    let (good, _) = attached(&mut core, std::net::TcpListener::bind("127.0.0.1:0").unwrap().into());
    let accepts = |source: &Source| {
        let order = Home::order(&mut source.shared().lock(), Want::Connection);
        format!("{order:?}").contains("Accept")
    };
    assert!(accepts(&deaf));
    core.arm(key, Kind::Accept).unwrap();
    while core.under_way > 0 {
        core.enter(1, None).unwrap();
        core.dispatch().unwrap();
    }
    assert!(!accepts(&deaf), "it does not listen");
    assert!(accepts(&good));
    over(core);
}

#[test]
fn without_memory_it_is_not_tried_again_at_once() {
    let Some(mut core) = core() else { return };
    let (fd, _peer) = socket();
    let (_source, key) = attached(&mut core, fd);
    for part in [Part::Read, Part::Write] {
        let kind = if part == Part::Read { Kind::Receive } else { Kind::Poll(Direction::Write) };
        *under(&mut core, key, part) = Under::Way(kind);
        core.under_way += 1;
        core.complete(&Cqe::new(part.key(key), Errno::NOMEM.raw_os_error().wrapping_neg(), 0)).unwrap();
        let before = Instant::now();
        core.enter(0, None).unwrap();
        assert!(before.elapsed() >= OUT_OF_MEMORY_PAUSE);
    }
    over(core);
}

#[test]
fn the_end_is_looked_for_beside_a_receive_that_has_brought_something() {
    for said in [&b""[..], b"the last bytes"] {
        let Some(mut core) = core() else { return };
        if core.buffers.is_none() {
            return println!("skipped: no multishot receive");
        }
        let (fd, peer) = socket();
        let (source, key) = attached(&mut core, fd);
        core.arm(key, Kind::Receive).unwrap();
        core.enter(0, None).unwrap();
        core.dispatch().unwrap();
        assert_eq!(*under(&mut core, key, Part::End), Under::Idle, "an end that comes alone ends the receive");
        if !said.is_empty() {
            rustix::io::write(&peer, said).unwrap();
            core.enter(1, None).unwrap();
            core.dispatch().unwrap();
            assert_eq!(*under(&mut core, key, Part::End), Under::Way(Kind::End), "one may have come with the bytes");
        }
        drop(peer);
        for _ in 0..5 {
            if *under(&mut core, key, Part::Read) == Under::Idle {
                break;
            }
            core.enter(1, Some(Duration::from_secs(1))).unwrap();
            core.dispatch().unwrap();
        }
        assert_eq!(*under(&mut core, key, Part::Read), Under::Idle, "the end was missed");
        assert_eq!(source.shared().lock().inbound.len(), said.len());
        over(core);
    }
}

/// The address that is written down may be that of a connection whose completion found no room.
#[test]
fn nobody_is_taken_for_who_connected_behind_them() {
    let Some(mut core) = core() else { return };
    if core.peer.is_none() {
        return println!("skipped: an accept that goes on says nothing of peers");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let clients = [0; 2].map(|_| std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let (listener, key) = attached(&mut core, listener.into());
    // All places for completions but one.
    let mut others = Vec::new();
    while core.out.ring.ready() + 1 < core.out.ring.cq_entries() {
        let (fd, peer) = socket();
        let (source, key) = attached(&mut core, fd);
        core.arm(key, Kind::Poll(Direction::Write)).unwrap();
        core.enter(0, None).unwrap();
        others.push((source, peer));
    }
    core.arm(key, Kind::Accept).unwrap();
    core.enter(0, None).unwrap();
    assert!(core.out.ring.overflows());
    core.dispatch().unwrap();
    core.enter(0, None).unwrap();
    core.dispatch().unwrap();
    for client in clients {
        let Next::Item(Ok((accepted, peer))) = listener.shared().lock().inbound.accept() else { panic!("lost") };
        let accepted = std::net::TcpStream::from(accepted);
        assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
        assert!(peer.is_none_or(|peer| peer == client.local_addr().unwrap()), "{peer:?} is not {client:?}");
    }
    core.stop(key, Part::Read).unwrap();
    over(core);
}
