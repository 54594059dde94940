//! Files of a store that were cut, lost or exchanged behind its back are told, and never pass for a shorter store.
//!
//! Nothing here is cut within what a crash may have left as well: see `docs/TESTING.md`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use tree::{Config, Db, Error};

const LOG_SEGMENT_BYTES: u64 = 2 << 20;

/// A folder that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("belongs.{}.{number}", std::process::id()));
        fs::create_dir(&path).expect("a folder");
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The files of `store`, some of which may be another's.
    fn of(pages: &Path, log: &Path) -> Folder {
        let folder = Folder::new();
        fs::copy(pages.join("pages"), folder.file("pages")).expect("pages");
        fs::copy(log.join("log"), folder.file("log")).expect("a log");
        folder
    }

    fn cut(&self, name: &str, len: u64) {
        let file = fs::OpenOptions::new().write(true).open(self.file(name)).expect("a file");
        file.set_len(len).expect("a length");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(path: &Path) -> Config {
    Config::new().path(path).flush_every_ms(None)
}

fn write(db: &Db, keys: std::ops::Range<u32>) {
    keys.for_each(|key| drop(db.insert(key.to_be_bytes(), vec![7; 1000]).expect("a write")));
    db.flush().expect("a flush");
}

/// What processes leave that write so many keys each, and are killed after they have synced them.
fn killed(lives: &[u32]) -> Folder {
    let mut folder = Folder::new();
    let mut written = 0;
    for keys in lives {
        let db = config(&folder.0).open().expect("it opens");
        write(&db, written..written + keys);
        written += keys;
        folder = Folder::of(&folder.0, &folder.0);
    }
    folder
}

fn closed() -> Folder {
    let folder = Folder::new();
    let db = config(&folder.0).open().expect("it opens");
    write(&db, 0..50);
    db.close().expect("a close");
    folder
}

/// Neither a reader nor a writer opens it, and both name the log and what to do.
fn is_refused(folder: &Folder, name: &str) {
    for read_only in [true, false] {
        let refused = config(&folder.0).read_only(read_only).open().map(|db| db.count());
        let Err(error @ Error::Corruption { .. }) = &refused else {
            panic!("{name}, read_only {read_only}: {refused:?}")
        };
        let text = error.to_string();
        let log = folder.file("log").display().to_string();
        for part in [log.as_str(), "at byte", "from a copy"] {
            assert!(text.contains(part), "{name}, read_only {read_only}: {text}");
        }
    }
}

#[test]
fn a_killed_store_whose_log_was_cut_is_refused() {
    let stores = [
        ("one life", killed(&[100])),
        ("two lives", killed(&[100, 100])),
        ("several segments", killed(&[6000])),
    ];
    for (name, store) in &stores {
        for len in [0, 1, 60, 76, 512, 1000, 4096, 8192, 100_000, LOG_SEGMENT_BYTES - 1] {
            let cut = Folder::of(&store.0, &store.0);
            cut.cut("log", len);
            is_refused(&cut, &format!("{name}, cut to {len}"));
        }
    }
    let cut = Folder::of(&stores[1].1.0, &stores[1].1.0);
    for len in [LOG_SEGMENT_BYTES + 1000, LOG_SEGMENT_BYTES] {
        cut.cut("log", len);
        is_refused(&cut, &format!("the second life, cut to {len}"));
    }
    for (name, store) in stores {
        let db = config(&store.0).open().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(db.count().expect("a count") >= 100, "{name}");
    }
}

#[test]
fn a_log_of_zeros_is_refused() {
    let store = killed(&[100]);
    let zeros = Folder::of(&store.0, &store.0);
    zeros.cut("log", 0);
    zeros.cut("log", LOG_SEGMENT_BYTES);
    is_refused(&zeros, "zeros");
}

#[test]
fn a_log_and_pages_of_two_stores_are_refused() {
    let (one, other, closed) = (killed(&[100]), killed(&[300]), closed());
    is_refused(&Folder::of(&one.0, &other.0), "the log of another killed store");
    is_refused(&Folder::of(&other.0, &one.0), "the pages of another killed store");
    is_refused(&Folder::of(&closed.0, &one.0), "the pages of a closed store beside a killed one's log");
    is_refused(&Folder::of(&one.0, &closed.0), "the log of a closed store");
}
