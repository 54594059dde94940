//! Large values from the page cache's side: what is written, adopted, moved and given back.

use std::{io::Cursor, sync::Arc};

use super::{NewValue, PageCache, ValueId};
use crate::{
    Admission, ConfigBuilder, Error, Failure, PageId, PagePtr, Strings, Verdict, View,
    io::{
        CountingStorage, FileId, Storage, SyncReason,
        sim::{Chooser, SimClock, SimDisk, SimSpawner},
    },
    pin,
};

type Pages = PageCache<Strings, String, ()>;

const SEGMENT_BYTES: usize = 8 << 10;

fn open<S: Storage>(disk: &Arc<S>) -> Pages {
    let clock = Arc::new(SimClock::new());
    let config = ConfigBuilder::new()
        .storage(disk.clone())
        .spawner(Arc::new(SimSpawner::new(clock.clone())))
        .clock(clock)
        .salt_seed(1)
        .block_bytes(512)
        .log_segment_bytes(8 << 10)
        .log_capacity(64 << 10)
        .checkpoint_every_bytes(32 << 10)
        .store_segment_bytes(SEGMENT_BYTES)
        .flush_every_ms(None)
        .build();
    Pages::start(config).expect("the store opens")
}

fn new_store() -> (Arc<SimDisk>, Pages) {
    let disk = Arc::new(SimDisk::untraced());
    let pages = open(&disk);
    (disk, pages)
}

/// Bytes that differ from place to place and from value to value.
fn bytes(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 7 % 251) as u8 ^ (i >> 9) as u8 ^ salt).collect()
}

fn write<'c>(pages: &'c Pages, bytes: &[u8]) -> NewValue<'c, Strings> {
    let written = pages.write_value(bytes.len() as u64, &mut Cursor::new(bytes)).expect("the disk is well");
    pages.sync_values(vec![written]).expect("the disk is well").remove(0)
}

/// Writes a value and a page that names it, in one batch.
fn store(pages: &Pages, bytes: &[u8]) -> (PageId, ValueId) {
    let value = write(pages, bytes);
    let guard = pin();
    let pid = pages.allocate(&guard).unwrap();
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    let id = batch.adopt(&value).unwrap();
    batch.replace(pid, PagePtr::allocated(), format!("{} {}", id.pid, id.seq), &guard).unwrap();
    batch.commit(|_| Verdict::Commit).unwrap();
    (pid, id)
}

/// Takes the name of a value away, and the value.
fn forget(pages: &Pages, (pid, id): (PageId, ValueId)) {
    let guard = pin();
    let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    batch.free(pid, key, &guard).unwrap();
    batch.free_value(id, &guard).unwrap();
    batch.commit(|_| Verdict::Commit).unwrap();
}

fn read(pages: &Pages, id: ValueId) -> Option<Vec<u8>> {
    pages.open_value(id).unwrap().map(|mut reader| reader.read_all().unwrap())
}

fn live(pages: &Pages) -> u64 {
    pages.recount().expect("live bytes are counted right");
    pages.stats().pages_live_bytes
}

/// The lengths at which a value takes one frame more.
fn lengths() -> impl Iterator<Item = usize> {
    let edges = [SEGMENT_BYTES - 24, 2 * (SEGMENT_BYTES - 24), 5 * SEGMENT_BYTES];
    [0, 1, 487, 488, 489].into_iter().chain(edges.into_iter().flat_map(|edge| edge - 1..=edge + 1))
}

