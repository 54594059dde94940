//! The workspace's text files, and Rust text cut into tokens and comments.
//!
//! The lexer knows just enough to tell code from comments and literals; it does not parse.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One file: its path from the workspace's root, with forward slashes, and its text.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
}

/// The files that the rules look at.
pub(super) struct Sources(pub(super) Vec<Source>);

/// The folders and files at the root that hold the project's own text.
const ROOTS: &[&str] = &["pagecache", "tree", "repl", "tests", "benches", "docs", ".ci"];
const ENDINGS: &[&str] = &["rs", "md", "toml", "run", "sh"];

impl Sources {
    /// Reads the whole workspace.
    pub(super) fn read() -> Sources {
        let root = root();
        let mut sources = Vec::new();
        for folder in ROOTS {
            walk(&root, &root.join(folder), &mut sources);
        }
        for entry in fs::read_dir(&root).expect("the workspace's root can be listed") {
            let path = entry.expect("an entry of the root can be read").path();
            if path.is_file() {
                take(&root, &path, &mut sources);
            }
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(sources.len() > 20, "the workspace's sources were not found under {}", root.display());
        Sources(sources)
    }

    /// A made-up workspace.
    pub(super) fn planted(files: &[(&str, &str)]) -> Sources {
        let source = |(path, text): &(&str, &str)| Source { path: (*path).into(), text: (*text).into() };
        Sources(files.iter().map(source).collect())
    }

    /// The Rust files.
    pub(super) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().filter(|source| source.path.ends_with(".rs"))
    }

    /// The text of one file, if there is such a file.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|source| source.path == path).map(|source| source.text.as_str())
    }
}

/// The workspace's root.
pub(super) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests package lies in the workspace").to_path_buf()
}

fn walk(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder's entry can be read").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy();
        if path.is_dir() {
            if name != "target" && name != "fixtures" {
                walk(root, &path, sources);
            }
        } else {
            take(root, &path, sources);
        }
    }
}

fn take(root: &Path, path: &Path, sources: &mut Vec<Source>) {
    let name = path.file_name().expect("a file has a name").to_string_lossy();
    if !ENDINGS.iter().any(|ending| name == *ending || name.ends_with(&format!(".{ending}"))) {
        return;
    }
    let text = fs::read_to_string(path).expect("a source is UTF-8 text");
    let relative = path.strip_prefix(root).expect("a source lies under the root");
    sources.push(Source { path: relative.to_string_lossy().replace('\\', "/"), text });
}

/// A piece of Rust code: an identifier, a number, `::`, or one other character. A literal in quotes
/// is the single token `"`, so that what it says is never taken for code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// A comment, without its end of line.
pub(super) struct Comment<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// Rust text, cut.
pub(super) struct Cut<'a> {
    pub(super) tokens: Vec<Token<'a>>,
    pub(super) comments: Vec<Comment<'a>>,
}

/// Cuts Rust text into code and comments.
pub(super) fn cut(text: &str) -> Cut<'_> {
    let mut lexer = Lexer { text, at: 0, line: 1 };
    let mut out = Cut { tokens: Vec::new(), comments: Vec::new() };
    while let Some(next) = lexer.peek() {
        let (start, line) = (lexer.at, lexer.line);
        if lexer.rest().starts_with("//") {
            lexer.skip_while(|c| c != '\n');
            out.comments.push(Comment { text: &text[start..lexer.at], line });
        } else if lexer.rest().starts_with("/*") {
            lexer.skip_block_comment();
            out.comments.push(Comment { text: &text[start..lexer.at], line });
        } else if next.is_whitespace() {
            lexer.bump();
        } else if lexer.skip_literal() {
            out.tokens.push(Token { text: "\"", line });
        } else {
            lexer.skip_word_or_mark();
            out.tokens.push(Token { text: &text[start..lexer.at], line });
        }
    }
    out
}

/// The tokens that stand outside `#[cfg(test)]` and `#[cfg(.. loom ..)]` modules.
pub(super) fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        match test_module_end(&tokens[at..]) {
            Some(len) => at += len,
            None => {
                kept.push(tokens[at]);
                at += 1;
            }
        }
    }
    kept
}

