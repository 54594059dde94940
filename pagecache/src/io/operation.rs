//! The calls of [`Storage`](super::Storage) by name, for counting them and making them fail.

use super::FileId;

/// A call of [`Storage`](super::Storage).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// `exists`
    Exists,
    /// `create`
    Create,
    /// `len`
    Len,
    /// `read_at`
    Read,
    /// `write_at`
    Write,
    /// `set_len`
    SetLen,
    /// `sync`
    Sync,
    /// `rename`, counted for the file that is renamed
    Rename,
    /// `remove`
    Remove,
    /// `sync_names`
    SyncNames,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Operation; 10] = [
        Operation::Exists,
        Operation::Create,
        Operation::Len,
        Operation::Read,
        Operation::Write,
        Operation::SetLen,
        Operation::Sync,
        Operation::Rename,
        Operation::Remove,
        Operation::SyncNames,
    ];

    /// True if the call changes something, or makes a change durable.
    #[must_use]
    pub fn is_mutating(self) -> bool {
        !matches!(self, Operation::Exists | Operation::Len | Operation::Read)
    }
}

/// The file's place in a table of all files.
pub(super) fn file_index(file: FileId) -> usize {
    match file {
        FileId::PagesNew => 0,
        FileId::Pages => 1,
        FileId::Log => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::{FileId, file_index};

    #[test]
    fn files_are_numbered_in_the_order_of_all() {
        for (index, file) in FileId::ALL.into_iter().enumerate() {
            assert_eq!(file_index(file), index);
        }
    }
}