#[test]
fn values_of_every_length_are_read_back_whole_and_in_parts_before_and_after_a_power_cut() {
    let (disk, pages) = new_store();
    let stored: Vec<(Vec<u8>, ValueId)> = lengths()
        .zip(1..)
        .map(|(len, salt)| {
            let bytes = bytes(len, salt);
            let (_, id) = store(&pages, &bytes);
            (bytes, id)
        })
        .collect();
    pages.flush().unwrap();
    let after = Arc::new(disk.crash(&mut Chooser::none()));
    for pages in [pages, open(&after)] {
        live(&pages);
        for (bytes, id) in &stored {
            let mut reader = pages.open_value(*id).unwrap().expect("it was durable");
            assert_eq!(reader.bytes(), bytes.len() as u64);
            assert_eq!(reader.read_all().unwrap(), *bytes, "{id:?}");
            for at in [0, 1, 500, SEGMENT_BYTES - 25, SEGMENT_BYTES - 24, bytes.len(), bytes.len() + 9] {
                let mut out = vec![0; 700];
                let got = reader.read_at(at as u64, &mut out).unwrap();
                let want = &bytes[at.min(bytes.len())..(at + 700).min(bytes.len())];
                assert_eq!(&out[..got], want, "{id:?} from {at}");
            }
        }
    }
}

/// A value was written ahead of its batch and the batch was durable; no map entry kept its segment from
/// being used again after a crash (P-4).
#[test]
fn an_adopted_value_keeps_its_place_after_a_crash_before_any_checkpoint() {
    let (disk, pages) = new_store();
    let wanted = bytes(3 * SEGMENT_BYTES, 1);
    let (_, id) = store(&pages, &wanted);
    pages.flush().unwrap();
    let mut disk = Arc::new(disk.crash(&mut Chooser::none()));
    for round in 0..4 {
        let pages = open(&disk);
        for salt in 0..4 {
            let other = store(&pages, &bytes(2 * SEGMENT_BYTES, 9 + salt));
            forget(&pages, other);
        }
        assert_eq!(read(&pages, id).as_ref(), Some(&wanted), "round {round}");
        pages.flush().unwrap();
        disk = Arc::new(disk.crash(&mut Chooser::none()));
    }
}

/// A checkpoint started replay behind the record that adopted a value and had no entry for its page
/// (VALUE-2).
#[test]
fn a_checkpoint_behind_the_adopting_record_has_the_value() {
    let (disk, pages) = new_store();
    let wanted = bytes(2 * SEGMENT_BYTES, 1);
    let record = pages.next_lsn();
    let (_, id) = store(&pages, &wanted);
    pages.checkpoint().unwrap();
    assert!(pages.shared.checkpointer.replay_from() > record, "nothing is replayed");
    let pages = open(&Arc::new(disk.crash(&mut Chooser::none())));
    assert_eq!(read(&pages, id), Some(wanted));
}

/// The same, where the checkpoint comes between two crashes: what recovery adopted has no chain that
/// would keep the log.
#[test]
fn a_checkpoint_after_recovery_has_what_recovery_adopted() {
    let (disk, pages) = new_store();
    let wanted = bytes(2 * SEGMENT_BYTES, 1);
    let (_, id) = store(&pages, &wanted);
    pages.flush().unwrap();
    let disk = Arc::new(disk.crash(&mut Chooser::none()));
    let pages = open(&disk);
    store(&pages, b"another");
    pages.checkpoint().unwrap();
    let pages = open(&Arc::new(disk.crash(&mut Chooser::none())));
    assert_eq!(read(&pages, id), Some(wanted));
}

#[test]
fn a_value_that_no_batch_adopts_gives_all_of_it_back_at_once_and_after_a_crash() {
    let (disk, pages) = new_store();
    let (_, kept) = store(&pages, &bytes(100, 1));
    pages.checkpoint().unwrap();
    let before = (live(&pages), pages.stats().pages_file_bytes, pages.stats().free_pages);
    let value = write(&pages, &bytes(20 * SEGMENT_BYTES, 2));
    let crashed = Arc::new(disk.crash(&mut Chooser::all()));
    let id = value.id();
    assert!(pages.stats().pages_live_bytes > 20 * SEGMENT_BYTES as u64, "the file is as long as it makes it");
    drop(value);
    let after = (live(&pages), pages.stats().pages_file_bytes);
    assert_eq!(after.0, before.0);
    assert!(after.1 <= before.1 + SEGMENT_BYTES as u64, "{} bytes, {} before", after.1, before.1);
    assert_eq!(pages.stats().free_pages, before.2 + 1, "its page id");
    assert_eq!(read(&pages, id), None);
    let reopened = open(&crashed);
    assert_eq!(live(&reopened), before.0, "after a crash");
    assert_eq!(read(&reopened, id), None);
    assert!(read(&reopened, kept).is_some());
}

