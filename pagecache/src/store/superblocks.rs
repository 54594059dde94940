//! The two superblocks: how a store comes to be, which one counts, how the next is published.
//!
//! * A store has a name only once it is whole: it is written as `pages.new`, synced, then renamed.
//! * The higher valid generation counts; one damaged slot is survived.
//! * A publication writes the older or damaged slot, syncs, then the other, syncs again: at every
//!   moment one slot is valid and untouched. Only after both is anything recycled.
//! * Two valid slots that differ are what a failed or cut publication leaves. The newer may be in
//!   the system's cache only, so it is written and synced again, in place, before the older one is
//!   touched: no moment has both in doubt.
//!
//! What the fields mean is [`crate::format::superblock`]'s business.

use std::io;

use crate::{
    error::{DecodeError, Failure},
    format::superblock::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Superblock, SuperblockError},
    io::{FileId, Storage, SyncReason},
    store::pages::PagesFile,
};

/// Incompatible feature: the directory holds a log alone, with no pages.
pub(crate) const LOG_ALONE: u32 = 1;
/// Incompatible feature: pages may be packed with codec 1.
pub(crate) const PACKED: u32 = 2;

/// What the slots held when they were read: the generation, if it was valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots(pub(crate) [Option<u64>; 2]);

/// Makes an empty store. A cut anywhere leaves nothing, or a store that opens.
pub(crate) fn create(storage: &dyn Storage, superblock: &Superblock) -> Result<(), Failure> {
    let block = superblock.encode();
    let both = block.repeat(2);
    let failed = |doing: &'static str| {
        let (path, needed) = (storage.path(FileId::PagesNew), both.len() as u64);
        move |e: io::Error| Failure::from_io(doing, path, 0, needed, e)
    };
    storage.create(FileId::PagesNew).map_err(failed("creating the store"))?;
    storage.write_at(FileId::PagesNew, 0, &both).map_err(failed("writing the new store"))?;
    storage.sync(FileId::PagesNew, SyncReason::Creation).map_err(failed("syncing the new store"))?;
    storage.rename(FileId::PagesNew, FileId::Pages).map_err(failed("naming the new store"))?;
    storage.sync_names(SyncReason::CreationName).map_err(|e| {
        // No later sync need make this name durable, so the next open must not find it: it makes the
        // store anew. Nothing is lost if this fails too: no write was ever let in.
        let _ = storage.remove(FileId::Pages);
        failed("syncing the new store's name")(e)
    })
}

/// The superblock that counts, and what each slot held.
///
/// # Errors
///
/// [`Failure::Corrupt`] at byte 0 if neither slot is valid; [`Failure::Unsupported`] if newer code
/// wrote either, or uses features that this code does not know.
pub(crate) fn read_newest(storage: &dyn Storage) -> Result<(Superblock, Slots), Failure> {
    read_newest_with(storage, PACKED)
}

/// As [`read_newest`], of a store that may use these incompatible features, and is what they say.
pub(crate) fn read_newest_with(
    storage: &dyn Storage,
    incompatible: u32,
) -> Result<(Superblock, Slots), Failure> {
    let path = storage.path(FileId::Pages);
    let failed = |e| Failure::from_io("reading the superblocks", path.clone(), 0, 0, e);
    let corrupt = |found: String| Failure::Corrupt { found, path: path.clone(), offset: 0 };
    let len = storage.len(FileId::Pages).map_err(failed)?;
    let mut front = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(2 * BLOCK_BYTES_MAX as usize)];
    storage.read_at(FileId::Pages, 0, &mut front).map_err(failed)?;

    let first = readable(Superblock::decode(&front))?;
    let second = readable(decode_second(&front, first.as_ref().ok()))?;
    let generation = |slot: &Result<Superblock, SuperblockError>| slot.as_ref().ok().map(|sb| sb.generation);
    let slots = Slots([generation(&first), generation(&second)]);
    let newest = match (first, second) {
        (Ok(first), Ok(second)) if first.uuid != second.uuid || first.geometry != second.geometry => {
            return Err(corrupt("the two superblocks belong to different stores".to_owned()));
        }
        (Ok(first), Ok(second)) if first.generation == second.generation && first != second => {
            return Err(corrupt(format!("two superblocks claim generation {}", first.generation)));
        }
        (Ok(first), Ok(second)) if first.generation >= second.generation => first,
        (_, Ok(second)) => second,
        (Ok(first), Err(_)) => first,
        (Err(found), Err(_)) => return Err(corrupt(format!("neither superblock is valid: {found}"))),
    };
    let used = newest.features.incompatible;
    if (used ^ incompatible) & LOG_ALONE != 0 {
        let holds = if incompatible & LOG_ALONE == 0 {
            "a log alone; open it as a `Log`"
        } else {
            "pages; open it as a `PageCache`"
        };
        return Err(Failure::Unsupported { what: format!("{} belongs to {holds}", path.display()) });
    }
    let unknown = used & !incompatible;
    if unknown != 0 {
        let what =
            format!("the store uses features {unknown:#x} unknown to this version; open it with a newer one");
        return Err(Failure::Unsupported { what });
    }
    Ok((newest, slots))
}

