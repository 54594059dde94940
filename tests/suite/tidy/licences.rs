//! Rule: whatever the library, the shell and their tests are built from may be used by anybody who
//! may use this store: its licence is on the list.
//!
//! `cargo metadata` reads the lock file and what `cargo test` fetched already.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{assert_none, sources::root};

/// Licences that ask for no more than their own text. `deny.toml` has the same list.
const ALLOWED: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "0BSD",
    "CC0-1.0",
];

fn findings(metadata: &Value) -> Vec<String> {
    let packages: BTreeMap<&str, &Value> =
        list(metadata, "packages").filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let mut findings = Vec::new();
    for id in reached(metadata) {
        let Some(package) = packages.get(id.as_str()) else {
            findings.push(format!("{id}: named in the graph, but described nowhere"));
            continue;
        };
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        match package["license"].as_str() {
            None => findings.push(format!("{name}: names no licence")),
            Some(licence) if !Expression::allows(licence) => findings.push(format!("{name}: `{licence}`")),
            Some(_) => {}
        }
    }
    findings
}

/// Every package that a default member is built from.
fn reached(metadata: &Value) -> BTreeSet<String> {
    let graph: BTreeMap<&str, &Value> =
        list(&metadata["resolve"], "nodes").filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let mut open: Vec<&str> = list(metadata, "workspace_default_members").filter_map(Value::as_str).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id.to_owned()) {
            open.extend(
                graph
                    .get(id)
                    .into_iter()
                    .flat_map(|node| list(node, "dependencies"))
                    .filter_map(Value::as_str),
            );
        }
    }
    seen
}

fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value[name].as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// A licence expression being read: names joined by `OR` and `AND`, which binds closer.
struct Expression<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Expression<'a> {
    /// True if the expression can be met by licences of the list alone. Nonsense cannot.
    fn allows(licence: &'a str) -> bool {
        // The old way of writing `OR` was a slash.
        let spaced = licence.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let mut expression = Expression { words: spaced.split_whitespace().collect(), at: 0 };
        let allowed = expression.any();
        allowed == Some(true) && expression.at == expression.words.len()
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.words.get(self.at) == Some(&word);
        self.at += usize::from(is_next);
        is_next
    }

    fn any(&mut self) -> Option<bool> {
        let mut allowed = self.all()?;
        while self.take("OR") {
            allowed |= self.all()?;
        }
        Some(allowed)
    }

    fn all(&mut self) -> Option<bool> {
        let mut allowed = self.one()?;
        while self.take("AND") {
            allowed &= self.one()?;
        }
        Some(allowed)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let allowed = self.any()?;
            return self.take(")").then_some(allowed);
        }
        let mut name = (*self.words.get(self.at)?).to_owned();
        self.at += 1;
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.words.get(self.at)?);
            self.at += 1;
        }
        Some(ALLOWED.contains(&name.as_str()))
    }
}

/// What Cargo knows of the workspace on this platform. Only if a package was never fetched, as after
/// `cargo test` of one package alone, does it ask the registry for it.
fn cargo_metadata() -> Value {
    let output = match run_cargo_metadata(&["--offline"]) {
        output if output.status.success() => output,
        _ => run_cargo_metadata(&[]),
    };
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn run_cargo_metadata(more: &[&str]) -> Output {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host])
        .args(more)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .expect("cargo can be run")
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let metadata = cargo_metadata();
    let reached = reached(&metadata);
    assert!(reached.len() > 10, "only {} packages were looked at", reached.len());
    assert_none("licences", &findings(&metadata));
}

#[test]
fn a_dependency_of_a_dependency_with_another_licence_is_found() {
    let metadata = serde_json::json!({
        "workspace_default_members": ["ours"],
        "packages": [
            { "id": "ours", "name": "ours", "version": "1", "license": "MIT OR Apache-2.0" },
            { "id": "near", "name": "near", "version": "2", "license": "MIT" },
            { "id": "far", "name": "far", "version": "3", "license": "GPL-3.0" },
            { "id": "bare", "name": "bare", "version": "4", "license": null },
            { "id": "unused", "name": "unused", "version": "5", "license": "GPL-3.0" },
        ],
        "resolve": { "nodes": [
            { "id": "ours", "dependencies": ["near"] },
            { "id": "near", "dependencies": ["far", "bare", "lost"] },
        ] },
    });
    assert_eq!(
        findings(&metadata),
        ["bare 4: names no licence", "far 3: `GPL-3.0`", "lost: named in the graph, but described nowhere"]
    );
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    let cases = [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("GPL-3.0 AND MIT OR Zlib", true),
        ("(MIT OR GPL-3.0) AND GPL-3.0", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("Apache-2.0 WITH Other-exception", false),
        ("MIT OR", false),
        ("(MIT", false),
        ("", false),
        ("MIT Zlib", false),
    ];
    for (licence, want) in cases {
        assert_eq!(Expression::allows(licence), want, "{licence:?}");
    }
}
