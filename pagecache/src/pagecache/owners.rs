//! Who has the store's memory.

use super::shared::Shared;
use crate::materializer::Materializer;

/// The memory of a store by its owners, in bytes. They add up to what the store takes of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryOwners {
    /// Pages and changes that are in memory.
    pub pages: usize,
    /// Former pages that wait until no reader can see them any more.
    pub retired: usize,
    /// Buffers that callers hold beyond that: leaves of iterators, values on loan, changes under way.
    pub callers: usize,
    /// Page memory that is taken from the system and not used: part-filled slabs and free runs.
    pub unused: usize,
    /// The page table's cells and dirty bits.
    pub table: usize,
    /// What the page table says of each page's place in the `pages` file.
    pub places: usize,
    /// What the log's tail said when the store was opened, of pages that nobody has asked for since.
    pub replay: usize,
    /// Buffers of the log.
    pub log: usize,
    /// Bytes that are being read or written, and buffers kept for that.
    pub in_flight: usize,
}

impl MemoryOwners {
    /// Every owner by its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, usize); 9] {
        [
            ("pages", self.pages),
            ("retired", self.retired),
            ("callers", self.callers),
            ("unused", self.unused),
            ("table", self.table),
            ("places", self.places),
            ("replay", self.replay),
            ("log", self.log),
            ("in_flight", self.in_flight),
        ]
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.named().iter().map(|(_, bytes)| bytes).sum()
    }
}

impl<M: Materializer + Send + Sync + 'static> Shared<M> {
    pub(super) fn memory_owners(&self) -> MemoryOwners {
        let memory = self.cache.memory.stats();
        let (table, beside) = self.cache.pages.memory_bytes();
        let places = self.cache.pages.durable_bytes().min(memory.in_use_bytes);
        let buffers = memory.in_use_bytes - places;
        // What is charged and what lies in buffers differ by a few bytes a node.
        let pages = self.cache.budget.resident_bytes().min(buffers);
        let retired = memory.retired_bytes.min(buffers - pages);
        MemoryOwners {
            pages,
            retired,
            callers: buffers - pages - retired,
            unused: memory.reserved_bytes.saturating_sub(memory.in_use_bytes),
            table,
            places: places + beside + self.cache.maps.memory_bytes(),
            replay: self.cache.maps.replay_bytes(),
            log: self.log.memory_bytes(),
            in_flight: self.cache.budget.in_flight_bytes() + self.cache.store.spare_bytes(),
        }
    }
}
