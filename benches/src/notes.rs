//! What people found out about a row, in `notes.md`: a section for each, under its name.

const NOTES: &str = include_str!("../notes.md");

/// A section.
#[derive(Debug)]
pub struct Note {
    /// It may be about several rows: their names, by comma.
    pub rows: &'static str,
    pub text: &'static str,
}

/// The one about that row.
pub fn of(row: &str) -> Option<Note> {
    let sections = NOTES.split("\n## ").skip(1);
    let mut notes = sections.filter_map(|section| section.split_once('\n'));
    let (rows, text) = notes.find(|(rows, _)| rows.split(',').any(|name| name.trim() == row))?;
    Some(Note { rows: rows.trim(), text: text.trim() })
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
