//! Random changes, snapshots, checkpoints, evictions and restarts, against copies of what was there.

use std::{collections::BTreeMap, sync::Arc};

use pagecache::{
    ConfigBuilder, PageCache, PageGet, PageId, PagePtr, Snapshot, View,
    io::sim::{Rng, SimDisk},
    pin,
};
use tests::{seeds, stepwise, tiny_pages};

use super::{
    Pages, Versioned, said,
    versions::{Page, text},
};

const PAGES_MAX: usize = 24;
const SNAPSHOTS_MAX: usize = 4;
const CONTENT_MAX: usize = 1500;
const STEPS: usize = 3000;

type Model = BTreeMap<PageId, String>;

struct History {
    disk: Arc<SimDisk>,
    pages: Pages,
    rng: Rng,
    model: Model,
    /// Each with what was there when it was taken, less the pages that were freed since.
    held: Vec<(Snapshot, Model)>,
    /// Reads at a snapshot of a page that was changed since.
    old_reads: usize,
}

fn open(disk: &Arc<SimDisk>, cache: u64) -> Pages {
    let builder = tiny_pages(stepwise(ConfigBuilder::new(), disk.clone()));
    Pages::open(builder.salt_seed(7).cache_capacity(cache).page_consolidation_threshold(4).build())
        .expect("the store opens")
}

impl History {
    fn link(&mut self, pid: PageId) {
        let words = format!("{} ", self.rng.index(1 << 30)).repeat(1 + self.rng.index(6));
        let guard = pin();
        let key = match self.pages.get(pid, &guard).expect("the disk is well") {
            PageGet::Materialized(_, key) => key,
            _ => PagePtr::allocated(),
        };
        self.pages.link(pid, key, said(&words), &guard).expect("nobody else writes");
        self.model.entry(pid).or_default().push_str(&words);
    }

    fn free(&mut self, pid: PageId) {
        let guard = pin();
        let (_, key) = self.pages.get(pid, &guard).expect("the disk is well").unwrap();
        self.pages.free(pid, key, &guard).expect("nobody else writes");
        self.model.remove(&pid);
        self.held.iter_mut().for_each(|(_, then)| drop(then.remove(&pid)));
    }

    fn some_page(&mut self) -> Option<PageId> {
        let nth = self.rng.index(self.model.len().max(1));
        self.model.keys().nth(nth).copied()
    }

    fn change(&mut self) {
        let page = self.some_page();
        match page {
            Some(pid) if self.model[&pid].len() > CONTENT_MAX => self.free(pid),
            Some(pid) if self.model.len() >= PAGES_MAX || self.rng.index(8) > 0 => self.link(pid),
            _ => {
                let pid = self.pages.allocate(&pin()).expect("ids are left");
                self.link(pid);
            }
        }
    }

    fn check(&mut self, what: &str) {
        let guard = pin();
        let known: Vec<PageId> = self.model.keys().copied().collect();
        for pid in known {
            let (page, _) = self.pages.get(pid, &guard).expect("the disk is well").unwrap();
            assert_eq!(text(page), self.model[&pid], "{what}: page {pid} now");
            for (snapshot, then) in &self.held {
                let read = self.pages.read_at(pid, snapshot, &guard).expect("the disk is well");
                let want = then.get(&pid);
                self.old_reads += usize::from(want.is_none_or(|want| *want != self.model[&pid]));
                assert_eq!(read.map(text).as_ref(), want, "{what}: page {pid} at {snapshot:?}");
            }
        }
    }

    fn restart(&mut self, cache: u64) {
        self.held.clear();
        let disk = self.disk.clone();
        let spare = open(&Arc::new(SimDisk::new()), cache);
        std::mem::replace(&mut self.pages, spare).close().expect("the store closes");
        self.pages = open(&disk, cache);
    }
}

