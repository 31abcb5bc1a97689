//! The host as one process sees it, read once at start. It decides nothing; `placement` does.

use crate::cgroup::{self, CpuLimits};
use crate::kernel::{self, Kernel};
use crate::limits::{self, Rlimit};
use crate::surroundings::{self, Surroundings};
use crate::topology::{self, Cpu};
use crate::{Sysfs, sysfs};
use std::fmt;

/// Everything probed. A fact that could not be read is absent; probing never fails.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Host {
    /// CPUs that this process may use, ascending by id; never empty when read by [`probe`] or [`Host::read`].
    pub cpus: Vec<Cpu>,
    /// CPU time that control groups allow, in CPUs; `None`: unlimited.
    pub quota: Option<f64>,
    pub kernel: Kernel,
    /// Open files.
    pub nofile: Option<Rlimit>,
    /// Locked memory, bytes.
    pub memlock: Option<Rlimit>,
    pub surroundings: Surroundings,
}

/// Probes the live host. Call it on the main thread before any other is pinned: a pinned thread sees only its own CPU.
pub fn probe() -> Host {
    let sysfs = Sysfs::default();
    let affinity = topology::affinity().ok().or_else(|| sysfs.cpu_list("sys/devices/system/cpu/online"));
    let mut host = Host::read(&sysfs, &affinity.unwrap_or_else(|| vec![0]));
    host.nofile = limits::nofile().ok();
    host.memlock = limits::memlock().ok();
    host
}

impl Host {
    /// Reads a tree, for a process whose affinity mask is `affinity`. The limits of the process are left out.
    pub fn read(sysfs: &Sysfs, affinity: &[usize]) -> Host {
        let CpuLimits { quota, cpuset } = cgroup::read(sysfs);
        let online = sysfs.cpu_list("sys/devices/system/cpu/online");
        let usable =
            [cpuset, online].into_iter().flatten().fold(affinity.to_vec(), |usable, allowed| narrow(usable, &allowed));
        Host {
            cpus: topology::describe(sysfs, &usable),
            quota,
            kernel: kernel::read(sysfs),
            nofile: None,
            memlock: None,
            surroundings: surroundings::read(sysfs),
        }
    }

    /// Distinct cores among the CPUs; SMT siblings count once.
    pub fn cores(&self) -> usize {
        topology::cores(&self.cpus)
    }
}

/// The kernel has already cut the mask by cpuset and by what is online. A list that leaves nothing was read from the wrong group: ignore it.
fn narrow(usable: Vec<usize>, allowed: &[usize]) -> Vec<usize> {
    let both: Vec<usize> = usable.iter().copied().filter(|cpu| allowed.contains(cpu)).collect();
    if both.is_empty() { usable } else { both }
}

/// One line for the log at start.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<usize> = self.cpus.iter().map(|cpu| cpu.id).collect();
        write!(f, "{} cpus ({}) on {} cores", ids.len(), sysfs::format_cpu_list(&ids), self.cores())?;
        if let Some(quota) = self.quota {
            write!(f, ", quota {quota:.2} cpus")?;
        }
        write!(f, ", linux {}", self.kernel.release)?;
        if let Some(limit) = self.nofile {
            write!(f, ", nofile {}/{}", limit.soft, limit.hard)?;
        }
        if let Some(engine) = self.surroundings.container {
            write!(f, ", container {engine}")?;
        }
        if let Some(machine) = &self.surroundings.machine {
            write!(f, ", machine {machine}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::fake::Tree;

    const MOUNT: (&str, &str) = ("proc/self/mountinfo", "31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
    const GROUP: (&str, &str) = ("proc/self/cgroup", "0::/gateway");
    const CPUSET: &str = "sys/fs/cgroup/gateway/cpuset.cpus.effective";

    fn ids(host: &Host) -> Vec<usize> {
        host.cpus.iter().map(|cpu| cpu.id).collect()
    }

    #[test]
    fn usable_is_the_overlap_of_mask_cpuset_and_online() {
        let tree = Tree::new(&[MOUNT, GROUP, (CPUSET, "1-5"), ("sys/devices/system/cpu/online", "0-2,4-7")]);
        assert_eq!(ids(&Host::read(&tree.sysfs, &[0, 1, 2, 3, 4])), [1, 2, 4]);
    }

    #[test]
    fn a_cpuset_that_leaves_nothing_is_ignored() {
        let tree = Tree::new(&[MOUNT, GROUP, (CPUSET, "8-9")]);
        assert_eq!(ids(&Host::read(&tree.sysfs, &[0, 1])), [0, 1]);
    }

    #[test]
    fn the_live_host_is_read() {
        let host = probe();
        assert!(!host.cpus.is_empty());
        assert!(host.cores() >= 1 && host.cores() <= host.cpus.len());
        assert!(host.nofile.is_some());
        assert!(host.to_string().contains("linux"), "{host}");
    }
}
