//! Processes killed at random moments lose nothing that was durable and leave nothing half done.
//!
//! A child process imports a file through the shell and is killed without notice (SIGKILL). The store
//! it leaves must hold exactly the first n lines of the file, n at least the last `durable N` that the
//! child said, and must be of use: the rest goes in, and after another open all is there. A creation
//! that is cut leaves nothing, or an empty store.
//!
//! What a power cut leaves, when writes that were not synced are lost, is the simulated disk's business.

pub(super) mod child;
mod input;
mod left;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pagecache::io::sim::Rng;

use self::{child::Child, input::Input, left::Left};

/// Lines of the file that most imports read.
const SHORT_LINES: usize = 30_000;
/// Lines of the file that is imported whole every so often, long enough for a log that is used again.
const LONG_LINES: usize = 300_000;
/// One kill of so many is in the long file's import.
const LONG_EVERY: usize = 10;

/// One of these tests at a time. A child has all descriptors of this process from its fork to its exec, the
/// lock of a store that another test has open here too: that store would be locked when the other
/// test has closed it and starts a child of its own on it.
static ALONE: Mutex<()> = Mutex::new(());

pub(super) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder for the stores of one test, removed unless the test fails.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(test: &str) -> Folder {
        let name = format!("{}-{}", test.replace("::", "-"), std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder for the test's stores");
        Folder(path)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A path where nothing is.
    pub(super) fn store(&self) -> PathBuf {
        let path = self.0.join("store");
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("{}: {error}", path.display())
            }
            _ => path,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the store is left at {}", self.0.display());
        } else {
            // A folder that stays does no harm.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Imports of one file: how long a whole one takes, shortened whenever one is done sooner.
struct Import {
    input: Input,
    takes: Duration,
}

impl Import {
    /// Runs the whole import once.
    fn new(test: &'static str, folder: &Folder, lines: usize) -> Import {
        let input = Input::write(&folder.0, lines);
        let store = folder.store();
        let ended = Child::start(test, &input.command(&store)).run_to_the_end();
        assert_eq!(ended.durable, lines, "an import that nobody disturbs");
        Import { input, takes: ended.took }
    }

    /// Kills one import at a random moment and looks at what it leaves; `None` if it was done by then.
    fn kill(&mut self, test: &'static str, folder: &Folder, rng: &mut Rng, place: &str) -> Option<usize> {
        let store = folder.store();
        let moment = random_below(self.takes, rng);
        let ended = Child::start(test, &self.input.command(&store)).kill_after(moment);
        if ended.was_done {
            self.takes = self.takes.min(ended.took);
        }
        let place = format!("{place}, killed after {moment:?}");
        let left = Left::new(&self.input, &store, &place);
        let held = left.check_prefix(ended.durable);
        left.go_on(held);
        (!ended.was_done).then_some(held)
    }
}

fn random_below(whole: Duration, rng: &mut Rng) -> Duration {
    Duration::from_micros(rng.below(whole.as_micros() as u64 + 1))
}

/// Kills imports until so many were hit before their end.
fn kill_imports(test: &'static str, kills: usize, long_every: Option<usize>) {
    let _alone = alone();
    let folder = Folder::new(test);
    let seed = tests::seeds(1).next().expect("one seed");
    let mut rng = Rng::new(seed);
    let mut short = Import::new(test, &folder, SHORT_LINES);
    let mut long = long_every.map(|_| Import::new(test, &folder, LONG_LINES));
    let (mut hit, mut held_some) = (0, 0);
    for attempt in 0..3 * kills {
        let place = format!("seed {seed}, attempt {attempt}");
        let import = match (&mut long, long_every) {
            (Some(long), Some(every)) if attempt % every == 0 => long,
            _ => &mut short,
        };
        if let Some(held) = import.kill(test, &folder, &mut rng, &place) {
            hit += 1;
            held_some += usize::from(held > 0);
        }
        if hit == kills {
            break;
        }
    }
    println!("seed {seed}: {hit} kills, {held_some} of them left records");
    assert_eq!(hit, kills, "seed {seed}: too many imports were done before their moment came");
    assert!(held_some > 0, "seed {seed}: no import had begun when it was killed");
}

/// Kills a store's creation at random moments.
fn kill_creations(test: &'static str, kills: usize) {
    let _alone = alone();
    let folder = Folder::new(test);
    let seed = tests::seeds(1).next().expect("one seed");
    let mut rng = Rng::new(seed);
    let input = Input::write(&folder.0, 2_000);
    let create = |store: &Path| ["repl".into(), store.into(), "--create".into(), "count".into()];
    let mut whole = Child::start(test, &create(&folder.store())).run_to_the_end().took;
    let (mut nothing, mut empty) = (0, 0);
    for attempt in 0..kills {
        let store = folder.store();
        let moment = random_below(whole, &mut rng);
        let ended = Child::start(test, &create(&store)).kill_after(moment);
        if ended.was_done {
            whole = whole.min(ended.took);
        }
        let place = format!("seed {seed}, attempt {attempt}, killed after {moment:?}");
        let left = Left::new(&input, &store, &place);
        match left.is_there() {
            true => empty += 1,
            false => nothing += 1,
        }
        assert_eq!(left.check_prefix(0), 0, "{place}: nothing was imported yet");
        // The shell makes of it what it makes of a new path.
        let durable = Child::start(test, &input.command(&store)).run_to_the_end().durable;
        assert_eq!(durable, input.len(), "{place}: the import into what was left");
        assert_eq!(left.check_prefix(durable), durable, "{place}");
    }
    println!("seed {seed}: {nothing} cut creations left nothing, {empty} an empty store");
}

#[test]
fn a_few_moments() {
    const NAME: &str = "kill::a_few_moments";
    if child::is_the_shell() {
        return;
    }
    kill_imports(NAME, 8, None);
}

#[test]
fn a_few_creations() {
    const NAME: &str = "kill::a_few_creations";
    if child::is_the_shell() {
        return;
    }
    kill_creations(NAME, 8);
}

#[test]
#[ignore = "a proof of minutes: .ci/run"]
fn two_hundred_moments() {
    const NAME: &str = "kill::two_hundred_moments";
    if child::is_the_shell() {
        return;
    }
    kill_imports(NAME, 200, Some(LONG_EVERY));
}

#[test]
#[ignore = "a proof of minutes: .ci/run"]
fn a_hundred_creations() {
    const NAME: &str = "kill::a_hundred_creations";
    if child::is_the_shell() {
        return;
    }
    kill_creations(NAME, 100);
}
