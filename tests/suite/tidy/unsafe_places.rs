//! Rule: `unsafe` stands only where this table says and why; the other crates forbid it outright.
//!
//! That each block has its proof beside it is clippy's business (`undocumented_unsafe_blocks`).

use super::{Sources, assert_none, sources::cut, workspace};

/// Where `unsafe` may stand, and what cannot be said without it.
const PLACES: &[(&str, &str)] = &[
    ("pagecache/src/page/chain.rs", "a node is owned by the one above it, which readers follow meanwhile"),
    (
        "pagecache/src/page/cell.rs",
        "a cell's words are pointers that one swaps and many follow under a guard",
    ),
    (
        "pagecache/src/page/table.rs",
        "chunks of cells appear once, without a lock, and are reached through a pointer",
    ),
    ("pagecache/src/log/buffer.rs", "many writers fill disjoint ranges of one buffer at once"),
    ("pagecache/src/log/word/loom_tests.rs", "a model of it, whose cells loom watches instead"),
    ("pagecache/src/log/order_models.rs", "a model, whose cells loom watches"),
    ("pagecache/tests/read_path.rs", "an allocator that counts must be one"),
    ("pagecache/src/mem/arena.rs", "page memory is handed out by hand"),
    ("pagecache/src/mem/mapping.rs", "page memory is mapped, advised and given back by hand"),
    ("pagecache/src/mem/buf.rs", "a page buffer is a counted range of an arena"),
    (
        "pagecache/src/mem/placed.rs",
        "a value lies in a block of an arena and goes by a raw pointer meanwhile",
    ),
    ("pagecache/src/mem/prefetch.rs", "a prefetch is an instruction on a raw address"),
    ("pagecache/src/io/aligned.rs", "direct I/O wants memory on block boundaries, which `Vec` does not give"),
];

/// The roots of the crates and binaries that hold no `unsafe` at all.
const FORBIDDING: &[&str] = &[
    "tree/src/lib.rs",
    "repl/src/main.rs",
    "tests/src/lib.rs",
    "tests/suite/main.rs",
    "benches/src/main.rs",
];

fn findings(sources: &Sources) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.rust() {
        let first =
            cut(&source.text).tokens.iter().find(|token| token.text == "unsafe").map(|token| token.line);
        let listed = PLACES.iter().any(|(path, _)| *path == source.path);
        match first {
            Some(line) if !listed => {
                findings.push(format!("{}:{line}: `unsafe` outside its places", source.path))
            }
            None if listed => findings.push(format!("{}: holds no `unsafe`, strike it off", source.path)),
            _ => {}
        }
    }
    for root in FORBIDDING {
        let forbids = |text: &str| text.lines().any(|line| line == "#![forbid(unsafe_code)]");
        if !sources.text(root).is_some_and(forbids) {
            findings.push(format!("{root}: does not say `#![forbid(unsafe_code)]`"));
        }
    }
    findings
}

#[test]
fn unsafe_stands_only_in_its_places() {
    assert_none("unsafe places", &findings(&workspace()));
}

#[test]
fn unsafe_elsewhere_a_stale_line_and_a_crate_that_allows_it_are_found() {
    let forbid = "//! Root.\n#![forbid(unsafe_code)]\n";
    let mut files: Vec<(&str, &str)> = FORBIDDING[1..].iter().map(|root| (*root, forbid)).collect();
    files.push(("tree/src/lib.rs", "//! Root; `unsafe` is welcome.\n// #![forbid(unsafe_code)]\n"));
    files
        .push(("pagecache/src/log/ring.rs", "//! Ring.\n// unsafe\nlet a = \"unsafe\";\nunsafe fn b() {}\n"));
    files.push(("pagecache/src/page/chain.rs", "//! Chain.\nunsafe impl Send for Node {}\n"));
    files.push(("pagecache/src/mem/buf.rs", "//! Buffer.\n#![deny(unsafe_op_in_unsafe_fn)]\n"));
    assert_eq!(
        findings(&Sources::planted(&files)),
        [
            "pagecache/src/log/ring.rs:4: `unsafe` outside its places",
            "pagecache/src/mem/buf.rs: holds no `unsafe`, strike it off",
            "tree/src/lib.rs: does not say `#![forbid(unsafe_code)]`",
        ]
    );
}
