//! Does random operations on a page cache and on its model.

use std::{fmt, rc::Rc, sync::Arc, time::Duration};

use pagecache::{
    Admission, Config, ConfigBuilder, DecodeError, Error, Failure, Guard, Lsn, Materializer, PageCache,
    PageGet, PageId, PagePtr, Verdict,
    io::sim::{Rng, SimClock, SimDisk, SimSpawner},
    pin,
};

use super::{counts::Counts, model::Model};

/// Pages above this length are begun anew, but for one change that exceeds a record.
const CONTENT_MAX: usize = 600;
/// Pages in use at one time.
const PAGES_MAX: usize = 60;
/// Pages are words; changes append words.
pub(super) struct Words;

impl Materializer for Words {
    type PageFrag = String;
    type Recovery = ();

    fn new(_: Config, _: &Option<()>) -> Words {
        Words
    }

    fn merge(&self, frags: &[&String]) -> String {
        frags.iter().map(|frag| frag.as_str()).collect()
    }

    fn recover(&self, _: &String) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, frag: &String) -> usize {
        frag.len()
    }

    fn encoded_len(&self, frag: &String) -> usize {
        frag.len()
    }

    fn encode(&self, frag: &String, out: &mut [u8]) {
        out.copy_from_slice(frag.as_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, DecodeError> {
        String::from_utf8(bytes.to_vec()).map_err(|why| DecodeError(why.to_string()))
    }
}

pub(super) type Pages = PageCache<Words, String, ()>;
pub(super) type Problem = String;

/// A change within a batch, and what the page holds after it.
struct Todo {
    pid: PageId,
    words: String,
    what: What,
    then: Option<String>,
}

#[derive(Clone, Copy)]
enum What {
    Link,
    Replace,
    Free,
}

/// Sizes of a store, by its seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) cache: u64,
    pub(super) checkpoint_every: u64,
    pub(super) threshold: usize,
    pub(super) words_max: u64,
    pub(super) log_segment: usize,
}

pub(super) struct Driver {
    pub(super) disk: Arc<SimDisk>,
    pub(super) clock: Arc<SimClock>,
    pub(super) spawner: Arc<SimSpawner>,
    pub(super) shape: Shape,
    pub(super) rng: Rng,
    pub(super) pages: Option<Rc<Pages>>,
    pub(super) model: Model,
    pub(super) counts: Counts,
    /// Errors of this kind are in order at present.
    pub(super) expects: Expects,
    pub(super) salt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    Nothing,
    FullDisk,
    Poison,
    /// A sync that failed may have taken back what was written before it. Pages that had left memory since
    /// are then damaged, and said to be.
    Loss,
}

fn told(what: &str, error: &dyn fmt::Debug) -> Problem {
    format!("{what}: {error:?}")
}

pub(super) fn failed(what: &'static str) -> impl FnOnce(Error<()>) -> Problem {
    move |error| told(what, &error)
}

impl Driver {
    pub(super) fn open(&mut self, disk: Arc<SimDisk>) -> Result<Pages, Error<()>> {
        // Equal salts would let a record that a crash took away pass for a new one.
        self.salt += 1;
        let shape = self.shape;
        let config = ConfigBuilder::new()
            .storage(disk)
            .spawner(self.spawner.clone())
            .clock(self.clock.clone())
            .salt_seed(self.salt)
            .cache_capacity(shape.cache)
            .page_consolidation_threshold(shape.threshold)
            .checkpoint_every_bytes(shape.checkpoint_every)
            .block_bytes(512)
            .log_segment_bytes(shape.log_segment)
            .log_capacity(48 << 10)
            .store_segment_bytes(8 << 10);
        Pages::start(config.build())
    }

    pub(super) fn store(&self) -> Rc<Pages> {
        self.pages.clone().expect("a life begins with an open")
    }

    /// Takes the store out: this life ends.
    pub(super) fn take_store(&mut self) -> Pages {
        self.pages.take().and_then(Rc::into_inner).expect("a life begins with an open")
    }

