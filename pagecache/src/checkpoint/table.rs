//! Writing the page table for a checkpoint: in proportion to what changed of it.
//!
//! Of a group of map pages either the changed entries are appended, or all that was appended since is
//! folded into its map pages. It is folded when that is due: when there are many frames of changes, or
//! their bytes exceed a part of those of the map pages, so that reading stays short and the file small.
//! The directory, a few bytes a group and a few a segment, is written every time.
//!
//! * MAPS-1: what a group says of its frames is replaced under its lock before those that it does not name any
//!   more are released.
//! * MAPS-2: map pages are written from cells, all of which [`plan`] has loaded; a group of which one cannot be
//!   is appended to.
//!
//! What the prefix holds is [`crate::cache`]'s business, what the bytes mean [`crate::format`]'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    cache::{Cache, Folds, Group, GroupForm, GroupTable, Prefix},
    error::Failure,
    format::{
        directory::{CHANGES_LIMIT, Directory, FrameRef, GroupRef, Index, MapPageRef},
        frame::FrameKind,
        map::{GROUP_SPAN, MAP_SPAN, checksum},
    },
    ids::{FragmentAddr, Lsn, PageId},
    io::SyncReason,
    materializer::Materializer,
    store::{self, Stream},
};

/// Frames of changes that a group may have before it is folded.
const CHANGES_MAX: usize = 16;
/// Part of the bytes of its map pages that the changes of a group may have before it is folded.
const CHANGES_DIVISOR: u64 = 4;
/// What a changed entry takes, about, in bytes.
const ENTRY_BYTES: u64 = 16;

/// Frames that are written together.
const FRAMES_PER_BATCH: usize = 256;

/// A table that is written and not yet published.
pub(super) struct NewTable {
    pub(super) directory: FrameRef,
    /// The groups that changed, as they will be.
    groups: Vec<(Arc<Group>, GroupTable)>,
    /// What the checkpoint before refers to and this one does not, but for its directory.
    superseded: Vec<FragmentAddr>,
}

impl NewTable {
    /// It is published: frees what it superseded.
    pub(super) fn settle<M: Materializer>(self, cache: &Cache<M>, prefix: &Prefix) {
        for (group, table) in self.groups {
            *group.lock() = table;
        }
        for addr in self.superseded {
            cache.store.release_under(addr, prefix.mark);
        }
    }
}

/// What is to be folded, all of whose map pages are loaded, and whether the directory is to be written in
/// any case.
pub(super) fn plan<M: Materializer>(cache: &Cache<M>) -> Result<(Folds, bool), Failure> {
    let (wanted, changed) = cache.changes.lock().survey();
    let mut folds = Folds::new();
    for number in &wanted.pages {
        let page = (number % GROUP_SPAN) as u8;
        folds.entry(number / GROUP_SPAN).or_default().insert(page);
    }
    for number in &wanted.groups {
        folds.entry(*number).or_default();
    }
    for (number, entries) in changed {
        if is_due(cache, number, entries) {
            folds.entry(number).or_default();
        }
    }
    let mut prepared = Folds::new();
    for (number, mut pages) in folds {
        match load_changed(cache, number, &mut pages) {
            Ok(()) => drop(prepared.insert(number, pages)),
            // What is damaged stays where it is, and changes are appended.
            Err(failure) if cache.maps.group(number).lock().changes.len() >= CHANGES_LIMIT => {
                return Err(failure);
            }
            Err(_) => {}
        }
    }
    Ok((prepared, wanted.directory))
}

/// True if another frame with that many entries would be too much for the group.
fn is_due<M: Materializer>(cache: &Cache<M>, number: u64, entries: u64) -> bool {
    let group = cache.maps.group(number);
    let mut table = group.lock();
    if cache.read_index(number, &mut table).is_err() {
        return false;
    }
    let bytes = |at: &FrameRef| u64::from(at.addr.len);
    let changes: u64 = table.changes.iter().map(bytes).sum();
    let pages: u64 = table.pages().into_iter().flatten().map(|(_, page)| bytes(&page.at)).sum();
    table.changes.len() >= CHANGES_MAX
        || (changes + entries * ENTRY_BYTES).saturating_mul(CHANGES_DIVISOR) > pages
}

/// Adds the map pages that have appended changes, and loads all of them.
fn load_changed<M: Materializer>(
    cache: &Cache<M>,
    number: u64,
    pages: &mut BTreeSet<u8>,
) -> Result<(), Failure> {
    let group = cache.maps.group(number);
    {
        let mut table = group.lock();
        cache.read_index(number, &mut table)?;
        pages.extend(cache.changed_pages(number, &table)?);
    }
    let first = |page: &u8| ((number * GROUP_SPAN + u64::from(*page)) * MAP_SPAN) as PageId;
    pages.iter().try_for_each(|page| cache.load(first(page)))?;
    // The map page in which the table ended at open: new ids in it count as loaded, and may change before anybody
    // has asked for the old ones beside them.
    match cache.pages.spans.bound().checked_sub(1) {
        Some(last) if last as u64 / MAP_SPAN / GROUP_SPAN == number => cache.load(last),
        _ => Ok(()),
    }
}

/// Writes the changed parts of the table and the directory, and syncs them with the images they name.
///
/// On failure what was written of them is dead.
pub(super) fn write<M: Materializer>(
    cache: &Cache<M>,
    prefix: &Prefix,
    recovery: Option<(Lsn, Vec<u8>)>,
    tally_cut: Lsn,
    old_directory: Option<FragmentAddr>,
) -> Result<NewTable, Failure> {
    let mut writer = Writer { cache, fresh: Vec::new() };
    let written = writer.write(prefix, recovery, tally_cut, old_directory);
    if written.is_err() {
        writer.fresh.iter().for_each(|&addr| cache.store.release(addr));
    }
    written
}

