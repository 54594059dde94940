//! Checksums of what is in a tree and in a database, as sled computes them: of keys and values end to end.

use std::ops::Bound;

use crc32fast::Hasher;

use crate::{Db, Error, IVec, Result, Tree};

/// Bytes of a large value that are in memory at a time.
const PIECE_BYTES: usize = 1 << 20;

impl Tree {
    /// The CRC32 of all keys and values, in key order, equal to sled's of the same entries. Reads every leaf
    /// and every value; what others write meanwhile is in it or not.
    ///
    /// # Errors
    ///
    /// As [`Tree::get`], but for its limit.
    pub fn checksum(&self) -> Result<u32> {
        let mut hasher = Hasher::new();
        self.hash_into(&mut hasher)?;
        Ok(hasher.finalize())
    }

    fn hash_into(&self, hasher: &mut Hasher) -> Result<()> {
        let mut from: Bound<IVec> = Bound::Unbounded;
        loop {
            let mut entries = self.range((from, Bound::Unbounded));
            let stopped = loop {
                match entries.next() {
                    Some(Ok((key, value))) => {
                        hasher.update(&key);
                        hasher.update(&value);
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            };
            match (stopped, entries.failed_at()) {
                (None, _) => return Ok(()),
                (Some(Error::TooLarge { .. }), Some(key)) => {
                    self.hash_large(key, hasher)?;
                    from = Bound::Excluded(IVec::from(key));
                }
                (Some(error), _) => return Err(error),
            }
        }
    }

    /// An entry whose value is too large to be read whole.
    fn hash_large(&self, key: &[u8], hasher: &mut Hasher) -> Result<()> {
        let Some(mut reader) = self.get_reader(key)? else { return Ok(()) };
        hasher.update(key);
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while let len @ 1.. = reader.read_at(at, &mut piece)? {
            hasher.update(&piece[..len]);
            at += len as u64;
        }
        Ok(())
    }
}

impl Db {
    /// The CRC32 of all trees: of each its name and its entries, equal to sled's of the same. See
    /// [`Tree::checksum`], which is hidden behind this one: `(*db).checksum()` is that of the default tree.
    ///
    /// ```
    /// # let (one, other) = (tree::Config::new().temporary(true).open()?, tree::Config::new().temporary(true).open()?);
    /// one.insert("a", "1")?;
    /// one.insert("b", "2")?;
    /// other.insert("b", "2")?;
    /// assert_ne!(one.checksum()?, other.checksum()?);
    /// other.insert("a", "1")?;
    /// assert_eq!(one.checksum()?, other.checksum()?);
    /// # Ok::<(), tree::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Tree::checksum`].
    pub fn checksum(&self) -> Result<u32> {
        let mut hasher = Hasher::new();
        hasher.update(&self.name());
        self.hash_into(&mut hasher)?;
        Ok(hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, Tree};

    /// As above, bit by bit.
    fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
        let step = |crc: u32, byte: u8| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1))
            })
        };
        !bytes.into_iter().fold(!0, step)
    }

    #[test]
    fn it_is_that_of_names_keys_and_values_end_to_end_however_large_they_are() {
        let db = Config::new().temporary(true).cache_capacity(4 << 20).open().unwrap();
        let tree: &Tree = &db;
        let name: &[u8] = b"__sled__default";
        assert_eq!(tree.checksum().unwrap(), 0);
        assert_eq!(db.checksum().unwrap(), crc32(name.iter().copied()));
        let large = vec![3; 3 << 20];
        for (key, value) in [("c", &b"last"[..]), ("a", &b"first"[..]), ("b", &large), ("bb", &large)] {
            db.put(key, value).unwrap();
        }
        assert!(db.iter().any(|entry| entry.is_err()), "one is too large to be read whole");
        let entries = [&b"a"[..], b"first", b"b", &large, b"bb", &large, b"c", b"last"].concat();
        assert_eq!(tree.checksum().unwrap(), crc32(entries.iter().copied()));
        assert_eq!(db.checksum().unwrap(), crc32([name, &entries].concat()));
    }
}
