//! io_uring, and the limits of the process that rings and connections meet.

use super::{Case, Finding};
use crate::cgroup;
use crate::kernel::IoUring;

/// Open files: a connection is one in front and often one behind.
const NOFILE_MIN: u64 = 65_536;
/// With fewer a gateway cannot hold what its own parts open.
const NOFILE_NEEDED: u64 = 256;
/// Threads and children of a control group.
const PIDS_MIN: u64 = 512;

pub(super) fn examine(case: &Case<'_>) -> Vec<Finding> {
    [kernel(case), switch(case), setup(case), nofile(case), memlock(case), pids(case)].into_iter().flatten().collect()
}

fn kernel(case: &Case<'_>) -> Option<Finding> {
    let kernel = &case.host.kernel;
    if kernel.release.is_empty() {
        return Some(Finding::unseen("ring.kernel", "release not readable"));
    }
    let advice = "before 6.1 rings lack DEFER_TASKRUN, which costs a tenth and more at few connections: a newer kernel";
    Some(Finding::warn_unless(kernel.at_least(6, 1), "ring.kernel", format!("linux {}", kernel.release), advice))
}

fn switch(case: &Case<'_>) -> Option<Finding> {
    let advice = "epoll is used instead, at a fifth more CPU: sysctl kernel.io_uring_disabled=0";
    Some(match case.host.kernel.io_uring {
        IoUring::Allowed => Finding::pass("ring.sysctl", "io_uring is allowed"),
        IoUring::Privileged => Finding::warn("ring.sysctl", "io_uring only for kernel.io_uring_group", advice),
        IoUring::Forbidden => Finding::warn("ring.sysctl", "io_uring is forbidden", advice),
        IoUring::Unknown => Finding::unseen("ring.sysctl", "kernel.io_uring_disabled not readable"),
    })
}

fn setup(case: &Case<'_>) -> Option<Finding> {
    let advice =
        "epoll is used instead, at a fifth more CPU: allow io_uring_setup, _enter and _register in the seccomp profile";
    Some(match case.ring.as_ref()? {
        Ok(()) => Finding::pass("ring.setup", "a ring was set up"),
        Err(error) => Finding::warn("ring.setup", format!("no ring: {error}"), advice),
    })
}

fn nofile(case: &Case<'_>) -> Option<Finding> {
    let limit = case.host.nofile?;
    let saw = format!("{} open files (raised from {} at start)", limit.hard, limit.soft);
    let advice =
        "each connection is a descriptor, and two with its upstream: LimitNOFILE=1048576 in the unit, or ulimit -n";
    Some(match limit.hard {
        few if few < NOFILE_NEEDED => Finding::fail("ring.nofile", saw, advice),
        hard => Finding::warn_unless(hard >= NOFILE_MIN, "ring.nofile", saw, advice),
    })
}

/// Only glommio counts it, and says at start what is missing.
fn memlock(case: &Case<'_>) -> Option<Finding> {
    let limit = case.host.memlock?;
    let saw = match limit.soft {
        u64::MAX => "unlimited".to_owned(),
        bytes => format!("{} KiB of locked memory", bytes >> 10),
    };
    let advice = "runtime glommio locks 800 KiB for each shard (1,024 ring entries): LimitMEMLOCK=infinity in the unit";
    let need = (case.shards as u64).saturating_mul(800 << 10).max(512 << 10);
    Some(Finding::warn_unless(limit.soft >= need, "ring.memlock", saw, advice))
}

fn pids(case: &Case<'_>) -> Option<Finding> {
    let limit = cgroup::pids(case.sysfs)?;
    let advice = "stdio servers are processes, several each: raise pids.max of the group (TasksMax= in the unit)";
    Some(Finding::warn_unless(limit >= PIDS_MIN, "ring.pids", format!("{limit} threads and processes"), advice))
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::super::{Verdict, Verdict::*};
    use super::*;
    use crate::{Host, Rlimit, Sysfs};

    fn check(name: &str, files: &[(&str, &str)], expected: Option<Verdict>) {
        assert_eq!(verdict(examine, name, files), expected, "{name} {files:?}");
    }

    #[test]
    fn kernels() {
        let release = "proc/sys/kernel/osrelease";
        let disabled = "proc/sys/kernel/io_uring_disabled";
        check("ring.kernel", &[(release, "6.8.0")], Some(Pass));
        check("ring.kernel", &[(release, "5.15.0")], Some(Warn));
        check("ring.kernel", &[], Some(Unseen));
        check("ring.sysctl", &[(release, "6.8.0"), (disabled, "0")], Some(Pass));
        check("ring.sysctl", &[(release, "6.8.0"), (disabled, "2")], Some(Warn));
        check("ring.setup", &[], None);
    }

    #[test]
    fn limits() {
        let check = |hard: u64, memlock: u64, expected: [Verdict; 2]| {
            let host = Host {
                nofile: Some(Rlimit { soft: 1024, hard }),
                memlock: Some(Rlimit { soft: memlock, hard: memlock }),
                ..Host::default()
            };
            let sysfs = Sysfs::new("/nonexistent/agentlane");
            let ring = Some(Err("EPERM".to_owned()));
            let findings = examine(&Case { sysfs: &sysfs, host: &host, shards: 4, ring });
            let of = |name: &str| findings.iter().find(|finding| finding.name == name).map(|finding| finding.verdict);
            assert_eq!([of("ring.nofile"), of("ring.memlock")], expected.map(Some), "{hard} {memlock}");
            assert_eq!(of("ring.setup"), Some(Warn));
        };
        check(1 << 20, u64::MAX, [Pass, Pass]);
        check(4096, 512 << 10, [Warn, Warn]);
        check(100, 8 << 20, [Fail, Pass]);
    }
}
