//! No segment is handed out while anything may still need it, and none is lost.

use crate::io::SyncReason;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::Segments;
use crate::{
    error::Failure,
    format::{frame::FrameKind, superblock::Geometry},
    ids::FragmentAddr,
    store::{
        layout::Layout,
        pages::PagesFile,
        segments::{Mark, Pin},
        stats::StoreStats,
        table::Choice,
        testdisk::{Random, SECTOR, TestDisk, fresh},
        writer::{FrameWriter, Purpose, Stream, Written},
    },
};

const SEGMENT: u32 = 2048;

fn layout() -> Layout {
    Layout::new(&Geometry { block_bytes: 512, log_segment_bytes: 512, store_segment_bytes: SEGMENT })
}

fn segments(reserve: usize, live: &[FragmentAddr], file_bytes: u64) -> Result<Arc<Segments>, Failure> {
    Segments::rebuild(layout(), PathBuf::from("pages"), reserve, live.iter().copied(), file_bytes)
        .map(Arc::new)
}

/// An empty store in which `count` segments were filled and published.
fn with_sealed(count: u32) -> (Arc<Segments>, Vec<FragmentAddr>) {
    let segments = segments(0, &[], 1024).expect("nothing is wrong");
    let addrs = (0..count).map(|number| addr(number, 0, SEGMENT)).collect::<Vec<_>>();
    for (number, addr) in (0..count).zip(&addrs) {
        assert_eq!(segments.take(1, Choice::Any).expect("room").first, number);
        segments.retain(*addr).expect("in the file");
        segments.seal(number, true);
    }
    (segments, addrs)
}

fn addr(segment: u32, within: u64, len: u32) -> FragmentAddr {
    FragmentAddr { offset: layout().segment_start(segment) + within, len }
}

fn next(segments: &Segments) -> u32 {
    let taken = segments.take(1, Choice::Any).expect("room");
    let first = taken.first;
    segments.put_back(taken);
    first
}

#[test]
fn a_segment_waits_for_a_checkpoint_begun_after_its_last_release() {
    let (segments, addrs) = with_sealed(3);
    segments.release(addrs[1]);
    let mark = segments.mark();
    segments.release(addrs[0]);
    assert_eq!(next(&segments), 3, "nothing is published");
    segments.published(mark);
    assert_eq!(next(&segments), 1, "segment 0 was emptied after the prefix was fixed");
    let abandoned = segments.mark();
    let later = segments.mark();
    segments.published(later);
    assert_eq!(next(&segments), 0);
    segments.published(abandoned);
    assert_eq!(next(&segments), 0);
}

#[test]
fn what_a_checkpoint_supersedes_goes_with_it() {
    let (segments, addrs) = with_sealed(2);
    let mark = segments.mark();
    segments.release_under(addrs[0], mark);
    segments.release(addrs[1]);
    segments.published(mark);
    assert_eq!(next(&segments), 0);
    let (segments, addrs) = with_sealed(1);
    let mark = segments.mark();
    segments.published(mark);
    segments.release_under(addrs[0], mark);
    assert_eq!(next(&segments), 0, "released after its publication");
}

/// Checkpoint N is being written. Byte a of a segment is superseded behind its prefix, then byte b by
/// N itself. N refers to a, so the segment waits for the one after N.
#[test]
fn the_latest_release_decides() {
    let (segments, _) = with_sealed(1);
    let mark = segments.mark();
    segments.release(addr(0, 0, 1000));
    segments.release_under(addr(0, 1000, SEGMENT - 1000), mark);
    segments.published(mark);
    assert_eq!(next(&segments), 1);
    segments.published(segments.mark());
    assert_eq!(next(&segments), 0);
}

#[test]
fn a_reader_and_a_frame_without_owner_keep_their_segment() {
    let (segments, addrs) = with_sealed(1);
    let pin = segments.pin(addrs[0]).expect("it is there");
    let hold = segments.hold(addrs[0]).expect("it is there");
    segments.release(addrs[0]);
    segments.published(segments.mark());
    assert_eq!(next(&segments), 1);
    drop(hold);
    assert_eq!(segments.stats(1 << 20).dead, 1);
    segments.published(segments.mark());
    assert_eq!(next(&segments), 1);
    drop(pin);
    assert_eq!(next(&segments), 0);
}

