//! Frames land where they are said to be, whole; a full disk harms nothing.

use std::sync::Arc;

use super::{Batch, FrameWriter, Purpose, Stream, Written};
use crate::{
    error::{Failure, Poison},
    format::frame::{Codec, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameHeader, FrameKind},
    ids::FragmentAddr,
    io::SyncReason,
    store::{
        pages::PagesFile,
        segments::Segments,
        testdisk::{SECTOR, TestDisk, fresh, superblock},
    },
};

const SEGMENT: u32 = 2048;
const HEADER: u32 = FRAME_HEADER_BYTES as u32;

struct Store {
    disk: Arc<TestDisk>,
    file: PagesFile,
    segments: Arc<Segments>,
    writer: FrameWriter,
}

fn store(reserve: usize) -> Store {
    let disk = TestDisk::new();
    let file = fresh(&disk, SEGMENT);
    disk.take_log();
    open(disk, file, reserve)
}

fn open(disk: Arc<TestDisk>, file: PagesFile, reserve: usize) -> Store {
    let len = file.len().expect("no failure");
    let segments =
        Arc::new(Segments::rebuild(file.layout(), file.path(), reserve, [], len).expect("nothing is wrong"));
    segments.published(segments.mark());
    let writer = FrameWriter::new(file.clone(), segments.clone(), false).expect("no failure");
    Store { disk, file, segments, writer }
}

impl Store {
    fn push(&self, batch: &mut Batch<'_>, pid: u64, frame_bytes: u32) {
        let payload = (frame_bytes - HEADER) as usize;
        batch.push(pid, pid + 100, FrameKind::Image, payload, |out| out.fill(pid as u8)).expect("room");
    }

    fn write(&self, frames: &[u32]) -> Written {
        let mut batch = self.writer.batch(Purpose::Ordinary, Stream::Hot);
        for (pid, frame_bytes) in (0..).zip(frames) {
            self.push(&mut batch, pid, *frame_bytes);
        }
        batch.finish().expect("room")
    }

    fn retain(&self, written: &Written) -> Vec<FragmentAddr> {
        let addrs: Vec<FragmentAddr> = written.frames().iter().map(|frame| frame.addr).collect();
        for addr in &addrs {
            self.segments.retain(*addr).expect("just written");
        }
        addrs
    }

    fn check(&self, written: &Written) {
        for frame in written.frames() {
            let pin = self.segments.pin(frame.addr).expect("it is there");
            let found = self.file.read_pinned(&pin, frame.pid, Some(frame.seq)).expect("it is whole");
            assert_eq!((found.kind(), found.pid(), found.seq()), (frame.kind, frame.pid, frame.seq));
            assert!(found.payload().iter().all(|byte| *byte == frame.pid as u8));
        }
    }
}

fn offsets(written: &Written) -> Vec<u64> {
    written.frames().iter().map(|frame| frame.addr.offset - 1024).collect()
}

#[test]
fn frames_follow_each_other_and_never_straddle_segments() {
    let store = store(0);
    let written = store.write(&[1000, 1000, 100, 2048, 24]);
    assert_eq!(offsets(&written), [0, 1000, 2048, 4096, 6144]);
    store.check(&written);
    let (_, writes) = store.disk.take_log();
    let rests = [(1024 + 2000, 48), (1024 + 2148, 1948)];
    assert_eq!(writes, [&[(1024, 2000), (1024 + 2048, 100), (1024 + 4096, 2072)], &rests[..]].concat());
    assert_eq!(offsets(&store.write(&[24])), [6168], "batches share a block until it is closed");
}

#[test]
fn a_run_takes_whole_segments_and_what_follows_starts_on_a_block() {
    let store = store(0);
    let written = store.write(&[1000, 2 * 2048 + 100, 1000, 1000]);
    // The run's last segment has more room than the first segment, so it is the active one.
    assert_eq!(offsets(&written), [0, 2048, 3 * 2048 + 512, 4 * 2048]);
    store.check(&written);
    let addrs = store.retain(&written);
    assert_eq!(store.segments.live_table(), [(0, 1000), (1, 2048), (2, 2048), (3, 1100), (4, 1000)]);
    drop(written);
    store.segments.release(addrs[1]);
    store.segments.published(store.segments.mark());
    let again = store.write(&[1000, 1000, 4096]);
    assert_eq!(
        offsets(&again),
        [4 * 2048 + 1000, 2048, 5 * 2048],
        "each segment of the run is free by itself"
    );
    let small = store.write(&[900]);
    assert_eq!(offsets(&small), [2048 + 1000], "the roomier one stays active");
}

