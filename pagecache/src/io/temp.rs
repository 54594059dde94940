//! A fresh directory for a temporary store, removed when dropped.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

/// How many taken names are passed over before giving up.
const NAMES_TRIED_MAX: u32 = 1000;

/// A directory that belongs to this value alone.
#[derive(Debug)]
pub(crate) struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Makes an empty directory under the system's directory for temporary files.
    ///
    /// Names are guessable, so one that exists is never taken over: somebody else may have made it.
    pub(crate) fn new() -> io::Result<TempDir> {
        let parent = std::env::temp_dir();
        for counter in 0..NAMES_TRIED_MAX {
            let path = parent.join(name(counter));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(TempDir { path }),
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let what = format!("making the temporary directory {}: {error}", path.display());
                    return Err(io::Error::new(error.kind(), what));
                }
            }
        }
        let what = format!("no free name for a temporary directory in {}", parent.display());
        Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Nobody is left to be told; the system clears its temporary files in the end.
        let _left_behind = fs::remove_dir_all(&self.path);
    }
}

/// Tells processes apart by the pid and boots by the time; the counter passes over what is left.
fn name(counter: u32) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("pagecache.{}.{counter}.{:x}", process::id(), since.as_nanos())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::TempDir;

    #[test]
    fn each_is_new_private_and_gone_when_dropped() {
        let one = TempDir::new().unwrap();
        let two = TempDir::new().unwrap();
        assert_ne!(one.path(), two.path());
        let mode = fs::metadata(one.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "mode {mode:o}");
        fs::create_dir(one.path().join("inner")).unwrap();
        fs::write(one.path().join("inner/file"), b"x").unwrap();
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists());
        assert!(two.path().is_dir());
    }
}