    /// One operation and what belongs to it.
    pub(super) fn step(&mut self) -> Result<(), Problem> {
        match self.rng.below(100) {
            0..25 => self.get(),
            25..50 => self.change(false),
            50..58 => self.change(true),
            58..64 => self.free(),
            64..72 => self.allocate(),
            72..84 => self.batch(),
            84..87 => self.ask("flush", Pages::flush),
            87..89 => self.ask("hand over", Pages::hand_over),
            89..91 => {
                self.counts.checkpoints += 1;
                self.ask("checkpoint", Pages::checkpoint)
            }
            91 => self.ask("compact", Pages::compact),
            _ => {
                self.clock.advance(Duration::from_millis(self.rng.below(400)));
                self.spawner.run(&mut self.rng, 3);
                Ok(())
            }
        }
    }

    fn ask(&mut self, what: &str, call: impl Fn(&Pages) -> Result<(), Error<()>>) -> Result<(), Problem> {
        match call(&self.store()) {
            Ok(()) => Ok(()),
            Err(error) => self.refused(what, &error),
        }
    }

    /// An error is in order only while something is wrong.
    fn refused<A: fmt::Debug>(&mut self, what: &str, error: &Error<A>) -> Result<(), Problem> {
        let in_order = match (self.expects, error) {
            (Expects::Poison | Expects::Loss, Error::Io(_)) => true,
            (Expects::Loss, Error::Corruption { .. }) => true,
            (Expects::FullDisk, Error::Io(failure)) => is_full(failure),
            _ => false,
        };
        self.counts.refused += u64::from(in_order);
        if in_order { Ok(()) } else { Err(told(what, &error)) }
    }

    /// Reads go on whatever a store refuses, but of a disk without power.
    fn unread<A: fmt::Debug>(&mut self, error: &Error<A>) -> Result<(), Problem> {
        let is_lost = self.expects == Expects::Loss && matches!(error, Error::Corruption { .. });
        if is_lost || !self.disk.is_powered() { Ok(()) } else { Err(told("get", error)) }
    }

    /// A page that is in use.
    fn any_page(&mut self) -> Option<PageId> {
        let pids: Vec<PageId> = self.model.now().keys().copied().collect();
        self.rng.pick(&pids).copied()
    }

    fn any_allocated(&mut self) -> Option<PageId> {
        let pids: Vec<PageId> = self.model.allocated().iter().copied().collect();
        self.rng.pick(&pids).copied()
    }

    fn words(&mut self) -> String {
        let count = 1 + self.rng.below(self.shape.words_max);
        (0..count).map(|_| char::from(b'a' + self.rng.below(26) as u8)).chain([' ']).collect()
    }

    /// Words that exceed one record, if any are allowed.
    fn many_words(&mut self) -> Option<String> {
        let (record, most) = (self.store().record_bytes_max(), self.store().batch_bytes_max());
        let beyond = most.checked_sub(record + 64).filter(|beyond| *beyond > 0)?;
        let count = record + self.rng.index(beyond);
        let word = char::from(b'a' + self.rng.below(26) as u8);
        Some((0..count).map(|_| word).chain([' ']).collect())
    }

    fn get(&mut self) -> Result<(), Problem> {
        self.counts.gets += 1;
        let pid = match self.rng.below(10) {
            0 => self.any_allocated(),
            1 => Some(self.rng.index(self.store().stats().pages + 2)),
            _ => self.any_page(),
        };
        let Some(pid) = pid else { return Ok(()) };
        let (pages, guard) = (self.store(), pin());
        match pages.get(pid, &guard) {
            Ok(found) => self.compare(pid, &found),
            Err(error) => self.unread(&error),
        }
    }

    fn compare(&self, pid: PageId, found: &PageGet<'_, String>) -> Result<(), Problem> {
        let want = self.model.now().get(&pid);
        let right = match found {
            PageGet::Materialized(content, _) => want == Some(content),
            PageGet::Allocated => want.is_none() && self.model.allocated().contains(&pid),
            PageGet::Free(_) => want.is_none() && !self.model.allocated().contains(&pid),
            PageGet::Unallocated => want.is_none() && pid >= self.store().stats().pages,
        };
        if right { Ok(()) } else { Err(format!("page {pid} is {found:?} and should be {want:?}")) }
    }

