//! Rule: an invariant that the code names by its tag (three letters or so, a dash, a number) is
//! defined, once, at the start of a line of one of the two documents.

use std::collections::{BTreeMap, BTreeSet};

use super::{Sources, assert_none, sources::cut, workspace};

/// Where tags are defined.
const DOCUMENTS: &[&str] = &["docs/CONCURRENCY.md", "docs/FORMAT.md"];

/// What is written like a tag and is none: encodings, checksums, processors, papers.
const OTHER_WORDS: &[&str] = &["UTF", "CRC", "SHA", "ISO", "RFC", "AVX", "SSE", "ATC", "OSDI", "FAST", "XXH"];

fn findings(sources: &Sources) -> Vec<String> {
    let mut findings = Vec::new();
    let mut defined: BTreeMap<&str, &str> = BTreeMap::new();
    for document in DOCUMENTS {
        let text = sources.text(document).unwrap_or_default();
        for tag in text.lines().filter_map(defined_tag) {
            if let Some(before) = defined.insert(tag, document) {
                findings.push(format!("{document}: {tag} is defined already, in {before}"));
            }
        }
    }
    for source in sources.rust() {
        let cut = cut(&source.text);
        let mut reported = BTreeSet::new();
        for comment in &cut.comments {
            for tag in tags(comment.text) {
                if !defined.contains_key(tag) && reported.insert(tag) {
                    let at = comment.line;
                    findings.push(format!("{}:{at}: {tag} is defined in neither document", source.path));
                }
            }
        }
    }
    findings
}

/// The tag that a line of a document defines: what its heading, list item or table row begins with.
fn defined_tag(line: &str) -> Option<&str> {
    let text = line.trim_start_matches(['#', '*', '-', '|', ' ', '`']);
    let marked = text.len() < line.len();
    let tag = tags(text).next()?;
    (marked && text.starts_with(tag)).then_some(tag)
}

/// Every tag that `text` names.
fn tags(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('-').filter_map(|(dash, _)| {
        let letters =
            text[..dash].len() - text[..dash].trim_end_matches(|c: char| c.is_ascii_uppercase()).len();
        let after = &text[dash + 1..];
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (start, end) = (dash - letters, dash + 1 + digits);
        let part_of_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let alone = !text[..start].chars().next_back().is_some_and(part_of_word)
            && !text[end..].chars().next().is_some_and(part_of_word);
        let is_tag = letters > 0 && digits > 0 && alone && !OTHER_WORDS.contains(&&text[start..dash]);
        is_tag.then(|| &text[start..end])
    })
}

#[test]
fn every_tag_is_defined() {
    assert_none("invariant tags", &findings(&workspace()));
}

#[test]
fn a_tag_without_definition_and_one_with_two_are_found() {
    let concurrency =
        "## P-1 Prefix\n* LOG-2: claims never overlap; see LOG-9.\nLOG-3 in prose\n| PAGE-1 | x |\n";
    let code = "//! Code: P-1, LOG-2, PAGE-1, UTF-8, RUSTSEC-2025-0141, X86-64.\n\
        // LOG-3 and LOG-3 again, (TREE-3).\nlet text = \"LOG-7\"; let a = B-1;\n";
    let planted = Sources::planted(&[
        ("docs/CONCURRENCY.md", concurrency),
        ("docs/FORMAT.md", "* LOG-2: again\n"),
        ("tree/src/code.rs", code),
    ]);
    assert_eq!(
        findings(&planted),
        [
            "docs/FORMAT.md: LOG-2 is defined already, in docs/CONCURRENCY.md",
            "tree/src/code.rs:2: LOG-3 is defined in neither document",
            "tree/src/code.rs:2: TREE-3 is defined in neither document",
        ]
    );
}
