//! This library, as its documentation shows it.

use futures::future::FutureExt;
use std::future::Future;
use std::io::{self, ErrorKind};
use trefoil::net::{TcpListener, TcpStream};
use trefoil::{Builder, DriverKind, nursery};

pub fn on_io_uring(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    run(on(DriverKind::IoUring), listener, |stream| copy_back(stream, size))
}

pub fn on_epoll(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    run(on(DriverKind::Epoll), listener, |stream| copy_back(stream, size))
}

pub fn on_io_uring_spinning(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    run(on(DriverKind::IoUring).spin(super::SPIN), listener, |stream| copy_back(stream, size))
}

pub fn on_epoll_spinning(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    run(on(DriverKind::Epoll).spin(super::SPIN), listener, |stream| copy_back(stream, size))
}

pub fn on_io_uring_without_buffers(listener: std::net::TcpListener, _: usize) -> io::Result<()> {
    run(on(DriverKind::IoUring), listener, copy_back_without_buffer)
}

pub fn on_epoll_without_buffers(listener: std::net::TcpListener, _: usize) -> io::Result<()> {
    run(on(DriverKind::Epoll), listener, copy_back_without_buffer)
}

fn on(driver: DriverKind) -> Builder {
    Builder::new().driver(driver)
}

fn run<F>(builder: Builder, listener: std::net::TcpListener, copy: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send,
{
    builder.try_run(serve(listener, copy)).map_err(io::Error::other)?
}

async fn serve<F>(listener: std::net::TcpListener, copy: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send,
{
    let listener = TcpListener::from_std(listener)?;
    let served = nursery(async |n| -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            drop(n.spawn(copy(stream).map(unless_gone)));
        }
    });
    Ok(served.await?)
}

/// A connection that is gone does not concern the others.
fn unless_gone(ended: io::Result<()>) -> io::Result<()> {
    ended.or_else(|error| match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
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

async fn copy_back_without_buffer(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        match read_now(&mut stream) {
            Ok(message) if message.is_empty() => return Ok(()),
            Ok(message) => stream.write_all(&message).await?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_now(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    let read = stream.try_read(&mut buffer)?;
    Ok(buffer[..read].to_vec())
}