#[test]
fn a_batch_that_is_given_up_leaves_the_value_to_the_next_try() {
    let (_, pages) = new_store();
    let wanted = bytes(SEGMENT_BYTES, 1);
    let value = write(&pages, &wanted);
    for verdict in [Verdict::Abort, Verdict::Commit] {
        let mut batch = pages.begin_batch(Admission::default()).unwrap();
        let id = batch.adopt(&value).unwrap();
        assert!(matches!(batch.adopt(&value), Err(Failure::Misuse { .. })), "twice in one batch");
        batch.commit(|_| verdict).unwrap();
        assert_eq!(read(&pages, id).is_some(), verdict == Verdict::Commit);
    }
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    assert!(matches!(batch.adopt(&value), Err(Failure::Misuse { .. })), "it has an owner");
    drop((batch, value));
    assert!(live(&pages) > SEGMENT_BYTES as u64);
}

/// The free of a batch that was given up left a mark on the page, and the value could be freed no more.
#[test]
fn a_value_outlives_a_free_that_was_given_up_and_an_eviction_after_it() {
    let (_, pages) = new_store();
    let (pid, id) = store(&pages, &bytes(700, 1));
    for evicts in [false, true] {
        let mut batch = pages.begin_batch(Admission::default()).unwrap();
        batch.free_value(id, &pin()).unwrap();
        drop(batch);
        assert!(read(&pages, id).is_some());
        if evicts {
            pages.checkpoint().unwrap();
        }
    }
    forget(&pages, (pid, id));
    assert_eq!(read(&pages, id), None);
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    assert!(matches!(batch.free_value(id, &pin()), Err(Failure::Corrupt { .. })), "it is gone");
}

/// A batch had noted a leaf's page for later; the leaf was joined away and its page became a value, and the
/// batch took that for damage.
#[test]
fn a_page_that_has_become_a_value_is_gone_to_whoever_has_its_id() {
    let (_, pages) = new_store();
    let (_, id) = store(&pages, &bytes(700, 1));
    let guard = pin();
    for _ in 0..2 {
        let key = match pages.view(id.pid, &guard).unwrap() {
            View::Free(key) => key,
            _ => panic!("page {} is a value", id.pid),
        };
        assert!(matches!(pages.link(id.pid, key, "more".to_owned(), &guard), Err(Error::CasFailed(None))));
        // The second time under a change that was given up.
        let mut batch = pages.begin_batch(Admission::default()).unwrap();
        batch.free_value(id, &guard).unwrap();
    }
    assert_eq!(read(&pages, id), Some(bytes(700, 1)));
}

#[test]
fn a_reader_has_the_whole_value_though_it_is_freed_and_its_place_is_wanted() {
    let (_, pages) = new_store();
    let wanted = bytes(4 * SEGMENT_BYTES, 1);
    let stored = store(&pages, &wanted);
    let mut reader = pages.open_value(stored.1).unwrap().expect("it is there");
    let mut begin = vec![0; 100];
    reader.read_at(0, &mut begin).unwrap();
    forget(&pages, stored);
    for salt in 0..20 {
        let other = store(&pages, &bytes(4 * SEGMENT_BYTES, 2 + salt));
        forget(&pages, other);
        pages.checkpoint().unwrap();
    }
    assert_eq!(reader.read_all().unwrap(), wanted);
    drop(reader);
    pages.checkpoint().unwrap();
    live(&pages);
}

