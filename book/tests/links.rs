//! Links between the chapters, and from the pages at the top of the repository: that what they lead to is there, anchors too. And that each
//! chapter is in `SUMMARY.md`, and its code is run.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn chapters() -> Vec<PathBuf> {
    let pages = fs::read_dir(root().join("book/src")).unwrap().map(|entry| entry.unwrap().path());
    pages.filter(|page| page.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The text without blocks of code.
fn prose(page: &str) -> String {
    let mut code = false;
    let lines = page.lines().filter(|line| {
        code ^= line.trim_start().starts_with("```");
        !code
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What mdBook and GitHub make of headings.
fn anchors(page: &str) -> Vec<String> {
    let heading = |line: &str| {
        let text = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        text.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    prose(page).lines().filter(|line| line.starts_with('#')).map(heading).collect()
}

fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(Into::into).collect()
}

/// Why a link leads nowhere.
fn broken(from: &Path, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { from.to_path_buf() } else { from.parent().unwrap().join(path) };
    if !target.exists() {
        return Some(format!("{}: {link}: no such file", from.display()));
    }
    if !anchor.is_empty() && !anchors(&fs::read_to_string(&target).unwrap()).contains(&anchor.to_string()) {
        return Some(format!("{}: {link}: no such heading", from.display()));
    }
    None
}

#[test]
fn links_lead_somewhere() {
    let mut pages = chapters();
    pages.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root().join(page)));
    let (mut all, mut faults) = (0, Vec::new());
    for page in pages {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            all += 1;
            faults.extend(broken(&page, &link));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(all > 50, "links were not found: {all}");
}

#[test]
fn a_broken_link_is_found() {
    let page = root().join("book/src/introduction.md");
    assert_eq!(links("[a](b.md#c), [d](e).\n```\n[x](y)\n```\n[z](https://z)"), ["b.md#c", "e"]);
    assert_eq!(anchors("# A `b`: c's D\n```\n# x\n```\n## 1. E"), ["a-b-cs-d", "1-e"]);
    assert_eq!(broken(&page, "cancellation.md#10-it-always-ends"), None);
    assert_eq!(broken(&page, "#how-to-read-the-rules"), None);
    assert!(broken(&page, "nowhere.md").is_some());
    assert!(broken(&page, "cancellation.md#11-it-never-ends").is_some());
}

#[test]
fn every_chapter_is_in_the_summary_and_its_code_is_run() {
    let summary = fs::read_to_string(root().join("book/src/SUMMARY.md")).unwrap();
    let run = fs::read_to_string(root().join("book/lib.rs")).unwrap();
    for chapter in chapters() {
        let name = chapter.file_name().unwrap().to_str().unwrap();
        if name != "SUMMARY.md" {
            assert!(summary.contains(&format!("({name})")), "{name} is not in SUMMARY.md");
            assert!(run.contains(&format!("\"src/{name}\"")), "{name} is not in book/lib.rs");
        }
    }
}
