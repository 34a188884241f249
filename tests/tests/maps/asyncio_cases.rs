//! `tests/ASYNCIO.md` has every rule of the notes on asyncio, and names tests and cases that exist.

use crate::{root, text_of};
use std::collections::BTreeSet;
use std::fs;

/// How many rules each family has.
const FAMILIES: [(&str, u32); 15] = [
    ("G", 18),
    ("W", 11),
    ("F", 13),
    ("A", 8),
    ("S", 7),
    ("T", 16),
    ("K", 24),
    ("C", 20),
    ("Q", 14),
    ("L", 16),
    ("R", 8),
    ("O", 12),
    ("EG", 6),
    ("D", 7),
    ("b", 60),
];

#[test]
fn every_rule_has_a_row_and_every_test_that_it_names_exists() {
    let map = fs::read_to_string(root().join("tests/ASYNCIO.md")).unwrap();
    let (mut rows, mut found) = (BTreeSet::new(), 0);
    for row in map.lines().filter(|line| line.starts_with("| ")) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let (rule, pinned) = (cells.next().unwrap(), cells.next_back().unwrap());
        if !rule.ends_with(|last: char| last.is_ascii_digit()) {
            continue;
        }
        assert!(rows.insert(rule.to_string()), "{rule} is there twice");
        assert!(!pinned.is_empty(), "nothing is said of {rule}");
        let mut source: Option<(&str, String)> = None;
        for name in pinned.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                source = Some((name, text_of(name)));
                found += 1;
            } else if name.ends_with(".json") {
                let path = root().join("tests/conformance/cases/asyncio").join(name);
                assert!(path.exists(), "{}", path.display());
                found += 1;
            } else if name.matches('_').count() >= 3 {
                let (file, text) = source.as_ref().unwrap_or_else(|| panic!("{name} is in no file: {row}"));
                assert!(text.contains(&format!("fn {name}(")), "there is no {name} in {file}");
                found += 1;
            }
        }
    }
    assert!(found > 200, "{found}");
    for (family, count) in FAMILIES {
        for number in (1..=count).filter(|number| (family, *number) != ("D", 2) && (family, *number) != ("D", 4)) {
            assert!(rows.contains(&format!("{family}{number}")), "{family}{number} has no row");
        }
    }
}
