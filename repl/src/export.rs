//! `export`: every record as text that `import` reads back.
//!
//! * A file appears under its name only complete and durable: it is written beside, synced and
//!   renamed. One that exists is kept unless told otherwise.

use crate::exit::{Failure, Result, shown};
use crate::interrupt::Interrupt;
use crate::lines::LINE_BYTES_MAX;
use crate::output::{Output, grouped, say, spell_record};
use crate::parse::File;
use crate::store::Store;
use std::fs::{self, OpenOptions};
use std::io::{BufWriter, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// Writes all records of `store` to `file`.
pub fn run(store: &Store, out: &mut Output, file: &File, replace: bool, interrupt: &Interrupt) -> Result<()> {
    let File::At(path) = file else {
        return records(store, interrupt, |text| out.write(text)).map(drop);
    };
    let written = match fs::metadata(path) {
        // A pipe or device has no contents to keep and cannot be renamed over.
        Ok(found) if !found.is_file() => write_in_place(store, path, interrupt)?,
        Ok(_) if !replace => {
            let message = format!("{} exists; --replace overwrites it", shown(path));
            return Err(Failure::usage(None, message));
        }
        _ => write_beside(store, path, interrupt)?,
    };
    out.say(&format!("exported {} records to {}", grouped(written), shown(path)));
    Ok(())
}

/// Gives each record as a line to `write`; returns how many there were. Says so on standard error if some are
/// too long for `import`.
fn records(store: &Store, interrupt: &Interrupt, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    let mut text = String::new();
    let (mut count, mut long) = (0, 0);
    for record in store.records((Bound::Unbounded, Bound::Unbounded)) {
        let (key, value) = record?;
        interrupt.check(|| format!("{} records written", grouped(count)))?;
        text.clear();
        spell_record(&key, &value, &mut text);
        write(text.as_bytes())?;
        count += 1;
        long += u64::from(text.len() > LINE_BYTES_MAX);
    }
    if long > 0 {
        let told = grouped(long);
        say(&format!(
            "{told} of the records are lines of more than {LINE_BYTES_MAX} bytes, which import does not take; \
             'get KEY > FILE' and 'set KEY --from FILE' copy such a value"
        ));
    }
    Ok(count)
}

fn write_in_place(store: &Store, path: &Path, interrupt: &Interrupt) -> Result<u64> {
    let file = OpenOptions::new().write(true).open(path).map_err(Failure::io("write to", path))?;
    write_to(store, file, path, interrupt).map(|(count, _)| count)
}

fn write_beside(store: &Store, path: &Path, interrupt: &Interrupt) -> Result<u64> {
    let beside = beside(path);
    let file = OpenOptions::new().write(true).create_new(true).open(&beside);
    let file = file.map_err(Failure::io("create", &beside))?;
    let written = write_to(store, file, path, interrupt).and_then(|(count, file)| {
        file.sync_all().map_err(Failure::io("sync", &beside))?;
        fs::rename(&beside, path).map_err(Failure::io("rename the finished file to", path))?;
        sync_folder_of(path)?;
        Ok(count)
    });
    if written.is_err() {
        // What it failed on is reported; a leftover that cannot be removed is harmless.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_to(store: &Store, file: fs::File, path: &Path, interrupt: &Interrupt) -> Result<(u64, fs::File)> {
    let mut buffer = BufWriter::with_capacity(256 << 10, file);
    let count =
        records(store, interrupt, |text| buffer.write_all(text).map_err(Failure::io("write to", path)))?;
    let file = buffer.into_inner().map_err(|error| Failure::io("write to", path)(error.into_error()))?;
    Ok((count, file))
}

/// The name under which a file is written until it is complete.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".part-{}", std::process::id()));
    name.into()
}

/// Makes the renaming durable.
fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Failure::io("sync the folder of", path))
}