#[test]
fn after_an_open_nothing_is_reused_before_the_first_publication() {
    let live = [addr(1, 0, 100), addr(2, 0, SEGMENT + 5)];
    let file_bytes = layout().segment_start(5);
    let segments = segments(0, &live, file_bytes).expect("nothing is wrong");
    assert_eq!(segments.live_table(), [(1, 100), (2, SEGMENT), (3, 5)]);
    assert_eq!(next(&segments), 5);
    segments.published(segments.mark());
    assert_eq!(next(&segments), 0);
    let counted = Segments::rebuild_counted(layout(), PathBuf::new(), 0, &segments.live_table(), file_bytes)
        .expect("nothing is wrong");
    assert_eq!(counted.live_table(), segments.live_table());
    assert_eq!(counted.stats(file_bytes), StoreStats { free: 0, dead: 2, ..segments.stats(file_bytes) });
}

#[test]
fn addresses_and_counts_that_cannot_be_are_corruption() {
    for (name, live) in [
        ("in a superblock", FragmentAddr { offset: 0, len: 100 }),
        ("past the end", addr(1, 0, 100)),
        ("across the end", addr(0, 0, SEGMENT + 1)),
        ("straddling", addr(0, 2000, 100)),
        ("far away", FragmentAddr { offset: u64::MAX, len: 100 }),
    ] {
        let failure = segments(0, &[live], layout().segment_start(1)).expect_err(name);
        assert!(
            matches!(failure, Failure::Corrupt { offset, .. } if offset == live.offset),
            "{name}: {failure}"
        );
    }
    let empty = segments(0, &[], layout().segment_start(1)).expect("nothing is wrong");
    assert!(empty.pin(addr(1, 0, 100)).is_err());
    for counts in [(1, 5), (0, SEGMENT + 1), (u32::MAX, 1)] {
        let rebuilt = Segments::rebuild_counted(layout(), PathBuf::new(), 0, &[counts], 1024 + 5);
        assert!(rebuilt.expect_err("no such segment").is_corruption());
    }
}

#[test]
fn a_segment_that_was_miscounted_is_never_reused() {
    let (segments, addrs) = with_sealed(1);
    segments.release(addrs[0]);
    segments.retain(addr(0, 0, 24)).expect("in the file");
    segments.release(addr(0, 0, 25));
    segments.release(addr(0, 0, 24));
    segments.published(segments.mark());
    assert_eq!(next(&segments), 1);
    assert_eq!(segments.stats(1 << 20).miscounted, 1);
}

#[test]
fn neighbours_are_found_and_the_reserve_is_spared() {
    let (segments, addrs) = with_sealed(6);
    for number in [0, 2, 3, 5] {
        segments.release(addrs[number]);
    }
    segments.published(segments.mark());
    for (count, want) in [(1, 0), (2, 2), (3, 5)] {
        let taken = segments.take(count, Choice::Any).expect("room");
        assert_eq!((taken.first, taken.written), (want, count < 3));
        segments.put_back(taken);
    }
    assert_eq!(segments.take(3, Choice::Written), None);

    let spared = Segments { reserve: 4, ..Arc::into_inner(segments).expect("the only one") };
    assert_eq!(spared.take(1, Choice::Written), None);
    assert_eq!(spared.take(1, Choice::Any).map(|taken| taken.first), Some(6));
    assert_eq!(spared.take(2, Choice::Reserve).map(|taken| taken.first), Some(2));
}

