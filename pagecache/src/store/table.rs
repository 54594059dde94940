//! The state of every segment, and the steps from one to the next.
//!
//! * A segment is in `free` exactly if it is Free, in `dead` exactly if it is Dead.
//! * Only [`Table::settle`] ends a life: Sealed to Dead to Free, as far as nothing stands against it.
//!
//! Why the steps are safe, and who may ask for which, is [`super::segments`]' business.

use std::{collections::BTreeSet, ops::Range};

/// Which segments a writer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Any, new ones too, but the reserve.
    Any,
    /// Only ones that need no new space, but the reserve.
    Written,
    /// Only ones that need no new space, the reserve too.
    Reserve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Active,
    Sealed,
    Dead,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) state: State,
    pub(super) live_bytes: u64,
    /// Those of them that no page is yet, and that an open after a crash must not count.
    pub(super) unnamed_bytes: u64,
    /// The latest checkpoint that may still refer to bytes released here, plus one.
    pub(super) released: u64,
    pub(super) holds: u32,
    pub(super) readers: u32,
    /// Every byte of it was once written in this process: writing it again needs no new space.
    pub(super) written: bool,
    pub(super) sealed_at: u64,
    pub(super) miscounted: bool,
    /// The live bytes it was left with when it was emptied as far as it could be.
    pub(super) left: Option<u64>,
}

impl Segment {
    pub(super) fn new(state: State) -> Segment {
        Segment {
            state,
            live_bytes: 0,
            unnamed_bytes: 0,
            released: 0,
            holds: 0,
            readers: 0,
            written: false,
            sealed_at: 0,
            miscounted: false,
            left: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) list: Vec<Segment>,
    pub(super) free: BTreeSet<u32>,
    pub(super) dead: BTreeSet<u32>,
    /// Emptied of what could be moved since the last publication; the next frees them.
    pub(super) emptied: BTreeSet<u32>,
    /// Of all segments.
    pub(super) live_bytes: u64,
    /// What the next [`Segments::mark`] returns.
    pub(super) now: u64,
    pub(super) published: u64,
}

impl Table {
    /// Segments of an open store before anything is counted: see [`super::segments::Segments::rebuild`].
    pub(super) fn reopened(len: u32) -> Table {
        Table {
            list: vec![Segment { released: 1, ..Segment::new(State::Dead) }; len as usize],
            free: BTreeSet::new(),
            dead: (0..len).collect(),
            emptied: BTreeSet::new(),
            live_bytes: 0,
            now: 1,
            published: 0,
        }
    }

    /// Free or new segments become active; says whether writing them needs no new space.
    pub(super) fn activate(&mut self, segments: Range<u32>) -> bool {
        while self.list.len() < segments.end as usize {
            self.list.push(Segment::new(State::Free));
        }
        let written = segments.clone().all(|segment| self.at(segment).written);
        for segment in segments {
            self.free.remove(&segment);
            let found = self.at(segment);
            (found.state, found.left) = (State::Active, None);
        }
        written
    }

    pub(super) fn at(&mut self, segment: u32) -> &mut Segment {
        &mut self.list[segment as usize]
    }

    pub(super) fn retain(&mut self, segment: u32, bytes: u64) {
        self.live_bytes += bytes;
        let found = self.at(segment);
        found.live_bytes += bytes;
        if matches!(found.state, State::Dead | State::Free) {
            found.state = State::Sealed;
            self.dead.remove(&segment);
            self.free.remove(&segment);
        }
    }

    pub(super) fn release(&mut self, segment: u32, bytes: u64, released: u64) {
        let found = self.at(segment);
        found.released = found.released.max(released);
        match found.live_bytes.checked_sub(bytes) {
            Some(left) => {
                found.live_bytes = left;
                self.live_bytes -= bytes;
            }
            None => found.miscounted = true,
        }
        self.settle(segment);
    }

    /// Sealed to dead to free, as far as nothing stands against it.
    pub(super) fn settle(&mut self, segment: u32) {
        let published = self.published;
        let found = self.at(segment);
        let is_empty = found.live_bytes == 0 && found.holds == 0 && !found.miscounted;
        if found.state == State::Sealed && is_empty {
            found.state = State::Dead;
            self.dead.insert(segment);
        }
        let found = self.at(segment);
        if found.state == State::Dead && found.released <= published && found.readers == 0 {
            found.state = State::Free;
            self.dead.remove(&segment);
            self.free.insert(segment);
        }
    }

    pub(super) fn written_free_list(&self) -> impl Iterator<Item = u32> {
        self.free.iter().copied().filter(|segment| self.list[*segment as usize].written)
    }

    pub(super) fn written_free(&self) -> usize {
        self.written_free_list().count()
    }

    /// The first of the lowest `count` neighbours that may be taken.
    pub(super) fn find(&self, count: u32, choice: Choice, reserve: usize) -> Option<u32> {
        let spare = match choice {
            Choice::Reserve => usize::MAX,
            Choice::Any | Choice::Written => self.written_free().saturating_sub(reserve),
        };
        let fits = |first: &u32| {
            let mut written = 0;
            let all_free = (*first..first.saturating_add(count)).all(|segment| {
                let found = self.list.get(segment as usize);
                written += usize::from(found.is_some_and(|found| found.written));
                found.is_none_or(|found| found.state == State::Free)
            });
            let needs_space = written < count as usize;
            all_free && written <= spare && (choice == Choice::Any || !needs_space)
        };
        let new = u32::try_from(self.list.len()).ok()?;
        self.free.iter().copied().chain([new]).find(fits)
    }
}
