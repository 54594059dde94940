//! What a simulated disk holds: for every file what reads see, what is durable, and the changes
//! between the two in their order; the same for names.
//!
//! * A file keeps its identity when its name changes or goes; its bytes and its name become durable
//!   by different calls.
//! * Changes of a state happen through [`State::apply`] alone, so a recorded list of events leads to
//!   the same state again.

use std::{collections::BTreeMap, io, ops::Range, sync::Arc};

use rustix::io::Errno;

use super::{
    chooser::Chooser,
    contents::Contents,
    freed::{FREED_CHUNKS_MAX, Freed},
    landing::{Landing, sectors},
    outcome::SyncOutcome,
    rng::{Rng, fold, fold_bytes},
};
use crate::io::{FileId, SyncReason, operation::file_index};

/// The identity of a file, which its names point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Inode(u32);

type Names = [Option<Inode>; FileId::ALL.len()];

/// A call that changes something.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Create(FileId),
    Write { file: FileId, offset: u64, bytes: Arc<[u8]> },
    SetLen { file: FileId, len: u64 },
    Sync { file: FileId, reason: SyncReason, outcome: SyncOutcome },
    Rename { from: FileId, to: FileId },
    Remove(FileId),
    SyncNames { reason: SyncReason, outcome: SyncOutcome },
}

/// An unsynced change of a file.
#[derive(Clone, Debug)]
struct Pending {
    change: Change,
    /// A failed sync has forgotten it: no later sync makes it durable, a crash may still keep it.
    stuck: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    Length { from: u64, to: u64 },
}

/// An unsynced change of a name.
#[derive(Clone, Debug)]
struct PendingName {
    change: NameChange,
    stuck: bool,
}

#[derive(Clone, Copy, Debug)]
enum NameChange {
    Create { name: FileId, inode: Inode },
    Rename { from: FileId, to: FileId, inode: Inode },
    Remove { name: FileId },
}

#[derive(Clone, Debug, Default)]
struct File {
    visible: Contents,
    durable: Contents,
    pending: Vec<Pending>,
}

/// Everything on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    files: BTreeMap<Inode, File>,
    next_inode: u32,
    names: Names,
    durable_names: Names,
    pending_names: Vec<PendingName>,
    freed: Freed,
}

impl Change {
    /// True if it changes any of these bytes.
    fn touches(&self, offset: u64, len: usize) -> bool {
        match self {
            Change::Length { from, to } => to < from && *to < offset + len as u64,
            Change::Write { offset: at, bytes } => {
                *at < offset + len as u64 && offset < at + bytes.len() as u64
            }
        }
    }

    /// True if a file of only `len` bytes could not show it.
    fn needs_length(&self, len: u64) -> bool {
        match self {
            Change::Length { .. } => true,
            Change::Write { offset, bytes } => offset + bytes.len() as u64 > len,
        }
    }

    fn units(&self) -> usize {
        match self {
            Change::Length { .. } => 1,
            Change::Write { offset, bytes } => sectors(*offset, bytes).count(),
        }
    }
}

impl File {
    fn write(&mut self, offset: u64, bytes: &Arc<[u8]>) {
        // Bytes behind a length that a failed sync forgot bring that length along.
        let (from, to) = (self.coming_len(), offset + bytes.len() as u64);
        if to > from {
            self.push(Change::Length { from, to });
        }
        self.visible.write(offset, bytes);
        self.push(Change::Write { offset, bytes: Arc::clone(bytes) });
    }

    /// The length that the next sync makes durable.
    fn coming_len(&self) -> u64 {
        let coming = self.pending.iter().rev().filter(|pending| !pending.stuck);
        let mut lengths = coming.filter_map(|pending| match pending.change {
            Change::Length { to, .. } => Some(to),
            Change::Write { .. } => None,
        });
        lengths.next().unwrap_or_else(|| self.durable.len())
    }

    fn set_len(&mut self, to: u64) {
        let from = self.visible.len();
        if from != to {
            self.visible.set_len(to);
            self.push(Change::Length { from, to });
        }
    }

    fn push(&mut self, change: Change) {
        self.pending.push(Pending { change, stuck: false });
    }

