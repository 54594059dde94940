//! The life of a segment in every order of its parties: who rewrites a page, who takes a checkpoint, who reads
//! the page, and who writes into whatever segment is handed out.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use super::{Hold, Mark, Pin, Segments};
use crate::{
    format::superblock::Geometry,
    ids::FragmentAddr,
    schedules::{Step, each_order, some_order_fails},
    store::{layout::Layout, table::Choice},
};

const SEGMENT: u32 = 2048;

/// A store of one page, which fills a segment.
struct Life {
    layout: Layout,
    segments: Arc<Segments>,
    /// Where the page lies, as its durable word says.
    word: FragmentAddr,
    /// Where it lies as the superblock says that a crash would bring back.
    published: FragmentAddr,
    /// Where it lies in the checkpoint that is being written, and that one's mark.
    prefix: Option<FragmentAddr>,
    mark: Option<Mark>,
    /// Where the page was written anew, and what keeps that until its word says so.
    fresh: Option<FragmentAddr>,
    hold: Option<Hold>,
    looked: Option<FragmentAddr>,
    pin: Option<Pin>,
    is_reading: bool,
    written_over: BTreeSet<u32>,
}

fn new() -> Life {
    let layout =
        Layout::new(&Geometry { block_bytes: 512, log_segment_bytes: 512, store_segment_bytes: SEGMENT });
    let segments = Segments::rebuild(layout, PathBuf::from("pages"), 0, [], 1024).expect("nothing is wrong");
    let taken = segments.take(1, Choice::Any).expect("room");
    let word = FragmentAddr { offset: layout.segment_start(taken.first), len: SEGMENT };
    segments.retain(word).expect("in the file");
    segments.seal(taken.first, true);
    Life {
        layout,
        segments: Arc::new(segments),
        word,
        published: word,
        prefix: None,
        mark: None,
        fresh: None,
        hold: None,
        looked: None,
        pin: None,
        is_reading: false,
        written_over: BTreeSet::new(),
    }
}

impl Life {
    fn segment_of(&self, addr: FragmentAddr) -> u32 {
        self.layout.segments_of(addr).expect("a frame lies there").start
    }

    /// Writes into the next segment that is handed out: STORE-1.
    fn write(&mut self) -> FragmentAddr {
        let segment = self.segments.take(1, Choice::Any).expect("room").first;
        assert_ne!(segment, self.segment_of(self.word), "the page lies there");
        assert_ne!(segment, self.segment_of(self.published), "a crash brings back what lies there");
        if let Some(looked) = self.looked.filter(|_| self.is_reading) {
            assert_ne!(segment, self.segment_of(looked), "somebody reads there");
        }
        self.written_over.insert(segment);
        FragmentAddr { offset: self.layout.segment_start(segment), len: SEGMENT }
    }

    fn read(&mut self) {
        let looked = self.looked.expect("the reader has looked");
        assert!(
            !self.written_over.contains(&self.segment_of(looked)) || looked == self.word,
            "it reads another's"
        );
        self.is_reading = true;
    }
}

/// Rewrites the page elsewhere.
const WRITER: &[Step<Life>] = &[
    |life| {
        let addr = life.write();
        life.hold = Some(life.segments.hold(addr).expect("it was handed out"));
        life.segments.seal(life.segment_of(addr), true);
        life.fresh = Some(addr);
    },
    // In one step with its place in the list of map changes (CACHE-3).
    |life| {
        let fresh = life.fresh.expect("it was written");
        life.segments.retain(fresh).expect("it was handed out");
        life.segments.release(life.word);
        life.word = fresh;
    },
    |life| life.hold = None,
];

fn fix_prefix(life: &mut Life) {
    life.prefix = Some(life.word);
}

fn take_mark(life: &mut Life) {
    life.mark = Some(life.segments.mark());
}

fn fix(life: &mut Life) {
    take_mark(life);
    fix_prefix(life);
}

/// Both superblocks are durable.
fn publish(life: &mut Life) {
    life.published = life.prefix.expect("the prefix is fixed");
}

fn free(life: &mut Life) {
    life.segments.published(life.mark.expect("the mark was taken"));
}

const CHECKPOINT: &[Step<Life>] = &[fix, publish, free];

fn look(life: &mut Life) {
    life.looked = Some(life.word);
}

fn pin(life: &mut Life) {
    let looked = life.looked.expect("the reader has looked");
    life.pin = Some(life.segments.pin(looked).expect("a frame was there"));
}

fn read_if_still_there(life: &mut Life) {
    match life.looked == Some(life.word) {
        true => life.read(),
        false => life.pin = None,
    }
}

fn leave(life: &mut Life) {
    life.is_reading = false;
    life.pin = None;
}

const READER: &[Step<Life>] = &[look, pin, read_if_still_there, leave];

const OTHER: &[Step<Life>] = &[|life| _ = life.write()];

/// Nothing is lost: after one more checkpoint all but the page's segment, and those of others, are free.
fn end(life: &mut Life) {
    fix(life);
    publish(life);
    free(life);
    let stats = life.segments.stats(1 << 20);
    assert_eq!((stats.sealed, stats.dead, stats.live_bytes), (1, 0, u64::from(SEGMENT)), "{stats:?}");
}

#[test]
fn in_no_order_is_a_segment_written_over_that_somebody_needs() {
    let orders = each_order(new, &[WRITER, CHECKPOINT, READER, OTHER], end);
    assert_eq!(orders, 46_200);
}

#[test]
fn each_step_of_a_segments_life_is_needed_where_it_is() {
    // Freed before the superblocks are durable.
    assert!(some_order_fails(new, &[WRITER, &[fix, free, publish], OTHER], end));
    // Marked behind the prefix.
    assert!(some_order_fails(new, &[WRITER, &[fix_prefix, take_mark, publish, free], OTHER], end));
    // Read without a second look at the page's word.
    let hasty: &[Step<Life>] = &[look, pin, Life::read, leave];
    assert!(some_order_fails(new, &[WRITER, CHECKPOINT, hasty, OTHER], end));
    // Read without being counted.
    let uncounted: &[Step<Life>] = &[look, read_if_still_there, leave];
    assert!(some_order_fails(new, &[WRITER, CHECKPOINT, uncounted, OTHER], end));
}
