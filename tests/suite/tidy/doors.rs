//! Rule: inside `pagecache` some names have one door each, so that replacing what stands behind it
//! (loom for the locks, the simulator for the disk) replaces it everywhere.

use super::{
    Sources, assert_none,
    sources::{Token, cut, without_tests},
    workspace,
};

/// A path that only some files may name, and why.
struct Door {
    path: &'static [&'static str],
    open_to: &'static [&'static str],
    why: &'static str,
}

const DOORS: &[Door] = &[
    Door {
        path: &["crossbeam_epoch"],
        open_to: &["reclaim.rs"],
        why: "the one collector and its pointers are `reclaim`'s",
    },
    Door {
        path: &["parking_lot"],
        open_to: &["sync.rs"],
        why: "`sync` chooses the locks, so that loom can take their place",
    },
    Door {
        path: &["bincode"],
        open_to: &["format/codec.rs"],
        why: "decoding by serde has one limit, in one file",
    },
    Door {
        path: &["std", "fs"],
        open_to: &["io/"],
        why: "`io` alone talks to the operating system, or the simulator misses it",
    },
    Door {
        path: &["rustix"],
        open_to: &["io/", "mem/"],
        why: "`io` alone talks to the operating system, and `mem` maps its arenas",
    },
];

/// What of `std::sync` any file may name: they need no model.
const STD_SYNC_FREE: &[&str] = &["Arc", "OnceLock", "LazyLock", "Weak"];

fn findings(sources: &Sources) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.rust() {
        let Some(file) = source.path.strip_prefix("pagecache/src/") else { continue };
        // A sibling file of tests may use what tests use.
        if file.ends_with("tests.rs") {
            continue;
        }
        let tokens = without_tests(&cut(&source.text).tokens);
        for i in 0..tokens.len() {
            for door in DOORS.iter().filter(|door| names(&tokens[i..], door.path)) {
                if !door.open_to.iter().any(|at| file.starts_with(at)) {
                    let path = door.path.join("::");
                    findings.push(format!("{}:{}: `{path}`: {}", source.path, tokens[i].line, door.why));
                }
            }
            if file != "sync.rs" && names(&tokens[i..], &["std", "sync"]) {
                for name in std_sync_names(&tokens[i..]) {
                    findings.push(format!(
                        "{}:{}: `std::sync::{name}` not by way of `crate::sync`",
                        source.path, tokens[i].line
                    ));
                }
            }
        }
    }
    findings
}

/// True if `tokens` begin with `path`, written in one piece or as `std::{.. fs ..}`.
fn names(tokens: &[Token<'_>], path: &[&str]) -> bool {
    if tokens[0].text != path[0] {
        return false;
    }
    let Some(second) = path.get(1) else { return tokens.get(1).is_some_and(|t| t.text == "::") };
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    is(1, "::") && (is(2, second) || is(2, "{") && grouped(&tokens[2..]).any(|token| token.text == *second))
}

/// The names that stand directly in the braces that `tokens` begin with.
fn grouped<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = &'t Token<'a>> {
    let mut depth = 0_i32;
    let inside = tokens.iter().take_while(move |token| {
        depth += i32::from(token.text == "{") - i32::from(token.text == "}");
        depth > 0
    });
    let mut level = 0_i32;
    let mut after_mark = false;
    inside.filter(move |token| {
        level += i32::from(token.text == "{") - i32::from(token.text == "}");
        let first_of_branch = level == 1 && after_mark;
        after_mark = token.text == "{" || token.text == ",";
        first_of_branch && token.text.starts_with(char::is_alphabetic)
    })
}

/// What of `std::sync` a path that starts here names, less what is free to all.
fn std_sync_names<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let Some(sync) = tokens.iter().position(|token| token.text == "sync") else { return Vec::new() };
    let rest = &tokens[sync + 1..];
    let named: Vec<&str> = match (rest.first().map(|t| t.text), rest.get(1).map(|t| t.text)) {
        (Some("::"), Some("{")) => grouped(&rest[1..]).map(|token| token.text).collect(),
        (Some("::"), Some(name)) => vec![name],
        _ => vec!["self"],
    };
    named.into_iter().filter(|name| !STD_SYNC_FREE.contains(name)).collect()
}

#[test]
fn each_door_is_the_only_one() {
    assert_none("doors", &findings(&workspace()));
}

#[test]
fn a_way_past_each_door_is_found() {
    let past = "//! Past.\nuse crossbeam_epoch::Guard;\nuse parking_lot::Mutex;\nfn a() { bincode::b() }\n\
        use std::{collections::HashMap, fs, sync::{Arc, Mutex, atomic::AtomicU64}};\nuse rustix::fs::c;\n\
        use std::sync::Arc; use std::sync::mpsc; use std::fs::File;\n\
        #[cfg(test)] mod tests { use std::fs; use std::sync::Barrier; }\n";
    let planted = Sources::planted(&[
        ("pagecache/src/log/past.rs", past),
        ("pagecache/src/sync.rs", "//! Sync.\nuse std::sync::atomic; use parking_lot::Mutex;\n"),
        ("pagecache/src/io/file.rs", "//! File.\nuse std::fs::File; use rustix::fs::d;\n"),
        ("pagecache/src/log/ring_tests.rs", "//! Tests.\nuse std::sync::Barrier;\n"),
        ("tree/src/lib.rs", "//! Tree.\nuse std::fs;\n"),
    ]);
    let found = findings(&planted);
    let brief: Vec<String> = found
        .iter()
        .map(|finding| {
            let mut parts = finding.split('`');
            let at = parts.next().and_then(|at| at.strip_prefix("pagecache/src/log/past.rs:"));
            format!("{}{}", at.unwrap_or("elsewhere: "), parts.next().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        brief,
        [
            "2: crossbeam_epoch",
            "3: parking_lot",
            "4: bincode",
            "5: std::fs",
            "5: std::sync::Mutex",
            "5: std::sync::atomic",
            "6: rustix",
            "7: std::sync::mpsc",
            "7: std::fs",
        ]
    );
}
