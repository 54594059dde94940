//! The yardstick of durable writes: what the device does with one block and one `fdatasync`.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const BLOCK_BYTES: usize = 4_096;
const BLOCKS: u64 = 4_096;

/// A file whose blocks were all written before, which is the fastest kind to write again.
pub(crate) struct RawFile {
    file: File,
    path: PathBuf,
    block: Vec<u8>,
    next: u64,
}

impl RawFile {
    pub(crate) fn create(path: &Path) -> io::Result<RawFile> {
        let file = File::create(path)?;
        let block = vec![0xa5; BLOCK_BYTES];
        for i in 0..BLOCKS {
            file.write_all_at(&block, i * BLOCK_BYTES as u64)?;
        }
        file.sync_all()?;
        Ok(RawFile { file, path: path.to_path_buf(), block, next: 0 })
    }

    /// Writes the next block and waits until the device has it.
    pub(crate) fn write_and_sync(&mut self) -> io::Result<()> {
        self.block[..8].copy_from_slice(&self.next.to_le_bytes());
        self.file.write_all_at(&self.block, self.next % BLOCKS * BLOCK_BYTES as u64)?;
        self.next += 1;
        self.file.sync_data()
    }

    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}
