//! The tests of the repository, by name: for chapters that name them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The names of tests, by file, as chapters call it.
pub type Tests = BTreeMap<String, Vec<String>>;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All of them, but those of the book.
pub fn all() -> Tests {
    let root = root();
    let mut tests = Tests::new();
    for entry in fs::read_dir(root).unwrap() {
        let krate = entry.unwrap().path();
        if krate.join("Cargo.toml").exists() && !krate.ends_with("book") {
            collect(root, &krate.join("src"), &mut tests);
            collect(root, &krate.join("tests"), &mut tests);
        }
    }
    for entry in fs::read_dir(root.join("tests/conformance/cases/trio")).unwrap() {
        let case = entry.unwrap().path();
        tests.entry("trio".into()).or_default().push(case.file_stem().unwrap().to_str().unwrap().into());
    }
    tests
}

fn collect(root: &Path, folder: &Path, tests: &mut Tests) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let found = tests_in(&fs::read_to_string(&path).unwrap());
            if !found.is_empty() {
                tests.insert(name_of(path.strip_prefix(root).unwrap().to_str().unwrap()), found);
            }
        }
    }
}

/// What the chapters call a file. Those of `tests/tests/` go by their own name, in whatever folder they are.
pub fn name_of(path: &str) -> String {
    let path = path.trim_end_matches(".rs");
    match path.split_once("/tests/") {
        Some(("tests", file)) => file.rsplit('/').next().unwrap_or(file).into(),
        Some(("model-checks", file)) => format!("models/{file}"),
        Some((krate, file)) => format!("{krate}/{file}"),
        None => path.into(),
    }
}

/// The functions behind `#[test]`.
pub fn tests_in(source: &str) -> Vec<String> {
    let mut tests = Vec::new();
    let mut attributed = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[trefoil::test") {
            attributed = true;
        } else if let Some(function) = line.trim_start_matches("async ").strip_prefix("fn ")
            && std::mem::take(&mut attributed)
        {
            tests.push(function.split(['(', '<']).next().unwrap().into());
        }
    }
    tests
}

/// Whether `pattern`, a name or the beginning of one and `*`, is that of a test.
pub fn fits(pattern: &str, test: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => test.starts_with(beginning),
        None => test == pattern,
    }
}
