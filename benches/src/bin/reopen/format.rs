//! A store written by hand, as `docs/FORMAT.md` draws it.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use super::{PROBES, Result};

const BLOCK: u64 = 4096;
const LOG_SEGMENT: u64 = 2 << 20;
const STORE_SEGMENT: u64 = 1 << 20;
const PAGE: u64 = 4096;
const SPAN: u64 = 256;
const UUID: [u8; 16] = *b"a synthetic page";
const SALT: u64 = 0x5EED;
const RECORD: u64 = 200;
const HEADER: usize = 24;

/// What to make.
pub(super) struct Synthetic {
    pub(super) directory: PathBuf,
    pub(super) pages: u64,
    pub(super) tail_bytes: u64,
}

/// What was made.
pub(super) struct Made {
    pub(super) map_pages: u64,
    pub(super) table_bytes: u64,
    pub(super) records: u64,
    superblock: Vec<u8>,
    pages_bytes: u64,
    log_bytes: u64,
}

/// A page whose last record in the tail is a base that begins with its number.
pub(super) fn page_of_probe(probe: u64, pages: u64) -> u64 {
    mix(probe) % pages
}

/// A fixed mixing function (splitmix64).
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Offset, length and checksum of a payload.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    len: u32,
    crc: u32,
}

impl Place {
    fn put(&self, out: &mut Vec<u8>) {
        varint(out, self.offset);
        varint(out, self.len.into());
        out.extend_from_slice(&self.crc.to_le_bytes());
    }
}

/// Appends frames to the file of pages.
struct Frames {
    out: BufWriter<File>,
    at: u64,
    /// Live bytes of segments from `first` on.
    first: u64,
    live: Vec<u64>,
}

impl Frames {
    /// Behind the images of so many pages.
    fn new(file: File, pages: u64) -> Result<Frames> {
        let first = (pages * PAGE).div_ceil(STORE_SEGMENT);
        let at = 2 * BLOCK + first * STORE_SEGMENT;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.seek(SeekFrom::Start(at))?;
        Ok(Frames { out, at, first, live: Vec::new() })
    }

    fn put(&mut self, number: u64, kind: u8, payload: &[u8]) -> Result<Place> {
        let len = (HEADER + payload.len()) as u64;
        let within = (self.at - 2 * BLOCK) % STORE_SEGMENT;
        if within + len > STORE_SEGMENT {
            let zeros = vec![0; (STORE_SEGMENT - within) as usize];
            self.out.write_all(&zeros)?;
            self.at += zeros.len() as u64;
        }
        let mut frame = vec![0; 4];
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        frame.extend_from_slice(&number.to_le_bytes()[..6]);
        frame.extend_from_slice(&[kind, 0]);
        frame.extend_from_slice(&[0; 8]);
        frame.extend_from_slice(payload);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&UUID);
        crc.update(&self.at.to_le_bytes());
        crc.update(&frame[4..]);
        frame[..4].copy_from_slice(&crc.finalize().to_le_bytes());
        self.out.write_all(&frame)?;
        let place = Place { offset: self.at, len: frame.len() as u32, crc: crc32fast::hash(payload) };
        let segment = ((self.at - 2 * BLOCK) / STORE_SEGMENT - self.first) as usize;
        let segments = segment + len.div_ceil(STORE_SEGMENT) as usize;
        self.live.resize(self.live.len().max(segments), 0);
        let mut left = len;
        for live in &mut self.live[segment..segments] {
            *live += left.min(STORE_SEGMENT);
            left -= left.min(STORE_SEGMENT);
        }
        self.at += len;
        Ok(place)
    }
}

impl Synthetic {
    /// Writes both files.
    pub(super) fn make(&self) -> Result<Made> {
        let (directory, pages_bytes, table_bytes) = self.make_table()?;
        let (records, log_bytes) = self.make_log()?;
        let superblock = superblock(&directory);
        let map_pages = self.pages.div_ceil(SPAN);
        Ok(Made { map_pages, table_bytes, records, superblock, pages_bytes, log_bytes })
    }

    fn make_table(&self) -> Result<(Place, u64, u64)> {
        let file = File::create(self.directory.join("pages"))?;
        let mut frames = Frames::new(file, self.pages)?;
        let begin = frames.at;
        let map_pages = self.pages.div_ceil(SPAN);
        let mut groups = Vec::new();
        for group in 0..map_pages.div_ceil(SPAN) {
            let numbers = group * SPAN..map_pages.min((group + 1) * SPAN);
            let mut index = Vec::new();
            varint(&mut index, group);
            varint(&mut index, numbers.end - numbers.start);
            for number in numbers.clone() {
                let pages = SPAN.min(self.pages - number * SPAN);
                let place = frames.put(number, 3, &map_page(number, pages))?;
                varint(&mut index, u64::from(number > numbers.start));
                varint(&mut index, pages);
                place.put(&mut index);
            }
            groups.push((group, frames.put(group, 6, &index)?));
        }
        let mut directory = Vec::new();
        varint(&mut directory, self.pages);
        varint(&mut directory, groups.len() as u64);
        for (group, place) in &groups {
            varint(&mut directory, u64::from(*group > 0));
            varint(&mut directory, (SPAN * SPAN).min(self.pages - group * SPAN * SPAN));
            directory.push(1);
            place.put(&mut directory);
            directory.push(0);
        }
        directory.push(0); // nothing to recover
        directory.extend_from_slice(&(LOG_SEGMENT as i64).to_le_bytes());
        varint(&mut directory, 0); // no tallies
        let images =
            (0..frames.first).map(|segment| STORE_SEGMENT.min(self.pages * PAGE - segment * STORE_SEGMENT));
        let live: Vec<u64> = images.chain(frames.live.iter().copied()).collect();
        varint(&mut directory, live.len() as u64);
        for (segment, bytes) in live.iter().enumerate() {
            varint(&mut directory, u64::from(segment > 0));
            varint(&mut directory, *bytes);
        }
        let place = frames.put(0, 4, &directory)?;
        frames.out.flush()?;
        let end = frames.at.next_multiple_of(BLOCK);
        frames.out.get_ref().set_len(end)?;
        Ok((place, end, end - begin))
    }

