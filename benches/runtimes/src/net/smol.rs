//! The smol stack, on one thread: async-executor's `LocalExecutor`, and async-io.

use async_executor::LocalExecutor;
use async_io::Async;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::io;
use std::net::{TcpListener, TcpStream};

pub fn serve(listener: TcpListener, size: usize) -> io::Result<()> {
    let executor = LocalExecutor::new();
    async_io::block_on(executor.run(async {
        let listener = Async::new(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            executor.spawn(echo(stream, size)).detach();
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
