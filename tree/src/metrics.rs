//! What is measured of a tree's calls, above what the page cache measures below them.

use std::fmt;

use pagecache::metrics::{Measured, Metrics, Profile, Unit};

/// A call on a tree, from its beginning to its answer, with all that it takes below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Reading a key.
    Get,
    /// Setting a key.
    Set,
    /// Taking a key away.
    Remove,
    /// Comparing and swapping.
    Swap,
    /// Applying a batch.
    Batch,
    /// Counting keys.
    Count,
}

impl Measured for Call {
    const ALL: &'static [(&'static str, Unit)] = &[
        ("tree get", Unit::Time),
        ("tree set", Unit::Time),
        ("tree remove", Unit::Time),
        ("tree swap", Unit::Time),
        ("tree batch", Unit::Time),
        ("tree count", Unit::Time),
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// Prints the calls' profile when the last handle of a database goes; the page cache prints its own.
pub(crate) struct PrintsOnDrop(pub(crate) Metrics<Call>);

impl fmt::Debug for PrintsOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrintsOnDrop")
    }
}

impl Drop for PrintsOnDrop {
    fn drop(&mut self) {
        let profile: Profile = self.0.profile();
        eprint!("{profile}");
    }
}
