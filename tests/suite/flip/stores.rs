//! The stores that are damaged: how they come to be, what they held at which moment, and up to which
//! operation their bytes vouch for themselves.

use std::{iter, sync::Arc};

use pagecache::{
    Admission, ConfigBuilder, PageId, Verdict,
    io::{
        FileId,
        sim::{Chooser, SimDisk},
    },
    pin,
};
use tests::stepwise;
use tree::{Batch, Config, Db};

use super::{
    answers::{Answers, Model},
    damage::{Damage, SECTOR_BYTES},
    examine::Reader,
    pages::{RECOVERED, Texts, key_of, pointer},
    witness::{Witness, witnesses},
};

pub(super) const BLOCK_BYTES: usize = 512;
pub(super) const LOG_SEGMENT_BYTES: usize = 4 << 10;
pub(super) const STORE_SEGMENT_BYTES: usize = 2 << 10;

/// Bytes above which a value lies in a page of its own.
const INLINE_BYTES_MAX: usize = 60;

/// What lies in the files, as [`FileId`] and bytes.
type Files = Vec<(FileId, Vec<u8>)>;

/// What reads and writes the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Face {
    Tree,
    Pages,
}

/// A store to be damaged.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) face: Face,
    pub(super) answers: Answers,
    files: Files,
    versions: Vec<Files>,
    /// Witnesses, and how many operations each vouches for.
    vouched: Vec<(Witness, u32)>,
}

impl Sample {
    pub(super) fn files(&self) -> impl Iterator<Item = (FileId, &[u8])> {
        self.files.iter().map(|(file, bytes)| (*file, &bytes[..]))
    }

    pub(super) fn file(&self, file: FileId) -> &[u8] {
        self.files().find(|(each, _)| *each == file).map_or(&[], |(_, bytes)| bytes)
    }

    /// What a sector held at earlier moments.
    pub(super) fn older(&self, file: FileId, at: usize) -> impl Iterator<Item = &[u8]> {
        let now = self.file(file).len().min(at + SECTOR_BYTES);
        let mut older: Vec<&[u8]> = self
            .versions
            .iter()
            .flatten()
            .filter(|(each, bytes)| *each == file && bytes.len() >= now)
            .map(|(_, bytes)| &bytes[at..now])
            .collect();
        older.sort_unstable();
        older.dedup();
        older.into_iter()
    }

    /// How many operations must be there after the damage: those that whatever is left vouches for.
    ///
    /// A flipped bit leaves all witnesses whole but the one it strikes; coarser damage also takes
    /// those whose segment has lost its header.
    pub(super) fn least(&self, damage: &Damage) -> u32 {
        let touched: Vec<_> = damage.ranges(self).collect();
        let struck = |file, bytes: &std::ops::Range<usize>| {
            touched
                .iter()
                .any(|(each, range)| *each == file && range.start < bytes.end && bytes.start < range.end)
        };
        let whole = self.vouched.iter().filter(|(witness, _)| {
            let of_header = damage.is_flip() || !struck(witness.file, &witness.header);
            !struck(witness.file, &witness.bytes) && of_header
        });
        whole.map(|(_, operations)| *operations).max().unwrap_or(0)
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader::new(self)
    }
}

/// Settings with segments so small that a tiny store has many.
fn tiny(builder: ConfigBuilder, disk: &Arc<SimDisk>) -> ConfigBuilder {
    stepwise(builder, disk.clone())
        .salt_seed(7)
        .block_bytes(BLOCK_BYTES)
        .log_segment_bytes(LOG_SEGMENT_BYTES)
        .log_buffers(2)
        .log_capacity(64 << 10)
        .checkpoint_every_bytes(48 << 10)
        .store_segment_bytes(STORE_SEGMENT_BYTES)
}

pub(super) fn open_tree(disk: &Arc<SimDisk>) -> tree::Result<Db> {
    tree_config(disk).open()
}

fn tree_config(disk: &Arc<SimDisk>) -> Config {
    Config::new()
        .leaf_bytes_max(256)
        .inline_bytes_max(INLINE_BYTES_MAX)
        .page_cache(|builder| tiny(builder, disk))
}

pub(super) fn open_pages(disk: &Arc<SimDisk>) -> tree::Result<Texts> {
    Ok(Texts::open(tiny(ConfigBuilder::new(), disk).build())?)
}

/// What is written down while a store is made.
struct History {
    disk: Arc<SimDisk>,
    states: Vec<Model>,
    /// (position, operations that were stable there).
    points: Vec<(i64, u32)>,
    versions: Vec<Files>,
}

impl History {
    fn new() -> History {
        let disk = Arc::new(SimDisk::untraced());
        History { disk, states: vec![Model::new()], points: Vec::new(), versions: Vec::new() }
    }

    fn now(&mut self) -> &mut Model {
        self.states.push(self.states.last().expect("there is a first state").clone());
        self.states.last_mut().expect("one was just pushed")
    }

    /// All so far is durable up to this position.
    fn stable(&mut self, last: i64) {
        self.points.push((last + 1, self.states.len() as u32 - 1));
        self.versions.push(contents(&self.disk));
    }

