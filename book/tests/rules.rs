//! `src/rules.md`, the list of rules and their tests, against the sources: so that it does not rot.
//!
//! Tests are named after the rules that they pin: `r10_r37_..`, `n13a_..`. In the appendix an item begins with `- **R10.**` and has a line
//! with `Test:` or `Tests:` and names, or one with `No test:` and a reason.

mod sources;

use sources::{Tests, all, fits, name_of, root, tests_in};
use std::collections::BTreeMap;
use std::fs;

#[test]
fn the_appendix_of_rules_agrees_with_the_tests() {
    let root = root();
    let tests = all();
    // If the tests were not found, nothing would be said about them.
    assert!(tests["cancel"].len() > 10 && tests["models/park"].len() > 5 && tests["trio"].len() > 100, "{tests:?}");
    let appendix = fs::read_to_string(root.join("book/src/rules.md")).unwrap();
    let faults = faults(&appendix, &tests);
    assert!(faults.is_empty(), "book/src/rules.md:\n{}", faults.join("\n"));
}

/// The rules that a test is named after.
fn rules_of(test: &str) -> Vec<String> {
    let rule = |part: &str| {
        let (letter, number) = part.split_at_checked(1)?;
        let number = number.trim_end_matches(|c: char| c.is_ascii_lowercase());
        (["r", "n"].contains(&letter) && number.parse::<u32>().is_ok())
            .then(|| format!("{}{number}", letter.to_uppercase()))
    };
    test.split('_').map_while(rule).collect()
}

/// What an item of the appendix says about its tests.
enum Said {
    Tests(Vec<String>),
    None { reason: String },
}

fn items(appendix: &str, faults: &mut Vec<String>) -> BTreeMap<String, Said> {
    let mut items = BTreeMap::new();
    for item in appendix.split("\n- **").skip(1) {
        let Some((rule, text)) = item.split_once(".**") else {
            faults.push(format!("an item that does not begin with its rule: {item:.40}"));
            continue;
        };
        let mut said = None;
        for line in text.lines().map(str::trim) {
            if let Some(reason) = line.strip_prefix("No test:") {
                said = Some(Said::None { reason: reason.trim().into() });
            } else if let Some(list) = line.strip_prefix("Test:").or(line.strip_prefix("Tests:")) {
                said = Some(Said::Tests(list.split('`').skip(1).step_by(2).map(Into::into).collect()));
            }
        }
        match said {
            None => faults.push(format!("{rule} neither names a test nor says why it has none")),
            Some(said) => {
                if items.insert(rule.to_string(), said).is_some() {
                    faults.push(format!("{rule} is there twice"));
                }
            }
        }
    }
    items
}

/// Tests as an item names them.
fn line(tests: &[String]) -> String {
    tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join(", ")
}

fn faults(appendix: &str, tests: &Tests) -> Vec<String> {
    let mut faults = Vec::new();
    let items = items(appendix, &mut faults);

    // No rule is left out.
    for letter in ["R", "N"] {
        let numbers = items.keys().filter_map(|rule| rule.strip_prefix(letter)?.parse::<usize>().ok());
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        if let Some((expected, _)) = (1..).zip(&numbers).find(|(expected, number)| *expected != **number) {
            faults.push(format!("{letter}{expected} is missing"));
        }
    }

    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, names) in tests {
        for name in names {
            for rule in rules_of(name) {
                named.entry(rule).or_default().push(format!("{file}::{name}"));
            }
        }
    }
    for (rule, of) in &named {
        if !items.contains_key(rule) {
            faults.push(format!("{rule} is missing, and has tests: {}", line(of)));
        }
    }

    for (rule, said) in &items {
        let named = named.get(rule);
        match (said, named) {
            (Said::None { reason }, None) if reason.len() < 10 => {
                faults.push(format!("{rule} has no test, and no reason"))
            }
            (Said::None { .. }, Some(of)) => {
                faults.push(format!(
                    "{rule} says that it has no test, and it has: say what holds now, and \"Tests: {}\"",
                    line(of)
                ));
            }
            (Said::None { .. }, None) => {}
            (Said::Tests(list), _) => {
                if list.is_empty() {
                    faults.push(format!("{rule} names no test"));
                }
                let mut own = false;
                for test in list {
                    let (file, name) = test.split_once("::").or(test.split_once('/')).unwrap_or((test, ""));
                    let found: Vec<_> = tests.get(file).into_iter().flatten().filter(|test| fits(name, test)).collect();
                    if found.is_empty() {
                        faults.push(format!("{rule} names {test}, and there is no such test"));
                    }
                    own |= found.iter().any(|test| rules_of(test).contains(rule));
                }
                if let (false, Some(of)) = (own, named) {
                    faults.push(format!("{rule} names none of its own tests: {}", line(of)));
                }
            }
        }
    }
    faults
}

