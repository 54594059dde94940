//! What the `pages` file holds, in numbers.

/// Bytes and segments of the `pages` file at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreStats {
    /// The file's length.
    pub(crate) file_bytes: u64,
    /// Bytes of frames that something refers to.
    pub(crate) live_bytes: u64,
    /// Segments inside the file that may be written.
    pub(crate) free: u64,
    /// Segments that are being appended to.
    pub(crate) active: u64,
    /// Segments with live bytes.
    pub(crate) sealed: u64,
    /// Empty segments that wait for a checkpoint or a reader.
    pub(crate) dead: u64,
    /// Segments whose count fell below zero, which are kept until the next open.
    pub(crate) miscounted: u64,
}
