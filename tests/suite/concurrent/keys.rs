//! A page's key against batches that end between a look and a change, step by step on one thread.

use std::{collections::BTreeMap, sync::Arc};

use pagecache::{
    Admission, Config, ConfigBuilder, Error, FragState, Guard, Materializer, PageCache, PageGet, PageId,
    PagePtr, Verdict, View, io::sim::SimDisk, pin,
};
use tests::stepwise;

/// A page is a map; a fragment adds to it. Fragments of different names commute.
type Names = BTreeMap<String, u64>;

struct Maps;

impl Materializer for Maps {
    type PageFrag = Names;
    type Recovery = ();

    fn new(_: Config, _: &Option<()>) -> Maps {
        Maps
    }

    fn merge(&self, frags: &[&Names]) -> Names {
        frags.iter().flat_map(|frag| frag.iter().map(|(name, value)| (name.clone(), *value))).collect()
    }

    fn recover(&self, _: &Names) -> Option<()> {
        None
    }

    fn size_in_bytes(&self, frag: &Names) -> usize {
        64 * frag.len()
    }

    fn commutes(&self, pending: &Names, new: &Names) -> bool {
        new.keys().all(|name| !pending.contains_key(name))
    }
}

type Cache = PageCache<Maps, Names, ()>;

fn open() -> Cache {
    let config = stepwise(ConfigBuilder::new(), Arc::new(SimDisk::untraced())).salt_seed(1);
    Cache::start(config.build()).expect("an empty disk takes a store")
}

fn one(name: &str, value: u64) -> Names {
    Names::from([(name.to_owned(), value)])
}

fn page(cache: &Cache, content: Names, guard: &Guard) -> PageId {
    let pid = cache.allocate(guard).unwrap();
    cache.replace(pid, PagePtr::allocated(), content, guard).unwrap();
    pid
}

fn look<'g>(cache: &Cache, pid: PageId, guard: &'g Guard) -> (&'g Names, PagePtr<'g, Names>) {
    cache.get(pid, guard).unwrap().unwrap()
}

/// A reader looked at a page while a batch was pending on it, so it did not see the batch. The batch
/// committed, which changes no word of the page, and the reader's change went through: a split built
/// from that look lost the batch. Now the key counts what was pending.
#[test]
fn a_change_based_on_a_look_from_before_a_commit_fails_after_it() {
    let (cache, guard) = (open(), pin());
    let pid = page(&cache, one("a", 1), &guard);
    let mut batch = cache.begin_batch(Admission::default()).unwrap();
    batch.link(pid, look(&cache, pid, &guard).1, one("b", 2), &guard).unwrap();

    let (seen, key) = look(&cache, pid, &guard);
    assert_eq!(*seen, one("a", 1), "what is pending is not seen");
    let View::Page(view) = cache.view(pid, &guard).unwrap() else { panic!("the page is there") };
    batch.commit(|_| Verdict::Commit).unwrap();

    for (name, key) in [("get", key), ("view", view.key())] {
        let copy = cache.replace(pid, key, one("a", 3), &guard);
        assert!(matches!(copy, Err(Error::CasFailed(Some(_)))), "{name}: {copy:?}");
        let change = cache.link(pid, key, one("b", 3), &guard);
        assert!(matches!(change, Err(Error::CasFailed(Some(_)))), "{name}: {change:?}");
        let mut later = cache.begin_batch(Admission::default()).unwrap();
        let added = later.link(pid, key, one("b", 3), &guard).map(|_| ());
        assert!(matches!(added, Err(Error::CasFailed(Some(_)))), "{name}: {added:?}");
    }
    assert_eq!(look(&cache, pid, &guard).0["b"], 2, "the batch is there");
}

