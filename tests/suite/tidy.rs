//! The house rules, held by `cargo test`: what a review would otherwise have to remember.
//!
//! Every rule is a function from the workspace's sources to findings, in its own file, with the
//! table it goes by on top. Each is run twice: over this workspace, where it must find nothing, and
//! over a planted sample, where it must find exactly what was planted.

mod doors;
mod headers;
mod layers;
mod left_open;
mod licences;
mod seed;
mod sources;
mod tags;
mod unsafe_places;

use sources::Sources;

/// Fails with every finding, one a line, and the place where the rule stands.
fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}: {} finding(s)\n  {}", findings.len(), findings.join("\n  "));
}

/// The workspace as it lies on disk.
fn workspace() -> Sources {
    Sources::read()
}
