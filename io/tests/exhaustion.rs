//! Out of descriptors: an error that an accept loop survives, and then service resumes (R113). Alone in its process, whose limit it lowers.

mod common;

use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::OwnedFd;
use std::time::Duration;
use trefoil_io::OperationError;
use trefoil_io::net::TcpStream;
use trefoil_nursery::{nursery, sleep};

/// Takes every descriptor that there is.
fn exhaust() -> Vec<OwnedFd> {
    let mut taken = Vec::new();
    while let Ok(fd) = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
        taken.push(fd);
    }
    taken
}

#[test]
fn accept_survives_running_out_of_descriptors_and_service_resumes() {
    for_each_driver(|builder| {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..before }).unwrap();
        let (listener, addr) = listen();
        let (failures, served) = builder.run(async {
            // A client without a descriptor of this process: one that was made before they are gone.
            let client = std::net::TcpStream::connect(addr).unwrap();
            let taken = exhaust();
            nursery(async |n| -> std::io::Result<(u32, u16)> {
                let server = n.spawn(async {
                    let mut failures = 0;
                    loop {
                        match listener.accept().await {
                            Ok((stream, peer)) => {
                                drop(stream);
                                return Ok((failures, peer.port()));
                            }
                            Err(error) => {
                                let raw = OperationError::of(&error).and_then(OperationError::raw_os_error);
                                assert_eq!(raw, Some(24), "{error}"); // EMFILE
                                assert!(error.to_string().starts_with(&format!("accept on {addr}: ")), "{error}");
                                failures += 1;
                                sleep(Duration::from_millis(5)).await?;
                            }
                        }
                    }
                });
                sleep(Duration::from_millis(30)).await?;
                let error = TcpStream::connect(addr).await.unwrap_err();
                assert_eq!(OperationError::of(&error).unwrap().raw_os_error(), Some(24));
                drop(taken);
                let (failures, port) = server.await?;
                assert_eq!(port, client.local_addr()?.port());
                Ok((failures, port))
            })
            .await
            .unwrap()
        });
        assert!(failures > 1 && served > 0);
        setrlimit(Resource::Nofile, before).unwrap();
    });
}

#[test]
fn a_run_without_descriptors_is_an_error_that_says_so() {
    for_each_driver(|builder| {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..before }).unwrap();
        let taken = exhaust();
        let result = builder.clone().try_run(async {});
        drop(taken);
        setrlimit(Resource::Nofile, before).unwrap();
        let error = result.unwrap_err();
        println!("{error}");
        assert!(error.to_string().contains("cannot be had"), "{error}");
        builder.run(async {});
    });
}