    /// The tail: the log holds nothing else.
    fn make_log(&self) -> Result<(u64, u64)> {
        let per_segment = (LOG_SEGMENT - BLOCK) / RECORD;
        let segments = self.tail_bytes.div_ceil(LOG_SEGMENT);
        let records = segments * per_segment;
        let mut out = BufWriter::with_capacity(1 << 20, File::create(self.directory.join("log"))?);
        let mut numbers: HashMap<u64, u64> = HashMap::new();
        let mut record = 0;
        let mut ends = LOG_SEGMENT;
        for segment in 0..segments {
            let first = (segment + 1) * LOG_SEGMENT;
            out.write_all(&segment_header(first, ends))?;
            for at in 0..per_segment {
                // The probes come last, so that nothing is above their bases.
                let probe = (record + PROBES).checked_sub(records);
                let pid = probe.map_or_else(
                    || mix(record + PROBES) % self.pages,
                    |probe| page_of_probe(probe, self.pages),
                );
                let seq = numbers.entry(pid).or_insert(1);
                *seq += 1;
                let lsn = first + BLOCK + at * RECORD;
                out.write_all(&log_record(lsn, pid, *seq, probe.is_some()))?;
                record += 1;
            }
            ends = first + BLOCK + per_segment * RECORD;
            out.write_all(&vec![0; (first + LOG_SEGMENT - ends) as usize])?;
        }
        out.flush()?;
        Ok((records, segments * LOG_SEGMENT))
    }
}

impl Made {
    /// Puts superblocks and lengths back as they were before an open.
    pub(super) fn restore(&self, store: &Synthetic) -> Result<()> {
        let open = |name| OpenOptions::new().write(true).open(store.directory.join(name));
        let pages = open("pages")?;
        for slot in 0..2 {
            pages.write_all_at(&self.superblock, slot * BLOCK)?;
        }
        pages.set_len(self.pages_bytes)?;
        pages.sync_all()?;
        let log = open("log")?;
        log.set_len(self.log_bytes)?;
        Ok(log.sync_all()?)
    }
}

fn map_page(number: u64, pages: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 << 10);
    varint(&mut out, number);
    varint(&mut out, pages);
    varint(&mut out, SPAN - pages);
    for index in 0..pages {
        out.extend_from_slice(&[index as u8, 1, 1]);
        varint(&mut out, 2 * BLOCK + (number * SPAN + index) * PAGE);
        varint(&mut out, PAGE);
    }
    out
}

fn superblock(directory: &Place) -> Vec<u8> {
    let from = LOG_SEGMENT as i64;
    let mut out = b"PageStor".to_vec();
    for number in [1, 0, BLOCK as u32, LOG_SEGMENT as u32, STORE_SEGMENT as u32, 0, 0, 0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&UUID);
    out.extend_from_slice(&2_u64.to_le_bytes());
    out.extend_from_slice(&from.to_le_bytes());
    out.extend_from_slice(&from.to_le_bytes());
    out.extend_from_slice(&[2, 1, 0, 0]);
    out.extend_from_slice(&directory.crc.to_le_bytes());
    out.extend_from_slice(&directory.offset.to_le_bytes());
    out.extend_from_slice(&directory.len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&from.to_le_bytes());
    out.extend_from_slice(&SALT.to_le_bytes());
    out.resize(BLOCK as usize, 0);
    let crc = crc32fast::hash(&out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The first block of a segment; nothing before it is known to be stable.
fn segment_header(first: u64, continues: u64) -> Vec<u8> {
    let mut out = b"PageLog\0".to_vec();
    out.extend_from_slice(&1_u32.to_le_bytes());
    out.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    for number in [first, LOG_SEGMENT, SALT, LOG_SEGMENT, continues] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&UUID);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.resize(BLOCK as usize, 0);
    out
}

/// A record that says which page it is of.
fn log_record(lsn: u64, pid: u64, seq: u64, is_base: bool) -> Vec<u8> {
    let payload = RECORD as usize - HEADER;
    let mut out = vec![0; 4];
    out.extend_from_slice(&(payload as u32).to_le_bytes());
    out.extend_from_slice(&pid.to_le_bytes()[..6]);
    out.extend_from_slice(&[if is_base { 2 } else { 1 }, 0]);
    out.extend_from_slice(&seq.to_le_bytes());
    // A fragment of bytes, as the default encoding has it.
    out.extend_from_slice(&(payload as u64 - 8).to_le_bytes());
    out.extend_from_slice(&pid.to_le_bytes());
    out.resize(RECORD as usize, 0x5A);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&SALT.to_le_bytes());
    crc.update(&lsn.to_le_bytes());
    crc.update(&out[4..]);
    let crc = crc.finalize() ^ 0x4B4F_5F21;
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out[15] = 1;
    out
}
