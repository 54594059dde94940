//! What lay where files were cut or removed: new sectors may read as this.
//!
//! A file system hands blocks out again once what freed them is durable, and not before: a crash that undid
//! the cut would else find one block in two places.

use std::sync::Arc;

use super::{contents::Chunk, outcome::SyncOutcome, state::Inode};

/// How many chunks are remembered.
pub(super) const FREED_CHUNKS_MAX: usize = 8;

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub(super) struct Freed {
    /// Free for good.
    gone: Vec<Arc<Chunk>>,
    /// Freed by a call that a crash may undo: the cut of this file, or a change of names.
    going: Vec<(Option<Inode>, Arc<Chunk>)>,
}

impl Freed {
    /// A file was cut.
    pub(super) fn cut(&mut self, inode: Inode, chunks: Vec<Arc<Chunk>>) {
        self.go(Some(inode), chunks);
    }

    /// A file has lost its name.
    pub(super) fn unnamed(&mut self, chunks: Vec<Arc<Chunk>>) {
        self.go(None, chunks);
    }

    fn go(&mut self, by: Option<Inode>, chunks: Vec<Arc<Chunk>>) {
        self.going.extend(chunks.into_iter().map(|chunk| (by, chunk)));
        let excess = self.going.len().saturating_sub(FREED_CHUNKS_MAX);
        self.going.drain(..excess);
    }

    /// The file's length was synced, or with `None` all names were.
    pub(super) fn synced(&mut self, what: Option<Inode>, outcome: SyncOutcome) {
        let is_durable = match outcome {
            SyncOutcome::Durable => true,
            // Of one file: its length is durable with the bytes.
            SyncOutcome::DurableIn { .. } => what.is_some(),
            SyncOutcome::Nothing => return,
            // The cut is undone, or no later sync makes it durable.
            SyncOutcome::Reverted | SyncOutcome::Forgotten => false,
        };
        let (now, later) = std::mem::take(&mut self.going).into_iter().partition(|(by, _)| *by == what);
        self.going = later;
        if is_durable {
            let now: Vec<(Option<Inode>, Arc<Chunk>)> = now;
            self.gone.extend(now.into_iter().map(|(_, chunk)| chunk));
            let excess = self.gone.len().saturating_sub(FREED_CHUNKS_MAX);
            self.gone.drain(..excess);
        }
    }

    /// What new sectors may hold.
    pub(super) fn gone(&self) -> &[Arc<Chunk>] {
        &self.gone
    }

    /// What a crash leaves of it.
    pub(super) fn after_crash(&self) -> Freed {
        Freed { gone: self.gone.clone(), going: Vec::new() }
    }
}
