//! The server of streams, and the end of the loop.

use crate::{narrow, on_each, until};
use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use trefoil::CancelAware;
use trefoil::asyncio::{
    self, Server, StreamReader, StreamWriter, create_task, event_loop, open_connection, sleep, start_server,
};
use trefoil_tests::{Log, ms};

async fn echo_server() -> io::Result<(Server, SocketAddr)> {
    let echo = async |mut reader: StreamReader, writer: StreamWriter| -> io::Result<()> {
        loop {
            let line = reader.readline().await?;
            if line.is_empty() {
                return Ok(());
            }
            writer.write(&line)?;
            writer.drain().await?;
        }
    };
    let server = start_server(echo, "127.0.0.1:0").await?;
    let addr = server.local_addr()?;
    Ok((server, addr))
}

#[test]
fn aio_a_server_has_a_task_for_each_connection() {
    on_each(async || {
        let (server, addr) = echo_server().await?;
        let clients = (0..20).map(|n| async move {
            let (mut reader, writer) = open_connection(addr).await?;
            for i in 0..10 {
                let line = format!("{n} {i}\n");
                writer.write(line.as_bytes())?;
                assert_eq!(reader.readline().await?, line.as_bytes());
            }
            writer.close();
            writer.wait_closed().await
        });
        asyncio::gather(clients).await?;
        server.close();
        assert!(!server.is_serving());
        server.wait_closed().await?;
        assert!(open_connection(addr).await.is_err());
        Ok(())
    });
}

#[test]
fn aio_a_client_of_another_thread_is_served() {
    on_each(async || {
        let (server, addr) = echo_server().await?;
        let answer = asyncio::to_thread(move || {
            let mut socket = std::net::TcpStream::connect(addr)?;
            socket.write_all(b"from afar\n")?;
            let mut answer = [0; 10];
            socket.read_exact(&mut answer)?;
            Ok::<_, io::Error>(answer)
        })
        .await?;
        assert_eq!(&answer, b"from afar\n");
        server.shutdown(crate::SECOND).await
    });
}

#[test]
fn aio_b58_a_server_is_closed_with_idle_busy_and_half_open_clients() {
    on_each(async || {
        let (server, addr) = echo_server().await?;
        let (mut idle, _idle_writer) = open_connection(addr).await?;
        let (mut busy, busy_writer) = open_connection(addr).await?;
        busy_writer.write(b"half a li")?;
        let (mut half_open, half_writer) = open_connection(addr).await?;
        half_writer.write(b"line\n")?;
        half_writer.write_eof();
        // Its handler ends, and the connection with it.
        assert_eq!(half_open.read_to_end().await?, b"line\n");
        server.close();
        let waits = create_task({
            let server = server.clone();
            async move { server.wait_closed().await }
        });
        sleep(ms(2)).await?;
        assert!(!waits.done(), "the others are still there");
        busy_writer.write(b"ne\n")?;
        assert_eq!(busy.readline().await?, b"half a line\n");
        server.close_clients();
        assert_eq!(idle.read(1).await?, b"");
        assert_eq!(busy.read(1).await?, b"");
        waits.await
    });
}

#[test]
fn aio_b58_a_shutdown_has_two_steps() {
    on_each(async || {
        let told = Rc::new(Cell::new(0));
        let cancelled = told.clone();
        let stubborn = async move |mut reader: StreamReader, _writer: StreamWriter| -> io::Result<()> {
            let ended = reader.read(1).await;
            if ended.as_ref().is_err_and(CancelAware::is_cancelled) {
                cancelled.set(cancelled.get() + 1);
            }
            ended.map(drop)
        };
        let server = start_server(stubborn, "127.0.0.1:0").await?;
        let (mut reader, writer) = open_connection(server.local_addr()?).await?;
        let (mut polite, polite_writer) = open_connection(server.local_addr()?).await?;
        sleep(ms(1)).await?;
        let shutdown = create_task({
            let server = server.clone();
            async move { server.shutdown(ms(50)).await }
        });
        polite_writer.write(b"x")?;
        assert_eq!(polite.read(1).await?, b"");
        assert_eq!((told.get(), shutdown.done()), (0, false));
        assert_eq!(reader.read(1).await?, b"");
        shutdown.await?;
        assert_eq!(told.get(), 1);
        drop(writer);
        Ok(())
    });
}

#[test]
fn aio_serve_forever_serves_until_it_is_cancelled() {
    on_each(async || {
        let (server, addr) = echo_server().await?;
        let serves = create_task({
            let server = server.clone();
            async move { server.serve_forever().await }
        });
        let (mut reader, writer) = open_connection(addr).await?;
        writer.write(b"x\n")?;
        assert_eq!(reader.readline().await?, b"x\n");
        assert_eq!(server.serve_forever().await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        writer.close();
        serves.cancel();
        assert!(serves.clone().await.unwrap_err().is_cancelled() && serves.cancelled());
        assert!(!server.is_serving());
        assert!(open_connection(addr).await.is_err());
        assert_eq!(server.serve_forever().await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        Ok(())
    });
}

#[test]
fn aio_r2_the_end_of_main_ends_servers_and_their_handlers() {
    on_each(async || {
        let ended = Rc::new(RefCell::new(Vec::new()));
        let inside = ended.clone();
        let client = event_loop(async move {
            let handler = async move |mut reader: StreamReader, _writer: StreamWriter| -> io::Result<()> {
                let read = reader.read(1).await;
                inside.borrow_mut().push(read.as_ref().is_err_and(CancelAware::is_cancelled));
                read.map(drop)
            };
            let server = start_server(handler, "127.0.0.1:0").await?;
            // It goes with the result: when it is closed, that is no cancel.
            let client = open_connection(server.local_addr()?).await?;
            sleep(ms(2)).await?;
            Ok::<_, io::Error>(client)
        })
        .await?;
        drop(client);
        assert_eq!(*ended.borrow(), [true]);
        Ok(())
    });
}

#[test]
fn aio_the_error_of_a_handler_is_reported_and_closes_its_connection_only() {
    let seen = std::rc::Rc::new(Log::default());
    on_each(async move || {
        seen.lines().clear();
        let handler = async |mut reader: StreamReader, writer: StreamWriter| -> io::Result<()> {
            match &reader.readline().await?[..] {
                b"fail\n" => Err(io::Error::other("four leaves")),
                line => writer.write(line),
            }
        };
        let server = start_server(handler, "127.0.0.1:0").await?;
        let (mut good, good_writer) = open_connection(server.local_addr()?).await?;
        let (mut bad, bad_writer) = open_connection(server.local_addr()?).await?;
        bad_writer.write(b"fail\n")?;
        assert_eq!(bad.read(1).await?, b"");
        until(|| !seen.lines().is_empty()).await?;
        assert!(seen.lines()[0].contains("four leaves"), "{:?}", seen.lines());
        good_writer.write(b"fine\n")?;
        assert_eq!(good.readline().await?, b"fine\n");
        assert!(server.is_serving());
        Ok(())
    });
}

#[test]
fn aio_x4_what_the_end_of_the_loop_leaves_unsent_is_reported() {
    let seen = std::rc::Rc::new(Log::default());
    on_each(async move || {
        seen.lines().clear();
        let (_reader, _peer) = event_loop(async {
            let (reader, writer, peer) = narrow().await?;
            writer.write(&vec![0; 4_000_000])?;
            Ok::<_, io::Error>((reader, peer))
        })
        .await?;
        let lines = seen.lines().clone();
        assert!(lines.iter().any(|line| line.contains("bytes were not sent")), "{lines:?}");
        Ok(())
    });
}
