//! The models. One program: each on its own compiles loom and the library's generic parts anew, and the last long model of each leaves a core idle.

#![cfg(trefoil_loom)]

mod biased;
mod cancel_registration;
mod channel;
mod child_cell;
mod errand;
mod finishing;
mod holdings;
mod inbox;
mod join;
mod locks;
mod nursery_queue;
mod onlook;
mod park;
mod parker;
mod references;
mod requests;
mod ring;
mod run_soon;
mod signals;
mod soft_cancel;
mod source;
mod start;
mod wait_queue;
mod watchdog;

/// A file that is not named above would not be run.
#[test]
fn every_file_is_a_module() {
    let (mut files, here) = (0, include_str!("main.rs"));
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap();
        if name != "main" {
            assert!(here.contains(&format!("\nmod {name};\n")), "{name} is not a module of main.rs");
            files += 1;
        }
    }
    assert!(files > 20, "where are they?");
}