#[test]
fn a_published_block_is_never_written_again() {
    let store = store(0);
    let first = store.write(&[100]);
    store.writer.make_durable(SyncReason::Images).expect("no failure");
    let (syncs, _) = store.disk.take_log();
    assert_eq!(syncs, [SyncReason::Images]);
    let second = store.write(&[100]);
    assert_eq!((offsets(&first), offsets(&second)), (vec![0], vec![512]));
    store.check(&first);
    store.check(&second);
}

#[test]
fn a_reopened_store_goes_on_behind_the_end_of_its_file() {
    for (frames, is_live, want) in [
        (vec![100], true, 512),
        (vec![512], true, 512),
        (vec![2000, 600], true, 2048 + 1024),
        (vec![1700], true, 2048),
        (vec![100], false, 0),
    ] {
        let store = store(0);
        let written = store.write(&frames);
        let live = written.frames().iter().map(|frame| frame.addr).filter(|_| is_live);
        let file_bytes = store.file.len().expect("no failure");
        let segments = Segments::rebuild(store.file.layout(), store.file.path(), 0, live, file_bytes);
        let segments = Arc::new(segments.expect("nothing is wrong"));
        let writer = FrameWriter::new(store.file.clone(), segments.clone(), false).expect("no failure");
        segments.published(segments.mark());
        let reopened = Store { disk: store.disk.clone(), file: store.file.clone(), segments, writer };
        assert_eq!(offsets(&reopened.write(&[100])), [want], "{frames:?}");
        if is_live {
            reopened.check(&written);
        }
    }
}

#[test]
fn a_scan_finds_every_frame_past_padding_rests_and_damage() {
    let store = store(0);
    drop(store.write(&[100, 200]));
    store.writer.seal_blocks();
    let written = store.write(&[300, 400, 24, 600, 5000, 30]);
    let all = |segment| {
        let found = store.file.scan(segment, &mut Vec::new()).expect("no failure");
        found.iter().map(|found| (found.addr.offset - 1024, found.addr.len)).collect::<Vec<_>>()
    };
    assert_eq!(all(0), [(0, 100), (100, 200), (512, 300), (812, 400), (1212, 24), (1236, 600)]);
    assert_eq!(all(1), [(2048, 5000)]);
    assert_eq!(all(2), []);
    assert_eq!(all(3), [(2 * 2048 + 3072, 30)], "{:?}", offsets(&written));
    assert_eq!(all(9), []);
    store.disk.damage(1024 + 512 + 290);
    store.disk.damage(1024 + 100 + 5);
    assert_eq!(all(0), [(0, 100), (812, 400), (1212, 24), (1236, 600)]);
}

#[test]
fn a_frame_that_is_not_the_one_asked_for_is_corruption() {
    let store = store(0);
    let written = store.write(&[100, 200]);
    let addr = written.frames()[0].addr;
    let read = |addr, pid, seq| store.file.read_frame(addr, pid, seq);
    assert!(read(addr, 0, None).is_ok());
    for (name, addr, pid, seq) in [
        ("another page", addr, 1, None),
        ("another change", addr, 0, Some(101)),
        ("another length", FragmentAddr { len: 101, ..addr }, 0, None),
        ("another place", FragmentAddr { offset: addr.offset + 1, ..addr }, 0, None),
        ("past the end", FragmentAddr { offset: addr.offset + 2048, ..addr }, 0, None),
        ("a run past the end", FragmentAddr { len: u32::MAX, ..addr }, 0, None),
    ] {
        let failure = read(addr, pid, seq).expect_err(name);
        assert!(
            matches!(failure, Failure::Corrupt { offset, .. } if offset == addr.offset),
            "{name}: {failure}"
        );
    }
    store.disk.damage(addr.offset + 50);
    assert!(read(addr, 0, None).expect_err("a changed bit").is_corruption());
    assert!(read(written.frames()[1].addr, 1, Some(101)).is_ok());
}

#[test]
fn a_full_disk_leaves_all_as_it_was_and_heals() {
    let store = store(0);
    let first = store.write(&[1000]);
    store.disk.set_capacity(Some(1024 + 2048 + SECTOR));
    let mut batch = store.writer.batch(Purpose::Ordinary, Stream::Hot);
    for pid in 0..5 {
        store.push(&mut batch, pid, 1000);
    }
    let before = store.writer.stats();
    for _ in 0..3 {
        let failure = batch.finish().expect_err("no room");
        assert!(matches!(failure, Failure::DiskFull { .. }), "{failure}");
        assert_eq!(store.writer.stats(), before);
        assert_eq!(store.file.len().expect("no failure"), before.file_bytes, "the space was given back");
    }
    store.check(&first);
    store.disk.set_capacity(None);
    let written = batch.finish().expect("there is room now");
    assert_eq!(offsets(&written), [1000, 2048, 3048, 4096, 5096]);
    store.check(&written);
}