    /// Adds words to a page, or begins it anew.
    fn change(&mut self, anew: bool) -> Result<(), Problem> {
        let fresh = self.rng.chance(1, 4);
        let Some(pid) = (if fresh { self.any_allocated() } else { self.any_page() }) else { return Ok(()) };
        let large = if self.rng.chance(1, 16) { self.many_words() } else { None };
        self.counts.large += u64::from(large.is_some());
        let room = if large.is_some() { usize::MAX / 2 } else { CONTENT_MAX };
        let words = large.unwrap_or_else(|| self.words());
        let before = self.model.now().get(&pid).cloned().unwrap_or_default();
        let anew = anew || before.len() > CONTENT_MAX || before.len() + words.len() > room;
        let guard = pin();
        let pages = self.store();
        if !fresh && self.rng.chance(1, 8) {
            // The key of an allocated page fits no other.
            let refused = pages.link(pid, PagePtr::allocated(), words.clone(), &guard);
            match refused {
                Err(Error::CasFailed(Some(_))) => {}
                Err(error) => self.refused("change with the key of an allocated page", &error)?,
                Ok(_) => return Err(format!("page {pid} took the key of an allocated page")),
            }
        }
        let changed = with_key(&pages, pid, &guard, |key| match anew {
            true => pages.replace(pid, key, words.clone(), &guard),
            false => pages.link(pid, key, words.clone(), &guard),
        });
        match changed {
            Ok(key) => {
                let lsn = key.changed_at();
                *(if anew { &mut self.counts.replaces } else { &mut self.counts.links }) += 1;
                let after = if anew { words } else { before + &words };
                self.model.commit(lsn, vec![(pid, Some(after))]);
                Ok(())
            }
            Err(error) => self.refused("change", &error),
        }
    }

    fn free(&mut self) -> Result<(), Problem> {
        let guard = pin();
        if self.rng.chance(1, 6) {
            let Some(pid) = self.any_allocated() else { return Ok(()) };
            let freed = self.store().free(pid, PagePtr::allocated(), &guard);
            freed.map_err(|error| told("free of an allocated page", &error))?;
            self.model.give_back(pid);
            return Ok(());
        }
        let Some(pid) = self.any_page() else { return Ok(()) };
        let pages = self.store();
        match with_key(&pages, pid, &guard, |key| pages.free(pid, key, &guard)) {
            Ok(()) => {
                self.counts.frees += 1;
                // Its own position is not told; what is durable up to here covers it.
                let lsn = pages.next_lsn() - 1;
                self.model.commit(lsn, vec![(pid, None)]);
                Ok(())
            }
            Err(error) => self.refused("free", &error),
        }
    }

    fn allocate(&mut self) -> Result<(), Problem> {
        if self.model.now().len() + self.model.allocated().len() >= PAGES_MAX {
            return Ok(());
        }
        self.counts.allocates += 1;
        let bound = self.store().stats().pages;
        let pid = match self.store().allocate(&pin()) {
            Ok(pid) => pid,
            Err(error) => return self.refused("allocate", &error),
        };
        self.counts.reused_ids += u64::from(pid < bound);
        if self.model.allocate(pid) {
            Ok(())
        } else {
            Err(format!("page {pid} is in use and was handed out"))
        }
    }

    /// Changes several pages together, or gives that up.
    fn batch(&mut self) -> Result<(), Problem> {
        let mut todo: Vec<Todo> = Vec::new();
        for _ in 0..1 + self.rng.index(6) {
            let fresh = self.rng.chance(1, 4);
            let pid = if fresh { self.any_allocated() } else { self.any_page() };
            if let Some(pid) = pid.filter(|pid| todo.iter().all(|other| other.pid != *pid)) {
                let next = self.todo(pid);
                todo.push(next);
            }
        }
        match self.try_batch(&todo) {
            Ok(Some(lsn)) => {
                self.counts.batches += 1;
                let after = todo.into_iter().map(|todo| (todo.pid, todo.then));
                self.model.commit(lsn, after.collect());
                Ok(())
            }
            Ok(None) => {
                self.counts.batches_given_up += 1;
                self.give_back(&todo)
            }
            Err(Error::ReportableBug(problem)) => Err(problem),
            Err(error) => {
                self.give_back(&todo)?;
                self.refused("batch", &error)
            }
        }
    }

