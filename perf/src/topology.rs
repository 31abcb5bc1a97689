//! CPUs, their cores, packages and memory nodes, and which of them this process may use. It knows nothing of quotas.

use crate::Sysfs;
use std::io;

/// Bits asked of the kernel at first, and the most ever asked: a host with more CPUs than that is refused with an error.
const AFFINITY_BITS: usize = 1024;
const AFFINITY_BITS_MAX: usize = 1 << 18;

/// One logical CPU. Two CPUs with the same `package` and `core` are SMT siblings: they share one core's execution units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu {
    pub id: usize,
    /// Physical package (socket).
    pub package: usize,
    /// Core number, unique within the package.
    pub core: usize,
    /// NUMA memory node.
    pub node: usize,
    /// How fast it can be, in the unit of its host (the scheduler's capacity, or kHz); 0 where nothing says.
    pub speed: u64,
}

/// What part of the fastest a CPU may be slower and still be of its class, in percent: turbo bins of equal cores differ by less.
const CLASS_PERCENT: u64 = 90;

/// Describes each of `ids`. Where sysfs says nothing (some containers hide it), a CPU is taken to be a core of its own on node 0.
pub fn describe(sysfs: &Sysfs, ids: &[usize]) -> Vec<Cpu> {
    ids.iter().map(|&id| describe_one(sysfs, id)).collect()
}

/// The CPUs of the fastest class: all of them, unless the processor has cores of different kinds.
pub fn fastest(cpus: &[Cpu]) -> Vec<Cpu> {
    let best = cpus.iter().map(|cpu| cpu.speed).max().unwrap_or_default();
    cpus.iter().copied().filter(|cpu| is_fast(cpu, best)).collect()
}

/// A CPU of which nothing is known is taken to be as fast as the others.
fn is_fast(cpu: &Cpu, best: u64) -> bool {
    cpu.speed == 0 || cpu.speed.saturating_mul(100) >= best.saturating_mul(CLASS_PERCENT)
}

/// Number of distinct cores among `cpus`.
pub fn cores(cpus: &[Cpu]) -> usize {
    let mut cores: Vec<(usize, usize)> = cpus.iter().map(|cpu| (cpu.package, cpu.core)).collect();
    cores.sort_unstable();
    cores.dedup();
    cores.len()
}

/// CPUs that the scheduler may run this thread on, ascending (sched_getaffinity(2)).
pub fn affinity() -> io::Result<Vec<usize>> {
    let mut bits = AFFINITY_BITS;
    loop {
        let mut mask = vec![0_u64; bits / 64];
        // SAFETY: the buffer is as long as said, aligned for `unsigned long`, and the kernel writes no further.
        let status = unsafe { libc::sched_getaffinity(0, bits / 8, mask.as_mut_ptr().cast()) };
        if status == 0 {
            return Ok(set_bits(&mask));
        }
        let error = io::Error::last_os_error();
        // EINVAL: the kernel's mask is longer than the buffer.
        if error.raw_os_error() != Some(libc::EINVAL) || bits >= AFFINITY_BITS_MAX {
            return Err(error);
        }
        bits *= 4;
    }
}

fn set_bits(mask: &[u64]) -> Vec<usize> {
    (0..mask.len() * 64).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

fn describe_one(sysfs: &Sysfs, id: usize) -> Cpu {
    let folder = format!("sys/devices/system/cpu/cpu{id}");
    // Virtual machines may say -1 for either: then nothing is known, and the CPU counts as a core.
    let topology =
        |file: &str| sysfs.number(&format!("{folder}/topology/{file}")).and_then(|number| usize::try_from(number).ok());
    let node = sysfs.entries(&folder).iter().find_map(|name| name.strip_prefix("node")?.parse().ok());
    let core = topology("core_id");
    let speed = ["cpu_capacity", "cpufreq/cpuinfo_max_freq"].iter().find_map(|file| {
        let speed = sysfs.number(&format!("{folder}/{file}"))?;
        u64::try_from(speed).ok()
    });
    Cpu {
        id,
        package: topology("physical_package_id").unwrap_or(0),
        core: core.unwrap_or(id),
        node: node.unwrap_or(0),
        speed: speed.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::fake::Tree;

    #[test]
    fn siblings_share_a_core() {
        let tree = Tree::new(&[]).cpus(&[(0, 0, 0, 0), (1, 0, 1, 0), (2, 0, 0, 0), (3, 0, 1, 0)]);
        let cpus = describe(&tree.sysfs, &[0, 1, 2, 3]);
        assert_eq!(cores(&cpus), 2);
        assert_eq!(cpus[2], Cpu { id: 2, package: 0, core: 0, node: 0, speed: 0 });
    }

    #[test]
    fn same_core_number_on_two_packages_is_two_cores() {
        let tree = Tree::new(&[]).cpus(&[(0, 0, 0, 0), (1, 1, 0, 1)]);
        let cpus = describe(&tree.sysfs, &[0, 1]);
        assert_eq!(cores(&cpus), 2);
        assert_eq!(cpus[1].node, 1);
    }

    #[test]
    fn unknown_topology_counts_each_cpu() {
        let tree = Tree::new(&[("sys/devices/system/cpu/cpu0/topology/core_id", "-1")]);
        assert_eq!(cores(&describe(&tree.sysfs, &[0, 1, 2])), 3);
    }

    #[test]
    fn classes_of_cores() {
        let speed =
            |cpu: usize, khz: &'static str| (format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq"), khz);
        let files = [speed(0, "5000000"), speed(1, "5300000"), speed(2, "3900000")];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, khz)| (path.as_str(), *khz)).collect();
        let ids = |cpus: &[Cpu]| cpus.iter().map(|cpu| cpu.id).collect::<Vec<_>>();
        let tree = Tree::new(&files);
        assert_eq!(ids(&fastest(&describe(&tree.sysfs, &[0, 1, 2]))), [0, 1], "turbo bins are no classes");
        assert_eq!(ids(&fastest(&describe(&tree.sysfs, &[0, 3]))), [0, 3], "an unknown one counts as fast");
        assert_eq!(ids(&fastest(&describe(&Tree::new(&[]).sysfs, &[0, 1]))), [0, 1]);
    }

    #[test]
    fn mask_bits() {
        assert_eq!(set_bits(&[0b1011, 1]), [0, 1, 3, 64]);
        assert!(!affinity().expect("the kernel knows this thread").is_empty());
    }
}
