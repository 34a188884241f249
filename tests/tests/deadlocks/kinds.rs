//! N10: each kind of wait goes by its own name and by its place in the program, in the report of a run that cannot go on and in the task tree.

use super::quiet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use trefoil::asyncio::{self, Queue, When, create_future, create_task, event_loop, gather};
use trefoil::net::{TcpListener, TcpStream};
use trefoil::sync::{Barrier, CapacityLimiter, Condition, Mutex, RwLock, Semaphore, oneshot, watch};
use trefoil::{
    Cancelled, Event, Started, Yielder, channel, generator, local_nursery, metrics, nursery, race, sleep,
    sleep_forever, tree,
};
use trefoil_tests::{Ended, deadlocks, ms, run_real};

/// A task that waits for ever.
type Waits = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// What it does; and with what words, which stand before the place.
macro_rules! kinds {
    ($($words:literal: $body:block)*) => {
        [$(($words, (|| Box::pin(async { _ = async $body.await })) as Waits)),*]
    };
}

/// The same in the main task of a loop of asyncio.
macro_rules! asyncio_kinds {
    ($($words:literal: $body:block)*) => {
        [$(($words, (|| Box::pin(async { _ = event_loop(async { io::Result::Ok($body) }).await })) as Waits)),*]
    };
}

/// Without the lines in which things were made.
fn blanked(text: &str) -> String {
    let mut pieces = text.split(MADE);
    let first = pieces.next().unwrap_or_default().to_string();
    pieces.fold(first, |all, piece| all + MADE + "_" + piece.trim_start_matches(|c: char| c.is_ascii_digit()))
}

const MADE: &str = "(made at kinds.rs:";