struct Writer<'c, M: Materializer> {
    cache: &'c Cache<M>,
    /// What was written.
    fresh: Vec<FragmentAddr>,
}

/// A frame to be written: number, kind and payload.
type Frame<'f> = (u64, FrameKind, &'f [u8]);

impl<M: Materializer> Writer<'_, M> {
    fn write(
        &mut self,
        prefix: &Prefix,
        recovery: Option<(Lsn, Vec<u8>)>,
        tally_cut: Lsn,
        old_directory: Option<FragmentAddr>,
    ) -> Result<NewTable, Failure> {
        let mut superseded = Vec::new();
        let groups = self.write_groups(prefix, &mut superseded)?;
        let changed: BTreeMap<u64, GroupRef> =
            groups.iter().map(|(group, table)| (group.number, group.entry(table))).collect();
        let listed = self.cache.maps.groups().into_iter().map(|group| match changed.get(&group.number) {
            Some(entry) => entry.clone(),
            None => group.entry(&group.lock()),
        });
        let is_used = |group: &GroupRef| group.index.is_some() || !group.changes.is_empty();
        let directory = Directory {
            page_bound: prefix.bound as u64,
            groups: listed.filter(is_used).collect(),
            recovery,
            tally_cut,
            tallies: Vec::new(),
            segments: self.live(prefix, superseded.iter().copied().chain(old_directory))?,
        };
        let directory = self.put(&[(0, FrameKind::Directory, &directory.encode())])?[0];
        self.cache.store.make_durable(SyncReason::Images)?;
        Ok(NewTable { directory, groups, superseded })
    }

    /// Writes changed entries and map pages, then the indexes that name the map pages.
    fn write_groups(
        &mut self,
        prefix: &Prefix,
        superseded: &mut Vec<FragmentAddr>,
    ) -> Result<Vec<(Arc<Group>, GroupTable)>, Failure> {
        let frames = prefix.groups.iter().flat_map(|change| match &change.form {
            GroupForm::Appended(bytes) => vec![(change.number, FrameKind::MapChanges, &bytes[..])],
            GroupForm::Folded(pages) => {
                pages.iter().map(|page| (page.number, FrameKind::MapPage, &page.bytes[..])).collect()
            }
        });
        let mut written = self.put(&frames.collect::<Vec<Frame<'_>>>())?.into_iter();
        let mut groups = Vec::new();
        let mut indexes = Vec::new();
        for change in &prefix.groups {
            let group = self.cache.maps.group(change.number);
            let mut table = group.lock().clone();
            table.present = table.present.saturating_add_signed(change.grown);
            match &change.form {
                GroupForm::Appended(_) => table.changes.extend(written.next()),
                GroupForm::Folded(pages) => {
                    let pages = pages.iter().zip(&mut written).map(|(page, at)| MapPageRef {
                        number: (page.number % GROUP_SPAN) as u8,
                        present: page.present,
                        at,
                    });
                    superseded.extend(table.fold(pages));
                    let map_pages = table.pages().into_iter().flatten().map(|(_, page)| *page).collect();
                    let index = Index { group: change.number, map_pages };
                    indexes.push((groups.len(), (change.number, index.encode())));
                }
            }
            groups.push((group, table));
        }
        let frames = indexes.iter().map(|(_, (number, bytes))| (*number, FrameKind::MapIndex, &bytes[..]));
        let written = self.put(&frames.collect::<Vec<Frame<'_>>>())?;
        for ((place, _), at) in indexes.iter().zip(written) {
            groups[*place].1.index = Some(at);
        }
        Ok(groups)
    }

    fn put(&mut self, frames: &[Frame<'_>]) -> Result<Vec<FrameRef>, Failure> {
        let mut places = Vec::with_capacity(frames.len());
        for frames in frames.chunks(FRAMES_PER_BATCH) {
            let mut batch = self.cache.store.batch(store::Purpose::Checkpoint, Stream::Tables);
            for (number, kind, bytes) in frames {
                batch.push(*number, 0, *kind, bytes.len(), |out| out.copy_from_slice(bytes))?;
            }
            let written = batch.finish()?;
            for (frame, (_, _, bytes)) in written.frames().iter().zip(frames) {
                self.cache.store.retain(frame.addr)?;
                self.fresh.push(frame.addr);
                places.push(FrameRef { addr: frame.addr, crc: checksum(bytes) });
            }
        }
        Ok(places)
    }

    /// Live bytes by segment as this checkpoint has them: those of the prefix, with the frames written for
    /// it, without those that it supersedes and without any directory.
    fn live(
        &self,
        prefix: &Prefix,
        superseded: impl Iterator<Item = FragmentAddr>,
    ) -> Result<Vec<(u32, u32)>, Failure> {
        let mut live: BTreeMap<u32, u64> =
            prefix.live.iter().map(|(segment, bytes)| (*segment, u64::from(*bytes))).collect();
        for addr in &self.fresh {
            for (segment, bytes) in self.cache.store.bytes_by_segment(*addr)? {
                *live.entry(segment).or_insert(0) += bytes;
            }
        }
        for addr in superseded {
            for (segment, bytes) in self.cache.store.bytes_by_segment(addr)? {
                let counted = live.entry(segment).or_insert(0);
                *counted = counted.saturating_sub(bytes);
            }
        }
        let is_live = |(_, bytes): &(u32, u64)| *bytes > 0;
        let listed = live.into_iter().filter(is_live);
        Ok(listed.map(|(segment, bytes)| (segment, u32::try_from(bytes).unwrap_or(u32::MAX))).collect())
    }
}
