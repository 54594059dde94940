//! Bytes that exceed one record of a log used alone: parts, and the record that lists them.
//!
//! ```text
//! write a part ─► … ─► write the last part ─► reserve the list ─► complete it
//! ```
//!
//! Each part is completed before the next is reserved, so a writer never holds two places. The list comes
//! last, so whoever finds it stable finds every part stable too. What is given up on the way, by an error, an
//! abort or a crash, leaves parts that no list names: readers step over them, and they go when their segments
//! are released.
//!
//! * RAW-4: the log keeps every part of a blob whose list is above the position that was released, or is yet
//!   to come. A blob enters the list of those before its first part is completed, so before that part can be
//!   stable, and only what is stable is released.

use std::collections::BTreeMap;

use super::{Log, reservation::Reservation};
use crate::{
    error::{Failure, LOG_FULL},
    format::{
        blob::{List, Role},
        record::{Kind, RecordHead},
        run::PartsSum,
    },
    ids::Lsn,
    log::{self, Found, Reader},
    sync::Mutex,
};

/// Part of a record that a blob's part may have: what a buffer cannot take is left unused, so parts that
/// fill a buffer each would waste up to half of the log.
const PARTS_PER_RECORD: usize = 4;
/// The list of a blob that has none yet.
const NO_LIST: Lsn = Lsn::MAX;

/// The blobs whose parts must stay: position of the first part to that of the list.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<BTreeMap<Lsn, Lsn>>);

/// A blob that is being written; if nothing comes of it, its parts may go.
#[derive(Debug)]
pub(super) struct OpenBlob<'l> {
    kept: &'l Kept,
    first: Lsn,
    stays: bool,
}

impl Kept {
    /// Those that an open found, as pairs of first part and list.
    pub(super) fn found(blobs: impl Iterator<Item = (Lsn, Lsn)>) -> Kept {
        Kept(Mutex::new(blobs.collect()))
    }

    fn enter(&self, first: Lsn) -> OpenBlob<'_> {
        self.0.lock().insert(first, NO_LIST);
        OpenBlob { kept: self, first, stays: false }
    }

    /// The position from which on all must stay for blobs at and above `lsn` to be whole. Below it every
    /// blob is forgotten, so each is looked at once.
    pub(super) fn keep_from(&self, lsn: Lsn) -> Lsn {
        let kept = self.0.lock();
        let spans = kept.range(..lsn).find(|(_, list)| **list >= lsn);
        spans.map_or(lsn, |(first, _)| *first)
    }

    /// Forgets what was released.
    pub(super) fn forget_below(&self, released: Lsn) {
        let mut kept = self.0.lock();
        *kept = kept.split_off(&released);
    }
}

impl OpenBlob<'_> {
    pub(super) fn first(&self) -> Lsn {
        self.first
    }

    /// The list has its place.
    fn listed(&self, list: Lsn) {
        self.kept.0.lock().insert(self.first, list);
    }

    /// The list counts.
    pub(super) fn complete(mut self) {
        self.stays = true;
    }
}

impl Drop for OpenBlob<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.kept.0.lock().remove(&self.first);
        }
    }
}

impl Log {
    fn part_bytes_max(&self) -> usize {
        self.shared.log.max_payload() / PARTS_PER_RECORD
    }

    /// Most bytes that [`Log::reserve`] takes. What exceeds one record is written in parts: as many as one
    /// record can list, and in a log that recycles no more than half of what its capacity leaves beside two
    /// segments.
    #[must_use]
    pub fn blob_bytes_max(&self) -> u64 {
        let record = self.shared.log.max_payload();
        let listed = List::parts_max(record) as u64 * self.part_bytes_max() as u64;
        listed.min(self.shared.blob_room).max(record as u64)
    }

    /// A place for the list of a blob, whose parts are in the log when this returns.
    pub(super) fn reserve_blob(&self, bytes: &[u8]) -> Result<Reservation<'_>, Failure> {
        self.check_blob(bytes.len())?;
        let log = &self.shared.log;
        let (mut parts, mut sum) = (Vec::new(), PartsSum::default());
        let mut open = None;
        for chunk in bytes.chunks(self.part_bytes_max()) {
            let mut part = log.reserve(head(Role::Part), chunk.len())?;
            let (lsn, offset) = (part.lsn(), part.offset());
            // Before the part can be stable, or a release might pass it (RAW-4).
            open.get_or_insert_with(|| self.shared.kept.enter(lsn));
            part.payload().copy_from_slice(chunk);
            part.complete();
            sum.add(lsn, chunk);
            parts.push((lsn, offset));
        }
        let open = open.expect("a blob has a part");
        let list = List { bytes: bytes.len() as u64, crc: sum.finish(), parts }.encode();
        let mut inner = log.reserve(head(Role::List), list.len())?;
        open.listed(inner.lsn());
        inner.payload().copy_from_slice(&list);
        Ok(Reservation::of_blob(self, inner, open))
    }

    /// Refuses what could never be written, and what finds no room now: its parts would only fill the log.
    fn check_blob(&self, bytes: usize) -> Result<(), Failure> {
        let limit = self.blob_bytes_max();
        if bytes as u64 > limit {
            return Err(Failure::TooLarge {
                what: "blob",
                bytes: bytes as u64,
                limit,
                remedy: "split it, or raise `log_capacity`, or `log_segment_bytes` of a new log",
            });
        }
        if self.shared.log.has_room_for(bytes) {
            return Ok(());
        }
        Err(Failure::TooLarge {
            what: LOG_FULL,
            bytes: self.shared.log.tail_bytes() + bytes as u64,
            limit: self.shared.log.capacity_bytes(),
            remedy: "release what is not needed, or raise `log_capacity`",
        })
    }
}

fn head(role: Role) -> RecordHead {
    RecordHead { kind: Kind::Raw, pid: role.pid(), seq: 0 }
}

/// The head of a record that stands for itself.
pub(super) fn whole() -> RecordHead {
    head(Role::Whole)
}

/// The bytes of a blob, `None` if a part is not what was written there.
pub(super) fn read(log: &log::Log, reader: &Reader, list: &List) -> Result<Option<Vec<u8>>, Failure> {
    let (mut bytes, mut sum) = (Vec::new(), PartsSum::default());
    for (lsn, offset) in &list.parts {
        if !log.may_lie(*lsn, *offset) {
            return Ok(None);
        }
        match reader.record(log, *lsn, *offset)? {
            Found::Record { pid, payload } if pid == Role::Part.pid() => {
                sum.add(*lsn, &payload);
                bytes.extend_from_slice(&payload);
            }
            _ => return Ok(None),
        }
    }
    Ok((bytes.len() as u64 == list.bytes && sum.finish() == list.crc).then_some(bytes))
}
