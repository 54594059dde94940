//! [`Batch`]: writes that take effect together.
//!
//! One entry a key, the newest; entries are kept sorted, because installing and logging want them so.

use std::collections::BTreeMap;

use crate::IVec;

/// Writes to one tree that are applied together or not at all.
///
/// A later write of the same key replaces an earlier one.
///
/// ```
/// use tree::Batch;
///
/// let mut batch = Batch::default();
/// batch.insert("a", "1");
/// batch.remove("b");
/// assert_eq!(batch.len(), 2);
/// ```
#[derive(Debug, Default, Clone)]
pub struct Batch {
    writes: BTreeMap<IVec, Option<IVec>>,
}

impl Batch {
    /// Sets `key` to `value` when the batch is applied.
    pub fn insert<K, V>(&mut self, key: K, value: V)
    where
        K: Into<IVec>,
        V: Into<IVec>,
    {
        self.writes.insert(key.into(), Some(value.into()));
    }

    /// Removes `key` when the batch is applied.
    pub fn remove<K>(&mut self, key: K)
    where
        K: Into<IVec>,
    {
        self.writes.insert(key.into(), None);
    }

    /// How many keys the batch writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// True if the batch writes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// What the batch does to `key`, if anything: `Some(None)` is a removal.
    #[cfg(test)]
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<&IVec>> {
        self.writes.get(key).map(Option::as_ref)
    }

    /// The writes in key order; `None` is a removal.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&IVec, Option<&IVec>)> + Clone {
        self.writes.iter().map(|(key, value)| (key, value.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::Batch;

    #[test]
    fn the_newest_write_of_a_key_wins_and_keys_come_sorted() {
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        batch.insert("b", "1");
        batch.remove("a");
        batch.insert("c", "1");
        batch.insert(b"c", vec![2]);
        batch.remove("b");
        batch.insert("a", "3");
        let got: Vec<_> =
            batch.iter().map(|(key, value)| (key.to_vec(), value.map(|v| v.to_vec()))).collect();
        let want =
            vec![(b"a".to_vec(), Some(b"3".to_vec())), (b"b".to_vec(), None), (b"c".to_vec(), Some(vec![2]))];
        assert_eq!(got, want);
        assert_eq!(batch.len(), 3);
        assert_eq!(batch.get(b"b"), Some(None));
        assert_eq!(batch.get(b"d"), None);
    }
}
