//! The page cache alone, with strings for pages.

use std::sync::Arc;

use pagecache::{
    Admission, Config, ConfigBuilder, Error, Log, NullMaterializer, PageCache, PagePtr, Verdict, View,
    io::{
        FileId, Storage, SyncReason,
        sim::{Chooser, SimDisk},
    },
    pin,
};
use tests::{stepwise, strings::Pages, tiny_pages};

fn open(disk: &Arc<SimDisk>) -> Pages {
    try_open(disk).expect("the store opens")
}

fn try_open(disk: &Arc<SimDisk>) -> Result<Pages, Error<()>> {
    Pages::start(config(disk))
}

fn config(disk: &Arc<SimDisk>) -> Config {
    let builder = stepwise(ConfigBuilder::new(), disk.clone()).salt_seed(1);
    tiny_pages(builder).page_consolidation_threshold(2).build()
}

/// A page was consolidated in memory and had no image yet when a checkpoint wrote the part of the
/// page table that it belongs to. The table took the page's number from the consolidated node, so
/// that recovery passed over the records that made it, and the store did not open. The table says
/// nothing of a page now before it has an image.
#[test]
fn a_page_without_an_image_is_recovered_from_the_log_whatever_the_table_holds() {
    let disk = Arc::new(SimDisk::new());
    let pages = open(&disk);
    let guard = pin();
    let first = pages.allocate(&guard).unwrap();
    let second = pages.allocate(&guard).unwrap();
    let mut key = PagePtr::allocated();
    for part in ["a", "b", "c", "d", "e"] {
        key = pages.link(first, key, part.to_owned(), &guard).unwrap();
    }
    pages.replace(second, PagePtr::allocated(), "z".to_owned(), &guard).unwrap();
    // A pending fragment keeps the first page from being written back.
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    batch.link(first, key, "f".to_owned(), &guard).unwrap();
    pages.checkpoint().unwrap();
    batch.commit(|_| Verdict::Commit).unwrap();
    pages.flush().unwrap();

    let after = Arc::new(disk.crash(&mut Chooser::none()));
    std::mem::forget(pages);
    let pages = open(&after);
    let (page, _) = pages.get(first, &guard).unwrap().unwrap();
    assert_eq!(page, "abcdef");
    let (page, _) = pages.get(second, &guard).unwrap().unwrap();
    assert_eq!(page, "z");
}

/// A batch freed a page and was given up. Whoever looked at the page's fragments then was shown
/// none: the free hid what it was not to free, and a leaf with all its records was called damaged.
#[test]
fn a_free_that_was_given_up_hides_no_fragment() {
    let pages = open(&Arc::new(SimDisk::new()));
    let guard = pin();
    let pid = pages.allocate(&guard).unwrap();
    let key = pages.replace(pid, PagePtr::allocated(), "a".to_owned(), &guard).unwrap();
    let key = pages.link(pid, key, "b".to_owned(), &guard).unwrap();
    let shown = |when: &str| {
        let View::Page(page) = pages.view(pid, &guard).unwrap() else { panic!("{when}: the page is there") };
        page.frags().map(|(frag, _)| frag.as_str()).collect::<String>()
    };
    let mut batch = pages.begin_batch(Admission::default()).unwrap();
    batch.free(pid, key, &guard).unwrap();
    assert_eq!(shown("pending"), "ba");
    drop(batch);
    assert_eq!(shown("given up"), "ba");
}

/// The log filled up under one batch after another, with no background to take checkpoints. The
/// batch that needed the room had changed a page already, so that the checkpoint it then took could
/// not write that page back and released nothing: the batch was refused, and so were all after it.
/// A batch makes room before it changes anything.
#[test]
fn batches_alone_never_fill_the_log() {
    let pages = open(&Arc::new(SimDisk::new()));
    let guard = pin();
    let pid = pages.allocate(&guard).unwrap();
    pages.replace(pid, PagePtr::allocated(), String::new(), &guard).unwrap();
    for round in 0..1000 {
        let mut batch = pages.begin_batch(Admission { log: 600, ..Admission::default() }).unwrap();
        let (_, key) = pages.get(pid, &guard).unwrap().unwrap();
        batch.replace(pid, key, format!("{round:500}"), &guard).unwrap();
        batch.commit(|_| Verdict::Commit).unwrap_or_else(|failure| panic!("round {round}: {failure}"));
    }
}

