//! What people found out about a row, in `notes.md`: a section for each, under its name.

const NOTES: &str = include_str!("../notes.md");

/// The text below the heading with that name.
pub fn of(row: &str) -> Option<String> {
    let sections = NOTES.split("\n## ").skip(1);
    let mut named = sections.filter_map(|section| section.split_once('\n')).filter(|(names, _)| {
        // One text may be about several rows.
        names.split(',').any(|name| name.trim() == row)
    });
    named.next().map(|(_, text)| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aims::ROWS;

    #[test]
    fn every_note_is_about_a_row() {
        let headings = NOTES.lines().filter_map(|line| line.strip_prefix("## "));
        for name in headings.flat_map(|names| names.split(',')) {
            assert!(ROWS.iter().any(|row| row.name == name.trim()), "{name}");
        }
        assert!(of("nothing of the kind").is_none());
    }
}
