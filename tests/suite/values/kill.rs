//! A process that is killed while it writes large values leaves whole ones, and nothing of the one that it
//! was at.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path, time::Duration};

use pagecache::io::sim::Rng;
use tree::{Config, Db};

use super::bytes;
use crate::kill::{Folder, alone, child};

const TEST: &str = "values::kill::a_killed_writer_of_large_values_leaves_whole_ones";
const WRITES: usize = 240;
const KILLS: usize = 8;

/// The key and the file of one write.
fn write_of(number: usize) -> (String, usize) {
    (format!("key {}", number % 5), number * 7 % FILES.len())
}

/// Lengths of the files: all live in pages of their own, some in several segments.
const FILES: [usize; 6] = [70 << 10, 200 << 10, (1 << 20) - 24, 1 << 20, 3 << 20, 65 << 10];

fn input(folder: &Path) -> OsString {
    let mut script = String::new();
    for (number, len) in FILES.iter().enumerate() {
        fs::write(folder.join(format!("file{number}")), bytes(*len, number as u64))
            .expect("a file is written");
    }
    for number in 0..WRITES {
        let (key, file) = write_of(number);
        script.push_str(&format!("set '{key}' --from {}\n", folder.join(format!("file{file}")).display()));
        if number % 10 == 9 {
            script.push_str("flush\n");
        }
    }
    let path = folder.join("script");
    fs::write(&path, script).expect("the script is written");
    path.into()
}

fn state_after(writes: usize) -> BTreeMap<String, usize> {
    (0..writes).map(write_of).collect()
}

/// How many of the writes the store holds.
fn writes_in(db: &Db) -> usize {
    let mut found = BTreeMap::new();
    for entry in db.iter() {
        let (key, value) = entry.expect("nothing is damaged");
        let file = FILES.iter().position(|len| *len == value.len()).expect("a value that nobody wrote");
        assert!(bytes(FILES[file], file as u64) == value[..], "a value of file {file} is not whole");
        found.insert(String::from_utf8(key.to_vec()).expect("keys are text"), file);
    }
    let all = (0..=WRITES).rev().find(|writes| state_after(*writes) == found);
    all.unwrap_or_else(|| panic!("{found:?} is the state after no number of writes"))
}

#[test]
fn a_killed_writer_of_large_values_leaves_whole_ones() {
    if child::is_the_shell() {
        return;
    }
    let _alone = alone();
    let folder = Folder::new(TEST);
    let script = input(folder.path());
    let mut rng = Rng::new(1);
    let mut whole = Duration::from_secs(1);
    for kill in 0..=KILLS {
        let store = folder.store();
        let word = OsString::from;
        let arguments = [word("repl"), store.clone().into(), word("--create"), word("-f"), script.clone()];
        let child = child::Child::start(TEST, &arguments);
        if kill == 0 {
            whole = child.run_to_the_end().took;
        } else {
            child.kill_after(whole.mul_f64(rng.below(1000) as f64 / 1000.0));
        }
        let Ok(db) = Config::new().path(&store).create(false).open() else {
            assert!(kill > 0, "the store of a whole run opens");
            continue;
        };
        let writes = writes_in(&db);
        assert!(kill > 0 || writes == WRITES, "{writes} writes of a whole run");
        db.recount().expect("live bytes are counted right");
        let alive: usize = state_after(writes).values().map(|file| FILES[*file]).sum();
        let live = db.stats().pages_live_bytes();
        assert!(live as usize <= alive + (1 << 20), "{live} bytes alive, the values have {alive}");
        db.put_from("more", FILES[3] as u64, &bytes(FILES[3], 3)[..]).expect("it takes writes");
        db.close().expect("it closes");
    }
}
