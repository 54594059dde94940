//! Completion: commands, options, live keys and files, each as words that parse.
//!
//! * Looking up keys is bounded in number and time, so a key press never waits for a large store.

use crate::command::{COMMANDS, Kind};
use crate::quote::spelled;
use crate::store::Store;
use crate::token::decode_unfinished;
use crate::typed::{Slot, Typed};
use std::fs;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The most keys or files offered.
const CANDIDATES_MAX: usize = 200;

/// How long looking up keys may take.
const LOOKUP_TIME_MAX: Duration = Duration::from_millis(5);

/// The longest key offered.
const KEY_BYTES_MAX: usize = 256;

/// What may stand in place of the word that begins at `start`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Where the word begins.
    pub start: usize,
    /// Whole words, with the space that follows them.
    pub words: Vec<String>,
}

/// The ways to finish `line`, which ends at the cursor.
pub fn complete(store: &Store, line: &str) -> Candidates {
    let Some(typed) = Typed::read(line.as_bytes()) else { return Candidates::default() };
    let slot = typed.slot();
    let words = match (&slot, slot.kind()) {
        (Slot::Argument(spec, given), _) if typed.current.starts_with(b"--") || *given >= spec.args.len() => {
            let used = typed.options();
            let open = spec.opts.iter().map(|opt| opt.name).filter(|name| !used.contains(name));
            names(typed.current, open)
        }
        (_, Some(Kind::Command)) => {
            names(typed.current, COMMANDS.iter().flat_map(|spec| spec.names.iter().copied()))
        }
        (_, Some(Kind::OneOf(choices))) => names(typed.current, choices.iter().copied()),
        (_, Some(Kind::Key)) => keys(store, typed.current),
        (_, Some(Kind::File)) => files(typed.current),
        (_, Some(Kind::Value | Kind::Number) | None) => Vec::new(),
    };
    Candidates { start: typed.start, words }
}

fn names<'n>(typed: &[u8], known: impl Iterator<Item = &'n str>) -> Vec<String> {
    known.filter(|name| name.as_bytes().starts_with(typed)).map(|name| format!("{name} ")).collect()
}

fn unfinished(typed: &[u8]) -> Option<Vec<u8>> {
    if typed.is_empty() { Some(Vec::new()) } else { decode_unfinished(typed) }
}

fn keys(store: &Store, typed: &[u8]) -> Vec<String> {
    let Some(prefix) = unfinished(typed) else { return Vec::new() };
    let started = Instant::now();
    store
        .records((Bound::Included(prefix.clone()), Bound::Unbounded))
        .map_while(|record| record.ok().map(|(key, _)| key))
        .take_while(|key| key.starts_with(&prefix) && started.elapsed() < LOOKUP_TIME_MAX)
        .take(CANDIDATES_MAX)
        .filter(|key| key.len() <= KEY_BYTES_MAX)
        .map(|key| format!("{} ", spelled(&key)))
        .collect()
}

fn files(typed: &[u8]) -> Vec<String> {
    let Some(text) = unfinished(typed).and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return Vec::new();
    };
    let (folder, begun) = text.split_at(text.rfind('/').map_or(0, |slash| slash + 1));
    let place = match (folder.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ if folder.is_empty() => PathBuf::from("."),
        _ => PathBuf::from(folder),
    };
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_name().as_bytes().starts_with(begun.as_bytes()))
        .filter(|entry| !begun.is_empty() || !entry.file_name().as_bytes().starts_with(b"."))
        .take(CANDIDATES_MAX)
        .map(|entry| {
            let mut path = folder.as_bytes().to_vec();
            path.extend_from_slice(entry.file_name().as_bytes());
            let is_folder = entry.path().is_dir();
            path.extend_from_slice(if is_folder { b"/" } else { b"" });
            // Bare ~ is the home folder, quoted it is a name, so it must stay bare.
            let word = match path.strip_prefix(b"~/") {
                Some(rest) if spelled(rest) == String::from_utf8_lossy(rest) => {
                    format!("~/{}", spelled(rest))
                }
                _ => spelled(&path),
            };
            if is_folder { word } else { format!("{word} ") }
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::{CANDIDATES_MAX, complete};
    use crate::store::Store;

    #[test]
    fn the_word_at_the_cursor_is_completed_by_what_it_is() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (store, _) = Store::open(&folder.path().join("db"), true, None).expect("a new store");
        for key in ["user:1", "user:2", "user space", "zebra"] {
            store.set(key.as_bytes(), b"v").expect("set");
        }
        let cases: &[(&str, usize, &[&str])] = &[
            ("im", 0, &["import "]),
            ("get k; sc", 7, &["scan "]),
            ("get z", 4, &["zebra "]),
            ("get user", 4, &["\"user space\" ", "user:1 ", "user:2 "]),
            ("get \"user s", 4, &["\"user space\" "]),
            ("scan a z --p", 9, &["--prefix "]),
            ("scan a z --limit 5 --", 19, &["--prefix ", "--reverse "]),
            ("scan --prefix z", 14, &["zebra "]),
            ("import x --format t", 18, &["tsv "]),
            ("help cou", 5, &["count "]),
            ("set k v", 7, &[]),
            ("set k ", 6, &[]),
            ("bogus x", 6, &[]),
            ("get \"\\xZ", 4, &[]),
        ];
        for (line, start, want) in cases {
            let got = complete(&store, line);
            assert_eq!(got.words, *want, "{line}");
            assert!(got.words.is_empty() || got.start == *start, "{line}: {}", got.start);
        }
        for number in 0..3 * CANDIDATES_MAX {
            store.set(format!("many{number}").as_bytes(), b"").expect("set");
        }
        assert!(complete(&store, "get many").words.len() <= CANDIDATES_MAX);
        store.close().expect("close");
    }
}