    fn sync(&mut self, outcome: SyncOutcome) {
        match outcome {
            SyncOutcome::Nothing => {}
            SyncOutcome::Durable => {
                self.durable = self.landed(&mut |pending| !pending.stuck, None).finish(None, &[]);
                self.pending = self.still_stuck();
            }
            SyncOutcome::DurableIn { offset, len } => self.sync_range(offset, len),
            SyncOutcome::Reverted => {
                self.pending.clear();
                self.visible = self.durable.clone();
            }
            SyncOutcome::Forgotten => self.pending.iter_mut().for_each(|pending| pending.stuck = true),
        }
    }

    /// Makes the length durable and those sectors that have a byte in the range, which was just written.
    fn sync_range(&mut self, offset: u64, len: usize) {
        let mut within = Vec::new();
        let mut rest = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            let stuck = pending.stuck;
            match &pending.change {
                Change::Length { .. } if !stuck => within.push(pending),
                Change::Write { offset: at, bytes } if pending.change.touches(offset, len) => {
                    for (at, part) in sectors(*at, bytes) {
                        let change = Change::Write { offset: at, bytes: Arc::from(part) };
                        let touches = change.touches(offset, len);
                        let part = Pending { change, stuck };
                        match (touches, stuck) {
                            (true, false) => within.push(part),
                            // What a failed sync forgot has been written over.
                            (true, true) => {}
                            (false, _) => rest.push(part),
                        }
                    }
                }
                _ => rest.push(pending),
            }
        }
        // So has a length that could not hold what is durable now.
        let is_needed = |len: u64| within.iter().any(|pending: &Pending| pending.change.needs_length(len));
        rest.retain(|pending| !matches!(pending.change, Change::Length { to, .. } if is_needed(to)));
        self.pending = within;
        self.durable = self.landed(&mut |_| true, None).finish(None, &[]);
        self.pending = rest;
    }

    /// What failed syncs have forgotten and no later change has taken the place of. A change that has
    /// become durable is never followed by an older one of the same bytes.
    fn still_stuck(&self) -> Vec<Pending> {
        let mut still = Vec::new();
        for (at, pending) in self.pending.iter().enumerate().filter(|(_, pending)| pending.stuck) {
            let later: Vec<&Change> =
                self.pending[at..].iter().filter(|later| !later.stuck).map(|later| &later.change).collect();
            match &pending.change {
                Change::Length { to, .. } if later.iter().any(|later| later.needs_length(*to)) => {}
                Change::Length { .. } => still.push(pending.clone()),
                Change::Write { offset, bytes } => {
                    let left = sectors(*offset, bytes)
                        .filter(|(at, part)| !later.iter().any(|later| later.touches(*at, part.len())));
                    still.extend(left.map(|(at, part)| Pending {
                        change: Change::Write { offset: at, bytes: Arc::from(part) },
                        stuck: true,
                    }));
                }
            }
        }
        still
    }

    /// The durable bytes with those pending units put on that `keep` says yes to, asked unit by unit;
    /// `tears` cuts some of the sectors among them off in their middle.
    fn landed(&self, keep: &mut dyn FnMut(&Pending) -> bool, mut tears: Option<&mut Rng>) -> Landing {
        let mut landing = Landing::new(self.durable.clone());
        for pending in &self.pending {
            match &pending.change {
                Change::Length { from, to } => {
                    if keep(pending) {
                        landing.length(*from, *to);
                    }
                }
                Change::Write { offset, bytes } => {
                    for (at, part) in sectors(*offset, bytes) {
                        if keep(pending) {
                            let kept =
                                tears.as_deref_mut().map_or(0..part.len(), |rng| torn(rng, part.len()));
                            landing.sector(at + kept.start as u64, &part[kept]);
                        }
                    }
                }
            }
        }
        landing
    }

    fn unit_count(&self) -> usize {
        self.pending.iter().map(|pending| pending.change.units()).sum()
    }

    fn hash(&self) -> u64 {
        let mut hash = fold(fold(0, self.visible.hash()), self.durable.hash());
        for Pending { change, stuck } in &self.pending {
            hash = fold(hash, u64::from(*stuck));
            hash = match change {
                Change::Length { from, to } => fold(fold(hash, *from), !*to),
                Change::Write { offset, bytes } => fold_bytes(fold(hash, *offset), bytes),
            };
        }
        hash
    }
}

