//! Runs under way: batches of several records whose last one is still to come (P-2).
//!
//! A run is entered before its first part is completed, and taken out after its slot has been flipped or
//! given up. So a checkpoint that reads the log's watermark, then this list, then what dirty pages lack
//! meets a run in at least one of the three, and T stays at or below the run's first part.

use crate::{ids::Lsn, page::chain::ALL_DURABLE, sync::Mutex};

/// First positions of the runs under way.
#[derive(Debug)]
pub(crate) struct OpenRuns(Mutex<Vec<Lsn>>);

impl OpenRuns {
    pub(crate) fn new() -> OpenRuns {
        OpenRuns(Mutex::new(Vec::new()))
    }

    /// Enters a run; it is taken out when the returned token goes.
    pub(crate) fn enter(&self, first: Lsn) -> OpenRun<'_> {
        self.0.lock().push(first);
        OpenRun { runs: self, first }
    }

    /// The least first position, [`ALL_DURABLE`] if no run is under way.
    pub(super) fn oldest(&self) -> Lsn {
        self.0.lock().iter().copied().min().unwrap_or(ALL_DURABLE)
    }
}

/// A run under way.
#[derive(Debug)]
#[must_use = "a run is under way for as long as this lives"]
pub(crate) struct OpenRun<'r> {
    runs: &'r OpenRuns,
    first: Lsn,
}

impl OpenRun<'_> {
    pub(crate) fn first(&self) -> Lsn {
        self.first
    }
}

impl Drop for OpenRun<'_> {
    fn drop(&mut self) {
        self.runs.0.lock().retain(|first| *first != self.first);
    }
}