/// So many that a look at all of them would be seen.
#[test]
fn no_question_that_is_asked_again_and_again_goes_through_all_segments() {
    const MANY: u32 = 20_000;
    const FEW: u64 = 8;
    let (segments, addrs) = with_sealed(MANY);
    let kind = |kind: u32| (0..MANY).filter(move |number| number % 4 == kind);
    kind(0).for_each(|number| segments.release(addrs[number as usize]));
    segments.published(segments.mark());
    kind(1).for_each(|number| segments.release(addrs[number as usize]));
    kind(2).for_each(|number| segments.release(addr(number, 0, 64 * (number / 4 % 32))));
    kind(3).for_each(|number| segments.set_emptied(number, number % 8 == 3));
    let file_bytes = |count: u32| layout().segment_start(count);
    let (quarter, eighth) = (u64::from(MANY / 4), u64::from(MANY / 8));
    let cost = |most: u64, what: &str, ask: &dyn Fn()| {
        segments.table.lock().looks();
        ask();
        let looks = segments.table.lock().looks();
        assert!(looks <= most, "{what} looked at {looks} segments");
    };
    cost(FEW, "room", &|| {
        assert_eq!(segments.free_and_waiting(file_bytes(MANY)), (quarter, quarter + eighth));
    });
    cost(FEW * 33, "victims", &|| {
        let oldest = segments.oldest_sealed(FEW as usize);
        assert!(oldest.len() >= FEW as usize && oldest.iter().all(|found| found.segment % 4 == 2));
    });
    cost(FEW, "the end", &|| assert_eq!(segments.last_sealed(0, 2)[1].segment, MANY - 6));
    for choice in [Choice::Any, Choice::Written, Choice::Reserve] {
        cost(FEW, "a segment", &|| segments.put_back(segments.take(1, choice).expect("many are free")));
    }
    cost(FEW, "the reserve", &|| assert_eq!(segments.reserve_missing(), 0));
    cost(FEW, "a change", &|| {
        segments.retain(addr(2, 0, 512)).expect("in the file");
        segments.release(addr(2, 0, 512));
    });
    cost(FEW, "a reader", &|| drop(segments.pin(addr(2, 0, 512))));
    cost(FEW, "a hold", &|| drop(segments.hold(addr(2, 0, 512))));

    // What lies behind the end of a file that was cut is free, all of it.
    for number in MANY / 2..MANY {
        let left = match number % 4 {
            0 | 1 => continue,
            2 => 64 * (number / 4 % 32),
            _ => 0,
        };
        segments.release(addr(number, u64::from(left), SEGMENT - left));
    }
    segments.published(segments.mark());
    cost(FEW, "room in a file that was cut", &|| {
        assert_eq!(segments.free_and_waiting(file_bytes(MANY / 2)), (quarter, 0));
    });
}

/// What must still be readable, by naive bookkeeping: no counters, only lists of addresses.
struct Model {
    disk: Arc<TestDisk>,
    file: PagesFile,
    segments: Arc<Segments>,
    writer: FrameWriter,
    /// Of each page, where its newest durable form lies.
    map: BTreeMap<u64, Owned>,
    published: BTreeMap<u64, Owned>,
    begun: Option<(Mark, BTreeMap<u64, Owned>)>,
    pins: Vec<(Pin, Owned)>,
    unowned: Vec<Written>,
    /// Frames in blocks that a sync has closed.
    closed: Vec<Owned>,
    seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owned {
    pid: u64,
    seq: u64,
    addr: FragmentAddr,
}

impl Model {
    fn open(disk: Arc<TestDisk>, file: PagesFile, published: BTreeMap<u64, Owned>) -> Model {
        let live = published.values().map(|owned| owned.addr);
        let file_bytes = file.len().expect("no failure");
        let segments =
            Segments::rebuild(file.layout(), file.path(), 1, live, file_bytes).expect("all is there");
        let segments = Arc::new(segments);
        let writer = FrameWriter::new(file.clone(), segments.clone(), false).expect("no failure");
        Model {
            disk,
            file,
            segments,
            writer,
            map: published.clone(),
            closed: published.values().copied().collect(),
            published,
            begun: None,
            pins: Vec::new(),
            unowned: Vec::new(),
            seq: 1 << 32,
        }
    }

    fn protected(&self) -> Vec<Owned> {
        let begun = self.begun.iter().flat_map(|(_, map)| map.values());
        let unowned = self.unowned.iter().flat_map(Written::frames);
        let mut all: Vec<Owned> =
            self.map.values().chain(self.published.values()).chain(begun).copied().collect();
        all.extend(self.pins.iter().map(|(_, owned)| *owned));
        all.extend(unowned.map(|frame| Owned { pid: frame.pid, seq: frame.seq, addr: frame.addr }));
        all
    }

    fn write(&mut self, random: &mut Random, purpose: Purpose) -> Result<Written, Failure> {
        let mut batch = self.writer.batch(purpose, Stream::Hot);
        for _ in 0..=random.below(4) {
            let len = match random.below(12) {
                0 => 1500 + random.below(6000),
                _ => random.below(700),
            };
            self.seq += 1;
            let seq = self.seq;
            batch.push(random.below(30), seq, FrameKind::Image, len as usize, |out| out.fill(seq as u8))?;
        }
        batch.finish()
    }