/// What a power cut in the middle of a sector leaves of it: all, or its front, or its back. Where it
/// is cut is as often near the front as anywhere, since that is where heads and checksums lie.
fn torn(rng: &mut Rng, len: usize) -> Range<usize> {
    let near = if rng.chance(1, 2) { len } else { len.min(128) };
    match rng.below(3) {
        0 => 0..1 + rng.index(near),
        1 => rng.index(near)..len,
        _ => 0..len,
    }
}

impl NameChange {
    fn apply(self, names: &mut Names) {
        match self {
            NameChange::Create { name, inode } => names[file_index(name)] = Some(inode),
            NameChange::Remove { name } => names[file_index(name)] = None,
            NameChange::Rename { from, to, inode } => {
                if names[file_index(from)] == Some(inode) {
                    names[file_index(from)] = None;
                }
                names[file_index(to)] = Some(inode);
            }
        }
    }

    /// The name that it sets.
    fn name(self) -> FileId {
        match self {
            NameChange::Create { name, .. } | NameChange::Remove { name } => name,
            NameChange::Rename { to, .. } => to,
        }
    }

    /// Every name that it changes.
    fn names(self) -> [Option<FileId>; 2] {
        match self {
            NameChange::Rename { from, to, .. } => [Some(from), Some(to)],
            other => [Some(other.name()), None],
        }
    }

    fn inode(self) -> Option<Inode> {
        match self {
            NameChange::Create { inode, .. } | NameChange::Rename { inode, .. } => Some(inode),
            NameChange::Remove { .. } => None,
        }
    }

    fn hash(self) -> u64 {
        match self {
            NameChange::Create { name, inode } => fold(file_index(name) as u64, u64::from(inode.0)),
            NameChange::Remove { name } => fold(8 + file_index(name) as u64, 0),
            NameChange::Rename { from, to, inode } => {
                fold(16 + file_index(from) as u64, u64::from(inode.0)) ^ file_index(to) as u64
            }
        }
    }
}

/// As [`File::still_stuck`], of names.
fn still_stuck(pending: &[PendingName]) -> Vec<PendingName> {
    let superseded = |at: usize, name: FileId| {
        pending[at..].iter().any(|later| !later.stuck && later.change.names().contains(&Some(name)))
    };
    let stuck = pending
        .iter()
        .enumerate()
        .filter(|(at, pending)| pending.stuck && !superseded(*at, pending.change.name()));
    stuck.map(|(_, pending)| pending.clone()).collect()
}

impl State {
    fn inode(&self, file: FileId) -> io::Result<Inode> {
        self.names[file_index(file)].ok_or_else(|| Errno::NOENT.into())
    }

    fn file(&self, file: FileId) -> io::Result<&File> {
        // A name always points to a file that is there.
        self.files.get(&self.inode(file)?).ok_or_else(|| Errno::NOENT.into())
    }

    fn file_mut(&mut self, file: FileId) -> io::Result<&mut File> {
        let inode = self.inode(file)?;
        self.files.get_mut(&inode).ok_or_else(|| Errno::NOENT.into())
    }

    pub(super) fn exists(&self, file: FileId) -> bool {
        self.names[file_index(file)].is_some()
    }

    /// What reads of the file see.
    pub(super) fn visible(&self, file: FileId) -> io::Result<&Contents> {
        Ok(&self.file(file)?.visible)
    }

    /// The lengths of all named files together.
    pub(super) fn bytes_total(&self) -> u64 {
        FileId::ALL.iter().filter_map(|&file| self.visible(file).ok()).map(Contents::len).sum()
    }

