//! How many shards a host carries, and on which CPU each runs. Pure: a `Host` in, numbers out.

use crate::Host;
use crate::topology::{self, Cpu};

/// One shard per core that the process may use, at least one. Where cores are of different kinds, the fast ones count alone: the kernel gives every
/// shard the same share of the connections, and the slowest would make the tail for all.
///
/// A core counts once even if it has SMT siblings: two pinned busy loops on one core slow each other, and the spare sibling serves interrupts and
/// control. A quota of control groups caps the number, rounded down: more busy threads than quota means that all of them are stopped for the rest of
/// each period, which is the worst thing for the tail of the latency.
pub fn default_shards(host: &Host) -> usize {
    let quota = host.quota.map_or(usize::MAX, |cpus| cpus as usize);
    topology::cores(&topology::fastest(&host.cpus)).min(quota).max(1)
}

/// The CPU of each of `count` shards: fast cores first, package by package, then their SMT siblings, then the slow cores. Beyond the last CPU it starts over, so
/// that the answer always has `count` entries (none if the host has no CPU, which no probe returns).
pub fn place(host: &Host, count: usize) -> Vec<usize> {
    let order = order(&host.cpus);
    order.iter().cycle().take(if order.is_empty() { 0 } else { count }).copied().collect()
}

/// All CPUs, best first: by kind of core, by how many siblings of the same core come earlier, then by node, package and core, so that neighbours share
/// caches.
fn order(cpus: &[Cpu]) -> Vec<usize> {
    let fast = topology::fastest(cpus);
    let slow = |cpu: &Cpu| !fast.contains(cpu);
    let mut ranked: Vec<_> =
        cpus.iter().map(|cpu| (slow(cpu), sibling_rank(cpus, cpu), cpu.node, cpu.package, cpu.core, cpu.id)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(.., id)| id).collect()
}

fn sibling_rank(cpus: &[Cpu], cpu: &Cpu) -> usize {
    cpus.iter().filter(|other| (other.package, other.core) == (cpu.package, cpu.core) && other.id < cpu.id).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::fake::Tree;

    /// `(cpu, package, core, node)` rows, files beside them, and what must come out.
    struct Case {
        rows: &'static [(usize, usize, usize, usize)],
        files: &'static [(&'static str, &'static str)],
        affinity: &'static [usize],
        shards: usize,
        order: &'static [usize],
    }

    fn check(case: Case) {
        let tree = Tree::new(case.files).cpus(case.rows);
        let host = Host::read(&tree.sysfs, case.affinity);
        assert_eq!(default_shards(&host), case.shards, "shards of {host}");
        assert_eq!(place(&host, case.order.len()), case.order, "order on {host}");
    }

    const MOUNT: (&str, &str) = ("proc/self/mountinfo", "31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
    const GROUP: (&str, &str) = ("proc/self/cgroup", "0::/gateway");

    #[test]
    fn two_sockets_with_smt_fill_cores_of_both_before_siblings() {
        check(Case {
            rows: &[
                (0, 0, 0, 0),
                (1, 0, 1, 0),
                (2, 1, 0, 1),
                (3, 1, 1, 1),
                (4, 0, 0, 0),
                (5, 0, 1, 0),
                (6, 1, 0, 1),
                (7, 1, 1, 1),
            ],
            files: &[],
            affinity: &[0, 1, 2, 3, 4, 5, 6, 7],
            shards: 4,
            order: &[0, 1, 2, 3, 4, 5, 6, 7],
        });
    }

    #[test]
    fn siblings_numbered_side_by_side_are_told_apart() {
        check(Case {
            rows: &[(0, 0, 0, 0), (1, 0, 0, 0), (2, 0, 1, 0), (3, 0, 1, 0)],
            files: &[],
            affinity: &[0, 1, 2, 3],
            shards: 2,
            order: &[0, 2, 1, 3],
        });
    }

    #[test]
    fn sockets_interleaved_by_number_are_filled_one_after_the_other() {
        check(Case {
            rows: &[(0, 0, 0, 0), (1, 1, 0, 1), (2, 0, 1, 0), (3, 1, 1, 1)],
            files: &[],
            affinity: &[0, 1, 2, 3],
            shards: 4,
            order: &[0, 2, 1, 3],
        });
    }

    #[test]
    fn quota_caps_the_shards_and_rounds_down() {
        let rows = &[(0, 0, 0, 0), (1, 0, 1, 0), (2, 0, 2, 0), (3, 0, 3, 0)];
        let affinity = &[0, 1, 2, 3];
        let order = &[0, 1, 2, 3];
        check(Case {
            rows,
            files: &[MOUNT, GROUP, ("sys/fs/cgroup/gateway/cpu.max", "250000 100000")],
            affinity,
            shards: 2,
            order,
        });
        check(Case {
            rows,
            files: &[MOUNT, GROUP, ("sys/fs/cgroup/gateway/cpu.max", "50000 100000")],
            affinity,
            shards: 1,
            order,
        });
    }

    #[test]
    fn cpuset_and_mask_leave_one_thread_of_a_core() {
        check(Case {
            rows: &[(0, 0, 0, 0), (1, 0, 1, 0), (2, 0, 0, 0), (3, 0, 1, 0)],
            files: &[MOUNT, GROUP, ("sys/fs/cgroup/gateway/cpuset.cpus.effective", "2-3")],
            affinity: &[0, 1, 2, 3],
            shards: 2,
            order: &[2, 3, 2],
        });
    }

    #[test]
    fn slow_cores_come_last_and_carry_no_shard_by_themselves() {
        check(Case {
            rows: &[(0, 0, 0, 0), (1, 0, 0, 0), (2, 0, 1, 0), (3, 0, 1, 0), (4, 0, 2, 0), (5, 0, 3, 0)],
            files: &[
                ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "5200000"),
                ("sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq", "5200000"),
                ("sys/devices/system/cpu/cpu2/cpufreq/cpuinfo_max_freq", "5200000"),
                ("sys/devices/system/cpu/cpu3/cpufreq/cpuinfo_max_freq", "5200000"),
                ("sys/devices/system/cpu/cpu4/cpufreq/cpuinfo_max_freq", "3900000"),
                ("sys/devices/system/cpu/cpu5/cpufreq/cpuinfo_max_freq", "3900000"),
            ],
            affinity: &[0, 1, 2, 3, 4, 5],
            shards: 2,
            order: &[0, 2, 1, 3, 4, 5],
        });
    }

    #[test]
    fn one_cpu_carries_every_shard() {
        check(Case { rows: &[(0, 0, 0, 0)], files: &[], affinity: &[0], shards: 1, order: &[0, 0, 0] });
    }

    #[test]
    fn a_host_that_hides_its_topology_counts_cpus() {
        check(Case { rows: &[], files: &[], affinity: &[4, 6], shards: 2, order: &[4, 6] });
    }

    #[test]
    fn an_empty_host_places_nothing() {
        assert!(place(&Host::default(), 4).is_empty());
        assert_eq!(default_shards(&Host::default()), 1);
    }
}