/// Each in a run of its own, on every driver.
fn go_by_their_names(kinds: impl IntoIterator<Item = (&'static str, Waits)>) {
    for (words, waits) in kinds {
        for report in deadlocks(quiet(), async || {
            let ended = local_nursery(async |n| -> Ended {
                n.spawn(async {
                    waits().await;
                    Ok(())
                });
                Ok(())
            });
            ended.await.is_err()
        }) {
            let (text, tree) = (report.to_string(), report.tree().to_string());
            let says = |text: &str| blanked(text).contains(&format!(" {words} at kinds.rs:"));
            // A nursery is a branch of the tree.
            assert!(says(text.strip_suffix(&tree).unwrap_or(&text)), "{words}: {text}");
            assert!(says(&tree) || words.contains("of a nursery") || words.ends_with("to end"), "{words}: {text}");
            // No place is in this library.
            for (at, _) in text.match_indices(".rs:") {
                let place = text[..at].rsplit([' ', '(']).next();
                assert_eq!(place, Some("kinds"), "{words}: {text}");
            }
        }
    }
}

#[test]
fn n10_each_kind_of_wait_has_its_name() {
    go_by_their_names(kinds! {
        "sleeps for ever": { sleep_forever().await }
        "waits for an event (made at kinds.rs:_)": { Event::new().wait().await }
        "waits for room in a channel": {
            let (sender, _receiver) = channel(0);
            sender.send(1).await
        }
        "waits for an item of a channel": {
            let (_sender, receiver) = channel::<u8>(0);
            receiver.recv().await
        }
        "waits for the value of a oneshot": {
            let (_sender, mut receiver) = oneshot::<u8>();
            receiver.recv().await
        }
        "waits for the next value of a watch": {
            let (_sender, mut receiver) = watch(0);
            receiver.changed().await
        }
        "waits for a lock": {
            let lock = Mutex::new(0);
            let _held = lock.lock().await;
            lock.lock().await.map(drop)
        }
        "waits for a lock": {
            let lock = RwLock::new(0);
            let _held = lock.write().await;
            lock.read().await.map(drop)
        }
        "waits for a lock": {
            let lock = RwLock::new(0);
            let _held = lock.read().await;
            lock.write().await.map(drop)
        }
        "waits for permits": { Semaphore::new(1).acquire(2).await.map(drop) }
        "waits for a token of a limiter": {
            let limiter = CapacityLimiter::new(1);
            let _held = limiter.acquire().await;
            limiter.acquire().await.map(drop)
        }
        "waits for a condition (made at kinds.rs:_)": {
            let (lock, condition) = (Mutex::new(0), Condition::new());
            let guard = lock.lock().await?;
            condition.wait(guard).await.1
        }
        "waits for others at a barrier (made at kinds.rs:_)": { Barrier::new(2).wait().await.map(drop) }
        "waits for a child to be ready": {
            local_nursery(async |n| -> io::Result<()> {
                n.start(async |_: Started<u8>| -> io::Result<()> { Ok(sleep_forever().await?) }).await.map(drop)
            })
            .await
        }
        "to end": { local_nursery(async |n| -> Ended { n.spawn(sleep_forever()).await }).await }
        "waits for the children of a nursery": {
            nursery(async |n| -> Ended {
                n.spawn(sleep_forever());
                Ok(())
            })
            .await
        }
        "waits for the children of a nursery": { race((sleep_forever(), sleep_forever())).await }
        "waits for an item of a generator": {
            let producer = async |_: Yielder<u8>| -> Ended { sleep_forever().await };
            generator(producer, async |mut items| items.next().await.map(drop)).await
        }
    });
}

#[test]
fn n10_each_kind_of_wait_of_asyncio_has_its_name() {
    go_by_their_names(asyncio_kinds! {
        "waits for an event (made at kinds.rs:_)": { asyncio::Event::new().wait().await? }
        "waits for a lock": {
            let lock = asyncio::Lock::new();
            let _held = lock.acquire().await?;
            drop(lock.acquire().await?)
        }
        "waits for permits": { drop(asyncio::Semaphore::new(0).acquire().await?) }
        "waits for a condition (made at kinds.rs:_)": { asyncio::Condition::new().acquire().await?.wait().await.1? }
        "waits for a condition (made at kinds.rs:_)": { asyncio::Condition::new().acquire().await?.wait_for(|| false).await.1? }
        "waits for others at a barrier (made at kinds.rs:_)": { asyncio::Barrier::new(2).wait().await.map_or((), drop) }
        "waits for room in a queue": {
            let queue = Queue::new(1);
            while queue.put(1).await.is_ok() {}
        }
        "waits for an item of a queue": { Queue::<u8>::new(1).get().await.map_or((), drop) }
        "waits for the items of a queue to be done with": {
            let queue = Queue::new(1);
            queue.put_nowait(1).unwrap();
            queue.join().await?
        }
        "waits for a future of asyncio": {
            let (_resolver, future) = create_future::<(), io::Error>();
            future.await?
        }
        "to end": { stuck().await? }
        "waits for several tasks or futures of asyncio": { drop(gather([stuck(), stuck()]).await?) }
        "waits for some of several tasks or futures of asyncio": {
            drop(asyncio::wait([stuck()], When::AllCompleted, None).await?)
        }
        "waits for the next of several tasks or futures of asyncio": {
            drop(asyncio::as_completed([stuck()], None).next().await)
        }
        "to end": { asyncio::wait_for(stuck(), None).await? }
        "waits for what a shield of asyncio protects": { asyncio::shield(stuck()).await? }
        "waits for the tasks of a group": {
            let group = asyncio::task_group(async |group: asyncio::TaskGroup<io::Error>| {
                group.create_task(async { Ok(sleep_forever().await?) })?;
                Ok(())
            });
            drop(group.await)
        }
    });
}

/// A task of asyncio that does not end.
fn stuck() -> asyncio::Task<(), io::Error> {
    create_task(async { Ok(sleep_forever().await?) })
}

/// Its sender is with who sets it, as a rule; who has that is not known, but who made it is.
#[test]
fn n10_who_waits_for_a_watch_is_told_where_its_sender_was_made() {
    let base = line!();
    for report in deadlocks(quiet(), async || {
        let ended = local_nursery(async |n| -> Ended {
            n.spawn_named("watches", async {
                let (_sender, mut receiver) = watch(0); // base + 4
                receiver.changed().await.map(drop)
            });
            Ok(())
        });
        ended.await.is_err()
    }) {
        let (text, watches) = (report.to_string(), format!("task `watches` (kinds.rs:{})", base + 3));
        let line = text.lines().find(|line| line.starts_with(&format!("- {watches}"))).unwrap();
        let sender = format!("whose sender, made by {watches} at kinds.rs:{}, is still there", base + 4);
        assert!(line.ends_with(&sender), "{line}");
        assert!(!text.contains("end of a channel"), "{text}");
        // It is no cycle of one: the sender may be with another task.
        assert!(!text.contains("cycle:") && report.cycles().count() == 0, "{text}");
        assert_eq!(
            report.tasks().iter().flat_map(|task| task.waits()).filter(|wait| wait.holders().len() == 1).count(),
            1
        );
    }
}

/// Whether what is on a thread may end.
static MAY_END: AtomicBool = AtomicBool::new(false);

/// What ends by itself, sooner or later: that is no deadlock, and has its name in the tree.
#[test]
fn each_kind_of_wait_that_something_ends_has_its_name() {
    let kinds = kinds! {
        "sleeps": { sleep(Duration::from_secs(3_600)).await }
        "waits to accept on fd": { TcpListener::bind("127.0.0.1:0").unwrap().accept().await.map(drop) }
        "waits to read from fd": {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).await.unwrap().read(&mut [0]).await
        }
        "waits to write to fd": {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            stream.write_all(&vec![0; 64 << 20]).await
        }
    };
    let of_asyncio = asyncio_kinds! {
        "sleeps": { asyncio::sleep(Duration::from_secs(3_600)).await? }
        "waits for a function on a thread": {
            asyncio::to_thread(|| {
                while !MAY_END.load(Ordering::Relaxed) {
                    std::thread::sleep(ms(1));
                }
                io::Result::Ok(())
            })
            .await?
        }
        "waits to accept on fd": {
            let _server = asyncio::start_server(async |_, _| io::Result::Ok(()), "127.0.0.1:0").await?;
            sleep_forever().await?
        }
        "waits for a condition (made at kinds.rs:": {
            let waits = async |_, _| io::Result::Ok(asyncio::Condition::new().acquire().await?.wait().await.1?);
            let server = asyncio::start_server(waits, "127.0.0.1:0").await?;
            let _client = asyncio::open_connection(server.local_addr()?).await?;
            sleep_forever().await?
        }
        "waits for a server to be closed": {
            asyncio::start_server(async |_, _| io::Result::Ok(()), "127.0.0.1:0").await?.serve_forever().await?
        }
        "waits to read from fd": {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let (mut reader, _writer) = asyncio::open_connection(listener.local_addr()?).await?;
            drop(reader.readline().await?)
        }
        "waits for the peer to take what was written": {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let (_reader, writer) = asyncio::open_connection(listener.local_addr()?).await?;
            writer.write(&vec![0; 32 << 20])?;
            writer.drain().await?
        }
        "waits to write to fd": {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let (_reader, writer) = asyncio::open_connection(listener.local_addr()?).await?;
            writer.write(&vec![0; 32 << 20])?;
            sleep_forever().await?
        }
        "waits for a connection to be closed": {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let (_reader, writer) = asyncio::open_connection(listener.local_addr()?).await?;
            writer.wait_closed().await?
        }
    };
    run_real(async || {
        if metrics().driver == "thread" {
            return;
        }
        for (words, waits) in kinds.iter().chain(&of_asyncio) {
            MAY_END.store(false, Ordering::Relaxed);
            let is_named = |line: &str| line.contains(words) && line.contains(" at kinds.rs:");
            let seen = local_nursery(async |n| -> Result<String, Cancelled> {
                n.spawn(async {
                    waits().await;
                    Ok(())
                });
                let mut seen = String::new();
                for _ in 0..1_000 {
                    seen = tree().to_string();
                    if seen.lines().any(is_named) {
                        break;
                    }
                    sleep(ms(1)).await?;
                }
                MAY_END.store(true, Ordering::Relaxed);
                n.cancel();
                Ok(seen)
            });
            let seen = seen.await.unwrap();
            assert!(seen.lines().any(is_named), "{words}: {seen}");
            for (at, _) in seen.match_indices(".rs:") {
                assert!(seen[..at].ends_with(" kinds") || seen[..at].ends_with("(kinds"), "{words}: {seen}");
            }
        }
    });
}
