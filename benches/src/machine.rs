//! Facts about the machine and this process, from Linux's `/proc`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use crate::Result;

/// The most memory that this process has had at one time.
pub(crate) fn peak_memory_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 =
        line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmHWM in /proc")?.parse()?;
    Ok(kib << 10)
}

/// Processors, memory, kernel, file system under `dir` and commit, in one line.
pub(crate) fn facts(dir: &Path) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown".into());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let commit = command("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let compiler = command("rustc", &["--version"]).unwrap_or_else(|| "unknown rustc".into());
    format!(
        "{cores} cores of {processor}, {memory} memory, Linux {}, {}, {compiler}, commit {commit}",
        kernel.trim(),
        file_system(dir).unwrap_or_else(|| "unknown file system".into()),
    )
}

/// The value of the first `name : value` line of a file of /proc.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the file system that `dir` lies on: that of the longest mount point above it.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut best: Option<(PathBuf, String)> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (PathBuf::from(words.next()?), words.next()?.to_owned());
        let is_longer =
            best.as_ref().is_none_or(|(other, _)| other.as_os_str().len() <= point.as_os_str().len());
        if dir.starts_with(&point) && is_longer {
            best = Some((point, kind));
        }
    }
    best.map(|(_, kind)| kind)
}

fn command(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
