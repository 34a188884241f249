//! compio, with the default options of its ring, and with those that its documentation recommends for speed.

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::Runtime;
use std::io;

pub fn by_default(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    Runtime::new()?.block_on(serve(listener, size))
}

pub fn tuned(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    let mut proactor = ProactorBuilder::new();
    proactor.single_issuer(true).defer_taskrun(true).capacity(4096);
    Runtime::builder().with_proactor(proactor).build()?.block_on(serve(listener, size))
}

async fn serve(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        compio::runtime::spawn(echo(stream, size)).detach();
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
