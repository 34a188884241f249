//! The maps of tests beside these, against the tests. One binary: to link each file takes longer than to compile it.

mod asyncio_cases;
mod cases;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What is in a file of tests that a map names: from the root, or one of `tests/tests/`, in whatever folder it is.
fn text_of(name: &str) -> String {
    let path = if name.contains('/') { root().join(name) } else { find(name) };
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn find(name: &str) -> PathBuf {
    let tests = root().join("tests/tests");
    let folders = fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().path());
    let mut found = folders.chain([tests.clone()]).map(|folder| folder.join(name)).filter(|path| path.is_file());
    let path = found.next().unwrap_or_else(|| panic!("there is no {name} in {}", tests.display()));
    assert!(found.next().is_none(), "there are two {name}");
    path
}
