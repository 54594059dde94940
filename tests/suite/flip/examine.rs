//! Opens a damaged store, reads all of it, and now and then writes to it and opens it again.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use pagecache::{
    PageId,
    io::{
        FileId,
        sim::{Chooser, SimDisk},
    },
};
use tree::{Db, Error};

use super::{
    answers::Seen,
    damage::Damage,
    pages::{self, Texts},
    stores::{Face, Sample, open_pages, open_tree},
};

/// Of so many stores that opened, one is written to, and one is closed, and opened again.
const GO_ON_EVERY: usize = 100;

/// What came of a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It holds everything.
    Right,
    /// It holds fewer operations, but all that are vouched for.
    Shorter,
    /// Opening or reading failed, and the error named the place.
    Refused,
}

/// Damages copies of one sample. Each thread has its own.
#[derive(Debug)]
pub(super) struct Reader<'s> {
    sample: &'s Sample,
    whole: SimDisk,
}

enum Open {
    Tree(Db),
    Pages(Texts),
}

/// A write that is to be found again.
enum Extra {
    Tree,
    Page(PageId),
}

const EXTRA: &str = "zzz written after the damage";

impl<'s> Reader<'s> {
    pub(super) fn new(sample: &'s Sample) -> Reader<'s> {
        use pagecache::io::Storage;
        let whole = SimDisk::untraced();
        for (file, bytes) in sample.files() {
            whole.create(file).and_then(|()| whole.write_at(file, 0, bytes)).expect("the disk is well");
        }
        Reader { sample, whole }
    }

    /// Tries one case; `turn` decides whether the store is used on after it was read.
    ///
    /// # Panics
    ///
    /// If anything panics, an answer is wrong, or an error names no place.
    pub(super) fn examine(&self, damage: &Damage, turn: usize) -> Outcome {
        catch_unwind(AssertUnwindSafe(|| self.look(damage, turn))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            panic!("{}, {damage:?}, turn {turn}: {text}", self.sample.name)
        })
    }

    fn look(&self, damage: &Damage, turn: usize) -> Outcome {
        let disk = Arc::new(self.whole.crash(&mut Chooser::all()));
        damage.apply(self.sample, &disk);
        let mut seen = Seen::new(&self.sample.answers);
        let store = match self.open(&disk) {
            Ok(store) => store,
            Err(error) => {
                self.check(&error, damage);
                return Outcome::Refused;
            }
        };
        let errors = self.read(&store, &mut seen);
        errors.iter().for_each(|error| self.check(error, damage));
        let least = self.sample.least(damage);
        assert!(
            seen.counts & self.sample.answers.from(least) != 0,
            "it holds the states {:#b}, but {least} operations were stable",
            seen.counts
        );
        if turn.is_multiple_of(GO_ON_EVERY) {
            self.write_on(disk, store, &mut seen, errors.is_empty());
        } else if turn % GO_ON_EVERY == 1 {
            self.close(&disk, store, &mut seen, errors.is_empty());
        } else {
            // Closing would write; nobody asks for that here.
            disk.cut_power();
        }
        match () {
            () if !errors.is_empty() => Outcome::Refused,
            () if seen.counts >> self.sample.answers.count() & 1 == 1 => Outcome::Right,
            () => Outcome::Shorter,
        }
    }

    fn open(&self, disk: &Arc<SimDisk>) -> tree::Result<Open> {
        match self.sample.face {
            Face::Tree => open_tree(disk).map(Open::Tree),
            Face::Pages => open_pages(disk).map(Open::Pages),
        }
    }

    /// Reads everything in every way there is; returns the errors.
    fn read(&self, store: &Open, seen: &mut Seen<'_>) -> Vec<Error> {
        let mut errors = Vec::new();
        match store {
            Open::Pages(texts) => pages::read(texts, self.sample.answers.keys(), seen, &mut errors),
            Open::Tree(db) => {
                for forward in [true, false] {
                    errors.extend(walk(db, seen, forward).err());
                }
                for (index, key) in self.sample.answers.keys().enumerate() {
                    let value = db.get_with(key, |value| seen.value(index, value));
                    errors.extend(value.err());
                }
            }
        }
        errors
    }

    /// An error must name the damaged file and a place in it.
    fn check(&self, error: &Error, damage: &Damage) {
        let Error::Corruption { at: Some(at), .. } = error else {
            panic!("no error of damage: {error:?}");
        };
        let name = at.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let lens: BTreeMap<FileId, usize> =
            self.sample.files().map(|(file, bytes)| (file, bytes.len())).collect();
        let named = damage
            .ranges(self.sample)
            .any(|(file, _)| file.name() == name && at.offset() <= lens[&file] as u64);
        assert!(named, "the error names another place: {error}");
    }

    /// Writes one thing, durably, crashes, and finds it again with all the rest.
    fn write_on(&self, disk: Arc<SimDisk>, store: Open, seen: &mut Seen<'_>, is_whole: bool) {
        let added = store.add();
        disk.cut_power();
        drop(store);
        assert!(!is_whole || added.is_ok(), "what reads well takes no write: {:?}", added.err());
        let disk = Arc::new(disk.crash(&mut Chooser::none()));
        let again = self.open(&disk);
        assert!(!is_whole || again.is_ok(), "it does not open again: {:?}", again.err());
        let Ok(again) = again else { return };
        let taken = added.and_then(|extra| again.take(&extra));
        assert!(!is_whole || taken.is_ok(), "what was durable is gone: {:?}", taken.err());
        if taken.is_ok() {
            let errors = self.read(&again, seen);
            assert!(!is_whole || errors.is_empty(), "it reads worse after a write: {errors:?}");
        }
        disk.cut_power();
    }

    fn close(&self, disk: &Arc<SimDisk>, store: Open, seen: &mut Seen<'_>, is_whole: bool) {
        let closed = store.close();
        assert!(!is_whole || closed.is_ok(), "it does not close: {:?}", closed.err());
        let again = self.open(disk);
        assert!(!is_whole || again.is_ok(), "it does not open again: {:?}", again.err());
        let Ok(again) = again else { return };
        let errors = self.read(&again, seen);
        assert!(!is_whole || errors.is_empty(), "it reads worse after being closed: {errors:?}");
        disk.cut_power();
    }
}

fn walk(db: &Db, seen: &mut Seen<'_>, forward: bool) -> tree::Result<()> {
    let mut iter = db.iter();
    let mut walk = seen.walk(forward);
    while let Some(entry) = if forward { iter.next() } else { iter.next_back() } {
        let (key, value) = entry?;
        walk.entry(&key, &value);
    }
    walk.end();
    Ok(())
}

impl Open {
    fn add(&self) -> tree::Result<Extra> {
        match self {
            Open::Pages(texts) => pages::add(texts).map(Extra::Page),
            Open::Tree(db) => {
                db.insert(EXTRA, EXTRA)?;
                db.flush()?;
                Ok(Extra::Tree)
            }
        }
    }

    fn take(&self, extra: &Extra) -> tree::Result<()> {
        match (self, extra) {
            (Open::Pages(texts), Extra::Page(pid)) => pages::take(texts, *pid),
            (Open::Tree(db), _) => {
                let found = db.remove(EXTRA)?;
                assert_eq!(found.as_deref(), Some(EXTRA.as_bytes()), "what was durable");
                Ok(())
            }
            (Open::Pages(_), Extra::Tree) => unreachable!("pages were added to pages"),
        }
    }

    fn close(self) -> tree::Result<()> {
        match self {
            Open::Tree(db) => db.close(),
            Open::Pages(texts) => Ok(texts.close()?),
        }
    }
}