    /// Nothing before this moment can come back: it is in a checkpoint.
    fn forget(&mut self, last: i64) {
        self.states.drain(..self.states.len() - 1);
        self.points.clear();
        self.stable(last);
    }

    /// The process dies here.
    fn kill(&mut self) {
        self.disk.cut_power();
        self.disk = Arc::new(self.disk.crash(&mut Chooser::all()));
    }

    fn sample(self, name: &'static str, face: Face, absent: impl IntoIterator<Item = Vec<u8>>) -> Sample {
        let answers = Answers::new(&self.states, absent);
        let files = contents(&self.disk);
        let mut sample = Sample { name, face, answers, files, versions: self.versions, vouched: Vec::new() };
        let operations_at = |position| {
            let points = self.points.iter().filter(|(stable, _)| *stable <= position);
            points.map(|(_, operations)| *operations).max().unwrap_or(0)
        };
        let vouched = witnesses(&sample).into_iter().map(|witness| {
            let operations = operations_at(witness.stable);
            (witness, operations)
        });
        sample.vouched = vouched.collect();
        sample
    }
}

fn contents(disk: &SimDisk) -> Files {
    [FileId::Pages, FileId::Log].into_iter().filter_map(|file| Some((file, disk.contents(file)?))).collect()
}

/// Every store, those that take the least time first.
pub(super) fn all() -> [Sample; 3] {
    [killed_pages(), closed(), killed_tree()]
}

fn key(n: usize) -> Vec<u8> {
    let stem = if n.is_multiple_of(3) { "row" } else { "a longer stem than row" };
    format!("{stem} {:03}", n * 37 % 1000).into_bytes()
}

fn insert(db: &Db, model: &mut Model, key: Vec<u8>, value: String) {
    db.insert(&key, value.as_bytes()).expect("the disk is well");
    model.insert(key, value.into_bytes());
}

fn remove(db: &Db, model: &mut Model, key: &[u8]) {
    assert!(db.remove(key).expect("the disk is well").is_some(), "{key:?} is there");
    model.remove(key);
}

/// One of three is so long that it lies in a page of its own.
fn some_long(n: usize, mut value: String) -> String {
    if n.is_multiple_of(3) {
        value.push_str(", which is written ahead of the leaf that names it, and synced");
    }
    value
}

/// A tree of three levels, from which leaves were freed.
fn grow(db: &Db, model: &mut Model) {
    for n in 0..150 {
        insert(db, model, key(n), format!("value {n}"));
    }
    let doomed: Vec<Vec<u8>> = model.keys().skip(40).take(30).cloned().collect();
    for key in doomed {
        remove(db, model, &key);
    }
    for n in 0..12 {
        insert(db, model, key(n * 11), some_long(n, format!("a second value of {n}")));
    }
}

fn absent() -> impl Iterator<Item = Vec<u8>> {
    ["", "a", "row 500x", "zz"].into_iter().map(|key| key.as_bytes().to_vec())
}

/// A store that was closed. Its pages are packed, those that get shorter by it.
fn closed() -> Sample {
    let mut history = History::new();
    let db = tree_config(&history.disk).use_compression(true).open().expect("a new store opens");
    grow(&db, &mut history.states[0]);
    db.checkpoint().expect("the disk is well");
    history.stable(db.durable_lsn());
    for n in 0..20 {
        insert(&db, &mut history.states[0], key(n * 7), format!("a later value of {n}"));
    }
    db.close().expect("the disk is well");
    history.sample("closed", Face::Tree, absent())
}

/// A store that was killed twice: its log's tail has two epochs, and it ends with records that were
/// written and not synced.
fn killed_tree() -> Sample {
    let mut history = History::new();
    let db = open_tree(&history.disk).expect("a new store opens");
    grow(&db, &mut history.states[0]);
    db.checkpoint().expect("the disk is well");
    history.forget(db.durable_lsn());
    for n in 0..6 {
        change_tree(&db, &mut history, n);
    }
    history.kill();
    drop(db);
    let db = open_tree(&history.disk).expect("what a kill leaves opens");
    history.stable(db.durable_lsn());
    for n in 6..16 {
        change_tree(&db, &mut history, n);
    }
    let mut last = Batch::default();
    last.insert("in the end", "unsynced");
    db.write(&last, tree::Durability::Buffered).expect("the disk is well");
    history.now().insert(b"in the end".to_vec(), b"unsynced".to_vec());
    history.kill();
    drop(db);
    history.sample("killed tree", Face::Tree, absent())
}

/// Two or three operations and a flush.
fn change_tree(db: &Db, history: &mut History, n: usize) {
    insert(db, history.now(), key(n * 13), some_long(n, format!("value {n} of later days")));
    let mut batch = Batch::default();
    let state = history.now();
    for m in 0..4 {
        let (key, value) = (key(200 + n * 4 + m), format!("{n} in a batch"));
        batch.insert(&key[..], value.as_bytes());
        state.insert(key, value.into_bytes());
    }
    let first = state.pop_first().expect("the store holds something").0;
    batch.remove(&first[..]);
    db.apply_batch(batch).expect("the disk is well");
    if n.is_multiple_of(2) {
        let state = history.now();
        let last = state.last_key_value().expect("the store holds something").0.clone();
        remove(db, state, &last);
    }
    db.flush().expect("the disk is well");
    history.stable(db.durable_lsn());
}

