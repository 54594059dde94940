//! What the machine has.

use std::{fs, path::Path};

/// Bytes of memory that this process may use: the machine's, or less where its control group says so.
/// `None` where the system does not tell.
pub(crate) fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let limits = group.iter().flat_map(|text| limits_of(text)).filter_map(|path| limit(Path::new(&path)));
    machine.into_iter().chain(limits).min()
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The files that may hold a limit of the groups named in `/proc/self/cgroup`: those of each group and of
/// all that it lies in, of either version of the interface.
fn limits_of(cgroup: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for ancestor in Path::new(group).ancestors() {
            let ancestor = ancestor.to_string_lossy();
            files.push(format!("{root}{}/{name}", ancestor.trim_end_matches('/')));
        }
    }
    files
}

fn limit(file: &Path) -> Option<u64> {
    // "max" is no limit.
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{limits_of, memory_bytes, total};

    #[test]
    fn the_machine_s_memory_is_read_from_what_the_system_says() {
        assert_eq!(total("MemTotal:       24609420 kB\nMemFree: 1 kB\n"), Some(24609420 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(memory_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn a_group_is_bound_by_every_group_above_it() {
        assert_eq!(
            limits_of("0::/system.slice/a.service\n"),
            [
                "/sys/fs/cgroup/system.slice/a.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            limits_of("5:cpu:/x\n4:memory,hugetlb:/x\n"),
            ["/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert!(limits_of("nonsense").is_empty());
    }
}
