//! A store's files in a directory of the operating system.
//!
//! * Names are resolved against the directory's descriptor, opened once: neither a change of the
//!   working directory nor a rename of the store's directory moves a store that is open.
//! * Only regular files are opened, links are not followed, and no descriptor outlives an `exec`.
//! * Who has the store open holds a lock on the directory itself: there is no lock file that could be
//!   lost in a copy, or removed while it is held, and taking the lock writes nothing.
//! * A storage that was opened read-only opens no file for writing and makes none.
//!
//! Retrying after a signal and continuing a short read or write is std's part.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io::{self, IoSliceMut},
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, Stat, fallocate, fstat, major, minor, openat,
        renameat, statat, unlinkat,
    },
    io::{Errno, ReadWriteFlags, preadv2, retry_on_intr},
    process::{Resource, getrlimit},
};

use super::{FileId, Storage, SyncReason, direct::OpenFile, operation::file_index, temp::TempDir};
use crate::sync::{Mutex, RwLock};

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Where the system lists locks and who holds them.
const LOCKS_LIST: &str = "/proc/locks";

/// A directory of the operating system, with the files of [`FileId`].
#[derive(Debug)]
pub struct FileStorage {
    read_only: bool,
    /// Large writes go past the system's cache.
    past_cache: bool,
    dir: PathBuf,
    dir_file: File,
    /// Descriptors, opened when first needed. Written under while a name changes its meaning.
    files: RwLock<[Option<Arc<OpenFile>>; FileId::ALL.len()]>,
    lock: Mutex<Option<File>>,
    /// Last, so that the directory goes after everything in it is closed.
    _temporary: Option<TempDir>,
}

impl FileStorage {
    /// Opens the directory `dir`, making it with mode 0700 if `create` is set and it is missing.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is missing and `create` is not set; `NotADirectory` if it is something else.
    pub fn open(dir: &Path, create: bool) -> io::Result<FileStorage> {
        if create {
            make_dir(dir)?;
        }
        FileStorage::of(dir, false)
    }

    /// Opens the directory `dir` for reading alone: what is there needs no permission to be written.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is missing; `NotADirectory` if it is something else.
    pub fn open_read_only(dir: &Path) -> io::Result<FileStorage> {
        FileStorage::of(dir, true)
    }

    /// The same files, whose large writes go past the system's cache where the file system takes them: for a
    /// stream that is seldom read again. What is read soon, as the log of a store is after a kill, is read
    /// faster from the cache.
    #[must_use]
    pub fn past_cache(mut self) -> FileStorage {
        self.past_cache = true;
        self
    }

    fn of(dir: &Path, read_only: bool) -> io::Result<FileStorage> {
        let dir_file = open_dir(dir)?;
        Ok(FileStorage {
            read_only,
            past_cache: false,
            dir: dir.to_owned(),
            dir_file,
            files: RwLock::default(),
            lock: Mutex::default(),
            _temporary: None,
        })
    }

