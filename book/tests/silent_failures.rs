//! `src/silent_failures.md`, the table of silent failures, against the sources: each test that it names is there, and each of the 48 rows is in
//! the table or in the list of those that wait for parts that do not exist yet.
//!
//! A test is named as in the appendix of rules; `book::row_03` is a block of code in the chapter that does not compile, and begins with that name.

mod sources;

use sources::{Tests, all, fits, root};
use std::collections::BTreeMap;
use std::fs;

/// How many rows there are.
const ROWS: usize = 48;

#[test]
fn the_table_agrees_with_the_tests() {
    let tests = all();
    // If the tests were not found, nothing would be said about them.
    assert!(tests["silent"].len() > 5 && tests["io/tcp"].len() > 5, "{tests:?}");
    let chapter = fs::read_to_string(root().join("book/src/silent_failures.md")).unwrap();
    let faults = faults(&chapter, &tests);
    assert!(faults.is_empty(), "book/src/silent_failures.md:\n{}", faults.join("\n"));
}

/// The names of the blocks of code that do not compile.
fn blocks(chapter: &str) -> Vec<&str> {
    let blocks = chapter.split("\n```rust,compile_fail").skip(1);
    blocks.filter_map(|block| block.split_once('\n')?.1.lines().next()?.strip_prefix("// ")).collect()
}

fn faults(chapter: &str, tests: &Tests) -> Vec<String> {
    let mut faults = Vec::new();
    let blocks = blocks(chapter);
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    let mut named = Vec::new();
    for line in chapter.lines() {
        let number = |text: &str, end: char| text.split(end).next()?.trim().parse::<usize>().ok();
        if let Some(row) = line.strip_prefix("- ").and_then(|rest| number(rest, ',')) {
            *rows.entry(row).or_default() += 1;
            if !line.contains(": ") {
                faults.push(format!("{row} does not say what it waits for"));
            }
        }
        let Some(row) = line.strip_prefix("| ").and_then(|rest| number(rest, '|')) else { continue };
        *rows.entry(row).or_default() += 1;
        let last = line.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
        let list: Vec<_> = last.split('`').skip(1).step_by(2).collect();
        if list.is_empty() {
            faults.push(format!("{row} names no test"));
        }
        for test in list {
            let (file, name) = test.split_once("::").unwrap_or((test, ""));
            let there = match file {
                "book" => blocks.contains(&name),
                _ => tests.get(file).into_iter().flatten().any(|test| fits(name, test)),
            };
            if !there {
                faults.push(format!("{row} names {test}, and there is no such test"));
            }
            named.push((file, name));
        }
    }
    for row in 1..=ROWS {
        match rows.remove(&row) {
            None => faults.push(format!("{row} is missing")),
            Some(1) => {}
            Some(_) => faults.push(format!("{row} is there twice")),
        }
    }
    faults.extend(rows.keys().map(|row| format!("{row} is none of the {ROWS}")));
    let shown = |file: &str, test: &str| named.iter().any(|(in_file, name)| *in_file == file && fits(name, test));
    let blocks = blocks.iter().map(|block| ("book", *block));
    let own = tests.get("silent").into_iter().flatten().map(|test| ("silent", test.as_str()));
    faults.extend(
        blocks
            .chain(own)
            .filter(|(file, test)| !shown(file, test))
            .map(|(file, test)| format!("nobody names {file}::{test}")),
    );
    faults
}

#[test]
fn every_fault_of_the_table_is_found() {
    let tests = Tests::from([("silent".into(), vec!["silent_01_a".into()]), ("io/tcp".into(), vec!["closes".into()])]);
    let mut right = String::from("# Silent\n\n| | there | here | test |\n| --- | --- | --- | --- |\n");
    for row in 1..ROWS {
        right += &match row {
            1 => "| 1 | a | b | `silent::silent_01_*` |\n".into(),
            2 => "| 2 | a | b | `io/tcp::closes`, `book::row_02` |\n".into(),
            _ => format!("| {row} | a `b` | c | `io/tcp::closes` |\n"),
        };
    }
    right += "\n- 48, it: processes.\n\n```rust,compile_fail,E0499\n// row_02\nlet x = 7;\n```\n";
    assert_eq!(faults(&right, &tests), [""; 0]);
    for (from, to, fault) in [
        ("silent_01_*", "silent_02_*", "1 names silent::silent_02_*, and there is no such test"),
        ("`silent::silent_01_*`", "`io/tcp::closes`", "nobody names silent::silent_01_a"),
        ("// row_02", "// row_03", "2 names book::row_02, and there is no such test"),
        (", `book::row_02`", "", "nobody names book::row_02"),
        ("`io/tcp::closes`, `book::row_02`", "", "2 names no test"),
        ("| 7 | a `b` | c | `io/tcp::closes` |\n", "", "7 is missing"),
        ("| 7 |", "| 8 |", "8 is there twice"),
        ("- 48, it: processes.", "- 48, it.", "48 does not say what it waits for"),
        ("- 48, it: processes.", "- 49, it: processes.", "49 is none of the 48"),
    ] {
        assert!(right.contains(from), "{from}");
        let found = faults(&right.replacen(from, to, 1), &tests);
        assert!(found.iter().any(|found| found == fault), "{fault}: {found:?}");
    }
}
