//! How long the `pages` file may be beside what is alive in it, and what to do when it is longer.
//!
//! ```text
//! file = live | superseded, in segments with live bytes | dead, until a checkpoint | free
//! ```
//!
//! * SPACE-1: the file is at most [`LIMIT_PERCENT`] of the live bytes and [`LIMIT_SEGMENTS`] long,
//!   whatever is written. Who writes frames asks [`Store::has_room`] first; who finds none publishes a
//!   checkpoint, which frees what is dead, or empties segments, before writing on.
//! * While little is written, [`TARGET_PERCENT`] is aimed at. Segments are emptied by cost and benefit, the
//!   benefit growing with what is superseded and with its age, the cost with what is alive: a young
//!   segment loses more by itself before long.
//! * If there is little to empty and the file is too long even so, its last segments move forward into
//!   free ones, and the file is cut.
//!
//! This decides; moving frames is the cache's business, publishing the checkpoint's.

use super::{Store, segments::SealedSegment};
use crate::sync::Ordering;

/// What the file may be in the long run, in percent of its live bytes.
const TARGET_PERCENT: u64 = 128;
/// What it may be at any time.
const LIMIT_PERCENT: u64 = 129;
/// Segments that come on top of the target, those being filled, and on top of the limit.
const TARGET_SEGMENTS: u64 = 2;
const LIMIT_SEGMENTS: u64 = 3;
/// Segments fuller than this are not emptied for the sake of the rest.
const DENSE_PERCENT: u64 = 90;
/// Segments emptied in one step, at most.
const VICTIMS_MAX: usize = 8;
/// Part of the live bytes that may wait for a checkpoint before one is taken for their sake.
const WAITING_DIVISOR: u64 = 16;
/// What a compact file's segments may exceed the live bytes by, in percent.
const COMPACT_PERCENT: u64 = 106;
/// Segments fuller than this are dense enough for a compact file.
const COMPACT_DENSE_PERCENT: u64 = 95;
/// Part of the live bytes that is moved before a checkpoint frees where it lay.
const COMPACT_DIVISOR: u64 = 8;

/// What is to be done so that the file is as short as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// All is well.
    Nothing,
    /// A checkpoint, to free segments that are dead.
    Release,
    /// These segments are to be emptied, in this order.
    Empty(Vec<u32>),
}

/// Bytes of the file, without its superblocks.
#[derive(Clone, Copy, Debug)]
struct Space {
    segment: u64,
    file: u64,
    live: u64,
    free: u64,
    /// Segments that the next checkpoint frees.
    waiting: u64,
}

impl Space {
    fn target(&self) -> u64 {
        self.live * TARGET_PERCENT / 100 + TARGET_SEGMENTS * self.segment
    }

    fn limit(&self) -> u64 {
        self.live * LIMIT_PERCENT / 100 + LIMIT_SEGMENTS * self.segment
    }

    /// Bytes that can be written before the file is as long as it may be.
    fn room(&self) -> u64 {
        (self.limit() + self.free).saturating_sub(self.file)
    }

    /// Bytes in segments that hold something alive.
    fn occupied(&self) -> u64 {
        self.file.saturating_sub(self.free + self.waiting)
    }
}

impl Store {
    fn space(&self) -> Space {
        let file_bytes = self.writer.file_bytes();
        let layout = self.file.layout();
        let segment = layout.segment_bytes();
        let (free, waiting) = self.segments.free_and_waiting(file_bytes);
        let live = self.segments.live_bytes();
        let file = file_bytes.saturating_sub(layout.data_start());
        Space { segment, file, live, free: free * segment, waiting: waiting * segment }
    }

    /// Whether more can be written without cleaning first.
    pub(crate) fn has_room(&self) -> bool {
        let space = self.space();
        !self.cleaning || (space.room() >= space.segment && space.file <= space.limit())
    }

    /// As [`Store::has_room`], and tells writers by [`Store::is_tight`].
    pub(crate) fn note_room(&self) -> bool {
        let has_room = self.has_room();
        // Relaxed: whoever reads a stale value helps a write early or late.
        self.tight.store(!has_room, Ordering::Relaxed);
        has_room
    }