    fn own(&mut self, written: &Written) {
        for frame in written.frames() {
            self.segments.retain(frame.addr).expect("just written");
            let owned = Owned { pid: frame.pid, seq: frame.seq, addr: frame.addr };
            if let Some(old) = self.map.insert(frame.pid, owned) {
                self.segments.release(old.addr);
            }
        }
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(14) {
            0..=3 => {
                let purpose = if random.below(4) == 0 { Purpose::Checkpoint } else { Purpose::Ordinary };
                match self.write(random, purpose) {
                    Ok(written) if random.below(5) == 0 => self.unowned.push(written),
                    Ok(written) => self.own(&written),
                    Err(Failure::DiskFull { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            4 => drop(self.unowned.pop()),
            5 => {
                if let Some((_, old)) = self.map.pop_first() {
                    self.segments.release(old.addr);
                }
            }
            6 => self.begun = Some((self.segments.mark(), self.map.clone())),
            7 => {
                self.writer.make_durable(SyncReason::Images).expect("no failure");
                self.closed = self.protected();
                if let Some((mark, map)) = self.begun.take() {
                    self.published = map;
                    self.segments.published(mark);
                }
            }
            8 => {
                if let Some(owned) = self.map.values().nth(random.below(8) as usize) {
                    self.pins.push((self.segments.pin(owned.addr).expect("it is there"), *owned));
                }
            }
            9 => self.pins.truncate(random.below(3) as usize),
            10 => self.writer.shrink().expect("no failure"),
            11 => self.disk.set_capacity(Some(random.below(40) as usize * SECTOR * 4)),
            12 => self.disk.set_capacity(None),
            _ => match self.writer.ensure_reserve() {
                Ok(()) | Err(Failure::DiskFull { .. }) => {}
                Err(other) => panic!("{other}"),
            },
        }
    }

    fn check(&self, seed: u64, step: u32) {
        let protected = self.protected();
        for owned in &protected {
            let frame = self.file.read_frame(owned.addr, owned.pid, Some(owned.seq));
            let frame = frame.unwrap_or_else(|e| panic!("seed {seed}, step {step}: {owned:?} is gone: {e}"));
            assert!(frame.payload().iter().all(|byte| *byte == owned.seq as u8));
        }
        let block = |at: u64| at / 512;
        for (offset, len) in self.disk.take_log().1 {
            let written = block(offset)..=block(offset + len as u64 - 1);
            let hit = self.closed.iter().find(|owned| {
                let end = owned.addr.offset + u64::from(owned.addr.len) - 1;
                protected.contains(owned)
                    && *written.start() <= block(end)
                    && block(owned.addr.offset) <= *written.end()
            });
            assert_eq!(hit, None, "seed {seed}, step {step}: {len} bytes at {offset} share a block with it");
        }
        let live: u64 = self.map.values().map(|owned| u64::from(owned.addr.len)).sum();
        let stats = self.writer.stats();
        assert_eq!((stats.live_bytes, stats.miscounted), (live, 0), "seed {seed}, step {step}");
        assert_eq!(stats.file_bytes, self.file.len().expect("no failure"), "seed {seed}, step {step}");
        let (free, waiting) = self.segments.free_and_waiting(stats.file_bytes);
        assert!(free == stats.free && waiting <= stats.dead, "seed {seed}, step {step}: {stats:?}");
    }

    /// With nobody left and one checkpoint more, nothing stays behind.
    fn drain(mut self, seed: u64) {
        self.pins.clear();
        self.unowned.clear();
        self.disk.set_capacity(None);
        for owned in self.map.values() {
            self.segments.release(owned.addr);
        }
        self.segments.published(self.segments.mark());
        let stats = self.writer.stats();
        assert_eq!((stats.live_bytes, stats.sealed, stats.dead), (0, 0, 0), "seed {seed}: {stats:?}");
        assert!(stats.active <= 1, "seed {seed}: {stats:?}");
    }
}

#[test]
fn nothing_that_may_be_needed_is_written_over() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let disk = TestDisk::new();
        let file = fresh(&disk, SEGMENT);
        let mut model = Model::open(disk, file, BTreeMap::new());
        for step in 0..120 {
            if random.below(40) == 0 {
                // A crash, or a restart: only what was published is left.
                let Model { disk, file, published, .. } = model;
                disk.take_log();
                model = Model::open(disk, file, published);
            } else {
                model.step(&mut random);
            }
            model.check(seed, step);
        }
        model.drain(seed);
    }
}
