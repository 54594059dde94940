//! Every changing call of a simulated disk in order, and the disks that a crash between any two of
//! them could have left.

use std::fmt;

use super::{
    chooser::Chooser,
    disk::SimDisk,
    rng::{fold, fold_bytes},
    state::{Event, State},
};
use crate::sync::Mutex;

/// A number that a workload noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// How many events were recorded before.
    pub(super) position: usize,
    pub(super) label: &'static str,
    pub(super) value: u64,
}

/// A recorded history. Position `p` is the moment after the first `p` calls.
pub struct Trace {
    base: State,
    events: Vec<Event>,
    marks: Vec<Mark>,
    /// The state of the position that was asked for last, as a start for the next.
    cursor: Mutex<Cursor>,
}

#[derive(Clone)]
struct Cursor {
    position: usize,
    state: State,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("events", &self.events.len())
            .field("marks", &self.marks)
            .finish_non_exhaustive()
    }
}

impl Trace {
    pub(super) fn new(base: State, events: Vec<Event>, marks: Vec<Mark>) -> Trace {
        let cursor = Mutex::new(Cursor { position: 0, state: base.clone() });
        Trace { base, events, marks, cursor }
    }

    /// How many calls were recorded. Positions go from 0 up to and including this.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True if nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The disk after a crash at this position (the end, if it lies beyond). It has a record of its
    /// own, so crashes can follow crashes. Positions in rising order are cheapest.
    #[must_use]
    pub fn crash_at(&self, position: usize, chooser: &mut Chooser) -> SimDisk {
        SimDisk::with_state(self.at(position, |state| state.crash(chooser)), true)
    }

    /// How many unsynced units a chooser decides about at this position.
    #[must_use]
    pub fn unit_count_at(&self, position: usize) -> usize {
        self.at(position, State::unit_count)
    }

    /// Those units in words, in the order of their numbers.
    #[must_use]
    pub fn units_at(&self, position: usize) -> Vec<String> {
        self.at(position, State::units)
    }

    /// The value last noted under this label at or before the position. What was noted before a call
    /// was made holds at the positions on both sides of it.
    #[must_use]
    pub fn marked(&self, label: &str, position: usize) -> Option<u64> {
        let before = self.marks.partition_point(|mark| mark.position <= position);
        self.marks[..before].iter().rev().find(|mark| mark.label == label).map(|mark| mark.value)
    }

    /// The last few calls before the position, in words.
    #[must_use]
    pub fn calls_before(&self, position: usize, count_max: usize) -> Vec<String> {
        let end = position.min(self.events.len());
        let start = end.saturating_sub(count_max);
        self.events[start..end]
            .iter()
            .enumerate()
            .map(|(at, event)| format!("{}: {event}", start + at))
            .collect()
    }

    /// A hash over all calls and marks: equal if the workload did the same.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let events = self.events.iter().fold(self.base.hash(), |hash, event| fold(hash, event.hash()));
        hash_marks(events, &self.marks)
    }

    /// A hash of the latest value of every label at this position.
    pub(super) fn marks_hash(&self, position: usize) -> u64 {
        let before = self.marks.partition_point(|mark| mark.position <= position);
        let mut latest: Vec<Mark> = Vec::new();
        for mark in self.marks[..before].iter().rev() {
            if latest.iter().all(|other| other.label != mark.label) {
                latest.push(Mark { position: 0, ..*mark });
            }
        }
        latest.sort_unstable_by_key(|mark| mark.label);
        hash_marks(0, &latest)
    }

    fn at<T>(&self, position: usize, look: impl FnOnce(&State) -> T) -> T {
        let position = position.min(self.events.len());
        let mut cursor = self.cursor.lock();
        if cursor.position > position {
            *cursor = Cursor { position: 0, state: self.base.clone() };
        }
        let Cursor { position: at, state } = &mut *cursor;
        for event in &self.events[*at..position] {
            state.apply(event).expect("a call that succeeded once succeeds again on the same state");
        }
        *at = position;
        look(state)
    }
}

fn hash_marks(hash: u64, marks: &[Mark]) -> u64 {
    marks.iter().fold(hash, |hash, mark| {
        fold(fold(fold_bytes(hash, mark.label.as_bytes()), mark.value), mark.position as u64)
    })
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Create(file) => write!(f, "create {}", file.name()),
            Event::Write { file, offset, bytes } => {
                write!(f, "write {} bytes at {offset} of {}", bytes.len(), file.name())
            }
            Event::SetLen { file, len } => write!(f, "set the length of {} to {len}", file.name()),
            Event::Sync { file, reason, outcome } => {
                write!(f, "sync {} for {reason:?}: {outcome:?}", file.name())
            }
            Event::Rename { from, to } => write!(f, "rename {} to {}", from.name(), to.name()),
            Event::Remove(file) => write!(f, "remove {}", file.name()),
            Event::SyncNames { reason, outcome } => write!(f, "sync names for {reason:?}: {outcome:?}"),
        }
    }
}
