//! compio, with the default options of its ring, and with those that its documentation recommends for speed.

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncReadManaged, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::Runtime;
use std::future::Future;
use std::io;

pub fn by_default(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    Runtime::new()?.block_on(serve(listener, |stream| echo(stream, size)))
}

/// The ring of buffers that a runtime has.
pub fn without_buffers(listener: std::net::TcpListener, _: usize) -> io::Result<()> {
    Runtime::new()?.block_on(serve(listener, echo_without_buffer))
}

pub fn tuned(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    let mut proactor = ProactorBuilder::new();
    proactor.single_issuer(true).defer_taskrun(true).capacity(4096);
    Runtime::builder().with_proactor(proactor).build()?.block_on(serve(listener, |stream| echo(stream, size)))
}

async fn serve<F>(listener: std::net::TcpListener, echo: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        compio::runtime::spawn(echo(stream)).detach();
    }
}

async fn echo(mut stream: TcpStream, size: usize) -> io::Result<()> {
    let mut buffer = super::buffer(size);
    loop {
        buffer.clear();
        let BufResult(read, back) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        let BufResult(written, back) = stream.write_all(back).await;
        written?;
        buffer = back;
    }
}

async fn echo_without_buffer(mut stream: TcpStream) -> io::Result<()> {
    while let Some(message) = stream.read_managed(0).await? {
        let BufResult(written, _) = stream.write_all(message.to_vec()).await;
        written?;
    }
    Ok(())
}
