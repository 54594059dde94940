//! What is measured of a page cache, or of a log used alone: the list, with a name and a unit for each.

use super::{Measured, Unit};

/// Work of a store.
///
/// Reading a page includes fetching it, fetching includes reading the file and merging, and so on down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Work {
    /// Reading a page, merged.
    Get,
    /// A change of one page, from the look at its key to the answer.
    Link,
    /// A page begun anew.
    Replace,
    /// A page freed.
    Free,
    /// A batch's commit, without its installs.
    Batch,
    /// Changes that another thread's came before, counted.
    LostRaces,
    /// A place in the log taken and filled.
    Reserve,
    /// Fragments united by the materializer.
    Merge,
    /// A page's durable form read and merged.
    PageIn,
    /// A round of pages written back.
    PageOut,
    /// Pages of such a round.
    PagesOut,
    /// A round of memory made room in.
    Evict,
    /// A round of frames moved out of segments with little else.
    Move,
    /// Bytes of such a round.
    MovedBytes,
    /// A wait until changes were durable.
    Flush,
    /// A checkpoint, and what it cleaned.
    Checkpoint,
    /// A pause of a writer, because checkpoints fall behind.
    Pause,
    /// A read of the `log` file.
    LogRead,
    /// A write to the `log` file.
    LogWrite,
    /// A write to the `log` file that is durable at once.
    LogDurable,
    /// A sync of the `log` file.
    LogSync,
    /// Bytes of the writes to the `log` file.
    LogBytes,
    /// A read of the `pages` file.
    PagesRead,
    /// A write to the `pages` file.
    PagesWrite,
    /// A write to the `pages` file that is durable at once, as of a superblock.
    PagesDurable,
    /// A sync of the `pages` file.
    PagesSync,
    /// Bytes of the writes to the `pages` file.
    PagesBytes,
    /// A sync of names.
    NamesSync,
}

impl Measured for Work {
    const ALL: &'static [(&'static str, Unit)] = &[
        ("get", Unit::Time),
        ("link", Unit::Time),
        ("replace", Unit::Time),
        ("free", Unit::Time),
        ("batch", Unit::Time),
        ("lost races", Unit::Number),
        ("reserve", Unit::Time),
        ("merge", Unit::Time),
        ("page in", Unit::Time),
        ("page out", Unit::Time),
        ("pages out", Unit::Number),
        ("evict", Unit::Time),
        ("move", Unit::Time),
        ("moved bytes", Unit::Bytes),
        ("flush", Unit::Time),
        ("checkpoint", Unit::Time),
        ("pause", Unit::Time),
        ("log read", Unit::Time),
        ("log write", Unit::Time),
        ("log write, durable", Unit::Time),
        ("log sync", Unit::Time),
        ("log bytes", Unit::Bytes),
        ("pages read", Unit::Time),
        ("pages write", Unit::Time),
        ("pages write, durable", Unit::Time),
        ("pages sync", Unit::Time),
        ("pages bytes", Unit::Bytes),
        ("names sync", Unit::Time),
    ];

    fn index(self) -> usize {
        self as usize
    }
}
