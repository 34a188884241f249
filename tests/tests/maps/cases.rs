//! `tests/CASES.md` names tests that exist. (The list of rules is checked in `book/tests/rules.rs`.)

use crate::{root, text_of};
use std::collections::BTreeSet;
use std::fs;

/// What is in backticks in the last column of a row of a table.
fn named(row: &str) -> Vec<&str> {
    let column = row.trim_end_matches('|').rsplit('|').next().unwrap();
    column.split('`').skip(1).step_by(2).collect()
}

/// A name of a test is a sentence.
fn is_test(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') && name.matches('_').count() >= 3
}

#[test]
fn every_test_that_the_map_names_exists() {
    let map = fs::read_to_string(root().join("tests/CASES.md")).unwrap();
    let mut found = 0;
    for row in map.lines().filter(|line| line.starts_with('|')) {
        let mut source = None;
        for name in named(row) {
            if name.ends_with(".rs") {
                source = Some((name, text_of(name)));
            } else if is_test(name) {
                let (file, text) = source.as_ref().unwrap_or_else(|| panic!("{name} is in no file: {row}"));
                assert!(text.contains(&format!("fn {name}(")), "there is no {name} in {file}");
                found += 1;
            }
        }
    }
    assert!(found > 80, "{found}");
    let numbers: BTreeSet<u32> =
        map.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(numbers, (1..=49).chain([59]).collect());
}