/// Moving a value must not touch the copy that a crash could bring back.
#[test]
fn moved_values_are_whole_and_so_are_their_old_copies_until_a_checkpoint() {
    let (disk, pages) = new_store();
    let stored: Vec<_> =
        (0..24).map(|salt| store(&pages, &bytes(3000 + 100 * usize::from(salt), salt))).collect();
    pages.checkpoint().unwrap();
    for dead in stored.iter().skip(1).step_by(2) {
        forget(&pages, *dead);
    }
    pages.flush().unwrap();
    let check = |pages: &Pages, when: &str| {
        live(pages);
        for (salt, (_, id)) in stored.iter().enumerate().step_by(2) {
            let wanted = bytes(3000 + 100 * salt, salt as u8);
            assert_eq!(read(pages, *id), Some(wanted), "value {salt} {when}");
        }
    };
    let segments =
        pages.shared.cache.store.live_table().into_iter().map(|(segment, _)| segment).collect::<Vec<_>>();
    let moved = pages.shared.cache.empty_segments(&segments).unwrap();
    assert!(moved > 12 * 3000, "only {moved} bytes moved");
    check(&pages, "after the move");
    check(&open(&Arc::new(disk.crash(&mut Chooser::all()))), "after a crash that kept all writes");
    check(&open(&Arc::new(disk.crash(&mut Chooser::none()))), "after a crash that lost them");
    pages.compact().unwrap();
    check(&pages, "in a compact file");
    check(&open(&Arc::new(disk.crash(&mut Chooser::none()))), "after a crash behind it");
}

#[test]
fn one_sync_comes_before_the_record_and_serves_all_values_of_a_batch() {
    let counted = Arc::new(CountingStorage::new(Arc::new(SimDisk::untraced())));
    let pages = open(&counted);
    let written: Vec<_> =
        (1..4).map(|salt| pages.write_value(900, &mut Cursor::new(bytes(900, salt))).unwrap()).collect();
    let before = counted.snapshot().syncs(SyncReason::Values);
    let values = pages.sync_values(written).unwrap();
    assert_eq!(counted.snapshot().syncs(SyncReason::Values), before + 1);
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    let ids: Vec<ValueId> = values.iter().map(|value| batch.adopt(value).unwrap()).collect();
    batch.commit(|_| Verdict::Commit).unwrap();
    assert_eq!(counted.snapshot().syncs(SyncReason::Values), before + 1);
    for (id, salt) in ids.iter().zip(1..) {
        assert_eq!(read(&pages, *id), Some(bytes(900, salt)));
    }
}

#[test]
fn a_source_that_ends_early_or_a_value_beyond_the_limit_changes_nothing() {
    let (_, pages) = new_store();
    let before = live(&pages);
    let failed = pages.write_value(3 * SEGMENT_BYTES as u64, &mut Cursor::new(vec![1; 2 * SEGMENT_BYTES]));
    assert!(
        matches!(failed, Err(Failure::Io { offset, .. }) if offset >= SEGMENT_BYTES as u64),
        "{failed:?}"
    );
    let failed = pages.write_value(Pages::VALUE_BYTES_MAX + 1, &mut std::io::repeat(1));
    assert!(matches!(failed, Err(Failure::TooLarge { .. })), "{failed:?}");
    assert_eq!(live(&pages), before);
}

#[test]
fn a_flipped_bit_of_a_value_is_damage_at_its_place_and_the_rest_is_read() {
    let (disk, pages) = new_store();
    let wanted = bytes(3 * SEGMENT_BYTES, 1);
    let (_, id) = store(&pages, &wanted);
    let reader = pages.open_value(id).unwrap().unwrap();
    drop(reader);
    let place = 2 * 512 + SEGMENT_BYTES as u64 + 700;
    let byte = disk.contents(FileId::Pages).expect("the file is there")[place as usize];
    disk.damage(FileId::Pages, place, &[byte ^ 4]).unwrap();
    let mut reader = pages.open_value(id).unwrap().unwrap();
    let mut first = vec![0; 100];
    reader.read_at(0, &mut first).unwrap();
    assert_eq!(first, wanted[..100]);
    let failed = reader.read_all();
    assert!(matches!(failed, Err(Failure::Corrupt { offset, .. }) if offset <= place), "{failed:?}");
}
