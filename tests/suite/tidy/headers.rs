//! Rule: every Rust file opens by saying what it is, and reads in one sitting.

use super::{Sources, assert_none, workspace};

/// A file with more lines hides a second noun.
const LINES_MAX: usize = 600;

fn findings(sources: &Sources) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.rust() {
        if !source.text.starts_with("//! ") {
            findings.push(format!("{}: does not open with `//!` and what it is", source.path));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!("{}: {lines} lines, {LINES_MAX} at most", source.path));
        }
    }
    findings
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    assert_none("file headers and lengths", &findings(&workspace()));
}

#[test]
fn a_file_without_header_or_too_long_is_found() {
    let long = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
    let just = format!("//! Just so.\n{}", "\n".repeat(LINES_MAX - 1));
    let planted = Sources::planted(&[
        ("tree/src/bare.rs", "use std::fs;\n//! Too late.\n"),
        ("tree/src/empty.rs", ""),
        ("tree/src/long.rs", &long),
        ("tree/src/just.rs", &just),
    ]);
    assert_eq!(
        findings(&planted),
        [
            "tree/src/bare.rs: does not open with `//!` and what it is",
            "tree/src/empty.rs: does not open with `//!` and what it is",
            "tree/src/long.rs: 601 lines, 600 at most",
        ]
    );
}