#[test]
fn a_change_that_commutes_with_what_is_pending_goes_through_and_both_are_there() {
    let (cache, guard) = (open(), pin());
    let pid = page(&cache, one("a", 1), &guard);
    let mut batch = cache.begin_batch(Admission::default()).unwrap();
    batch.link(pid, look(&cache, pid, &guard).1, one("b", 2), &guard).unwrap();
    let key = cache.link(pid, look(&cache, pid, &guard).1, one("c", 3), &guard).unwrap();
    // The key of that change has not seen the batch either.
    batch.commit(|_| Verdict::Commit).unwrap();
    assert!(matches!(cache.replace(pid, key, one("d", 4), &guard), Err(Error::CasFailed(Some(_)))));
    let want = Names::from([("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)]);
    assert_eq!(*look(&cache, pid, &guard).0, want);
}

#[test]
fn a_batch_goes_on_with_the_keys_of_its_own_changes() {
    let (cache, guard) = (open(), pin());
    let pid = page(&cache, one("a", 1), &guard);
    let mut batch = cache.begin_batch(Admission::default()).unwrap();
    let key = batch.link(pid, look(&cache, pid, &guard).1, one("b", 2), &guard).unwrap();
    let key = batch.link(pid, key, one("c", 3), &guard).unwrap();
    batch.replace(pid, key, one("d", 4), &guard).unwrap();
    assert_eq!(*look(&cache, pid, &guard).0, one("a", 1));
    batch.commit(|_| Verdict::Commit).unwrap();
    assert_eq!(*look(&cache, pid, &guard).0, one("d", 4));
}

/// A leaf whose join was under way, or was given up, had no fragment in its view, and every get of
/// its range was told that the tree is damaged.
#[test]
fn a_page_is_whole_while_the_batch_that_frees_it_is_pending_and_after_it_is_given_up() {
    let (cache, guard) = (open(), pin());
    let pid = page(&cache, one("a", 1), &guard);
    let mut batch = cache.begin_batch(Admission::default()).unwrap();
    batch.free(pid, look(&cache, pid, &guard).1, &guard).unwrap();
    let seen = |when: &str| {
        let View::Page(view) = cache.view(pid, &guard).unwrap() else { panic!("{when}: the page is there") };
        let frags: Vec<(Names, FragState)> =
            view.frags().map(|(frag, state)| (frag.clone(), state)).collect();
        assert!(
            matches!(frags.as_slice(), [(frag, FragState::Committed(_))] if *frag == one("a", 1)),
            "{when}: {frags:?}"
        );
        assert_eq!(*look(&cache, pid, &guard).0, one("a", 1), "{when}");
    };
    seen("pending");
    drop(batch);
    seen("given up");

    let mut batch = cache.begin_batch(Admission::default()).unwrap();
    batch.free(pid, look(&cache, pid, &guard).1, &guard).unwrap();
    batch.commit(|_| Verdict::Commit).unwrap();
    assert!(matches!(cache.get(pid, &guard), Ok(PageGet::Free(_))));
    assert!(matches!(cache.view(pid, &guard), Ok(View::Free(_))));
}

#[test]
fn a_key_from_before_a_free_fails_on_the_page_that_has_the_id_next() {
    let (cache, guard) = (open(), pin());
    let pid = page(&cache, one("a", 1), &guard);
    let old = look(&cache, pid, &guard).1;
    cache.free(pid, old, &guard).unwrap();
    assert!(matches!(cache.link(pid, old, one("b", 2), &guard), Err(Error::CasFailed(None))));
    cache.checkpoint().unwrap();
    let again = page(&cache, one("c", 3), &guard);
    assert_eq!(again, pid, "the id is used again once its free is in a checkpoint");
    assert!(matches!(cache.link(pid, old, one("b", 2), &guard), Err(Error::CasFailed(Some(_)))));
    assert!(matches!(cache.free(pid, PagePtr::allocated(), &guard), Err(Error::CasFailed(Some(_)))));
    assert_eq!(*look(&cache, pid, &guard).0, one("c", 3));
}
