//! tokio, on the thread that began, and on a worker of its own.

use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

pub fn current_thread(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(serve(listener, size))
}

/// One worker: there is one core.
pub fn multi_thread(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async move { tokio::spawn(serve(listener, size)).await? })
}

async fn serve(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream, size));
    }
}

async fn echo(mut stream: TcpStream, size: usize) -> io::Result<()> {
    let mut buffer = super::buffer(size);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}
