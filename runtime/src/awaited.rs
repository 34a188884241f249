//! Where a handle is awaited, of which only the polls can be seen.
//!
//! `poll` of such a handle is `#[track_caller]`. The code that the compiler makes of an `.await` calls it, so the caller is the place of the
//! `.await`. What polls it by way of a combinator is another place: in the standard library (`&mut handle`, `Box::pin(handle)`) or in this
//! library (`fail_after(.., handle)`), and says nothing to who reads it. In a foreign library it is the line that polls, and stays: a
//! library that awaits a handle looks the same.

use std::panic::Location;

/// The directory of this crate's sources.
const HERE: &str = directory(file!());

/// The directory of a source file, with the separator at its end.
pub const fn directory(file: &str) -> &str {
    let mut length = file.len();
    while length > 0 && !matches!(file.as_bytes()[length - 1], b'/' | b'\\') {
        length -= 1;
    }
    // What is split is a file's name, before which there is a separator or nothing.
    file.split_at(length).0
}

/// Where the handle is awaited that was polled at this place, by code that is not in the directory `ours`; `None` where that is not known.
#[cold]
pub fn awaited_at(polled: &'static Location<'static>, ours: &str) -> Option<&'static Location<'static>> {
    let file = polled.file();
    let standard = ["/library/core/", "/library/alloc/", "/library/std/"];
    let library = file.starts_with(HERE) || file.starts_with(ours) || standard.iter().any(|part| file.contains(part));
    (!library).then_some(polled)
}

#[cfg(all(test, not(trefoil_loom)))]
mod tests {
    use super::directory;

    #[test]
    fn the_directory_of_a_file() {
        assert_eq!(directory("runtime/src/awaited.rs"), "runtime/src/");
        assert_eq!(directory("C:\\runtime\\src\\awaited.rs"), "C:\\runtime\\src\\");
        assert_eq!(directory("awaited.rs"), "");
    }
}
