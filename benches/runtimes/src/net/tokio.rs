//! tokio, on the thread that began, and on a worker of its own.

use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

pub fn current_thread(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(serve(listener, move |stream| echo(stream, size)))
}

pub fn without_buffers(listener: std::net::TcpListener, _: usize) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(serve(listener, echo_without_buffer))
}

/// One worker: there is one core.
pub fn multi_thread(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async move { tokio::spawn(serve(listener, move |stream| echo(stream, size))).await? })
}

async fn serve<F>(listener: std::net::TcpListener, echo: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream));
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

async fn echo_without_buffer(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        match read_now(&stream) {
            Ok(message) if message.is_empty() => return Ok(()),
            Ok(message) => stream.write_all(&message).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_now(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    let read = stream.try_read(&mut buffer)?;
    Ok(buffer[..read].to_vec())
}
