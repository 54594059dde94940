//! Bytes on disk: pure functions from bytes to values and back. `docs/FORMAT.md` draws every box.

pub(crate) mod batch;
pub(crate) mod blob;
pub(crate) mod bytes;
pub(crate) mod codec;
pub(crate) mod delta;
pub(crate) mod directory;
pub(crate) mod frame;
pub(crate) mod map;
pub(crate) mod packed;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod segment;
pub(crate) mod superblock;
pub(crate) mod value;
