//! monoio on io_uring, or epoll where there is none.

use monoio::buf::IoBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{FusionDriver, RuntimeBuilder};
use std::future::Future;
use std::io;

pub fn serve(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    run(listener, move |stream| echo(stream, size))
}

pub fn without_buffers(listener: std::net::TcpListener, _: usize) -> io::Result<()> {
    run(listener, echo_without_buffer)
}

fn run<F>(listener: std::net::TcpListener, echo: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let mut runtime = RuntimeBuilder::<FusionDriver>::new().build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(echo(stream));
        }
    })
}

async fn echo_without_buffer(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.readable(false).await?;
        let (read, message) = stream.read(vec![0; 4096]).await;
        let length = match read? {
            0 => return Ok(()),
            length => length,
        };
        stream.write_all(message.slice(..length)).await.0?;
    }
}

async fn echo(mut stream: TcpStream, size: usize) -> io::Result<()> {
    let mut buffer = super::buffer(size);
    loop {
        let (read, back) = stream.read(buffer).await;
        let length = match read? {
            0 => return Ok(()),
            length => length,
        };
        let (written, back) = stream.write_all(back.slice(..length)).await;
        written?;
        buffer = back.into_inner();
    }
}