    /// Whether [`Store::note_room`] found no room last.
    #[inline]
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// Bytes of the file that cannot be written again now.
    pub(crate) fn used_bytes(&self) -> u64 {
        let space = self.space();
        space.file.saturating_sub(space.free)
    }

    /// Says that these segments were emptied as far as they could be, and whether anything in them
    /// changed by that.
    pub(crate) fn set_emptied(&self, segments: &[u32], changed: bool) {
        segments.iter().for_each(|&segment| self.segments.set_emptied(segment, changed));
    }

    /// What is to be done for the target.
    pub(crate) fn due(&self) -> Due {
        let space = self.space();
        let target = space.target();
        if !self.cleaning || space.file <= target {
            return Due::Nothing;
        }
        let is_much = space.waiting >= (space.live / WAITING_DIVISOR).max(space.segment);
        if space.waiting > 0 && (is_much || space.room() < 2 * space.segment) {
            return Due::Release;
        }
        let victims = match space.occupied() > target {
            true => {
                sparse(self.segments.oldest_sealed(VICTIMS_MAX), space.segment, space.occupied() - target)
            }
            false if space.free >= space.segment => {
                let wanted = target / space.segment;
                self.writer.leave_segments_from(wanted);
                let first = u32::try_from(wanted).unwrap_or(u32::MAX);
                up_to(self.segments.last_sealed(first, VICTIMS_MAX), VICTIMS_MAX, space.segment)
            }
            false => Vec::new(),
        };
        match victims.is_empty() {
            false => Due::Empty(victims),
            true if space.waiting > 0 => Due::Release,
            true => Due::Nothing,
        }
    }

    /// The next segments to empty until the file is a few percent longer than what is alive, and a
    /// few blocks; none once it is.
    pub(crate) fn segments_to_compact(&self, is_first: bool) -> Vec<u32> {
        let space = self.space();
        let target = space.live * COMPACT_PERCENT / 100;
        if space.file <= target + 2 * self.file.layout().block_bytes() {
            return Vec::new();
        }
        let wanted = target.div_ceil(space.segment);
        // A segment that is being filled may be the one with the garbage.
        self.writer.leave_segments_from(if is_first { 0 } else { wanted });
        let dense = space.segment * COMPACT_DENSE_PERCENT / 100;
        // Each step moves a part of all there is, so it may look at all there is.
        let mut sealed = self.segments.last_sealed(0, usize::MAX);
        sealed.retain(|found| found.live_bytes < dense || u64::from(found.segment) >= wanted);
        sealed.sort_by_key(|found| (found.live_bytes, found.segment));
        let bytes_max = (space.live / COMPACT_DIVISOR).max(4 * space.segment);
        up_to(sealed, usize::MAX, bytes_max)
    }
}

/// The segments whose emptying gains most, the oldest first, until they gain `excess`.
fn sparse(mut sealed: Vec<SealedSegment>, segment: u64, excess: u64) -> Vec<u32> {
    sealed.retain(|found| found.live_bytes * 100 < segment * DENSE_PERCENT);
    let score = |found: &SealedSegment| {
        let gain = u128::from(segment.saturating_sub(found.live_bytes)) * u128::from(found.age + 1);
        (gain << 16) / u128::from(segment + found.live_bytes)
    };
    sealed.sort_by_key(|found| (std::cmp::Reverse(score(found)), found.segment));
    let mut gained = 0;
    sealed.retain(|found| {
        let wanted = gained < excess;
        gained += segment.saturating_sub(found.live_bytes);
        wanted
    });
    let chosen = up_to(sealed.clone(), VICTIMS_MAX, segment);
    sealed.retain(|found| chosen.contains(&found.segment));
    // Survivors of one age come to lie together.
    sealed.sort_by_key(|found| (std::cmp::Reverse(found.age), found.segment));
    sealed.into_iter().map(|found| found.segment).collect()
}

/// The first ones, while they hold no more than `bytes_max` alive; at least one.
fn up_to(sealed: Vec<SealedSegment>, count_max: usize, bytes_max: u64) -> Vec<u32> {
    let mut bytes = 0;
    let fits = |found: &SealedSegment| {
        let is_first = bytes == 0;
        bytes += found.live_bytes;
        is_first || bytes <= bytes_max
    };
    sealed.into_iter().take(count_max).take_while(fits).map(|found| found.segment).collect()
}
