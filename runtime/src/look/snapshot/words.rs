//! Places, lengths of time and numbers, as all reports write them.

use std::panic::Location;
use std::time::Duration;

/// The name of the file and the line.
pub(crate) fn short(place: &Location<'_>) -> String {
    let file = place.file().rsplit('/').next().unwrap_or_default();
    format!("{file}:{}", place.line())
}

/// In a unit in which it is a small number.
pub(crate) fn length(d: Duration) -> String {
    match d.as_secs_f64() {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 0.001 => format!("{:.0} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

/// Whether a text that names lines does not tell them from each other.
pub(super) fn same_line(a: &Location<'_>, b: &Location<'_>) -> bool {
    (a.line(), a.file()) == (b.line(), b.file())
}

/// A number with its thousands apart.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
