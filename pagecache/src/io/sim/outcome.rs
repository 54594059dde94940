//! What becomes of the bytes when a sync is asked for.

use super::rng::fold;

/// What a sync really did, whatever it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncOutcome {
    Durable,
    /// These bytes and the length are durable, other bytes are as before.
    DurableIn {
        offset: u64,
        len: usize,
    },
    Nothing,
    Reverted,
    Forgotten,
}

impl SyncOutcome {
    /// A number that tells outcomes apart.
    pub(super) fn hash(self) -> u64 {
        match self {
            SyncOutcome::Durable => 0,
            SyncOutcome::Nothing => 1,
            SyncOutcome::Reverted => 2,
            SyncOutcome::Forgotten => 3,
            SyncOutcome::DurableIn { offset, len } => fold(offset, len as u64),
        }
    }
}