    /// A fresh directory among the system's temporary files, removed with the value.
    ///
    /// # Errors
    ///
    /// If that directory cannot be made.
    pub fn temporary() -> io::Result<FileStorage> {
        let temporary = TempDir::new()?;
        let storage = FileStorage::open(temporary.path(), false)?;
        Ok(FileStorage { _temporary: Some(temporary), ..storage })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file's descriptor, opened if it is not yet.
    fn file(&self, file: FileId) -> io::Result<Arc<OpenFile>> {
        if let Some(open) = &self.files.read()[file_index(file)] {
            return Ok(Arc::clone(open));
        }
        let mut files = self.files.write();
        let slot = &mut files[file_index(file)];
        if let Some(open) = slot {
            return Ok(Arc::clone(open));
        }
        let opened = Arc::new(OpenFile::new(self.open_regular(file.name(), OFlags::empty())?));
        *slot = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Opens a regular file, for writing too unless that is ruled out; anything else is an error that
    /// says what it is.
    fn open_regular(&self, name: &str, extra: OFlags) -> io::Result<File> {
        let access = if self.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        // Non-blocking, since opening a pipe could wait for ever; regular files do not know the flag.
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | extra;
        let mode = Mode::RUSR | Mode::WUSR;
        match retry_on_intr(|| openat(&self.dir_file, name, flags, mode)) {
            Ok(opened) => {
                FileStorage::expect_regular(&fstat(&opened)?)?;
                Ok(File::from(opened))
            }
            Err(refused) => {
                // "Too many links" or "no such device" hides what is there: look and say it.
                if let Some(stat) = self.stat(name)? {
                    FileStorage::expect_regular(&stat)?;
                }
                Err(refused.into())
            }
        }
    }

    /// A second descriptor of an open file, for direct writes; `None` where nobody wants them, the file
    /// system has none, or the name means another file by now.
    fn open_direct(&self, file: FileId, opened: &File) -> Option<File> {
        if !self.past_cache {
            return None;
        }
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let direct = retry_on_intr(|| openat(&self.dir_file, file.name(), flags, Mode::empty())).ok()?;
        let (is, was) = (fstat(&direct).ok()?, fstat(opened).ok()?);
        ((is.st_dev, is.st_ino) == (was.st_dev, was.st_ino)).then(|| File::from(direct))
    }

    fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        match retry_on_intr(|| statat(&self.dir_file, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Refused where only reading is allowed: truncating and making files need no open descriptor.
    fn writable(&self) -> io::Result<()> {
        match self.read_only {
            true => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        }
    }

    /// Takes the directory's lock by `take`, through a descriptor of its own: closing that gives it back.
    fn lock_as(&self, take: fn(&File) -> std::result::Result<(), TryLockError>) -> io::Result<()> {
        let mut lock = self.lock.lock();
        if lock.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let dir = File::from(retry_on_intr(|| openat(&self.dir_file, ".", DIR_FLAGS, Mode::empty()))?);
        match take(&dir) {
            Ok(()) => *lock = Some(dir),
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(())
    }

    fn expect_regular(stat: &Stat) -> io::Result<()> {
        let found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(()),
            FileType::Directory => "a directory",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a pipe",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            _ => "not a file",
        };
        // Which one, callers say.
        let what = format!("it is {found}, and a regular file is needed; move it away");
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }
}

impl Storage for FileStorage {
    fn exists(&self, file: FileId) -> io::Result<bool> {
        match self.stat(file.name())? {
            None => Ok(false),
            Some(stat) => FileStorage::expect_regular(&stat).map(|()| true),
        }
    }

    fn create(&self, file: FileId) -> io::Result<()> {
        self.writable()?;
        let mut files = self.files.write();
        let slot = &mut files[file_index(file)];
        *slot = None;
        let made = self.open_regular(file.name(), OFlags::CREATE | OFlags::TRUNC)?;
        *slot = Some(Arc::new(OpenFile::new(made)));
        Ok(())
    }

    fn len(&self, file: FileId) -> io::Result<u64> {
        Ok(self.file(file)?.cached().metadata()?.len())
    }

    fn read_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file(file)?.cached().read_exact_at(buf, offset)
    }

    #[cfg(target_os = "linux")]
    fn read_at_once(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        let (file, len) = (self.file(file)?, buf.len());
        let mut whole = [IoSliceMut::new(buf)];
        let read = retry_on_intr(|| preadv2(file.cached(), &mut whole, offset, ReadWriteFlags::NOWAIT));
        // Whatever is in the way, a plain read says what it is.
        Ok(read.is_ok_and(|read| read == len))
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let opened = self.file(file)?;
        opened.write(offset, bytes, || self.open_direct(file, opened.cached()))
    }

    fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        self.file(file)?.cached().set_len(len)
    }

    fn sync(&self, file: FileId, _reason: SyncReason) -> io::Result<()> {
        self.file(file)?.cached().sync_data()
    }

    /// One call, which leaves alone what else of the file is in the system's cache: where a checkpoint
    /// or a new log segment was just written, that is many times the bytes that somebody waits for.
    fn write_durably(&self, file: FileId, offset: u64, bytes: &[u8], _: SyncReason) -> io::Result<()> {
        let opened = self.file(file)?;
        opened.write_durably(offset, bytes, || self.open_direct(file, opened.cached()))
    }

    fn allocate(&self, file: FileId, offset: u64, len: u64) -> io::Result<bool> {
        let opened = self.file(file)?;
        // The system lets room be set aside where this process may not write.
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| offset.saturating_add(len) > limit) {
            return Err(Errno::FBIG.into());
        }
        match retry_on_intr(|| fallocate(opened.cached(), FallocateFlags::KEEP_SIZE, offset, len)) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn rename(&self, from: FileId, to: FileId) -> io::Result<()> {
        self.writable()?;
        let mut files = self.files.write();
        files[file_index(from)] = None;
        files[file_index(to)] = None;
        retry_on_intr(|| renameat(&self.dir_file, from.name(), &self.dir_file, to.name()))?;
        Ok(())
    }

    fn remove(&self, file: FileId) -> io::Result<()> {
        self.writable()?;
        let mut files = self.files.write();
        files[file_index(file)] = None;
        retry_on_intr(|| unlinkat(&self.dir_file, file.name(), AtFlags::empty()))?;
        Ok(())
    }

    fn sync_names(&self, reason: SyncReason) -> io::Result<()> {
        self.dir_file.sync_all()?;
        if reason == SyncReason::CreationName {
            // An earlier run may have made the directory and died before its name was durable.
            sync_parent(&self.dir_file)?;
        }
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        self.writable()?;
        self.lock_as(File::try_lock)
    }

    fn lock_shared(&self) -> io::Result<()> {
        self.lock_as(File::try_lock_shared)
    }

    fn lock_holder(&self) -> Option<u32> {
        let stat = fstat(&self.dir_file).ok()?;
        holder_of(&std::fs::read_to_string(LOCKS_LIST).ok()?, stat.st_dev, stat.st_ino)
    }

    fn unlock(&self) {
        // Closing the only descriptor gives the lock back.
        drop(self.lock.lock().take());
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.dir.join(file.name())
    }
}

/// The process with a lock on this file in the system's list, in lines like
/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`.
fn holder_of(list: &str, device: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    list.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, "FLOCK", _, _, process, of, ..] if *of == file => process.parse().ok(),
            _ => None,
        }
    })
}

fn open_dir(dir: &Path) -> io::Result<File> {
    let path = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    Ok(File::from(retry_on_intr(|| openat(CWD, path, DIR_FLAGS, Mode::empty()))?))
}

/// Makes the directory and the missing ones above it, each durable before the next.
fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => match dir.parent() {
            Some(parent) => open_dir(parent)?.sync_all(),
            None => Ok(()),
        },
        // Another opener came first; a file in the way shows when the directory is opened.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Syncs the directory above, unless we may not read it: then we did not put this one into it.
fn sync_parent(dir: &File) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match retry_on_intr(|| openat(dir, "..", flags, Mode::empty())) {
        Ok(parent) => File::from(parent).sync_all(),
        Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        os::unix::{
            fs::{MetadataExt, PermissionsExt, symlink},
            net::UnixListener,
        },
        path::Path,
    };

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::{FileId, FileStorage, Storage, SyncReason, TempDir};
    use crate::io::direct::DIRECT_ALIGN;

    #[test]
    fn a_missing_directory_is_not_found_unless_it_may_be_made() {
        let temp = TempDir::new().unwrap();
        let dir = temp.path().join("a/b");
        assert_eq!(FileStorage::open(&dir, false).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!dir.exists());
        let storage = FileStorage::open(&dir, true).unwrap();
        storage.create(FileId::Log).unwrap();
        storage.sync_names(SyncReason::CreationName).unwrap();
        for (path, mode) in [(&dir, 0o700), (&storage.path(FileId::Log), 0o600)] {
            let found = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found & !mode, 0, "{}: {found:o}", path.display());
        }
        FileStorage::open(&dir, true).unwrap();
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_refused() {
        let temp = TempDir::new().unwrap();
        let dir = temp.path().join("plain");
        fs::write(&dir, b"").unwrap();
        for create in [false, true] {
            let error = FileStorage::open(&dir, create).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        }
    }

    #[test]
    fn only_regular_files_are_opened_and_the_error_says_what_was_found() {
        type Make = fn(&Path);
        let cases: [(&str, Make); 4] = [
            ("a directory", |path| fs::create_dir(path).unwrap()),
            ("a symbolic link", |path| symlink("/dev/null", path).unwrap()),
            ("a symbolic link", |path| symlink("missing", path).unwrap()),
            ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
        ];
        for (found, make) in cases {
            let storage = FileStorage::temporary().unwrap();
            let path = storage.path(FileId::Pages);
            make(&path);
            let refusals = [
                storage.exists(FileId::Pages).map(drop),
                storage.create(FileId::Pages),
                storage.len(FileId::Pages).map(drop),
                storage.write_at(FileId::Pages, 0, b"x"),
            ];
            for refusal in refusals {
                let text = refusal.unwrap_err().to_string();
                assert!(text.contains(found) && !text.contains(path.to_str().unwrap()), "{found}: {text}");
            }
        }
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_given_back() {
        let first = FileStorage::temporary().unwrap();
        let second = FileStorage::open(first.dir(), false).unwrap();
        first.lock().unwrap();
        assert_eq!(first.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(second.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        first.unlock();
        second.lock().unwrap();
        assert_eq!(first.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(second);
        first.lock().unwrap();
    }

    #[test]
    fn a_lock_holds_whatever_becomes_of_the_files_and_makes_none() {
        let temp = TempDir::new().unwrap();
        let reader = FileStorage::open_read_only(temp.path()).unwrap();
        reader.lock_shared().unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        let writer = FileStorage::open(temp.path(), false).unwrap();
        assert_eq!(writer.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        reader.unlock();
        writer.lock().unwrap();
        writer.create(FileId::Log).unwrap();
        writer.remove(FileId::Log).unwrap();
        assert_eq!(reader.lock_shared().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(reader.lock_holder(), Some(std::process::id()));
    }

    #[test]
    fn names_keep_their_meaning_when_the_directory_moves() {
        let temp = TempDir::new().unwrap();
        let storage = FileStorage::open(&temp.path().join("old"), true).unwrap();
        fs::rename(temp.path().join("old"), temp.path().join("new")).unwrap();
        storage.create(FileId::Log).unwrap();
        assert!(temp.path().join("new/log").exists());
    }

    #[test]
    fn a_temporary_directory_goes_with_its_storage() {
        let storage = FileStorage::temporary().unwrap();
        storage.create(FileId::Log).unwrap();
        let dir = storage.dir().to_owned();
        assert!(dir.is_dir());
        drop(storage);
        assert!(!dir.exists());
    }

    /// Memory on a block's border, which a `Vec` need not give.
    fn aligned(len: usize, fill: impl Fn(usize) -> u8) -> (Vec<u8>, std::ops::Range<usize>) {
        let mut memory = vec![0; len + DIRECT_ALIGN];
        let skip = memory.as_ptr().align_offset(DIRECT_ALIGN);
        (0..len).for_each(|at| memory[skip + at] = fill(at));
        (memory, skip..skip + len)
    }

    #[test]
    fn large_writes_past_the_cache_and_small_ones_through_it_make_one_file() {
        const LEN: usize = 512 << 10;
        let storage = FileStorage::temporary().unwrap().past_cache();
        storage.create(FileId::Log).unwrap();
        let mut want = vec![0; 4 * LEN];
        for round in 0..24_usize {
            let (memory, range) = aligned(LEN, |at| (at / 512 + round * 31) as u8);
            let large = &memory[range];
            let at = round * 7 % 13 * (64 << 10);
            if round % 3 == 0 {
                storage.write_durably(FileId::Log, at as u64, large, SyncReason::Commit).unwrap();
            } else {
                storage.write_at(FileId::Log, at as u64, large).unwrap();
            }
            want[at..at + LEN].copy_from_slice(large);
            // Within, across the border of, and in the same block as what was just written.
            for (at, len) in [(at + 5000, 100), (at + LEN - 50, 100), (at + LEN + 4000, 7)] {
                let small = vec![round as u8 ^ 0x55; len];
                storage.write_at(FileId::Log, at as u64, &small).unwrap();
                want[at..at + len].copy_from_slice(&small);
            }
            let len = storage.len(FileId::Log).unwrap() as usize;
            let mut got = vec![0; len];
            storage.read_at(FileId::Log, 0, &mut got).unwrap();
            assert!(got == want[..len], "round {round}: the file is not what was written");
        }
        // Where the directory of temporary files takes no direct writes, all went through the cache.
        let name = storage.path(FileId::Log);
        let direct = OFlags::WRONLY | OFlags::DIRECT;
        let taken = openat(CWD, &name, direct, Mode::empty()).is_ok();
        let opened = storage.file(FileId::Log).unwrap();
        assert!(opened.goes_direct() || !taken || cfg!(not(target_os = "linux")));
    }

    #[test]
    fn room_set_aside_changes_neither_length_nor_bytes() {
        let storage = FileStorage::temporary().unwrap();
        storage.create(FileId::Log).unwrap();
        storage.write_at(FileId::Log, 0, b"kept").unwrap();
        let had = storage.allocate(FileId::Log, 0, 1 << 20).unwrap();
        assert_eq!(storage.len(FileId::Log).unwrap(), 4);
        let blocks = fs::metadata(storage.path(FileId::Log)).unwrap().blocks();
        assert!(!had || blocks * 512 >= 1 << 20, "{blocks} blocks");
        let mut got = [0; 4];
        storage.read_at(FileId::Log, 0, &mut got).unwrap();
        assert_eq!(&got, b"kept");
    }
}
