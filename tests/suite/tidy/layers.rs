//! Rule: inside `pagecache` each folder uses only those to its right, and the ground; across crates
//! `repl` uses `tree` uses `pagecache`, never the other way.
//!
//! A path counts however it is written: `use crate::{a, b::c}`, `crate::a::f()`, `super::super::a`,
//! and `crate::Item` where the crate's root re-exports the item from a folder.

use super::{
    Sources, assert_none,
    sources::{Token, cut},
    workspace,
};

/// The folders, each above those to its right.
///
/// `raw_log`, the log as a product of its own, is a face like `pagecache` and stands below it: it needs
/// the salts of `checkpoint` and the superblocks of `store`, and nothing of the pages.
const ORDER: &[&str] =
    &["pagecache", "raw_log", "checkpoint", "cache", "page", "store", "log", "io", "format"];

/// What any folder may use, and what uses only itself and the exceptions below. `schedules` is there for
/// tests alone.
const GROUND: &[&str] = &[
    "ids",
    "error",
    "config",
    "sync",
    "reclaim",
    "metrics",
    "event_log",
    "mem",
    "materializer",
    "schedules",
];

/// Ways up, each with its reason: the file's folder, the path it may name.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("config", "io", "the seams for files, time and threads come in through the settings"),
    ("metrics", "io", "time comes in through the clock of the settings"),
    ("materializer", "format::codec", "a fragment's default encoding is the codec's"),
];

/// What each crate's manifest may name among the workspace's crates.
const CRATES: &[(&str, &[&str])] = &[
    ("pagecache", &[]),
    ("tree", &["pagecache"]),
    ("repl", &["tree", "pagecache"]),
    ("tests", &["tree", "pagecache", "repl"]),
    ("benches", &["tree", "pagecache"]),
];

fn findings(sources: &Sources) -> Vec<String> {
    let mut findings = Vec::new();
    let exports = exports(sources.text("pagecache/src/lib.rs").unwrap_or_default());
    for source in sources.rust() {
        let Some(file) = source.path.strip_prefix("pagecache/src/") else { continue };
        if file == "lib.rs" {
            continue;
        }
        let cut = cut(&source.text);
        for path in crate_paths(file, &cut.tokens) {
            if let Err(why) = check(file, &path.names, &exports) {
                findings.push(format!("{}:{}: {why}", source.path, path.line));
            }
        }
    }
    for (name, allowed) in CRATES {
        let manifest = sources.text(&format!("{name}/Cargo.toml")).unwrap_or_default();
        for other in named_crates(manifest) {
            if other != *name && !allowed.contains(&other) {
                findings.push(format!("{name}/Cargo.toml: `{name}` may not use `{other}`"));
            }
        }
    }
    findings
}

/// A path from the crate's root, as far as its first two names.
struct RootPath {
    names: Vec<String>,
    line: usize,
}

fn check(file: &str, names: &[String], exports: &[(String, String)]) -> Result<(), String> {
    let from = file.split('/').next().unwrap_or(file).trim_end_matches(".rs");
    let first = names[0].as_str();
    let exported = exports.iter().find(|(item, _)| item == first).map(|(_, module)| module.as_str());
    let to = exported.unwrap_or(first);
    let whole = names.join("::");
    let excepted = |(at, path, _): &(&str, &str, &str)| {
        *at == from && (to == *path || whole == *path || whole.starts_with(&format!("{path}::")))
    };
    if from == to || GROUND.contains(&to) || EXCEPTIONS.iter().any(excepted) {
        return Ok(());
    }
    let Some(target) = ORDER.iter().position(|folder| *folder == to) else {
        return Err(format!("`crate::{whole}` is in no layer"));
    };
    match ORDER.iter().position(|folder| *folder == from) {
        Some(own) if own < target => Ok(()),
        Some(_) => Err(format!("`{from}` may not use `crate::{whole}`: `{to}` is not to its right")),
        None => Err(format!("`{from}` is ground and may not use `crate::{whole}`")),
    }
}

/// What the crate's root re-exports, and from which folder.
fn exports(root: &str) -> Vec<(String, String)> {
    let cut = cut(root);
    let mut exports = Vec::new();
    for (i, token) in cut.tokens.iter().enumerate() {
        if token.text == "use" {
            let end = cut.tokens[i..].iter().position(|t| t.text == ";").map_or(cut.tokens.len(), |n| i + n);
            for path in tree_paths(&cut.tokens[i + 1..end]) {
                if let [module, .., item] = path.names.as_slice() {
                    exports.push((item.clone(), module.clone()));
                }
            }
        }
    }
    exports
}

/// Every path of a file that starts at the crate's root, by `crate` or by enough `super`s.
fn crate_paths(file: &str, tokens: &[Token<'_>]) -> Vec<RootPath> {
    let file_depth = file.split('/').count() - usize::from(file.ends_with("/mod.rs"));
    let mut inline = InlineModules::default();
    let mut paths = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        inline.see(tokens, i);
        let follows_path = i > 0 && tokens[i - 1].text == "::";
        if follows_path || tokens.get(i + 1).is_none_or(|next| next.text != "::") {
            continue;
        }
        match token.text {
            "crate" => paths.extend(tree_paths(&tokens[i + 2..])),
            "super" => {
                let supers = tokens[i..].chunks(2).take_while(|pair| is_super(pair)).count();
                if supers == file_depth + inline.depth() {
                    paths.extend(tree_paths(&tokens[i + 2 * supers..]));
                }
            }
            _ => {}
        }
    }
    paths
}

