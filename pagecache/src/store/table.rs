//! The state of every segment, and the steps from one to the next.
//!
//! * A segment is listed as its state says, by whoever changes it: see [`Place`]. So no question that is asked
//!   again and again, while pages are written or segments emptied, goes through all of them.
//! * Only [`Table::settle`] ends a life: Sealed to Dead to Free, as far as nothing stands against it.
//!
//! Why the steps are safe, and who may ask for which, is [`super::segments`]' business.

use std::{collections::BTreeSet, ops::Range};

/// Classes by what is alive in a segment: those of one class gain about as much by being emptied, but for age.
const CLASSES: usize = 32;

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
    /// The next publication frees it, if it still has no more than that.
    pub(super) waits: bool,
    listed: Place,
}

/// Where a segment is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free {
        written: bool,
    },
    /// Dead until the next publication.
    Dead,
    /// Emptied until the next publication.
    Emptied,
    /// It could be emptied.
    Open {
        class: usize,
        sealed_at: u64,
    },
    /// It is being filled, or a reader or a frame without owner has it.
    Nowhere,
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
            waits: false,
            listed: Place::Nowhere,
        }
    }

    fn place(&self, published: u64, class_bytes: u64) -> Place {
        match self.state {
            State::Free => Place::Free { written: self.written },
            State::Dead if self.released > published => Place::Dead,
            State::Sealed if self.left == Some(self.live_bytes) && self.waits => Place::Emptied,
            State::Sealed if self.left != Some(self.live_bytes) && self.holds == 0 => {
                let class = usize::try_from(self.live_bytes / class_bytes).unwrap_or(CLASSES).min(CLASSES);
                Place::Open { class, sealed_at: self.sealed_at }
            }
            _ => Place::Nowhere,
        }
    }
}

/// Segments that could be emptied.
#[derive(Debug)]
struct Open {
    /// Of each class, when each was sealed: the oldest gains most.
    by_class: Vec<BTreeSet<(u64, u32)>>,
    by_number: BTreeSet<u32>,
}

#[derive(Debug)]
pub(super) struct Table {
    list: Vec<Segment>,
    /// All that are not Free.
    used: BTreeSet<u32>,
    free: BTreeSet<u32>,
    written_free: BTreeSet<u32>,
    dead: BTreeSet<u32>,
    emptied: BTreeSet<u32>,
    open: Open,
    class_bytes: u64,
    /// Of all segments.
    pub(super) live_bytes: u64,
    /// What the next [`Segments::mark`] returns.
    pub(super) now: u64,
    pub(super) published: u64,
    /// Segments that were looked at.
    #[cfg(test)]
    looks: std::cell::Cell<u64>,
}

/// Looking.
impl Table {
    fn looked(&self, _at: usize) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + _at as u64);
    }

    /// How often a segment was looked at since this was asked last.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.looks.take()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&self, segment: u32) -> Option<&Segment> {
        self.looked(1);
        self.list.get(segment as usize)
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.looked(self.list.len());
        (0..).zip(&self.list)
    }

    /// Free segments among the first `count`.
    pub(super) fn free_below(&self, count: u32) -> usize {
        let used_beyond = self.used.range(count..).inspect(|_| self.looked(1)).count();
        let beyond = self.list.len().saturating_sub(count as usize);
        self.free.len() - (beyond - used_beyond)
    }

    /// Segments that the next publication frees.
    pub(super) fn waiting(&self) -> usize {
        self.dead.len() + self.emptied.len()
    }

    /// How many segments there are up to the last that is not Free.
    pub(super) fn used_end(&self) -> u32 {
        self.used.last().map_or(0, |last| last + 1)
    }

    pub(super) fn written_free(&self) -> &BTreeSet<u32> {
        &self.written_free
    }

    /// The `count` oldest open segments of each class.
    pub(super) fn oldest_open(&self, count: usize) -> impl Iterator<Item = (u32, &Segment)> {
        let oldest = self.open.by_class.iter().flat_map(move |class| class.iter().take(count));
        oldest.filter_map(|(_, segment)| Some((*segment, self.get(*segment)?)))
    }

    /// The open segments from `first` on, the last one first.
    pub(super) fn last_open(&self, first: u32) -> impl Iterator<Item = (u32, &Segment)> {
        let last = self.open.by_number.range(first..).rev();
        last.filter_map(|segment| Some((*segment, self.get(*segment)?)))
    }

    /// The first of the lowest `count` neighbours that may be taken.
    pub(super) fn find(&self, count: u32, choice: Choice, reserve: usize) -> Option<u32> {
        let spare = match choice {
            Choice::Reserve => usize::MAX,
            Choice::Any | Choice::Written => self.written_free.len().saturating_sub(reserve),
        };
        let new = u32::try_from(self.list.len()).ok()?;
        if count == 1 {
            let first = match choice {
                Choice::Any if spare > 0 => self.free.first(),
                // No more are written than the reserve has.
                Choice::Any => self.free.iter().find(|segment| !self.written_free.contains(segment)),
                Choice::Written | Choice::Reserve => self.written_free.first().filter(|_| spare > 0),
            };
            return first.copied().or((choice == Choice::Any).then_some(new));
        }
        let fits = |first: &u32| {
            let mut written = 0;
            let all_free = (*first..first.saturating_add(count)).all(|segment| {
                let found = self.get(segment);
                written += usize::from(found.is_some_and(|found| found.written));
                found.is_none_or(|found| found.state == State::Free)
            });
            let needs_space = written < count as usize;
            all_free && written <= spare && (choice == Choice::Any || !needs_space)
        };
        self.free.iter().copied().chain([new]).find(fits)
    }
}

