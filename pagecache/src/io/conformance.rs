//! The real and the simulated storage give the same answers to the same calls.

use std::io;

use super::{
    FileId, FileStorage, Storage, SyncReason,
    sim::{Rng, SimDisk},
};

#[derive(Clone, Debug)]
enum Op {
    Exists(FileId),
    Create(FileId),
    Len(FileId),
    Read { file: FileId, offset: u64, len: usize },
    Write { file: FileId, offset: u64, bytes: Vec<u8> },
    WriteDurably { file: FileId, offset: u64, bytes: Vec<u8> },
    SetLen(FileId, u64),
    Allocate { file: FileId, offset: u64, len: u64 },
    Sync(FileId),
    Rename(FileId, FileId),
    Remove(FileId),
    SyncNames,
    Lock,
    Unlock,
}

/// What a call answered, in a form that both storages share.
type Answer = Result<Vec<u8>, io::ErrorKind>;

impl Op {
    fn random(rng: &mut Rng) -> Op {
        let file = *rng.pick(&FileId::ALL).unwrap();
        let offset = rng.below(10_000);
        match rng.below(40) {
            0..2 => Op::Exists(file),
            2..6 => Op::Create(file),
            6..10 => Op::Len(file),
            10..18 => Op::Read { file, offset, len: rng.index(6000) },
            18..28 => {
                let mut bytes = vec![0; rng.index(6000)];
                rng.fill(&mut bytes);
                match rng.below(3) {
                    0 => Op::WriteDurably { file, offset, bytes },
                    _ => Op::Write { file, offset, bytes },
                }
            }
            28..30 => Op::SetLen(file, offset),
            30 => Op::Allocate { file, offset, len: 1 + rng.below(6000) },
            31 => Op::Sync(file),
            32..35 => Op::Rename(file, *rng.pick(&FileId::ALL).unwrap()),
            35 => Op::Remove(file),
            36 => Op::SyncNames,
            37..39 => Op::Lock,
            _ => Op::Unlock,
        }
    }

    fn run(&self, storage: &dyn Storage) -> Answer {
        let answer = match self {
            Op::Exists(file) => storage.exists(*file).map(|yes| vec![u8::from(yes)]),
            Op::Create(file) => storage.create(*file).map(|()| Vec::new()),
            Op::Len(file) => storage.len(*file).map(|len| len.to_le_bytes().to_vec()),
            Op::Read { file, offset, len } => {
                let mut bytes = vec![0; *len];
                storage.read_at(*file, *offset, &mut bytes).map(|()| bytes)
            }
            Op::Write { file, offset, bytes } => storage.write_at(*file, *offset, bytes).map(|()| Vec::new()),
            Op::WriteDurably { file, offset, bytes } => {
                storage.write_durably(*file, *offset, bytes, SyncReason::Images).map(|()| Vec::new())
            }
            Op::SetLen(file, len) => storage.set_len(*file, *len).map(|()| Vec::new()),
            // Whether there is such a thing is the file system's business.
            Op::Allocate { file, offset, len } => storage.allocate(*file, *offset, *len).map(|_| Vec::new()),
            Op::Sync(file) => storage.sync(*file, SyncReason::Images).map(|()| Vec::new()),
            Op::Rename(from, to) => storage.rename(*from, *to).map(|()| Vec::new()),
            Op::Remove(file) => storage.remove(*file).map(|()| Vec::new()),
            Op::SyncNames => storage.sync_names(SyncReason::LogName).map(|()| Vec::new()),
            Op::Lock => storage.lock().map(|()| Vec::new()),
            Op::Unlock => {
                storage.unlock();
                Ok(Vec::new())
            }
        };
        answer.map_err(|error| error.kind())
    }
}

#[test]
fn real_and_simulated_storage_answer_alike() {
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let real = FileStorage::temporary().unwrap().past_cache();
        let simulated = SimDisk::untraced();
        for step in 0..300 {
            let op = Op::random(&mut rng);
            let want = op.run(&real);
            let got = op.run(&simulated);
            assert!(
                got == want,
                "seed {seed}, step {step}: {op:?}: {:?} and {:?}",
                brief(&got),
                brief(&want)
            );
        }
    }
}

fn brief(answer: &Answer) -> Result<usize, io::ErrorKind> {
    answer.as_ref().map(Vec::len).map_err(|kind| *kind)
}
