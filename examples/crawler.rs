//! A crawler: workers that take pages from a queue, read them from a server of its own, and put the links they find back.
//!
//! The same program in Python is `crawler.py`; both print the same. The book goes through them side by side, in
//! `book/src/from_asyncio.md`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use trefoil::asyncio::{self, Queue, StreamReader, StreamWriter};

/// The site: each page has links to others. `/slow` takes too long, `/gone` is not there.
const SITE: [(&str, &[&str]); 5] = [
    ("/", &["/a", "/b", "/slow"]),
    ("/a", &["/b", "/c"]),
    ("/b", &["/", "/gone"]),
    ("/c", &["/a"]),
    ("/slow", &["/c"]),
];
const WORKERS: usize = 3;
const TIMEOUT: Duration = Duration::from_millis(500);

async fn serve(mut reader: StreamReader, writer: StreamWriter) -> io::Result<()> {
    let line = String::from_utf8_lossy(&reader.readline().await?).into_owned();
    let path = line.trim();
    if path == "/slow" {
        asyncio::sleep(Duration::from_secs(3600)).await?;
    }
    let page = SITE.iter().find(|(of, _)| *of == path);
    let answer = page.map_or("404".into(), |(_, links)| format!("200 {}", links.join(" ")));
    writer.write(format!("{answer}\n").as_bytes())?;
    writer.drain().await
    // The writer is dropped, and the connection closed.
}

async fn fetch(address: SocketAddr, path: String) -> io::Result<(String, Vec<String>)> {
    let (mut reader, writer) = asyncio::open_connection(address).await?;
    writer.write(format!("{path}\n").as_bytes())?;
    let answer = String::from_utf8_lossy(&reader.readline().await?).into_owned();
    let mut words = answer.split_whitespace().map(String::from);
    Ok((words.next().unwrap_or_default(), words.collect()))
}

/// What the workers share.
struct Crawl {
    address: SocketAddr,
    queue: Queue<String>,
    seen: RefCell<BTreeSet<String>>,
    results: RefCell<BTreeMap<String, String>>,
}

async fn worker(crawl: Rc<Crawl>) -> io::Result<()> {
    loop {
        let path = crawl.queue.get().await?;
        let (status, links) = match asyncio::wait_for(fetch(crawl.address, path.clone()), TIMEOUT).await {
            Ok(page) => page,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => ("timed out".into(), Vec::new()),
            Err(error) => return Err(error),
        };
        crawl.results.borrow_mut().insert(path, status);
        for link in links {
            if crawl.seen.borrow_mut().insert(link.clone()) {
                crawl.queue.put_nowait(link)?;
            }
        }
        crawl.queue.task_done()?;
    }
}

async fn crawl(address: SocketAddr, start: &str) -> io::Result<BTreeMap<String, String>> {
    let crawl = Rc::new(Crawl {
        address,
        queue: Queue::new(0),
        seen: RefCell::new([start.to_string()].into()),
        results: RefCell::default(),
    });
    crawl.queue.put_nowait(start.to_string())?;
    let workers: Vec<_> = (0..WORKERS).map(|_| asyncio::create_task(worker(crawl.clone()))).collect();
    crawl.queue.join().await?;
    for task in &workers {
        task.cancel();
    }
    // Each one's result is a value: all were cancelled.
    asyncio::gather_settled(workers).await?;
    Ok(crawl.results.take())
}

fn main() -> io::Result<()> {
    asyncio::run(async {
        let server = asyncio::start_server(serve, "127.0.0.1:0").await?;
        let results = crawl(server.local_addr()?, "/").await?;
        server.close();
        for (path, status) in &results {
            println!("{path}: {status}");
        }
        Ok(())
    })
}