#[test]
fn every_fault_of_an_appendix_is_found() {
    let tests = Tests::from([
        (
            "cancel".into(),
            tests_in("#[test]\nfn r1_r2_a_cancel() {}\nfn helper() {}\n    #[test]\n    fn n1a_ends() {}"),
        ),
        (name_of("model-checks/tests/park.rs"), vec!["one_wins".into()]),
        (name_of("io/tests/cancel.rs"), vec!["no_byte_is_lost".into()]),
        (name_of("runtime/src/heap.rs"), vec!["in_order".into()]),
        ("trio".into(), vec!["n1-case".into()]),
    ]);
    let right = "\
        # The rules\n\n\
        - **R1.** One.\\\n  Tests: `cancel::r1_*`, `models/park::one_wins`\n\
        - **R2.** Two, of `this::kind`.\\\n  Test: `cancel::r1_r2_a_cancel`\n\
        - **R3.** Three.\\\n  Tests: `io/cancel::no_byte_is_lost`, `runtime/src/heap::in_order`\n\
        - **R4.** Four.\\\n  No test: it cannot be written.\n\n\
        ## More\n\n\
        - **N1.** One.\\\n  Tests: `cancel::n1a_ends`, `trio/n1-case`\n";
    assert_eq!(faults(right, &tests), [""; 0]);

    for (from, to, fault) in [
        ("cancel::r1_*", "cancel::r1_b*", "R1 names cancel::r1_b*, and there is no such test"),
        ("models/park", "park", "R1 names park::one_wins, and there is no such test"),
        ("io/cancel::no_byte_is_lost", "cancel::helper", "R3 names cancel::helper, and there is no such test"),
        ("trio/n1-case", "trio/n2-case", "N1 names trio/n2-case, and there is no such test"),
        ("No test: it cannot be written.", "No test:", "R4 has no test, and no reason"),
        ("  No test: it cannot be written.", "  It is clear.", "R4 neither names a test nor says why it has none"),
        ("Test: `cancel::r1_r2_a_cancel`", "Tests:", "R2 names no test"),
        (
            "`cancel::r1_r2_a_cancel`",
            "`models/park::one_wins`",
            "R2 names none of its own tests: `cancel::r1_r2_a_cancel`",
        ),
        (
            "Test: `cancel::r1_r2_a_cancel`",
            "No test: there is none.",
            "R2 says that it has no test, and it has: say what holds now, and \"Tests: `cancel::r1_r2_a_cancel`",
        ),
        ("**N1.**", "**R5.**", "N1 is missing, and has tests: `cancel::n1a_ends`"),
        ("**R3.**", "**R5.**", "R3 is missing"),
        ("**R3.**", "**R4.**", "R4 is there twice"),
        ("**R3.**", "**R3**", "an item that does not begin with its rule"),
    ] {
        assert!(right.contains(from), "{from}");
        let found = faults(&right.replacen(from, to, 1), &tests);
        assert!(found.iter().any(|found| found.starts_with(fault)), "{fault}: {found:?}");
    }
}