/// Pages of text without a tree: records of all kinds in the log, over a checkpoint.
fn killed_pages() -> Sample {
    let mut history = History::new();
    let texts = open_pages(&history.disk).expect("a new store opens");
    (0..12).for_each(|n| page_step(&texts, &mut history, n, Step::New));
    page_step(&texts, &mut history, 3, Step::Free);
    texts.checkpoint().expect("the disk is well");
    history.forget(texts.stable_lsn());
    let steps = [Step::Append, Step::Replace, Step::Batch, Step::Abort, Step::Append, Step::Free, Step::New];
    for (n, step) in iter::repeat_n(steps, 6).flatten().enumerate() {
        page_step(&texts, &mut history, n, step);
        if n % 3 == 2 {
            texts.flush().expect("the disk is well");
            history.stable(texts.stable_lsn());
        }
    }
    for (n, step) in [(50, Step::Run), (51, Step::Append), (52, Step::RunAbort), (53, Step::Append)] {
        page_step(&texts, &mut history, n, step);
    }
    texts.flush().expect("the disk is well");
    history.stable(texts.stable_lsn());
    page_step(&texts, &mut history, 54, Step::Append);
    texts.hand_over().expect("the disk is well");
    history.kill();
    drop(texts);
    history.sample("killed pages", Face::Pages, [key_of(100), RECOVERED.to_vec()])
}

#[derive(Clone, Copy)]
enum Step {
    New,
    Append,
    Replace,
    Free,
    Batch,
    Abort,
    /// A batch above one record.
    Run,
    RunAbort,
}

/// One operation on some page; `n` says which, and with what text.
fn page_step(texts: &Texts, history: &mut History, n: usize, step: Step) {
    let guard = pin();
    let there: Vec<PageId> =
        (0..64).filter(|&pid| history.states.last().is_some_and(|s| s.contains_key(&key_of(pid)))).collect();
    let some = |salt: usize| there[(n * 5 + salt) % there.len()];
    let at = |pid| pointer(texts, pid, &guard).expect("the page is there");
    let text = format!("text {n}, ");
    let state = history.now();
    match step {
        Step::New => {
            let (pid, text) = (texts.allocate(&guard).expect("ids are left"), format!("#{n} begins, "));
            texts.replace(pid, at(pid), text.clone(), &guard).expect("nobody else writes");
            state.insert(key_of(pid), text.into_bytes());
            state.insert(RECOVERED.to_vec(), n.to_string().into_bytes());
        }
        Step::Append => {
            texts.link(some(0), at(some(0)), text.clone(), &guard).expect("nobody else writes");
            state.entry(key_of(some(0))).or_default().extend(text.into_bytes());
        }
        Step::Replace => {
            texts.replace(some(1), at(some(1)), text.clone(), &guard).expect("nobody else writes");
            state.insert(key_of(some(1)), text.into_bytes());
        }
        Step::Free => {
            texts.free(some(2), at(some(2)), &guard).expect("nobody else writes");
            state.remove(&key_of(some(2)));
        }
        Step::Run | Step::RunAbort => {
            let begins = format!("#{n} begins, {}", "begun ".repeat(LOG_SEGMENT_BYTES / 12));
            let goes_on = "more ".repeat(LOG_SEGMENT_BYTES / 10);
            let mut batch = texts.begin_batch(Admission::default()).expect("the disk is well");
            batch.link(some(0), at(some(0)), goes_on.clone(), &guard).expect("nobody else writes");
            batch.replace(some(1), at(some(1)), begins.clone(), &guard).expect("nobody else writes");
            let verdict = if matches!(step, Step::Run) { Verdict::Commit } else { Verdict::Abort };
            if batch.commit(|_| verdict).expect("the disk is well").is_some() {
                state.entry(key_of(some(0))).or_default().extend(goes_on.into_bytes());
                state.insert(key_of(some(1)), begins.into_bytes());
                state.insert(RECOVERED.to_vec(), n.to_string().into_bytes());
            }
        }
        Step::Batch | Step::Abort => {
            let mut batch = texts.begin_batch(Admission::default()).expect("the disk is well");
            batch.link(some(0), at(some(0)), text.clone(), &guard).expect("nobody else writes");
            batch.replace(some(1), at(some(1)), text.clone(), &guard).expect("nobody else writes");
            batch.free(some(2), at(some(2)), &guard).expect("nobody else writes");
            let verdict = if matches!(step, Step::Batch) { Verdict::Commit } else { Verdict::Abort };
            let committed = batch.commit(|_| verdict).expect("the disk is well");
            if committed.is_some() {
                state.entry(key_of(some(0))).or_default().extend(text.clone().into_bytes());
                state.insert(key_of(some(1)), text.into_bytes());
                state.remove(&key_of(some(2)));
            }
        }
    }
}
