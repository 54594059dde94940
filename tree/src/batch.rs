//! [`Batch`]: writes that take effect together.
//!
//! They are kept as they come, and put in the order of their keys when they are applied, because installing
//! and logging want them so: one sort costs less than keeping them sorted.

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
    writes: Vec<(IVec, Option<IVec>)>,
}

/// What a batch does to a key: a new value, or `None` to remove it.
pub(crate) type KeyWrite<'b> = (&'b IVec, Option<&'b IVec>);

impl Batch {
    /// Sets `key` to `value` when the batch is applied.
    pub fn insert<K, V>(&mut self, key: K, value: V)
    where
        K: Into<IVec>,
        V: Into<IVec>,
    {
        self.writes.push((key.into(), Some(value.into())));
    }

    /// Removes `key` when the batch is applied.
    pub fn remove<K>(&mut self, key: K)
    where
        K: Into<IVec>,
    {
        self.writes.push((key.into(), None));
    }

    /// How many writes the batch holds; several of one key count each, though only the last takes effect.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// True if the batch writes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The writes in the order of their keys, of each key the last.
    pub(crate) fn sorted(&self) -> Vec<KeyWrite<'_>> {
        let mut order: Vec<(u64, usize)> = Vec::with_capacity(self.len());
        let shared = self.shared_prefix();
        order.extend(self.writes.iter().enumerate().map(|(at, (key, _))| (word(&key[shared..]), at)));
        // Most comparisons end in the words; of equal keys the later write comes first.
        order.sort_unstable_by(|(left_word, left), (right_word, right)| {
            let keys = || self.writes[*left].0.cmp(&self.writes[*right].0);
            left_word.cmp(right_word).then_with(keys).then(right.cmp(left))
        });
        let mut sorted: Vec<KeyWrite<'_>> = Vec::with_capacity(order.len());
        for (_, at) in order {
            let (key, value) = &self.writes[at];
            if sorted.last().is_none_or(|(last, _)| *last != key) {
                sorted.push((key, value.as_ref()));
            }
        }
        sorted
    }

    /// Bytes that all keys begin with.
    fn shared_prefix(&self) -> usize {
        let Some(((first, _), rest)) = self.writes.split_first() else { return 0 };
        rest.iter().fold(first.len(), |shared, (key, _)| {
            let same = first[..shared].iter().zip(key.iter()).take_while(|(a, b)| a == b);
            same.count()
        })
    }
}

/// The first eight bytes as a number that compares as they do; where fewer are left, zeros follow.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let len = bytes.len().min(8);
    word[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Batch;

    fn sorted(batch: &Batch) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        batch.sorted().iter().map(|(key, value)| (key.to_vec(), value.map(|value| value.to_vec()))).collect()
    }

    #[test]
    fn the_newest_write_of_a_key_wins_and_keys_come_sorted() {
        let mut batch = Batch::default();
        assert!(batch.is_empty() && batch.sorted().is_empty());
        batch.insert("b", "1");
        batch.remove("a");
        batch.insert("c", "1");
        batch.insert(b"c", vec![2]);
        batch.remove("b");
        batch.insert("a", "3");
        let want =
            vec![(b"a".to_vec(), Some(b"3".to_vec())), (b"b".to_vec(), None), (b"c".to_vec(), Some(vec![2]))];
        assert_eq!(sorted(&batch), want);
        assert_eq!(batch.len(), 6);
    }

    #[test]
    fn keys_that_differ_late_early_or_in_length_come_as_a_map_has_them() {
        // Zeros at the end look like the padding of a word.
        let tails: [&[u8]; 8] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"abcdefgh", b"abcdefgh\0", b"abcdefghi"];
        for prefix in ["", "p", "a prefix of many bytes"] {
            let (mut batch, mut map) = (Batch::default(), BTreeMap::new());
            for round in 0..3 {
                for at in 0..tails.len() {
                    let tail = tails[(at * 5 + round) % tails.len()];
                    let key = [prefix.as_bytes(), tail].concat();
                    if (at + round) % 3 == 0 {
                        batch.remove(&key[..]);
                        map.insert(key, None);
                    } else {
                        batch.insert(&key[..], vec![round as u8, at as u8]);
                        map.insert(key, Some(vec![round as u8, at as u8]));
                    }
                }
            }
            assert_eq!(sorted(&batch), map.into_iter().collect::<Vec<_>>());
        }
    }
}
