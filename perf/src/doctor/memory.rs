//! Memory: how much there is, and what makes its use slow.

use super::{Case, Finding};
use crate::cgroup;

/// Bytes below which a gateway has hardly room for its sessions and buffers.
const MEMORY_BYTES_MIN: u64 = 256 << 20;
/// Swappiness from which a host swaps memory that is in use.
const SWAPPINESS_MAX: i64 = 10;

pub(super) fn examine(case: &Case<'_>) -> Vec<Finding> {
    [limit(case), huge_pages(case), swap(case), nodes(case)].into_iter().flatten().collect()
}

fn limit(case: &Case<'_>) -> Option<Finding> {
    let limit = cgroup::memory_bytes(case.sysfs).or_else(|| meminfo_bytes(case, "MemTotal"));
    let Some(limit) = limit else { return Some(Finding::unseen("memory.limit", "no limit readable")) };
    let advice =
        "a session costs about 1 KiB and an open stream 4 KiB, but what is in flight comes on top: give 256 MiB";
    Some(Finding::warn_unless(limit >= MEMORY_BYTES_MIN, "memory.limit", format!("{} MiB", limit >> 20), advice))
}

/// Transparent huge pages given to whoever does not ask: small heaps become large ones, and compaction stalls.
fn huge_pages(case: &Case<'_>) -> Option<Finding> {
    let text = case.sysfs.text("sys/kernel/mm/transparent_hugepage/enabled")?;
    let chosen = text.split(' ').find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?.to_owned();
    let advice = "compaction stalls threads: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
    Some(Finding::warn_unless(chosen != "always", "memory.hugepages", chosen, advice))
}

fn swap(case: &Case<'_>) -> Option<Finding> {
    let swap = meminfo_bytes(case, "SwapTotal")?;
    let swappiness = case.sysfs.number("proc/sys/vm/swappiness")?;
    let saw = format!("{} MiB of swap, swappiness {swappiness}", swap >> 20);
    let advice = "a page that is read back from disk is a tail of milliseconds: sysctl vm.swappiness=1, or no swap";
    Some(Finding::warn_unless(swap == 0 || swappiness <= SWAPPINESS_MAX, "memory.swap", saw, advice))
}

/// Threads that are pinned gain nothing from the kernel's moving of pages between nodes, and pay for its faults.
fn nodes(case: &Case<'_>) -> Option<Finding> {
    let mut nodes: Vec<usize> = case.host.cpus.iter().map(|cpu| cpu.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let balancing = case.sysfs.number("proc/sys/kernel/numa_balancing").unwrap_or_default();
    let saw = format!("{} node{}, balancing {balancing}", nodes.len(), if nodes.len() == 1 { "" } else { "s" });
    let advice = "shards are pinned and allocate on their node: sysctl kernel.numa_balancing=0";
    Some(Finding::warn_unless(nodes.len() == 1 || balancing == 0, "memory.numa", saw, advice))
}

/// A value of proc_meminfo(5), in bytes.
fn meminfo_bytes(case: &Case<'_>, key: &str) -> Option<u64> {
    let text = case.sysfs.text("proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::super::{Verdict, Verdict::*};
    use super::*;

    fn check(name: &str, files: &[(&str, &str)], expected: Option<Verdict>) {
        assert_eq!(verdict(examine, name, files), expected, "{name} {files:?}");
    }

    #[test]
    fn how_much() {
        let group = ("proc/self/cgroup", "0::/g");
        let mount = ("proc/self/mountinfo", "31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        let max = "sys/fs/cgroup/g/memory.max";
        check("memory.limit", &[group, mount, (max, "134217728")], Some(Warn));
        check("memory.limit", &[group, mount, (max, "1073741824")], Some(Pass));
        let plenty = ("proc/meminfo", "MemTotal:       24651220 kB\nMemFree: 1 kB");
        check("memory.limit", &[group, mount, (max, "max"), plenty], Some(Pass));
        check("memory.limit", &[], Some(Unseen));
    }

    #[test]
    fn what_makes_it_slow() {
        let pages = "sys/kernel/mm/transparent_hugepage/enabled";
        check("memory.hugepages", &[(pages, "[always] madvise never")], Some(Warn));
        check("memory.hugepages", &[(pages, "always [madvise] never")], Some(Pass));
        let swap = |kib| ("proc/meminfo", kib);
        let busy = ("proc/sys/vm/swappiness", "60");
        check("memory.swap", &[swap("SwapTotal: 2097152 kB"), busy], Some(Warn));
        check("memory.swap", &[swap("SwapTotal: 0 kB"), busy], Some(Pass));
        check("memory.swap", &[], None);
        check("memory.numa", &[("proc/sys/kernel/numa_balancing", "1")], Some(Pass));
    }
}