#[test]
fn a_checkpoint_on_a_full_disk_has_the_reserve() {
    let store = store(2);
    store.writer.ensure_reserve().expect("room");
    assert_eq!(store.writer.stats().free, 2);
    let first = store.write(&[1000]);
    assert_eq!(offsets(&first), [2 * 2048], "the reserve is spared");
    store.disk.set_capacity(Some(0));
    let mut ordinary = store.writer.batch(Purpose::Ordinary, Stream::Hot);
    store.push(&mut ordinary, 7, 1000);
    let small = ordinary.finish();
    assert!(matches!(small, Err(Failure::DiskFull { .. })), "{small:?}");
    let mut checkpoint = store.writer.batch(Purpose::Checkpoint, Stream::Hot);
    for pid in 0..4 {
        store.push(&mut checkpoint, pid, 1000);
    }
    let written = checkpoint.finish().expect("the reserve");
    assert_eq!(offsets(&written), [0, 1000, 2048, 3048]);
    store.check(&written);
    store.check(&first);
    drop((first, written));
    store.segments.published(store.segments.mark());
    assert_eq!(offsets(&ordinary.finish().expect("room in the last written segment")).len(), 1);
}

#[test]
fn the_end_of_the_file_is_cut_but_for_the_reserve() {
    for (reserve, want) in [(0, 1), (2, 4)] {
        let store = store(reserve);
        let written = store.write(&[2048, 2048, 2048, 2048, 2048, 100]);
        let addrs = store.retain(&written);
        drop(written);
        drop(store.write(&[2048]));
        for addr in &addrs[1..] {
            store.segments.release(*addr);
        }
        store.writer.shrink().expect("no failure");
        assert_eq!(store.writer.stats().file_bytes, 1024 + 7 * 2048, "nothing is published");
        store.segments.published(store.segments.mark());
        // The active segment is the last one: it goes once another is active and it is dead.
        let last = store.write(&[2048]);
        store.segments.published(store.segments.mark());
        store.writer.shrink().expect("no failure");
        let segments = (store.file.len().expect("no failure") - 1024) / 2048;
        assert_eq!(segments, want + u64::from(reserve == 0), "reserve {reserve}: {:?}", offsets(&last));
        store.check(&last);
    }
}

#[test]
fn batches_are_written_by_the_megabyte_and_hold_what_they_wrote() {
    let disk = TestDisk::new();
    let superblock = superblock(4096, 1 << 20);
    crate::store::superblocks::create(&*disk, &superblock).expect("an empty disk");
    let file = PagesFile::new(disk.clone(), Arc::new(Poison::default()), &superblock);
    disk.take_log();
    let store = open(disk, file, 0);
    let mut batch = store.writer.batch(Purpose::Ordinary, Stream::Hot);
    for pid in 0..100 {
        store.push(&mut batch, pid, 16 << 10);
    }
    store.push(&mut batch, 100, (3 << 20) + 1);
    let written = batch.finish().expect("room");
    assert_eq!(written.frames().len(), 101);
    store.check(&written);
    let (_, writes) = store.disk.take_log();
    assert_eq!(writes.iter().map(|(_, len)| *len).max(), Some((3 << 20) + 1));
    assert!(writes.len() <= 4, "{writes:?}");
    drop(written);
    store.segments.published(store.segments.mark());
    let stats = store.writer.stats();
    assert_eq!((stats.live_bytes, stats.sealed, stats.dead, stats.active), (0, 0, 0, 1));
}

#[test]
fn a_failed_write_poisons_and_reads_go_on() {
    let store = store(0);
    let written = store.write(&[100]);
    store.disk.fail_at(store.disk.calls());
    let mut batch = store.writer.batch(Purpose::Ordinary, Stream::Hot);
    store.push(&mut batch, 1, 100);
    assert!(matches!(batch.finish(), Err(Failure::Poisoned { .. })));
    assert!(matches!(batch.finish(), Err(Failure::Poisoned { .. })));
    assert!(matches!(store.writer.make_durable(SyncReason::Images), Err(Failure::Poisoned { .. })));
    store.check(&written);
}

#[test]
fn a_fill_that_panics_and_a_payload_too_large_leave_the_batch_whole() {
    let store = store(0);
    let mut batch = store.writer.batch(Purpose::Ordinary, Stream::Hot);
    store.push(&mut batch, 1, 100);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        batch.push(2, 1, FrameKind::Image, 50, |_| panic!("user code"))
    }));
    assert!(panicked.is_err());
    let refused = batch.push(2, 1, FrameKind::Image, FRAME_PAYLOAD_BYTES_MAX + 1, |_| ());
    assert!(matches!(refused, Err(Failure::TooLarge { .. })), "{refused:?}");
    store.push(&mut batch, 3, 100);
    let written = batch.finish().expect("room");
    assert_eq!(offsets(&written), [0, 100]);
    store.check(&written);
}

