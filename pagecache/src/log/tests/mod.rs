//! Tests of the log as a whole, on a disk in memory.

mod append;
mod crash;
mod damage;
mod disk;
mod faults;
mod reopen;
mod space;

use std::ops::Deref;
use std::sync::{Arc, Weak};

use self::disk::Disk;
use super::tail::{Recorded, SegmentRecords, Tail, TailRecord, scan};
use super::{Begun, Geometry, Host, Log, Position, STORE};
use crate::error::{Failure, Poison};
use crate::format::record::{HEADER_BYTES, Kind, RecordHead};
use crate::ids::{Lsn, PageId, PageSeq};
use crate::io::Storage;
use crate::sync::Mutex;

const SMALL: Geometry = Geometry {
    block_bytes: 512,
    segment_bytes: 8 << 10,
    buffer_bytes: 2 << 10,
    buffers: 4,
    capacity_bytes: 8 << 20,
};

/// Records by LSN, as they were written.
type Model = Vec<(Lsn, Vec<u8>)>;

/// A record that a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    lsn: Lsn,
    kind: Kind,
    pid: PageId,
    seq: PageSeq,
    payload: Vec<u8>,
}

/// A tail, and what it holds.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    tail: Tail,
    records: Vec<Record>,
}

impl Read {
    fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }
}

impl Deref for Read {
    type Target = Tail;

    fn deref(&self) -> &Tail {
        &self.tail
    }
}

/// Scans a disk and keeps every record. `begun` is what was published of the last epoch.
fn read(
    disk: &dyn Storage,
    geometry: Geometry,
    from: Lsn,
    salts: &[(Lsn, u64)],
    recorded_stable: Lsn,
    begun: Option<Begun>,
    threads: usize,
) -> Result<Read, Failure> {
    let record = |r: TailRecord<'_>| {
        assert_eq!(r.payload_at(), r.lsn + HEADER_BYTES as Lsn);
        Record { lsn: r.lsn, kind: r.kind, pid: r.pid, seq: r.seq, payload: r.payload.to_vec() }
    };
    let digest = |records: &SegmentRecords<'_>| records.iter().map(record).collect::<Vec<_>>();
    let (begun, bytes) = begun.map_or((0, 0), |begun| (begun.first, begun.file_bytes));
    let recorded = Recorded { store: STORE, from, stable: recorded_stable, salts, bytes, begun };
    let (tail, records) = scan(disk, geometry, &recorded, threads, digest)?;
    Ok(Read { tail, records: records.concat() })
}

/// What the checkpoint would do: keeps the salts, counts, releases when asked.
struct TestHost {
    salts: Mutex<Vec<(Lsn, u64)>>,
    begun: Mutex<Option<Begun>>,
    truncations: Mutex<usize>,
    /// Releases up to the stable LSN at every truncation.
    releases: bool,
    log: Mutex<Weak<Log>>,
}

impl Host for TestHost {
    fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn epoch_salt(&self) -> Result<u64, Failure> {
        Ok(0xFEED_0000 + self.salts.lock().len() as u64)
    }

    fn begin_epoch(&self, begun: &Begun) -> Result<(), Failure> {
        self.salts.lock().push((begun.first, begun.salt));
        *self.begun.lock() = Some(*begun);
        Ok(())
    }

    fn truncate(&self) -> Result<(), Failure> {
        *self.truncations.lock() += 1;
        let log = self.log.lock().upgrade();
        if let (true, Some(log)) = (self.releases, log) {
            log.release(log.flush()?);
        }
        Ok(())
    }
}

/// A log with its disk and host.
struct Rig {
    disk: Arc<Disk>,
    host: Arc<TestHost>,
    log: Arc<Log>,
    geometry: Geometry,
}

impl Rig {
    fn new(geometry: Geometry) -> Rig {
        Rig::at(Arc::new(Disk::default()), geometry, Position::fresh(&geometry), Vec::new(), false)
    }

