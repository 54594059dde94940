//! What the store should hold: pages of words, and all commits since the last restart.

use std::collections::{BTreeMap, BTreeSet};

use pagecache::{Lsn, PageId};

/// The content of every page that has some.
pub(super) type Contents = BTreeMap<PageId, String>;

/// Changes that happened together, and their position.
#[derive(Clone, Debug)]
struct Commit {
    lsn: Lsn,
    /// Pages with what they hold since; `None` for one that was freed.
    after: Vec<(PageId, Option<String>)>,
}

/// The pages as they are, and how they came to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// As of the last restart.
    before: Contents,
    commits: Vec<Commit>,
    now: Contents,
    /// Handed out, and nothing written to them yet.
    allocated: BTreeSet<PageId>,
}

impl Model {
    pub(super) fn now(&self) -> &Contents {
        &self.now
    }

    pub(super) fn allocated(&self) -> &BTreeSet<PageId> {
        &self.allocated
    }

    /// A page was handed out; false if it is in use.
    pub(super) fn allocate(&mut self, pid: PageId) -> bool {
        !self.now.contains_key(&pid) && self.allocated.insert(pid)
    }

    /// A page that holds nothing was given back.
    pub(super) fn give_back(&mut self, pid: PageId) {
        self.allocated.remove(&pid);
    }

    pub(super) fn commit(&mut self, lsn: Lsn, after: Vec<(PageId, Option<String>)>) {
        for (pid, content) in &after {
            self.allocated.remove(pid);
            put(&mut self.now, *pid, content.as_ref());
        }
        self.commits.push(Commit { lsn, after });
    }

    /// The store was closed and is open again.
    pub(super) fn restart(&mut self) {
        self.before = self.now.clone();
        self.commits.clear();
        self.allocated.clear();
    }

    /// The store was cut off when it said that all up to `stable` is durable, and holds `found`.
    ///
    /// # Errors
    ///
    /// In words, if that is no prefix of the commits with every durable one.
    pub(super) fn crash(&mut self, stable: Lsn, found: Contents) -> Result<(), String> {
        let durable = self.commits.iter().filter(|commit| commit.lsn <= stable).count();
        if self.commits.windows(2).any(|pair| pair[0].lsn >= pair[1].lsn) {
            return Err("positions do not rise with the commits".to_owned());
        }
        let mut state = self.before.clone();
        let mut is_prefix = false;
        for count in 0..=self.commits.len() {
            is_prefix |= count >= durable && state == found;
            if let Some(commit) = self.commits.get(count) {
                commit.after.iter().for_each(|(pid, content)| put(&mut state, *pid, content.as_ref()));
            }
        }
        if !is_prefix {
            return Err(self.difference(durable, &found));
        }
        self.now = found;
        self.restart();
        Ok(())
    }

    /// How `found` differs from the oldest state that may be found.
    fn difference(&self, durable: usize, found: &Contents) -> String {
        let mut state = self.before.clone();
        for commit in &self.commits[..durable] {
            commit.after.iter().for_each(|(pid, content)| put(&mut state, *pid, content.as_ref()));
        }
        let pids: BTreeSet<PageId> = state.keys().chain(found.keys()).copied().collect();
        let differs = pids.into_iter().filter(|pid| state.get(pid) != found.get(pid));
        let told: Vec<String> = differs
            .take(4)
            .map(|pid| format!("page {pid} holds {:?}, was {:?}", found.get(&pid), state.get(&pid)))
            .collect();
        let total = self.commits.len();
        format!("no prefix of at least {durable} of {total} commits; as of that one {}", told.join("; "))
    }
}

fn put(contents: &mut Contents, pid: PageId, content: Option<&String>) {
    match content {
        Some(content) => contents.insert(pid, content.clone()),
        None => contents.remove(&pid),
    };
}
