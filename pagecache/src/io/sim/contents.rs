//! The bytes of a simulated file, shared between copies chunk by chunk until one changes.
//!
//! * Bytes of the last chunk beyond the length are zero, so growing shows zeros and equal contents
//!   hash equally.
//! * A chunk's hash belongs to its bytes: whoever changes a chunk forgets the hash.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::rng::{fold, fold_fast, mix};

pub(super) const CHUNK_BYTES: usize = 4096;

/// Part of a file. A clone is made only to be changed.
pub(super) struct Chunk {
    bytes: [u8; CHUNK_BYTES],
    hash: OnceLock<u64>,
}

impl Clone for Chunk {
    fn clone(&self) -> Chunk {
        Chunk { bytes: self.bytes, hash: OnceLock::new() }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk of hash {:016x}", self.hash())
    }
}

impl Chunk {
    fn zero() -> Chunk {
        Chunk { bytes: [0; CHUNK_BYTES], hash: OnceLock::new() }
    }

    pub(super) fn bytes(&self) -> &[u8; CHUNK_BYTES] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8; CHUNK_BYTES] {
        self.hash = OnceLock::new();
        &mut self.bytes
    }

    /// Zero if all bytes are, as for a chunk that was never written.
    fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| hash_chunk(&self.bytes))
    }
}

/// Four lanes, since one multiplication would wait for the other; a crash image hashes what it changed.
fn hash_chunk(bytes: &[u8; CHUNK_BYTES]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let (rows, _) = words.as_chunks::<4>();
    let mut lanes = [0; 4];
    let mut any = 0;
    for row in rows {
        for (lane, word) in lanes.iter_mut().zip(row) {
            let word = u64::from_le_bytes(*word);
            any |= word;
            *lane = fold_fast(*lane, word);
        }
    }
    if any == 0 { 0 } else { lanes.into_iter().fold(0, |hash, lane| fold(hash, mix(lane))) }
}

/// The bytes of a file. Cloning is cheap.
#[derive(Clone, Default)]
pub(super) struct Contents {
    /// As many as the length needs; `None` was never written and reads as zero.
    chunks: Arc<Vec<Option<Arc<Chunk>>>>,
    len: u64,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, hash {:016x}", self.len, self.hash())
    }
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buf` from `offset`; false if the contents end before.
    #[must_use]
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> bool {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return false;
        }
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let (index, start) = place(at);
            let (part, after) = rest.split_at_mut(rest.len().min(CHUNK_BYTES - start));
            match &self.chunks[index] {
                Some(chunk) => part.copy_from_slice(&chunk.bytes[start..start + part.len()]),
                None => part.fill(0),
            }
            at += part.len() as u64;
            rest = after;
        }
        true
    }

    /// Writes `bytes` at `offset`, growing where needed.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let (index, start) = place(at);
            let (part, after) = rest.split_at(rest.len().min(CHUNK_BYTES - start));
            let chunk = chunks[index].get_or_insert_with(|| Arc::new(Chunk::zero()));
            Arc::make_mut(chunk).bytes_mut()[start..start + part.len()].copy_from_slice(part);
            at += part.len() as u64;
            rest = after;
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len == self.len {
            return;
        }
        let (index, start) = place(len);
        let chunks = Arc::make_mut(&mut self.chunks);
        if len < self.len
            && start > 0
            && let Some(last) = &mut chunks[index]
        {
            Arc::make_mut(last).bytes_mut()[start..].fill(0);
        }
        chunks.resize(index + usize::from(start > 0), None);
        self.len = len;
    }

    /// The last few chunks that begin at or after `from`, newest contents of a file that is cut.
    pub(super) fn chunks_from(&self, from: u64, count_max: usize) -> Vec<Arc<Chunk>> {
        let first = place(from).0.min(self.chunks.len());
        self.chunks[first..].iter().rev().flatten().take(count_max).cloned().collect()
    }

    pub(super) fn hash(&self) -> u64 {
        self.chunks
            .iter()
            .fold(mix(self.len), |hash, chunk| fold(hash, chunk.as_ref().map_or(0, |chunk| chunk.hash())))
    }
}

/// The chunk that holds a byte, and the byte's place in it.
fn place(offset: u64) -> (usize, usize) {
    ((offset / CHUNK_BYTES as u64) as usize, (offset % CHUNK_BYTES as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::Contents;
    use crate::io::sim::Rng;

    #[test]
    fn contents_behave_as_a_vector_of_bytes() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut contents = Contents::default();
            let mut model: Vec<u8> = Vec::new();
            let mut kept = Vec::new();
            for step in 0..200 {
                if rng.chance(1, 4) {
                    let len = rng.index(20_000);
                    contents.set_len(len as u64);
                    model.resize(len, 0);
                } else {
                    let offset = rng.index(20_000);
                    let mut bytes = vec![0; rng.index(9000)];
                    rng.fill(&mut bytes);
                    contents.write(offset as u64, &bytes);
                    model.resize(model.len().max(offset + bytes.len()), 0);
                    model[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
                if step % 50 == 0 {
                    kept.push((contents.clone(), model.clone()));
                }
                let mut fresh = Contents::default();
                fresh.write(0, &model);
                assert_eq!(contents.hash(), fresh.hash(), "seed {seed}, step {step}");
            }
            kept.push((contents, model));
            for (contents, model) in kept {
                let mut bytes = vec![1; model.len()];
                assert!(contents.read(0, &mut bytes), "seed {seed}");
                assert_eq!(bytes, model, "seed {seed}");
                assert!(!contents.read(1, &mut bytes[..]) || model.is_empty(), "seed {seed}");
            }
        }
    }

    #[test]
    fn hashes_tell_contents_apart() {
        let mut hashes = std::collections::HashSet::new();
        for len in [0, 1, 511, 512, 4096, 4097, 8192, 12_288] {
            let mut contents = Contents::default();
            contents.set_len(len);
            assert!(hashes.insert(contents.hash()), "length {len}");
            for at in (0..len).step_by(97) {
                for byte in [1, 128, 255] {
                    let mut changed = contents.clone();
                    changed.write(at, &[byte]);
                    assert!(hashes.insert(changed.hash()), "length {len}, byte {byte} at {at}");
                }
            }
        }
    }
}
