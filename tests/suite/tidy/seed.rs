//! Rule: every test that `docs/SEED.md` names exists.
//!
//! A name of a test is told from other names there by three underscores or more.

use std::collections::BTreeSet;

use super::{Sources, assert_none, sources::cut, workspace};

/// The page.
const PAGE: &str = "docs/SEED.md";

fn findings(sources: &Sources) -> Vec<String> {
    let mut known = BTreeSet::new();
    for source in sources.rust() {
        let cut = cut(&source.text);
        known.extend(cut.tokens.windows(2).filter(|pair| pair[0].text == "fn").map(|pair| pair[1].text));
    }
    let mut findings = Vec::new();
    for (i, line) in sources.text(PAGE).unwrap_or_default().lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        for name in quoted.filter(|name| is_a_test(name) && !known.contains(name)) {
            findings.push(format!("{PAGE}:{}: no test is called `{name}`", i + 1));
        }
    }
    findings
}

fn is_a_test(name: &str) -> bool {
    name.matches('_').count() >= 3
        && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
}

#[test]
fn every_test_that_the_page_names_exists() {
    let page = workspace();
    assert!(page.text(PAGE).is_some_and(|text| text.contains("D-44")), "{PAGE} is gone or short");
    assert_none("seed", &findings(&page));
}

#[test]
fn a_test_that_is_gone_is_found() {
    let planted = Sources::planted(&[
        (PAGE, "| `a_test_that_is_there`, `a_test_that_went_away` | `log_buffers` |"),
        ("log/a.rs", "fn a_test_that_is_there() {}"),
    ]);
    assert_eq!(findings(&planted), ["docs/SEED.md:1: no test is called `a_test_that_went_away`"]);
}