    /// Makes the change that a call asks for; `NotFound` if its file has no name.
    pub(super) fn apply(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Create(file) => self.create(*file)?,
            Event::Write { file, offset, bytes } => self.file_mut(*file)?.write(*offset, bytes),
            Event::SetLen { file, len } => self.set_len(*file, *len)?,
            Event::Sync { file, outcome, .. } => {
                self.file_mut(*file)?.sync(*outcome);
                self.freed.synced(Some(self.inode(*file)?), *outcome);
            }
            Event::Rename { from, to } => self.rename(*from, *to)?,
            Event::Remove(file) => self.remove(*file)?,
            Event::SyncNames { outcome, .. } => {
                self.sync_names(*outcome);
                self.freed.synced(None, *outcome);
            }
        }
        Ok(())
    }

    fn create(&mut self, name: FileId) -> io::Result<()> {
        if self.exists(name) {
            return self.set_len(name, 0);
        }
        let inode = Inode(self.next_inode);
        self.next_inode += 1;
        self.files.insert(inode, File::default());
        self.change_name(NameChange::Create { name, inode });
        Ok(())
    }

    fn set_len(&mut self, file: FileId, len: u64) -> io::Result<()> {
        let cut = self.visible(file)?.chunks_from(len, FREED_CHUNKS_MAX);
        self.freed.cut(self.inode(file)?, cut);
        self.file_mut(file)?.set_len(len);
        Ok(())
    }

    fn rename(&mut self, from: FileId, to: FileId) -> io::Result<()> {
        let inode = self.inode(from)?;
        if from == to {
            return Ok(());
        }
        if let Ok(replaced) = self.visible(to) {
            let freed = replaced.chunks_from(0, FREED_CHUNKS_MAX);
            self.freed.unnamed(freed);
        }
        self.change_name(NameChange::Rename { from, to, inode });
        Ok(())
    }

    fn remove(&mut self, name: FileId) -> io::Result<()> {
        let freed = self.visible(name)?.chunks_from(0, FREED_CHUNKS_MAX);
        self.freed.unnamed(freed);
        self.change_name(NameChange::Remove { name });
        Ok(())
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(PendingName { change, stuck: false });
    }

    fn sync_names(&mut self, outcome: SyncOutcome) {
        match outcome {
            SyncOutcome::Nothing | SyncOutcome::DurableIn { .. } => {}
            SyncOutcome::Durable => {
                for pending in self.pending_names.iter().filter(|pending| !pending.stuck) {
                    pending.change.apply(&mut self.durable_names);
                }
                self.pending_names = still_stuck(&self.pending_names);
                self.forget_nameless();
            }
            SyncOutcome::Reverted => {
                self.pending_names.clear();
                self.names = self.durable_names;
                self.forget_nameless();
            }
            SyncOutcome::Forgotten => self.pending_names.iter_mut().for_each(|pending| pending.stuck = true),
        }
    }

    /// Drops the files that no crash can give a name to.
    fn forget_nameless(&mut self) {
        let pending = self.pending_names.iter().filter_map(|pending| pending.change.inode());
        let named: Vec<Inode> =
            pending.chain(self.names.iter().chain(&self.durable_names).flatten().copied()).collect();
        self.files.retain(|inode, _| named.contains(inode));
    }

    /// How many units are pending.
    pub(super) fn unit_count(&self) -> usize {
        self.files.values().map(File::unit_count).sum::<usize>() + self.pending_names.len()
    }

    /// The pending units in the order in which choosers number them.
    pub(super) fn units(&self) -> Vec<String> {
        let mut units = Vec::with_capacity(self.unit_count());
        for (inode, file) in &self.files {
            let name = self.name_of(*inode);
            for Pending { change, stuck } in &file.pending {
                let stuck = if *stuck { ", forgotten by a failed sync" } else { "" };
                match change {
                    Change::Length { from, to } => {
                        units.push(format!("{name}: length {from} to {to}{stuck}"))
                    }
                    Change::Write { offset, bytes } => {
                        units.extend(sectors(*offset, bytes).map(|(at, part)| {
                            format!("{name}: bytes {at} to {}{stuck}", at + part.len() as u64)
                        }))
                    }
                }
            }
        }
        for PendingName { change, .. } in &self.pending_names {
            units.push(match change {
                NameChange::Create { name, .. } => format!("names: create {}", name.name()),
                NameChange::Rename { from, to, .. } => {
                    format!("names: rename {} to {}", from.name(), to.name())
                }
                NameChange::Remove { name } => format!("names: remove {}", name.name()),
            });
        }
        units
    }

    fn name_of(&self, inode: Inode) -> &'static str {
        let named = |names: &Names| {
            FileId::ALL.into_iter().find(|&file| names[file_index(file)] == Some(inode)).map(FileId::name)
        };
        named(&self.names).or_else(|| named(&self.durable_names)).unwrap_or("(no name)")
    }

    /// What is there after a crash that keeps the units that `chooser` says.
    pub(super) fn crash(&self, chooser: &mut Chooser) -> State {
        if chooser.is_process_crash() {
            return self.clone();
        }
        let mut kept = chooser.choose(self.unit_count()).into_iter();
        let mut keep = || kept.next().unwrap_or(false);
        let mut tears = chooser.tears();
        let landed: Vec<(Inode, Landing)> = self
            .files
            .iter()
            .map(|(inode, file)| (*inode, file.landed(&mut |_| keep(), tears.as_mut())))
            .collect();
        let mut names = self.durable_names;
        for pending in &self.pending_names {
            if keep() {
                pending.change.apply(&mut names);
            }
        }
        let mut after = State { freed: self.freed.after_crash(), ..State::default() };
        let mut garbage = chooser.garbage();
        for (inode, landing) in landed {
            let contents = landing.finish(garbage.as_mut(), self.freed.gone());
            for (name, _) in names.iter().enumerate().filter(|(_, named)| **named == Some(inode)) {
                after.adopt(FileId::ALL[name], contents.clone());
            }
        }
        // All here is durable, and identities follow from names, so equal disks are equal states.
        after.durable_names = after.names;
        after.next_inode = FileId::ALL.len() as u32;
        after
    }

    fn adopt(&mut self, name: FileId, contents: Contents) {
        let inode = Inode(file_index(name) as u32);
        self.files.insert(inode, File { visible: contents.clone(), durable: contents, pending: Vec::new() });
        self.names[file_index(name)] = Some(inode);
    }

    /// Changes bytes behind everybody's back, as a failing medium does: seen and durable at once.
    pub(super) fn damage(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file_mut(file)?;
        file.visible.write(offset, bytes);
        file.durable.write(offset, bytes);
        Ok(())
    }

    /// Cuts or grows a file behind everybody's back.
    pub(super) fn damage_len(&mut self, file: FileId, len: u64) -> io::Result<()> {
        let file = self.file_mut(file)?;
        file.visible.set_len(len);
        file.durable.set_len(len);
        Ok(())
    }

    /// A hash over names, bytes, and what is pending.
    pub(super) fn hash(&self) -> u64 {
        let mut hash = 0;
        for name in self.names.iter().chain(&self.durable_names) {
            hash = fold(hash, name.map_or(u64::MAX, |inode| u64::from(inode.0)));
        }
        for (inode, file) in &self.files {
            hash = fold(fold(hash, u64::from(inode.0)), file.hash());
        }
        for PendingName { change, stuck } in &self.pending_names {
            hash = fold(fold(hash, change.hash()), u64::from(*stuck));
        }
        hash
    }
}

impl Event {
    pub(super) fn hash(&self) -> u64 {
        let (kind, file) = match self {
            Event::Create(file) => (0, *file),
            Event::Write { file, offset, bytes } => {
                return fold_bytes(fold(1 + file_number(*file), *offset), bytes);
            }
            Event::SetLen { file, len } => return fold(2 + file_number(*file), *len),
            Event::Sync { file, reason, outcome } => {
                return fold(3 + file_number(*file), (*reason as u64) << 8 ^ outcome.hash());
            }
            Event::Rename { from, to } => return fold(4 + file_number(*from), file_number(*to)),
            Event::Remove(file) => (5, *file),
            Event::SyncNames { reason, outcome } => return fold(6, (*reason as u64) << 8 ^ outcome.hash()),
        };
        fold(kind, file_number(file))
    }
}

fn file_number(file: FileId) -> u64 {
    (file_index(file) as u64 + 1) << 32
}
