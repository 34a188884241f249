//! glommio. Its rings need locked memory: see `ulimit -l`.

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};

pub fn serve(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    run(LocalExecutorBuilder::new(Placement::Unbound), listener, size)
}

pub fn spinning(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    // Who has no core of its own does not spin, whatever is asked for. This process has one.
    let placement = Placement::Fixed(crate::measure::last_core());
    run(LocalExecutorBuilder::new(placement).spin_before_park(super::SPIN), listener, size)
}

fn run(builder: LocalExecutorBuilder, listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    let executor = builder.make().map_err(|error| io::Error::other(error.to_string()))?;
    executor.run(async {
        // SAFETY: the descriptor is that of a listener, and nobody else's from here on.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        loop {
            let stream = listener.accept().await?;
            glommio::spawn_local(echo(stream, size)).detach();
        }
    })
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