    /// A change of a page within a batch.
    fn todo(&mut self, pid: PageId) -> Todo {
        let words = self.words();
        let content = self.model.now().get(&pid);
        let is_long = content.map_or(0, String::len) + words.len() > CONTENT_MAX;
        let (what, then) = match (self.rng.below(10), content) {
            (0, Some(_)) => (What::Free, None),
            (1..4, _) => (What::Replace, Some(words.clone())),
            _ if is_long => (What::Replace, Some(words.clone())),
            (_, content) => (What::Link, Some(content.cloned().unwrap_or_default() + &words)),
        };
        Todo { pid, words, what, then }
    }

    /// Pages that a batch was to begin are free again once it is given up.
    fn give_back(&mut self, todo: &[Todo]) -> Result<(), Problem> {
        let (pages, guard) = (self.store(), pin());
        for Todo { pid, .. } in todo.iter() {
            if self.model.now().contains_key(pid) {
                continue;
            }
            match pages.get(*pid, &guard) {
                Ok(found) if found.is_free() => self.model.give_back(*pid),
                Ok(_) => {}
                Err(error) => self.unread(&error)?,
            }
        }
        Ok(())
    }

    /// The batch's position, `None` if it was given up. Nothing shows before its end.
    fn try_batch(&mut self, todo: &[Todo]) -> Result<Option<Lsn>, Error<Option<String>>> {
        let (pages, guard) = (self.store(), pin());
        let mut batch = pages.begin_batch(Admission { mem: 200, log: 200, optional: false })?;
        for Todo { pid, words, what, .. } in todo {
            let added = with_key(&pages, *pid, &guard, |key| match what {
                What::Free => batch.free(*pid, key, &guard),
                What::Replace => batch.replace(*pid, key, words.clone(), &guard).map(drop),
                What::Link => batch.link(*pid, key, words.clone(), &guard).map(drop),
            });
            added?;
            if self.rng.chance(1, 10) {
                self.spawner.run(&mut self.rng, 1);
            }
        }
        for Todo { pid, .. } in todo {
            let found = pages.read(*pid, &guard)?;
            self.compare(*pid, &found)
                .map_err(|problem| Error::ReportableBug(format!("while a batch is pending: {problem}")))?;
        }
        let outcome = match self.rng.below(4) {
            0 => {
                drop(batch);
                return Ok(None);
            }
            1 => batch.commit(|_| Verdict::Abort),
            2 => batch.apply().map(Some),
            _ => {
                let mut load = todo.first().map(|todo| todo.pid).filter(|_| self.rng.chance(1, 4));
                batch.commit(|_| load.take().map_or(Verdict::Commit, Verdict::Load))
            }
        };
        Ok(outcome?.filter(|_| !todo.is_empty()))
    }
}

/// Makes a change with the page's key of now; again while that is outdated, as a page may leave memory at any
/// moment.
fn with_key<'g, T>(
    pages: &Pages,
    pid: PageId,
    guard: &'g Guard,
    mut change: impl FnMut(PagePtr<'g, String>) -> Result<T, Error<Option<PagePtr<'g, String>>>>,
) -> Result<T, Error<Option<String>>> {
    for _ in 0..100 {
        let key = match pages.read(pid, guard)? {
            PageGet::Materialized(_, key) => key,
            PageGet::Allocated => PagePtr::allocated(),
            other => return Err(Error::CasFailed(Some(format!("page {pid} is {other:?}")))),
        };
        match change(key) {
            Ok(done) => return Ok(done),
            Err(Error::CasFailed(Some(_))) => {}
            Err(Error::Io(failure)) => return Err(Error::Io(failure)),
            Err(other) => return Err(Error::ReportableBug(format!("{other:?}"))),
        }
    }
    Err(Error::ReportableBug(format!("no key of page {pid} is right")))
}

fn is_full(failure: &Failure) -> bool {
    match failure {
        Failure::DiskFull { .. } => true,
        other => other.is_log_full(),
    }
}
