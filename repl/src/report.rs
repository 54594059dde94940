//! How failures are told: what, where, and the line with the part at fault marked.

use crate::exit::{Failure, shown};
use crate::output::{Output, text_width};
use crate::quote::harmless;
use crate::token::Span;
use std::path::PathBuf;

/// Where the line being run came from.
#[derive(Debug, Clone)]
pub enum Place {
    /// The prompt: the user has just typed it.
    Prompt,
    /// The arguments of the program.
    Arguments,
    /// A line of a script, counted from 1; the file if it has a name.
    Line(Option<PathBuf>, u64),
}

/// Columns of the line shown around the part at fault.
const EXCERPT_BYTES: usize = 60;

/// Tells `failure`, which happened at `span` of `line`.
pub fn report(out: &mut Output, place: &Place, line: &[u8], span: Option<Span>, failure: &Failure) {
    if matches!(failure, Failure::OutputClosed) {
        return;
    }
    out.say(&describe(place, line, span, failure));
}

/// The text of a report.
fn describe(place: &Place, line: &[u8], span: Option<Span>, failure: &Failure) -> String {
    let mut text = match place {
        Place::Prompt => String::new(),
        Place::Arguments => "repl: ".into(),
        Place::Line(file, number) => {
            let file = file.as_deref().map(|file| format!("{}, ", shown(file))).unwrap_or_default();
            let column = span.map(|span| format!(", column {}", column(line, span))).unwrap_or_default();
            format!("repl: {file}line {number}{column}: ")
        }
    };
    text.push_str(&failure.to_string());
    if let (Failure::Usage { .. }, Some(span)) = (failure, failure.span()) {
        text.push('\n');
        text.push_str(&excerpt(line, span));
    }
    text
}

/// The column of a span, counted from 1 in characters.
fn column(line: &[u8], span: Span) -> usize {
    let before = &line[..span.start.min(line.len())];
    String::from_utf8_lossy(before).chars().count() + 1
}

/// The line, or the part of it around `span`, with the span underlined.
fn excerpt(line: &[u8], span: Span) -> String {
    let start = span.start.min(line.len());
    let end = span.end.clamp(start, line.len());
    let from = if start > EXCERPT_BYTES { boundary(line, start - EXCERPT_BYTES / 2) } else { 0 };
    let to = boundary(line, line.len().min(end.min(start + EXCERPT_BYTES) + EXCERPT_BYTES / 2));
    let lead = if from > 0 { "..." } else { "" };
    let tail = if to < line.len() { "..." } else { "" };
    let before = harmless(&line[from..start]);
    let marked = harmless(&line[start..end.min(to)]);
    let after = harmless(&line[end.min(to)..to]);
    let pad = " ".repeat(text_width(lead) + text_width(&before));
    let carets = "^".repeat(text_width(&marked).max(1));
    format!("  {lead}{before}{marked}{after}{tail}\n  {pad}{carets}")
}

/// The nearest start of a character at or before `at`.
fn boundary(line: &[u8], at: usize) -> usize {
    let back = (0..4.min(at)).find(|back| line.get(at - back).is_none_or(|byte| byte & 0xC0 != 0x80));
    at - back.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Place, describe, excerpt};
    use crate::exit::Failure;
    use crate::token::Span;

    #[test]
    fn the_caret_stands_under_the_fault() {
        let cases: &[(&[u8], (usize, usize), &str)] = &[
            (b"get 'a", (4, 6), "  get 'a\n      ^^"),
            (b"set k", (5, 6), "  set k\n       ^"),
            ("set日 x".as_bytes(), (7, 8), "  set日 x\n        ^"),
            (b"a\x1B b", (3, 4), "  a\\x1B b\n        ^"),
        ];
        for (line, (start, end), want) in cases {
            assert_eq!(excerpt(line, Span { start: *start, end: *end }), *want);
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_fault_at_any_place() {
        let line = "é".repeat(500);
        for start in 0..line.len() {
            for end in [start + 1, start + 100, line.len()] {
                let text = excerpt(line.as_bytes(), Span { start, end });
                assert!(text.chars().count() < 600, "{start}: {text}");
                assert!(text.contains('^'), "{start}: {text}");
            }
        }
    }

    #[test]
    fn scripts_name_line_and_column_in_characters() {
        let line = "get é 'x".as_bytes();
        let span = Span { start: 7, end: 9 };
        let failure = Failure::usage(Some(span), "wrong");
        let text = describe(&Place::Line(None, 3), line, Some(span), &failure);
        assert!(text.starts_with("repl: line 3, column 7: wrong\n"), "{text}");
        let text = describe(&Place::Line(Some("a.txt".into()), 3), line, None, &failure);
        assert!(text.starts_with("repl: a.txt, line 3: wrong\n"), "{text}");
    }
}
