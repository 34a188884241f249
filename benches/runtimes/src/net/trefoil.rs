//! This library, as its documentation shows it.

use std::io::{self, ErrorKind};
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{Builder, DriverKind, nursery};

pub fn on_io_uring(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    run(DriverKind::IoUring, listener, size)
}

pub fn on_epoll(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    run(DriverKind::Epoll, listener, size)
}

fn run(driver: DriverKind, listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    Builder::new().driver(driver).try_run(serve(listener, size)).map_err(io::Error::other)?
}

async fn serve(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let served = nursery(async |n| -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            drop(n.spawn(echo(stream, size)));
        }
    });
    served.await.map_err(io::Error::other)
}

async fn echo(stream: TcpStream, size: usize) -> io::Result<()> {
    match copy_back(stream, size).await {
        // One that is gone does not concern the others.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(()),
        ended => ended,
    }
}

async fn copy_back(mut stream: TcpStream, size: usize) -> io::Result<()> {
    let mut buffer = super::buffer(size);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}
