//! Where the frames of one batch go: segments are taken and offsets chosen, nothing is written.
//!
//! * Frames follow each other in the order they were given, in the active segment until one does
//!   not fit; then that segment is filled up with zeros and the lowest free one is taken.
//! * A frame longer than a segment takes neighbouring whole ones; the roomier of the last of them
//!   and the active one stays active.
//! * A plan that cannot be carried out gives back what it took.
//!
//! Writing, and what becomes of a plan whose writing fails, is [`super::writer`]'s business.

use std::ops::Range;

use crate::store::{
    layout::Layout,
    segments::{Segments, Taken},
    table::Choice,
};

/// Where the next frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) segment: u32,
    /// Bytes of the segment that are taken.
    pub(crate) used: u64,
    /// Writing the rest needs no new space.
    pub(crate) written: bool,
}

/// Neighbouring bytes of the batch that are neighbours in the file too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) offset: u64,
    pub(crate) bytes: Range<usize>,
}

/// What to write where, and what the segments are afterwards.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Of each frame, in order.
    pub(crate) offsets: Vec<u64>,
    pub(crate) runs: Vec<Run>,
    /// Rests of segments, to be filled with zeros.
    pub(crate) fills: Vec<Range<u64>>,
    pub(crate) taken: Vec<Taken>,
    /// Segments that are complete, and whether they are written to their end.
    pub(crate) sealed: Vec<(u32, bool)>,
    pub(crate) tail: Option<Tail>,
}

impl Plan {
    /// The end of the last byte that will be written.
    pub(crate) fn end(&self) -> u64 {
        let runs = self.runs.iter().map(|run| run.offset + run.bytes.len() as u64);
        runs.chain(self.fills.iter().map(|fill| fill.end)).max().unwrap_or(0)
    }

    /// Gives back every segment that was taken for it.
    pub(crate) fn abandon(self, segments: &Segments) {
        for taken in self.taken {
            segments.put_back(taken);
        }
    }
}

/// Places frames, given as ranges of the batch's bytes, behind `tail`. None if `choice` has no room.
pub(crate) fn place(
    layout: Layout,
    segments: &Segments,
    choice: Choice,
    tail: Option<Tail>,
    frames: impl Iterator<Item = Range<usize>>,
) -> Option<Plan> {
    let mut planner = Planner { layout, segments, choice, plan: Plan { tail, ..Plan::default() } };
    if choice != Choice::Any {
        planner.leave_unwritten();
    }
    for frame in frames {
        if planner.add(frame).is_none() {
            planner.plan.abandon(segments);
            return None;
        }
    }
    Some(planner.plan)
}

struct Planner<'s> {
    layout: Layout,
    segments: &'s Segments,
    choice: Choice,
    plan: Plan,
}

impl Planner<'_> {
    /// Without new space the rest of an unwritten segment is of no use.
    fn leave_unwritten(&mut self) {
        if let Some(tail) = self.plan.tail.take_if(|tail| !tail.written) {
            self.plan.sealed.push((tail.segment, false));
        }
    }

    fn add(&mut self, frame: Range<usize>) -> Option<()> {
        let len = frame.len() as u64;
        let offset = match len > self.layout.segment_bytes() {
            true => self.take_run(len)?,
            false => self.append(len)?,
        };
        self.plan.offsets.push(offset);
        match self.plan.runs.last_mut() {
            Some(run) if run.bytes.end == frame.start && run.offset + run.bytes.len() as u64 == offset => {
                run.bytes.end = frame.end;
            }
            _ => self.plan.runs.push(Run { offset, bytes: frame }),
        }
        Some(())
    }

    fn append(&mut self, len: u64) -> Option<u64> {
        let room = self.layout.segment_bytes() - len;
        let tail = match self.plan.tail {
            Some(tail) if tail.used <= room => tail,
            _ => self.next_segment()?,
        };
        self.plan.tail = Some(Tail { used: tail.used + len, ..tail });
        Some(self.layout.segment_start(tail.segment) + tail.used)
    }

    /// Fills up the active segment and takes the next.
    fn next_segment(&mut self) -> Option<Tail> {
        if let Some(tail) = self.plan.tail.take() {
            let start = self.layout.segment_start(tail.segment);
            if !tail.written && tail.used < self.layout.segment_bytes() {
                self.plan.fills.push(start + tail.used..start + self.layout.segment_bytes());
            }
            self.plan.sealed.push((tail.segment, true));
        }
        let taken = self.segments.take(1, self.choice)?;
        let tail = Tail { segment: taken.first, used: 0, written: taken.written };
        self.plan.taken.push(taken);
        Some(tail)
    }

    fn take_run(&mut self, len: u64) -> Option<u64> {
        let taken = self.segments.take(self.layout.span(len), self.choice)?;
        let (first, last, written) = (taken.first, taken.first + taken.count - 1, taken.written);
        self.plan.taken.push(taken);
        self.plan.sealed.extend((first..last).map(|segment| (segment, true)));
        let in_last = len - u64::from(last - first) * self.layout.segment_bytes();
        // The next frame starts on a block, where a scan of the last segment looks for it.
        let end = Tail { segment: last, used: self.layout.block_up(in_last), written };
        match self.plan.tail {
            Some(tail) if tail.used <= end.used => self.plan.sealed.push((last, written)),
            Some(tail) => {
                self.plan.sealed.push((tail.segment, tail.written));
                self.plan.tail = Some(end);
            }
            None => self.plan.tail = Some(end),
        }
        Some(self.layout.segment_start(first))
    }
}