/// If `tokens` begin with a test-only module and its attributes, how many they are.
fn test_module_end(tokens: &[Token<'_>]) -> Option<usize> {
    let texts = |from: usize, want: &[&str]| {
        want.iter().enumerate().all(|(i, text)| tokens.get(from + i).is_some_and(|token| token.text == *text))
    };
    if !texts(0, &["#", "[", "cfg", "("]) {
        return None;
    }
    let close = tokens.iter().position(|token| token.text == "]")?;
    // `not(loom)` and `not(test)` guard real code.
    let is_named = |i: usize| matches!(tokens[i].text, "test" | "loom") && tokens[i - 2].text != "not";
    if !(4..close).any(is_named) || !texts(close + 1, &["mod"]) {
        return None;
    }
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(close + 2) {
        match token.text {
            ";" if depth == 0 => return Some(i + 1),
            "{" => depth += 1,
            "}" if depth == 1 => return Some(i + 1),
            "}" => depth -= 1,
            _ => {}
        }
    }
    None
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) {
        if let Some(c) = self.peek() {
            self.at += c.len_utf8();
            self.line += usize::from(c == '\n');
        }
    }

    fn bump_by(&mut self, bytes: usize) {
        let end = self.at + bytes;
        while self.at < end {
            self.bump();
        }
    }

    fn skip_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&keep) {
            self.bump();
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0_usize;
        while !self.rest().is_empty() {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.bump_by(2);
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.bump_by(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.bump();
            }
        }
    }

    /// Skips a string or character literal; false if none begins here.
    fn skip_literal(&mut self) -> bool {
        let rest = self.rest();
        let prefix = rest.len() - rest.trim_start_matches(['r', 'b', 'c']).len();
        let hashes = rest[prefix..].len() - rest[prefix..].trim_start_matches('#').len();
        let quoted = &rest[prefix + hashes..];
        let raw = rest[..prefix].contains('r');
        if prefix <= 2 && quoted.starts_with('"') && (raw || hashes == 0) {
            self.bump_by(prefix + hashes + 1);
            self.skip_string(if raw { Some(hashes) } else { None });
            return true;
        }
        if prefix <= 1 && hashes == 0 && quoted.starts_with('\'') {
            return self.skip_char(prefix, quoted);
        }
        false
    }

    /// Skips to behind the closing quote; `raw` has the number of `#` that follow it.
    fn skip_string(&mut self, raw: Option<usize>) {
        let end = format!("\"{}", "#".repeat(raw.unwrap_or(0)));
        while !self.rest().is_empty() {
            if raw.is_none() && self.rest().starts_with('\\') {
                self.bump();
                self.bump();
            } else if self.rest().starts_with(&end) {
                self.bump_by(end.len());
                return;
            } else {
                self.bump();
            }
        }
    }

    /// Skips a character literal; false if the quote begins a lifetime.
    fn skip_char(&mut self, prefix: usize, quoted: &str) -> bool {
        let mut inside = quoted.chars().skip(1);
        let len = match (inside.next(), inside.next()) {
            (Some('\\'), Some(escaped)) => {
                let after = 2 + escaped.len_utf8();
                after + quoted[1 + after - 1..].find('\'').map_or(0, |at| at + 1)
            }
            (Some(c), Some('\'')) => 2 + c.len_utf8(),
            _ => return false,
        };
        self.bump_by(prefix + len);
        true
    }

    fn skip_word_or_mark(&mut self) {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        if self.peek().is_some_and(word) {
            self.skip_while(word);
        } else if self.rest().starts_with("::") {
            self.bump_by(2);
        } else {
            self.bump();
        }
    }
}

#[test]
fn literals_and_comments_are_not_code() {
    let text = "a /* b /* c */ */ \"d \\\" e\" r#\"f \" g\"# 'h' '\\'' b'\\\\' 'i: loop // j\nk::l";
    let cut = cut(text);
    let words: Vec<&str> = cut.tokens.iter().map(|token| token.text).collect();
    assert_eq!(words, ["a", "\"", "\"", "\"", "\"", "\"", "'", "i", ":", "loop", "k", "::", "l"]);
    assert_eq!(cut.comments.iter().map(|c| c.text).collect::<Vec<_>>(), ["/* b /* c */ */", "// j"]);
    assert_eq!(cut.tokens.last().map(|token| token.line), Some(2));
}

#[test]
fn test_modules_are_left_out_and_real_ones_kept() {
    let text = "a #[cfg(test)] mod tests { x { y } } b #[cfg(not(loom))] mod real { c } #[cfg(all(test, not(loom)))] mod m; d";
    let cut = cut(text);
    let words: Vec<&str> = without_tests(&cut.tokens).iter().map(|token| token.text).collect();
    let kept: Vec<&&str> =
        words.iter().filter(|w| ["a", "b", "c", "d", "x", "y", "m"].contains(*w)).collect();
    assert_eq!(kept, [&"a", &"b", &"c", &"d"]);
}