/// A newer format in either slot ends the search: what the other says is out of date.
fn readable(
    slot: Result<Superblock, SuperblockError>,
) -> Result<Result<Superblock, SuperblockError>, Failure> {
    match slot {
        Err(newer @ SuperblockError::Newer { .. }) => Err(Failure::Unsupported { what: newer.to_string() }),
        other => Ok(other),
    }
}

/// The second slot lies one block in: if the first does not say how long that is, every size is
/// tried, and the slot must agree with the place it was found at.
fn decode_second(front: &[u8], first: Option<&Superblock>) -> Result<Superblock, SuperblockError> {
    let at = |block_bytes: u32| {
        let slot = Superblock::decode(front.get(block_bytes as usize..).unwrap_or(&[]))?;
        if slot.geometry.block_bytes == block_bytes {
            return Ok(slot);
        }
        Err(SuperblockError::Damaged(DecodeError("the superblock lies in the wrong place".to_owned())))
    };
    if let Some(first) = first {
        return at(first.geometry.block_bytes);
    }
    let sizes = std::iter::successors(Some(BLOCK_BYTES_MIN), |size| Some(size * 2));
    let mut found = sizes.take_while(|size| *size <= BLOCK_BYTES_MAX).map(at);
    found
        .find(|slot| matches!(slot, Ok(_) | Err(SuperblockError::Newer { .. })))
        .unwrap_or(Err(SuperblockError::NotAStore))
}

/// Writes superblocks, one after the other.
#[derive(Debug)]
pub(crate) struct Publisher {
    file: PagesFile,
    slots: Slots,
    newest: Superblock,
    /// This process has published: both slots are on the disk and not only in a cache.
    proven: bool,
}

impl Publisher {
    /// Goes on from what [`read_newest`] returned, or from what [`create`] wrote (both slots valid).
    pub(crate) fn new(file: PagesFile, newest: Superblock, slots: Slots) -> Publisher {
        Publisher { file, slots, newest, proven: false }
    }

    /// The superblock published last.
    #[cfg(test)]
    pub(crate) fn newest(&self) -> &Superblock {
        &self.newest
    }

    /// Publishes `next` as the generation after the last, and stores that number in it. When this
    /// returns both slots hold it, durably: what only older ones referred to may be recycled.
    ///
    /// # Errors
    ///
    /// Any failure poisons the store: whether the old or the new superblock counts is then for the
    /// next open to find out.
    pub(crate) fn publish(&mut self, next: &mut Superblock) -> Result<(), Failure> {
        self.file.check()?;
        self.settle()?;
        next.generation = self.newest.generation + 1;
        let block = next.encode();
        let first = self.older();
        self.write(first, &block, SyncReason::FirstSuperblock)?;
        self.slots.0[first] = Some(next.generation);
        self.write(1 - first, &block, SyncReason::SecondSuperblock)?;
        self.slots.0[1 - first] = Some(next.generation);
        self.newest = next.clone();
        self.proven = true;
        Ok(())
    }

    /// True if both slots are known to hold the newest, durably.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Which slot the next publication writes first: a damaged one, else the older.
    fn older(&self) -> usize {
        let [first, second] = self.slots.0;
        usize::from(second < first)
    }

    /// Makes sure that the slot which is written last is on the disk and not only in a cache, before
    /// the other is touched. It is rewritten as it is: at most one slot that a process left behind is
    /// not on the disk, so a torn rewrite leaves one whole, of the same or the older superblock.
    fn settle(&mut self) -> Result<(), Failure> {
        match self.slots.0 {
            [Some(first), Some(second)] if first != second || !self.proven => {
                let block = self.newest.encode();
                self.write(1 - self.older(), &block, SyncReason::FirstSuperblock)
            }
            _ => Ok(()),
        }
    }

    fn write(&self, slot: usize, block: &[u8], reason: SyncReason) -> Result<(), Failure> {
        // Of what else was written nothing needs to be durable by this: images were synced before.
        self.file.overwrite_durably(slot as u64 * self.file.layout().block_bytes(), block, reason)
    }
}

#[cfg(test)]
#[path = "superblocks_tests.rs"]
mod tests;