fn is_super(pair: &[Token<'_>]) -> bool {
    pair.len() == 2 && pair[0].text == "super" && pair[1].text == "::"
}

/// Which `mod name { .. }` blocks of a file are open.
#[derive(Default)]
struct InlineModules {
    braces: usize,
    open_at: Vec<usize>,
}

impl InlineModules {
    fn see(&mut self, tokens: &[Token<'_>], i: usize) {
        match tokens[i].text {
            "{" => {
                if i >= 2 && tokens[i - 2].text == "mod" {
                    self.open_at.push(self.braces);
                }
                self.braces += 1;
            }
            "}" => {
                self.braces = self.braces.saturating_sub(1);
                if self.open_at.last() == Some(&self.braces) {
                    self.open_at.pop();
                }
            }
            _ => {}
        }
    }

    fn depth(&self) -> usize {
        self.open_at.len()
    }
}

/// The paths of a use tree or of one path, each with all its names: `a::{b, c::{d, e}}` is `a::b`,
/// `a::c::d` and `a::c::e`.
fn tree_paths(tokens: &[Token<'_>]) -> Vec<RootPath> {
    let mut at = 0;
    let mut paths = Vec::new();
    branch(tokens, &mut at, &[], &mut paths);
    paths
}

fn branch(tokens: &[Token<'_>], at: &mut usize, before: &[String], paths: &mut Vec<RootPath>) {
    let mut names = before.to_vec();
    let line = tokens.get(*at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(*at) {
        *at += 1;
        match token.text {
            "{" => {
                while tokens.get(*at).is_some_and(|next| next.text != "}") {
                    branch(tokens, at, &names, paths);
                    if tokens.get(*at).is_some_and(|next| next.text == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            "self" => {}
            name => names.push(name.to_owned()),
        }
        if tokens.get(*at).is_none_or(|next| next.text != "::") {
            break;
        }
        *at += 1;
    }
    // The new name of `a as b` is no part of the path.
    if tokens.get(*at).is_some_and(|next| next.text == "as") {
        *at += 2;
    }
    if !names.is_empty() {
        paths.push(RootPath { names, line });
    }
}

/// The workspace's crates that a manifest names in one of its dependency tables.
fn named_crates(manifest: &str) -> Vec<&str> {
    let mut in_dependencies = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            in_dependencies = table.contains("dependencies");
        } else if in_dependencies {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.extend(CRATES.iter().map(|(known, _)| *known).filter(|known| *known == name));
        }
    }
    found
}

#[test]
fn each_folder_uses_only_those_to_its_right() {
    assert_none("layers", &findings(&workspace()));
}

#[test]
fn every_way_of_naming_a_higher_layer_is_found() {
    let lib = "//! Root.\npub use pagecache::{PageCache, Error as E};\npub use ids::Lsn;\n";
    let log = "//! Log.\nuse crate::{io::file, ids::Lsn, store::{Store, seg}};\nfn a() { crate::page::b() }\n\
        // crate::cache::c\nuse super::ring;\nuse super::super::checkpoint::D;\npub(crate) struct F;\n\
        mod tests { use super::super::g; use super::super::super::cache::H; }\n\
        type I = crate::PageCache; type J = crate::Lsn; type K = crate::Stranger;\n";
    let planted = Sources::planted(&[
        ("pagecache/src/lib.rs", lib),
        ("pagecache/src/log/ring.rs", log),
        ("pagecache/src/pagecache/mod.rs", "//! Top.\nuse crate::{checkpoint, format::frame, log as l};\n"),
        ("pagecache/src/format/mod.rs", "//! Bytes.\nuse super::io;\nuse crate::error::Failure;\n"),
        ("pagecache/src/config.rs", "//! Settings.\nuse crate::io::Storage;\nuse crate::log::Log;\n"),
        ("pagecache/src/materializer.rs", "//! M.\nuse crate::format::{codec, codec::x, frame};\n"),
        (
            "tree/Cargo.toml",
            "[package]\nname = \"tree\"\n[dependencies]\nrepl.workspace = true\nserde = \"1\"\n",
        ),
    ]);
    assert_eq!(
        findings(&planted),
        [
            "pagecache/src/log/ring.rs:2: `log` may not use `crate::store::Store`: `store` is not to its right",
            "pagecache/src/log/ring.rs:2: `log` may not use `crate::store::seg`: `store` is not to its right",
            "pagecache/src/log/ring.rs:3: `log` may not use `crate::page::b`: `page` is not to its right",
            "pagecache/src/log/ring.rs:6: `log` may not use `crate::checkpoint::D`: `checkpoint` is not to its right",
            "pagecache/src/log/ring.rs:8: `log` may not use `crate::cache::H`: `cache` is not to its right",
            "pagecache/src/log/ring.rs:9: `log` may not use `crate::PageCache`: `pagecache` is not to its right",
            "pagecache/src/log/ring.rs:9: `crate::Stranger` is in no layer",
            "pagecache/src/format/mod.rs:2: `format` may not use `crate::io`: `io` is not to its right",
            "pagecache/src/config.rs:3: `config` is ground and may not use `crate::log::Log`",
            "pagecache/src/materializer.rs:2: `materializer` is ground and may not use `crate::format::frame`",
            "tree/Cargo.toml: `tree` may not use `repl`",
        ]
    );
}