#[test]
fn a_snapshot_reads_the_same_through_folds_write_back_eviction_and_checkpoints() {
    let mut old_reads = 0;
    for seed in seeds(12) {
        let mut rng = Rng::new(seed);
        let cache = [2 << 10, 16 << 10, 1 << 20][rng.index(3)];
        let disk = Arc::new(SimDisk::new());
        let pages = open(&disk, cache);
        let mut run = History { disk, pages, rng, model: Model::new(), held: Vec::new(), old_reads: 0 };
        for step in 0..STEPS {
            let what = format!("seed {seed}, step {step}");
            match run.rng.index(100) {
                0..=2 if run.held.len() < SNAPSHOTS_MAX => {
                    let snapshot = run.pages.snapshot().expect("no change is under way");
                    run.held.push((snapshot, run.model.clone()));
                }
                3..=4 if !run.held.is_empty() => {
                    let which = run.rng.index(run.held.len());
                    drop(run.held.swap_remove(which));
                }
                5 => run.pages.checkpoint().expect("the disk is well"),
                6 => run.pages.flush().expect("the disk is well"),
                7..=8 => run.check(&what),
                9 if run.rng.index(20) == 0 => run.restart(cache),
                _ => run.change(),
            }
        }
        run.check(&format!("seed {seed}, at the end"));
        run.held.clear();
        assert_eq!(run.pages.snapshots(), 0);
        old_reads += run.old_reads;
    }
    assert!(old_reads > 10_000, "too few reads of what was changed since: {old_reads}");
}

#[test]
fn without_a_snapshot_nothing_more_is_kept() {
    let disk = Arc::new(SimDisk::new());
    let pages = open(&disk, 1 << 20);
    let pid = pages.allocate(&pin()).unwrap();
    let mut key = PagePtr::allocated();
    let guard = pin();
    for number in 0..3 {
        key = pages.link(pid, key, said(&format!("{number} ")), &guard).unwrap();
    }
    let snapshot = pages.snapshot().unwrap();
    key = pages.get(pid, &guard).unwrap().unwrap().1;
    pages.link(pid, key, said("later "), &guard).unwrap();
    let (page, key) = pages.get(pid, &guard).unwrap().unwrap();
    assert_eq!(page.len(), 2, "the page as it was, and what came since: {page:?}");
    assert_eq!(pages.read_at(pid, &snapshot, &guard).unwrap().map(text), Some("0 1 2 ".to_owned()));
    drop(snapshot);
    pages.link(pid, key, said("latest "), &guard).unwrap();
    let (page, _) = pages.get(pid, &guard).unwrap().unwrap();
    assert_eq!(page, &said("0 1 2 later latest "), "versions that nobody reads any more are gone");
}

#[test]
fn changes_that_a_snapshot_tells_apart_are_not_united() {
    let pages = PageCache::<Versioned<true>, Page, ()>::open(ConfigBuilder::new().temporary(true).build())
        .expect("the store opens");
    let (pid, guard) = (pages.allocate(&pin()).unwrap(), pin());
    let mut key = pages.replace(pid, PagePtr::allocated(), said(&"long ".repeat(200)), &guard).unwrap();
    key = pages.link(pid, key, said("before"), &guard).unwrap();
    let snapshot = pages.snapshot().unwrap();
    for word in ["after", "later", "now"] {
        key = pages.link(pid, key, said(word), &guard).unwrap();
    }
    let shortened = |word: &str| {
        let View::Page(view) = pages.view(pid, &guard).unwrap() else { panic!("a page") };
        let view = pages.shorten(pid, view, &guard).expect("nobody else is there");
        let page = view.frags().next().map(|(page, _)| page.last().map(|(_, words)| words.clone()));
        assert_eq!(page.flatten().as_deref(), Some(word));
        view.depth()
    };
    assert_eq!(shortened("now"), 1, "folded whole, with the version of the snapshot");
    assert_eq!(pages.read_at(pid, &snapshot, &guard).unwrap().map(text), Some("before".to_owned()));
    drop(snapshot);
    // Two changes on a base that is long enough: the base stays, and they are one.
    key = pages.get(pid, &guard).unwrap().unwrap().1;
    key = pages.replace(pid, key, said(&"long ".repeat(200)), &guard).unwrap();
    for word in ["one", "two"] {
        key = pages.link(pid, key, said(word), &guard).unwrap();
    }
    assert_eq!(shortened("two"), 2, "united");
}

#[test]
fn a_snapshot_is_read_in_its_own_store_only() {
    let one = open(&Arc::new(SimDisk::new()), 1 << 20);
    let other = open(&Arc::new(SimDisk::new()), 1 << 20);
    let snapshot = one.snapshot().unwrap();
    assert!(other.read_at(0, &snapshot, &pin()).is_err());
    assert!(one.read_at(0, &snapshot, &pin()).unwrap().is_none(), "no such page was ever there");
}
