//! What a killed process left: does it open, does it hold a prefix of the file, can it be used on.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tree::{Batch, Config, Db, Error};

use super::input::Input;

/// Records of a batch when the rest of the file is added.
const BATCH_RECORDS: usize = 1_000;

/// A store whose process is gone.
pub struct Left<'a> {
    input: &'a Input,
    path: &'a Path,
    /// For messages: seed and moment.
    place: &'a str,
}

impl<'a> Left<'a> {
    pub fn new(input: &'a Input, path: &'a Path, place: &'a str) -> Left<'a> {
        Left { input, path, place }
    }

    /// True if there is a store.
    pub fn is_there(&self) -> bool {
        self.path.join("pages").exists()
    }

    fn open(&self, create: bool) -> Db {
        // A process that another test is just starting may, until it becomes a program of its own, hold
        // what this one had open.
        let patience = Instant::now() + Duration::from_secs(2);
        loop {
            match Config::new().path(self.path).create(create).open() {
                Err(Error::Locked { .. }) if Instant::now() < patience => thread::yield_now(),
                opened => {
                    return opened
                        .unwrap_or_else(|error| panic!("{}: the store does not open: {error}", self.place));
                }
            }
        }
    }

    /// The store must hold exactly the first n lines, at least `durable` of them; returns n.
    pub fn check_prefix(&self, durable: usize) -> usize {
        if !self.is_there() {
            assert_eq!(durable, 0, "{}: records were durable and there is no store", self.place);
            return 0;
        }
        let db = self.open(false);
        let held = self.check(&db);
        assert!(held >= durable, "{}: {durable} lines were durable, {held} are left", self.place);
        held
    }

    /// Compares every record by a scan, and some of them by a look for the key.
    fn check(&self, db: &Db) -> usize {
        let got: Vec<(Vec<u8>, Vec<u8>)> = db
            .iter()
            .map(|record| record.unwrap_or_else(|error| panic!("{}: {error}", self.place)))
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        let held = got.len();
        assert!(held <= self.input.len(), "{}: {held} records of {} lines", self.place, self.input.len());
        let mut want: Vec<(&[u8], String)> = self.input.records(0..held).collect();
        want.sort_unstable();
        for (got, want) in got.iter().zip(&want) {
            let got = (got.0.as_slice(), got.1.as_slice());
            assert_eq!(got, (want.0, want.1.as_bytes()), "{}: not the first {held} lines", self.place);
        }
        for (key, number) in self.input.records(0..held).step_by(97) {
            let value = db.get(key).unwrap_or_else(|error| panic!("{}: {error}", self.place));
            assert_eq!(value.as_deref(), Some(number.as_bytes()), "{}: {}", self.place, key.escape_ascii());
        }
        held
    }

    /// Adds the lines after the first `held`; closed and opened again, all must be there.
    pub fn go_on(&self, held: usize) {
        let told = |error: tree::Error| panic!("{}: {error}", self.place);
        let db = self.open(true);
        let rest: Vec<(&[u8], String)> = self.input.records(held..self.input.len()).collect();
        for records in rest.chunks(BATCH_RECORDS) {
            let mut batch = Batch::default();
            for (key, value) in records {
                batch.insert(*key, value.as_bytes());
            }
            db.apply_batch(batch).unwrap_or_else(told);
        }
        db.close().unwrap_or_else(told);
        let all = self.check(&self.open(false));
        assert_eq!(all, self.input.len(), "{}: after the rest was added", self.place);
    }
}