/// A store whose pages are packed.
fn packing() -> Store {
    let disk = TestDisk::new();
    let file = fresh(&disk, SEGMENT);
    let mut store = open(disk, file, 0);
    store.writer = FrameWriter::new(store.file.clone(), store.segments.clone(), true).expect("no failure");
    store
}

#[test]
fn pages_are_packed_where_that_makes_them_shorter_and_read_back() {
    let store = packing();
    let noise = |out: &mut [u8]| {
        let mut state = 1_u64;
        out.fill_with(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 56) as u8
        });
    };
    let mut batch = store.writer.batch(Purpose::Ordinary, Stream::Hot);
    batch.push(1, 1, FrameKind::Image, 1500, |out| out.fill(1)).expect("room");
    batch.push(2, 1, FrameKind::Image, 1500, noise).expect("room");
    batch.push(3, 1, FrameKind::DeltaPage, 500, |out| out.fill(3)).expect("room");
    batch.push(4, 1, FrameKind::Value, 1500, |out| out.fill(4)).expect("room");
    batch.push(5, 1, FrameKind::MapPage, 1500, |out| out.fill(5)).expect("room");
    let written = batch.finish().expect("room");
    let lens: Vec<u32> = written.frames().iter().map(|frame| frame.addr.len).collect();
    assert!(lens[0] < HEADER + 50 && lens[2] < HEADER + 50, "{lens:?}");
    assert_eq!((lens[1], lens[3], lens[4]), (HEADER + 1500, HEADER + 1500, HEADER + 1500));
    for frame in written.frames() {
        let pin = store.segments.pin(frame.addr).expect("it is there");
        let found = store.file.read_pinned(&pin, frame.pid, Some(1)).expect("it is whole");
        let mut want = vec![frame.pid as u8; if frame.pid == 3 { 500 } else { 1500 }];
        if frame.pid == 2 {
            noise(&mut want);
        }
        assert_eq!(found.payload(), want, "page {}", frame.pid);
    }
}

#[test]
fn a_packed_frame_is_moved_as_it_is() {
    let store = packing();
    let mut batch = store.writer.batch(Purpose::Ordinary, Stream::Hot);
    batch.push(1, 7, FrameKind::Image, 1500, |out| out.fill(1)).expect("room");
    let first = batch.finish().expect("room");
    let pin = store.segments.pin(first.frames()[0].addr).expect("it is there");
    let as_is = store.file.read_pinned_as_is(&pin, 1).expect("it is whole");
    assert!(as_is.payload().len() < 50);
    // Whoever moves it need not pack itself.
    let plain = FrameWriter::new(store.file.clone(), store.segments.clone(), false).expect("no failure");
    let mut batch = plain.batch(Purpose::Ordinary, Stream::Survivors);
    batch.push_as_is(&as_is).expect("room");
    let second = batch.finish().expect("room");
    let (from, to) = (first.frames()[0].addr, second.frames()[0].addr);
    assert_eq!(from.len, to.len);
    let pin = store.segments.pin(to).expect("it is there");
    assert_eq!(store.file.read_pinned(&pin, 1, Some(7)).expect("it is whole").payload(), [1; 1500]);
}

/// Its checksum is right, so nothing but the unpacking can tell.
#[test]
fn a_packed_block_that_cannot_be_is_an_error_that_names_its_place() {
    let store = packing();
    for (name, payload, want) in [
        ("a length beyond the block", &[0xff, 0xff, 0xff, 0xff, 0x10, b'a'][..], "which cannot be"),
        ("a copy from before the start", &[9, 0, 0, 0, 0x10, b'a', 0xff, 0xff, 0x10][..], "do not unpack"),
        ("fewer bytes than were packed", &[9, 0, 0, 0, 0x10, b'a'][..], "9 were packed"),
        ("no length", &[9, 0][..], "the unpacked length"),
    ] {
        let header = FrameHeader {
            pid: 1,
            seq: 1,
            kind: FrameKind::Image,
            codec: Codec::Lz4,
            payload_bytes: payload.len() as u32,
        };
        let mut batch = store.writer.batch(Purpose::Ordinary, Stream::Hot);
        let at = batch.room_for(payload.len()).expect("room");
        batch.bytes[at..].copy_from_slice(payload);
        batch.add(header);
        let written = batch.finish().expect("room");
        let addr = written.frames()[0].addr;
        let pin = store.segments.pin(addr).expect("it is there");
        let failure = store.file.read_pinned(&pin, 1, Some(1)).expect_err(name);
        let Failure::Corrupt { found, offset, .. } = &failure else { panic!("{name}: {failure}") };
        assert!(found.contains(want) && *offset == addr.offset, "{name}: {failure}");
        let read = store.file.read_pinned_at_once(&pin, 1);
        assert!(!matches!(read, Ok(Some(_))), "{name}");
    }
}
