//! Rule: nothing is left for later in the code, and no path of one machine stands anywhere.

use super::{
    Sources, assert_none,
    sources::{Token, cut},
    workspace,
};

/// Macros that stand for code which is not there.
const MACROS: &[&str] = &["todo", "unimplemented"];

/// Words of a comment that promise to come back. Written in halves, or this file would hold them.
const WORDS: &[&str] = &[concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X"), concat!("HA", "CK")];

/// Roots under which only some machine has files.
const PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/tm", "p/"),
];

fn findings(sources: &Sources) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.rust() {
        let cut = cut(&source.text);
        for pair in cut.tokens.windows(2) {
            if is_open_macro(pair) {
                findings.push(format!("{}:{}: `{}!`", source.path, pair[0].line, pair[0].text));
            }
        }
        for comment in &cut.comments {
            for word in WORDS.iter().filter(|word| has_word(comment.text, word)) {
                findings.push(format!("{}:{}: {word} in a comment", source.path, comment.line));
            }
        }
    }
    for source in &sources.0 {
        for (i, line) in source.text.lines().enumerate() {
            for path in PATHS.iter().filter(|path| names_path(line, path)) {
                findings.push(format!("{}:{}: the path `{path}` of one machine", source.path, i + 1));
            }
        }
    }
    findings
}

fn is_open_macro(pair: &[Token<'_>]) -> bool {
    MACROS.contains(&pair[0].text) && pair[1].text == "!"
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|part| part == word)
}

/// True if `line` has `path` as an absolute path, not as a part of a longer one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}$/".contains(c))
    })
}

#[test]
fn nothing_is_left_open_and_no_machine_is_named() {
    assert_none("left open", &findings(&workspace()));
}

#[test]
fn open_ends_and_machine_paths_are_found() {
    let open = format!(
        "//! Open.\nfn a() {{ todo!() }}\nfn b() {{ unimplemented!(\"b\") }}\n// {} soon\nlet todo = \"todo!()\";\n",
        concat!("FIX", "ME")
    );
    let notes = format!("see {}x, not a{}x\n", concat!("/wo", "rk/"), concat!("/wo", "rk/"));
    let planted = Sources::planted(&[("tree/src/open.rs", &open), ("docs/NOTES.md", &notes)]);
    assert_eq!(
        findings(&planted),
        [
            "tree/src/open.rs:2: `todo!`".to_owned(),
            "tree/src/open.rs:3: `unimplemented!`".to_owned(),
            format!("tree/src/open.rs:4: {} in a comment", concat!("FIX", "ME")),
            format!("docs/NOTES.md:1: the path `{}` of one machine", concat!("/wo", "rk/")),
        ]
    );
}
