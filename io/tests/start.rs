//! Starting a run: which driver, and what is said about it.

mod common;
#[path = "common/log.rs"]
mod log;

use common::*;
use log::said;
use std::process::Command;
use trefoil_io::{Builder, DriverKind, RunError};

#[test]
fn a_run_inside_of_a_run_is_an_error() {
    for_each_driver(|builder| {
        let inner = builder.clone();
        builder.run(async {
            assert!(matches!(inner.clone().try_run(async {}), Err(RunError::Nested)));
            let panic = std::panic::catch_unwind(|| inner.run(async {})).unwrap_err();
            assert!(panic.downcast_ref::<String>().unwrap().contains("inside of a run"));
        });
    });
}

#[test]
fn a_run_asks_for_neither_send_nor_static() {
    for_each_driver(|builder| {
        let local = std::rc::Rc::new(String::from("local"));
        let borrowed = &local;
        let back = builder.run(async move {
            settle().await;
            borrowed.clone()
        });
        assert!(std::rc::Rc::ptr_eq(&back, &local));
    });
}

#[test]
fn a_panic_comes_out_and_leaves_nothing_behind() {
    for_each_driver(|builder| {
        let again = builder.clone();
        let panic = std::panic::catch_unwind(move || {
            builder.run(async {
                let (_stream, _other) = pair_with_std().await;
                settle().await;
                panic!("out of here");
            })
        });
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"out of here"));
        again.run(settle());
    });
}

/// Runs one test of this file in a process of its own, with a driver forced by the environment.
fn in_child(test: &str, driver: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("TREFOIL_DRIVER", driver)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_environment_chooses() {
    let _one = alone();
    let said = in_child("child_says_what_it_runs_on", "epoll");
    assert!(said.contains("said: the driver is epoll, as TREFOIL_DRIVER says"), "{said}");
    let said = in_child("child_says_what_it_runs_on", "kqueue");
    assert!(said.contains("failed: TREFOIL_DRIVER: \"kqueue\" is no driver: `io_uring` and `epoll` are"), "{said}");
    let said = in_child("child_says_what_it_runs_on", "");
    assert!(said.contains("said: the driver is "), "{said}");
    let said = in_child("child_says_what_it_runs_on", "io_uring");
    match Builder::new().driver(DriverKind::IoUring).try_run(async {}) {
        Ok(()) => assert!(said.contains("said: the driver is io_uring"), "{said}"),
        Err(_) => {
            assert!(said.contains("failed: the io_uring driver, wanted by TREFOIL_DRIVER, cannot be had: "), "{said}")
        }
    }
}

#[test]
#[ignore = "run by `the_environment_chooses`"]
fn child_says_what_it_runs_on() {
    let _one = alone();
    let (result, lines) = said(|| Builder::new().try_run(async {}));
    for line in lines {
        println!("said: {line}");
    }
    if let Err(error) = result {
        println!("failed: {error}");
    }
}

#[test]
fn what_is_chosen_is_said_in_one_line() {
    let _one = alone();
    if std::env::var_os("TREFOIL_DRIVER").is_some() {
        return; // nothing is chosen then
    }
    let ((), lines) = said(|| trefoil_io::run(async {}));
    assert_eq!(lines.len(), 1, "{lines:?}");
    let available = Builder::new().driver(DriverKind::IoUring).try_run(async {}).is_ok();
    let expected =
        if available { "the driver is io_uring" } else { "the driver is epoll, since io_uring cannot be had: " };
    assert!(lines[0].starts_with(expected), "{lines:?}");
}
