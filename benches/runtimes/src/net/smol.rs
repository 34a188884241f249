//! The smol stack, on one thread: async-executor's `LocalExecutor`, and async-io.

use async_executor::LocalExecutor;
use async_io::Async;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::future::Future;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};

pub fn serve(listener: TcpListener, size: usize) -> io::Result<()> {
    run(listener, |stream| echo(stream, size))
}

pub fn without_buffers(listener: TcpListener, _: usize) -> io::Result<()> {
    run(listener, echo_without_buffer)
}

fn run<F: Future<Output = io::Result<()>>>(
    listener: TcpListener,
    echo: impl Fn(Async<TcpStream>) -> F,
) -> io::Result<()> {
    let executor = LocalExecutor::new();
    async_io::block_on(executor.run(async {
        let listener = Async::new(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            executor.spawn(echo(stream)).detach();
        }
    }))
}

async fn echo(mut stream: Async<TcpStream>, size: usize) -> io::Result<()> {
    let mut buffer = super::buffer(size);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

async fn echo_without_buffer(mut stream: Async<TcpStream>) -> io::Result<()> {
    loop {
        stream.readable().await?;
        match read_now(stream.get_ref()) {
            Ok(message) if message.is_empty() => return Ok(()),
            Ok(message) => stream.write_all(&message).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_now(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    let read = stream.read(&mut buffer)?;
    Ok(buffer[..read].to_vec())
}
