//! The file that is imported: words of the system's dictionary, or made ones where there is none.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

const DICTIONARY: &str = "/usr/share/dict/american-english-huge";

/// A file of so many different lines.
pub struct Input {
    path: PathBuf,
    lines: Vec<String>,
}

impl Input {
    /// Writes the file into `folder`.
    pub fn write(folder: &Path, count: usize) -> Input {
        let dictionary = fs::read_to_string(DICTIONARY).unwrap_or_default();
        // Primes, so that made words come in no order and none comes twice.
        let made = (0..count).map(|n| format!("word {:07}", n * 7_919 % 9_999_991));
        let words = dictionary.lines().filter(|line| !line.is_empty()).map(str::to_owned);
        let mut seen = HashSet::new();
        let lines: Vec<String> =
            words.chain(made).filter(|word| seen.insert(word.clone())).take(count).collect();
        assert_eq!(lines.len(), count, "a file of enough different lines");
        let path = folder.join(format!("{count}-lines"));
        fs::write(&path, lines.join("\n")).expect("the file is written");
        Input { path, lines }
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// The records of the lines that `which` counts: the line and its number from 1.
    pub fn records(&self, which: std::ops::Range<usize>) -> impl Iterator<Item = (&[u8], String)> {
        let from = which.start;
        self.lines[which]
            .iter()
            .enumerate()
            .map(move |(at, line)| (line.as_bytes(), (from + at + 1).to_string()))
    }

    /// The shell's arguments that import the file into `store`.
    pub fn command(&self, store: &Path) -> [OsString; 9] {
        let word = OsString::from;
        [
            word("repl"),
            store.into(),
            word("--create"),
            word("import"),
            self.path.clone().into(),
            word("--format"),
            word("lines"),
            word("--flush-every"),
            word("5000"),
        ]
    }
}