    fn releasing(geometry: Geometry) -> Rig {
        Rig::at(Arc::new(Disk::default()), geometry, Position::fresh(&geometry), Vec::new(), true)
    }

    fn at(
        disk: Arc<Disk>,
        geometry: Geometry,
        position: Position,
        salts: Vec<(Lsn, u64)>,
        releases: bool,
    ) -> Rig {
        let log = Log::new(disk.clone(), geometry, Arc::new(Poison::default()), position).unwrap();
        let log = Arc::new(log);
        let host = TestHost {
            salts: Mutex::new(salts),
            begun: Mutex::new(None),
            truncations: Mutex::new(0),
            releases,
            log: Mutex::new(Arc::downgrade(&log)),
        };
        let host = Arc::new(host);
        let weak: Weak<TestHost> = Arc::downgrade(&host);
        log.set_host(weak);
        Rig { disk, host, log, geometry }
    }

    /// Opens what is on this rig's disk, as after a crash of the process.
    fn reopen(&self, from: Lsn) -> Rig {
        let tail = self.scan(from, from).unwrap();
        tail.rewrite(self.disk.as_ref()).unwrap();
        Rig::at(self.disk.clone(), self.geometry, tail.position(), self.salts(), self.host.releases)
    }

    fn salts(&self) -> Vec<(Lsn, u64)> {
        self.host.salts.lock().clone()
    }

    fn scan(&self, from: Lsn, recorded_stable: Lsn) -> Result<Read, Failure> {
        self.scan_disk(self.disk.as_ref(), from, recorded_stable, None)
    }

    /// Scans another image of this rig's file.
    fn scan_image(&self, image: Vec<u8>, from: Lsn, recorded_stable: Lsn) -> Result<Read, Failure> {
        self.scan_disk(&Disk::with(image), from, recorded_stable, None)
    }

    /// As [`Rig::scan_image`], with what was published when the epoch of this rig began.
    fn scan_begun(&self, image: Vec<u8>, from: Lsn, recorded_stable: Lsn) -> Result<Read, Failure> {
        let begun = *self.host.begun.lock();
        self.scan_disk(&Disk::with(image), from, recorded_stable, Some(begun.expect("an epoch has begun")))
    }

    /// Every scan of every test is made with several threads too, and must not differ.
    fn scan_disk(
        &self,
        disk: &Disk,
        from: Lsn,
        recorded_stable: Lsn,
        begun: Option<Begun>,
    ) -> Result<Read, Failure> {
        let [tail, shared] = [1, 3]
            .map(|threads| read(disk, self.geometry, from, &self.salts(), recorded_stable, begun, threads));
        match (&tail, &shared) {
            (Ok(alone), Ok(shared)) => assert_eq!(alone, shared),
            (Err(alone), Err(shared)) => assert_eq!(alone.to_string(), shared.to_string()),
            _ => panic!("one thread reads {tail:?}, several {shared:?}"),
        }
        tail
    }

    fn first(&self) -> Lsn {
        self.geometry.first_lsn()
    }

    /// Appends one record and completes it.
    fn append(&self, payload: &[u8]) -> Lsn {
        append(&self.log, 1, payload).unwrap()
    }

    /// Where an LSN lies in the file, if segments went to slots in order from the first.
    fn offset(&self, lsn: Lsn) -> usize {
        (lsn - self.first()) as usize
    }
}

fn append(log: &Log, pid: usize, payload: &[u8]) -> Result<Lsn, Failure> {
    let head = RecordHead { kind: Kind::Append, pid, seq: 9 };
    let mut reservation = log.reserve(head, payload.len())?;
    reservation.payload().copy_from_slice(payload);
    let lsn = reservation.lsn();
    reservation.complete();
    Ok(lsn)
}

/// LSN and payload of every record.
fn contents(tail: &Read) -> Model {
    tail.records().map(|record| (record.lsn, record.payload.clone())).collect()
}

/// A small generator of random numbers; the seed is printed by whoever fails.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ (self.0 >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD) >> 11
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
