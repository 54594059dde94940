//! One open file, whose large writes go past the system's cache where the file system takes them.
//!
//! A write that is long enough, and lies on block borders in memory and in the file, goes straight to
//! the device: no copy, and nothing for a later sync to write. Everything else goes through the
//! cache, and so does everything where direct writes are refused, which the first one finds out.
//!
//! Both ways lead to one file, and Linux keeps them in step: a direct write first writes out what the
//! cache holds of its range, and drops it before and after. What it does not settle is two writers of one
//! range at once, or a mapping of the file. Nobody maps the files of a store, and who may write where is
//! decided above: one leader writes the log (LOG-5), one thread the place where frames go.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::FileExt,
    sync::OnceLock,
};

use rustix::io::{Errno, ReadWriteFlags, pwritev2, retry_on_intr};

use crate::sync::{AtomicBool, Ordering::Relaxed};

/// Borders that every file system and device in use takes.
pub(super) const DIRECT_ALIGN: usize = 4096;
/// Shorter writes are not worth a wait for the device: the system gathers them.
const DIRECT_BYTES_MIN: usize = 256 << 10;

/// See the module's head.
#[derive(Debug)]
pub(super) struct OpenFile {
    cached: File,
    /// The same file, opened for direct writes when the first one comes; `None` where that is refused.
    direct: OnceLock<Option<File>>,
    /// The file opens for direct writes and refuses to take one.
    refuses: AtomicBool,
}

impl OpenFile {
    pub(super) fn new(cached: File) -> OpenFile {
        OpenFile { cached, direct: OnceLock::new(), refuses: AtomicBool::new(false) }
    }

    /// The descriptor for everything but large writes.
    pub(super) fn cached(&self) -> &File {
        &self.cached
    }

    /// Writes all of `bytes`; `open_direct` opens the same file for direct writes.
    pub(super) fn write(
        &self,
        offset: u64,
        bytes: &[u8],
        open_direct: impl Fn() -> Option<File>,
    ) -> io::Result<()> {
        self.write_with(offset, bytes, ReadWriteFlags::empty(), open_direct)
    }

    /// As [`OpenFile::write`]; these bytes are durable when it returns.
    pub(super) fn write_durably(
        &self,
        offset: u64,
        bytes: &[u8],
        open_direct: impl Fn() -> Option<File>,
    ) -> io::Result<()> {
        self.write_with(offset, bytes, ReadWriteFlags::DSYNC, open_direct)
    }

    fn write_with(
        &self,
        offset: u64,
        bytes: &[u8],
        flags: ReadWriteFlags,
        open_direct: impl Fn() -> Option<File>,
    ) -> io::Result<()> {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let direct = if self.may_go_direct(at, rest) {
                self.direct.get_or_init(&open_direct).as_ref()
            } else {
                None
            };
            let file = direct.unwrap_or(&self.cached);
            match retry_on_intr(|| pwritev2(file, &[IoSlice::new(rest)], at, flags)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => (at, rest) = (at + len as u64, &rest[len..]),
                // Relaxed: who sees it late is refused once more.
                Err(Errno::INVAL) if direct.is_some() => self.refuses.store(true, Relaxed),
                // A file system that does not know the flag, or a system that does not know the call.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.cached.write_all_at(rest, at)?;
                    return if flags.is_empty() { Ok(()) } else { self.cached.sync_data() };
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn may_go_direct(&self, offset: u64, bytes: &[u8]) -> bool {
        bytes.len() >= DIRECT_BYTES_MIN
            && bytes.len().is_multiple_of(DIRECT_ALIGN)
            && offset.is_multiple_of(DIRECT_ALIGN as u64)
            && bytes.as_ptr().addr().is_multiple_of(DIRECT_ALIGN)
            && !self.refuses.load(Relaxed)
    }

    /// True if direct writes were tried and taken.
    #[cfg(test)]
    pub(super) fn goes_direct(&self) -> bool {
        matches!(self.direct.get(), Some(Some(_))) && !self.refuses.load(Relaxed)
    }
}