/// Changing.
impl Table {
    /// Segments of an open store before anything is counted: see [`super::segments::Segments::rebuild`].
    pub(super) fn reopened(len: u32, segment_bytes: u64) -> Table {
        let mut table = Table {
            list: vec![Segment { released: 1, ..Segment::new(State::Dead) }; len as usize],
            used: (0..len).collect(),
            free: BTreeSet::new(),
            written_free: BTreeSet::new(),
            dead: BTreeSet::new(),
            emptied: BTreeSet::new(),
            open: Open { by_class: vec![BTreeSet::new(); CLASSES + 1], by_number: BTreeSet::new() },
            class_bytes: (segment_bytes / CLASSES as u64).max(1),
            live_bytes: 0,
            now: 1,
            published: 0,
            #[cfg(test)]
            looks: std::cell::Cell::default(),
        };
        (0..len).for_each(|segment| table.change(segment, |_| ()));
        table
    }

    /// Changes a segment, and where it is listed.
    pub(super) fn change<T>(&mut self, segment: u32, change: impl FnOnce(&mut Segment) -> T) -> T {
        self.looked(1);
        let found = &mut self.list[segment as usize];
        let out = change(found);
        let (before, after) = (found.listed, found.place(self.published, self.class_bytes));
        found.listed = after;
        if before != after {
            // It has changed since it was emptied.
            found.waits &= before != Place::Emptied;
            self.list_at(segment, before, false);
            self.list_at(segment, after, true);
        }
        out
    }

    fn list_at(&mut self, segment: u32, place: Place, is_there: bool) {
        let put = |set: &mut BTreeSet<u32>, is_there: bool| match is_there {
            true => set.insert(segment),
            false => set.remove(&segment),
        };
        match place {
            Place::Free { written } => {
                put(&mut self.free, is_there);
                put(&mut self.used, !is_there);
                if written {
                    put(&mut self.written_free, is_there);
                }
            }
            Place::Dead => _ = put(&mut self.dead, is_there),
            Place::Emptied => _ = put(&mut self.emptied, is_there),
            Place::Open { class, sealed_at } => {
                put(&mut self.open.by_number, is_there);
                let class = &mut self.open.by_class[class];
                match is_there {
                    true => class.insert((sealed_at, segment)),
                    false => class.remove(&(sealed_at, segment)),
                };
            }
            Place::Nowhere => {}
        }
    }

    /// Free or new segments become active; says whether writing them needs no new space.
    pub(super) fn activate(&mut self, segments: Range<u32>) -> bool {
        while self.list.len() < segments.end as usize {
            let new = self.list.len() as u32;
            self.list.push(Segment::new(State::Free));
            self.change(new, |_| ());
        }
        segments.into_iter().fold(true, |written, segment| {
            let is_written = self.change(segment, |found| {
                (found.state, found.left, found.waits) = (State::Active, None, false);
                found.written
            });
            written && is_written
        })
    }

    pub(super) fn retain(&mut self, segment: u32, bytes: u64) {
        self.live_bytes += bytes;
        self.change(segment, |found| {
            found.live_bytes += bytes;
            if matches!(found.state, State::Dead | State::Free) {
                found.state = State::Sealed;
            }
        });
    }

    pub(super) fn release(&mut self, segment: u32, bytes: u64, released: u64) {
        let counted = self.change(segment, |found| {
            found.released = found.released.max(released);
            let left = found.live_bytes.checked_sub(bytes);
            found.live_bytes = left.unwrap_or(found.live_bytes);
            found.miscounted |= left.is_none();
            left.is_some()
        });
        self.live_bytes -= if counted { bytes } else { 0 };
        self.settle(segment);
    }

    /// Sealed to dead to free, as far as nothing stands against it.
    pub(super) fn settle(&mut self, segment: u32) {
        let published = self.published;
        self.change(segment, |found| {
            let is_empty = found.live_bytes == 0 && found.holds == 0 && !found.miscounted;
            if found.state == State::Sealed && is_empty {
                found.state = State::Dead;
            }
            if found.state == State::Dead && found.released <= published && found.readers == 0 {
                found.state = State::Free;
            }
        });
    }

    /// A checkpoint that refers to nothing released up to `mark` is durable.
    pub(super) fn publish(&mut self, mark: u64) {
        self.published = self.published.max(mark);
        for segment in std::mem::take(&mut self.emptied) {
            self.change(segment, |found| found.waits = false);
        }
        // Each of them waits for one publication, or for two.
        for segment in self.dead.clone() {
            self.settle(segment);
        }
    }
}