/// A store that was killed before its first checkpoint had lost its log, and opened as an empty one.
/// The log's name is durable before the superblock says that there is one, so its absence is damage.
#[test]
fn a_store_whose_log_is_gone_is_refused_and_not_opened_as_a_new_one() {
    let disk = Arc::new(SimDisk::new());
    let pages = open(&disk);
    let guard = pin();
    let page = pages.allocate(&guard).unwrap();
    pages.replace(page, PagePtr::allocated(), "kept".to_owned(), &guard).unwrap();
    pages.flush().unwrap();
    let after = Arc::new(disk.crash(&mut Chooser::all()));
    std::mem::forget(pages);
    after.remove(FileId::Log).unwrap();
    after.sync_names(SyncReason::LogName).unwrap();
    let refused = try_open(&after);
    assert!(matches!(refused, Err(Error::Corruption { .. })), "{:?}", refused.map(|_| "it opened"));
}

#[test]
fn a_log_and_a_page_cache_refuse_each_others_files() {
    let disk = Arc::new(SimDisk::new());
    Log::start(config(&disk)).expect("a new log").close().expect("it closes");
    let refused = PageCache::<NullMaterializer, _, _>::start(config(&disk)).expect_err("a log's files");
    assert!(matches!(&refused, Error::Unsupported(what) if what.contains("log alone")), "{refused}");

    let disk = Arc::new(SimDisk::new());
    drop(open(&disk));
    let refused = Log::start(config(&disk)).expect_err("a page cache's files");
    assert!(matches!(&refused, Error::Unsupported(what) if what.contains("pages")), "{refused}");
}

#[test]
fn a_page_goes_through_its_four_states_and_its_key_tells_the_last_change() {
    let disk = Arc::new(SimDisk::new());
    let pages = open(&disk);
    let guard = pin();
    assert!(pages.get(7, &guard).unwrap().is_unallocated());
    let pid = pages.allocate(&guard).unwrap();
    assert!(pages.get(pid, &guard).unwrap().is_allocated());
    assert_eq!(PagePtr::<String>::allocated().last_lsn(), 0);
    let key = pages.replace(pid, PagePtr::allocated(), "a".to_owned(), &guard).unwrap();
    let first = key.last_lsn();
    let key = pages.link(pid, key, "b".to_owned(), &guard).unwrap();
    assert!(first > 0 && first < key.last_lsn() && key.last_lsn() < pages.next_lsn());
    let found = pages.get(pid, &guard).unwrap();
    assert!(found.is_materialized());
    let (_, same) = found.unwrap();
    assert_eq!(same.last_lsn(), key.last_lsn());
    pages.make_stable(same.last_lsn()).unwrap();
    assert!(pages.stable_lsn() >= same.last_lsn());
    pages.free(pid, same, &guard).unwrap();
    assert!(pages.get(pid, &guard).unwrap().is_free());

    // Allocated and never written: free after a restart, and handed out again.
    let unwritten = pages.allocate(&guard).unwrap();
    assert_ne!(unwritten, pid);
    pages.close().unwrap();
    let pages = open(&disk);
    assert!(pages.get(unwritten, &guard).unwrap().is_free());
    let again: Vec<_> = (0..2).map(|_| pages.allocate(&guard).unwrap()).collect();
    assert!(again.contains(&unwritten) && again.contains(&pid), "{again:?}");
}

#[test]
fn a_setting_out_of_its_range_is_refused_by_name_when_the_store_is_started() {
    type Set = fn(ConfigBuilder) -> ConfigBuilder;
    let cases: [(&str, Set); 15] = [
        ("block_bytes", |b| b.block_bytes(0)),
        ("block_bytes", |b| b.block_bytes(1000)),
        ("block_bytes", |b| b.block_bytes(128 << 10)),
        ("log_segment_bytes", |b| b.log_segment_bytes(0)),
        ("log_segment_bytes", |b| b.log_segment_bytes((64 << 10) + 1)),
        ("log_segment_bytes", |b| b.log_segment_bytes(2 << 30).log_capacity(1 << 40)),
        ("log_buffers", |b| b.log_buffers(0)),
        ("log_buffers", |b| b.log_buffers(3)),
        ("log_capacity", |b| b.log_capacity(0)),
        ("checkpoint_every_bytes", |b| b.checkpoint_every_bytes(0)),
        ("checkpoint_every_bytes", |b| b.checkpoint_every_bytes(u64::MAX)),
        ("store_segment_bytes", |b| b.store_segment_bytes(1)),
        ("page_consolidation_threshold", |b| b.page_consolidation_threshold(0)),
        ("cache_capacity", |b| b.cache_capacity(0)),
        ("read_only", |b| b.read_only(true)),
    ];
    for (name, set) in cases {
        let config = set(ConfigBuilder::new().temporary(true)).build();
        let refused = Log::start(config.clone()).map(drop).expect_err(name).to_string();
        assert!(refused.contains(name), "{name}: {refused}");
        let refused = PageCache::<NullMaterializer, _, _>::start(config);
        let refused = refused.map(drop).expect_err(name).to_string();
        assert!(refused.contains(name), "{name}: {refused}");
    }
}
