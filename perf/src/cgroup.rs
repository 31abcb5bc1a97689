//! Limits that control groups set on this process, version 1, 2 or both mounted: of CPUs for whoever places shards, the others for
//! those who ask. It reads only; it knows nothing of shards.

use crate::Sysfs;

/// How much CPU time the group may use, and on which CPUs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuLimits {
    /// Run time over wall time, in CPUs: `1.5` is 150 ms in every 100 ms. `None`: unlimited. The tightest of the group and its ancestors.
    pub quota: Option<f64>,
    /// CPUs of the group's cpuset, ascending; `None` if there is no such controller here.
    pub cpuset: Option<Vec<usize>>,
}

/// The limits of the group that this process is in (cgroups(7); kernel admin guide, "Control Group v2", cpu and cpuset).
pub fn read(sysfs: &Sysfs) -> CpuLimits {
    let memberships = sysfs.text("proc/self/cgroup").unwrap_or_default();
    let mounts = parse_mounts(&sysfs.text("proc/self/mountinfo").unwrap_or_default());
    let mut limits = CpuLimits::default();
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            apply_v2(sysfs, &mounts, group, &mut limits);
        } else {
            apply_v1(sysfs, &mounts, controllers, group, &mut limits);
        }
    }
    limits
}

/// How often the group met its CPU quota: periods, and those of them that were cut short, of the nearest group that says so.
pub fn throttling(sysfs: &Sysfs) -> Option<(u64, u64)> {
    let of = |text: String, key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    nearest(sysfs, "cpu", "cpu.stat", |text| Some((of(text.clone(), "nr_periods ")?, of(text, "nr_throttled ")?)))
}

/// Bytes of memory that the group may use; `None`: unlimited. The nearest group's limit, as a container sees it.
pub fn memory_bytes(sysfs: &Sysfs) -> Option<u64> {
    // Version 1 says "unlimited" with the largest multiple of a page.
    let limit = |text: String| text.parse().ok().filter(|bytes| *bytes < 1 << 60);
    nearest(sysfs, "memory", "memory.max", limit).or_else(|| nearest(sysfs, "memory", "memory.limit_in_bytes", limit))
}

/// Threads and processes that the group may have; `None`: unlimited.
pub fn pids(sysfs: &Sysfs) -> Option<u64> {
    nearest(sysfs, "pids", "pids.max", |text| text.parse().ok())
}

/// What the nearest group of a controller's says in a file, of whichever version is mounted.
fn nearest<T>(sysfs: &Sysfs, controller: &str, file: &str, read: impl Fn(String) -> Option<T>) -> Option<T> {
    let memberships = sysfs.text("proc/self/cgroup")?;
    let mounts = parse_mounts(&sysfs.text("proc/self/mountinfo")?);
    memberships.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (joined, group) = (fields.next()?, fields.next()?);
        let mount = mounts.iter().find(|mount| match &mount.controllers {
            None => joined.is_empty(),
            Some(names) => {
                joined.split(',').any(|name| name == controller) && names.iter().any(|name| name == controller)
            }
        })?;
        let folders = ancestry(mount, group);
        folders.iter().find_map(|folder| read(sysfs.text(&format!("{folder}/{file}"))?))
    })
}

struct Mount {
    /// The group that is visible at the mount point.
    root: String,
    point: String,
    /// Controllers of a version 1 hierarchy; `None` for version 2.
    controllers: Option<Vec<String>>,
}

/// The lines of mountinfo that are control groups: `id parent dev root point options [tags] - type source super-options` (proc(5)).
fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (place, filesystem) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?.to_owned(), place.next()?.to_owned());
    let mut filesystem = filesystem.split(' ');
    match filesystem.next()? {
        "cgroup2" => Some(Mount { root, point, controllers: None }),
        "cgroup" => {
            let options = filesystem.nth(1)?;
            Some(Mount { root, point, controllers: Some(options.split(',').map(str::to_owned).collect()) })
        }
        _ => None,
    }
}

fn apply_v2(sysfs: &Sysfs, mounts: &[Mount], group: &str, limits: &mut CpuLimits) {
    let Some(mount) = mounts.iter().find(|mount| mount.controllers.is_none()) else {
        return;
    };
    for folder in ancestry(mount, group) {
        limits.tighten(sysfs.text(&format!("{folder}/cpu.max")).as_deref().and_then(parse_cpu_max));
        if limits.cpuset.is_none() {
            limits.cpuset = sysfs.cpu_list(&format!("{folder}/cpuset.cpus.effective"));
        }
    }
}

fn apply_v1(sysfs: &Sysfs, mounts: &[Mount], controllers: &str, group: &str, limits: &mut CpuLimits) {
    let mount_of = |controller: &str| {
        let joined = controllers.split(',').any(|name| name == controller);
        mounts.iter().find(|mount| joined && mount.controllers.iter().flatten().any(|name| name == controller))
    };
    if let Some(mount) = mount_of("cpu") {
        for folder in ancestry(mount, group) {
            let quota = sysfs.number(&format!("{folder}/cpu.cfs_quota_us"));
            let period = sysfs.number(&format!("{folder}/cpu.cfs_period_us"));
            limits.tighten(quota.zip(period).and_then(|(quota, period)| ratio(quota, period)));
        }
    }
    if let Some(mount) = mount_of("cpuset") {
        let files = ["cpuset.effective_cpus", "cpuset.cpus"];
        let nearest = ancestry(mount, group)
            .into_iter()
            .find_map(|folder| files.iter().find_map(|file| sysfs.cpu_list(&format!("{folder}/{file}"))));
        limits.cpuset = nearest.or(limits.cpuset.take());
    }
}

/// The group's folder and every ancestor up to the mount point, nearest first. A container sees a mount whose root is its own group.
fn ancestry(mount: &Mount, group: &str) -> Vec<String> {
    let below = group.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or("");
    let mut below = below.trim_matches('/');
    let mut folders = Vec::new();
    while !below.is_empty() {
        folders.push(format!("{}/{below}", mount.point));
        below = below.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    folders.push(mount.point.clone());
    folders
}

impl CpuLimits {
    fn tighten(&mut self, quota: Option<f64>) {
        if let Some(quota) = quota {
            self.quota = Some(self.quota.map_or(quota, |known| known.min(quota)));
        }
    }
}

/// `$MAX $PERIOD` in microseconds, or `max $PERIOD`.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

/// Version 1 says -1 for "no quota".
fn ratio(quota_us: i64, period_us: i64) -> Option<f64> {
    (quota_us > 0 && period_us > 0).then(|| quota_us as f64 / period_us as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::fake::Tree;

    const MOUNT_V2: &str = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    fn check(files: &[(&str, &str)], quota: Option<f64>, cpuset: Option<&[usize]>) {
        let limits = read(&Tree::new(files).sysfs);
        assert_eq!(limits, CpuLimits { quota, cpuset: cpuset.map(<[usize]>::to_vec) }, "{files:?}");
    }

    #[test]
    fn v2_takes_the_tightest_ancestor() {
        check(
            &[
                ("proc/self/cgroup", "0::/pod/gateway"),
                ("proc/self/mountinfo", MOUNT_V2),
                ("sys/fs/cgroup/pod/gateway/cpu.max", "400000 100000"),
                ("sys/fs/cgroup/pod/cpu.max", "150000 100000"),
                ("sys/fs/cgroup/pod/gateway/cpuset.cpus.effective", "2-3"),
            ],
            Some(1.5),
            Some(&[2, 3]),
        );
    }

    #[test]
    fn v2_without_a_limit() {
        let files =
            [("proc/self/cgroup", "0::/"), ("proc/self/mountinfo", MOUNT_V2), ("sys/fs/cgroup/cpu.max", "max 100000")];
        check(&files, None, None);
    }

    #[test]
    fn v2_in_a_container_whose_mount_is_its_own_group() {
        check(
            &[
                ("proc/self/cgroup", "0::/kubepods/pod1/c1"),
                ("proc/self/mountinfo", "31 24 0:27 /kubepods/pod1/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw"),
                ("sys/fs/cgroup/cpu.max", "50000 100000"),
            ],
            Some(0.5),
            None,
        );
    }

    #[test]
    fn v1_reads_both_controllers() {
        check(
            &[
                ("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:cpuset:/docker/abc\n3:memory:/docker/abc"),
                (
                    "proc/self/mountinfo",
                    "40 39 0:33 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
                     41 39 0:34 /docker/abc /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset",
                ),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
                ("sys/fs/cgroup/cpuset/cpuset.cpus", "0,4-5"),
            ],
            Some(2.5),
            Some(&[0, 4, 5]),
        );
    }

    #[test]
    fn v1_says_minus_one_for_no_quota() {
        check(
            &[
                ("proc/self/cgroup", "1:cpu:/"),
                ("proc/self/mountinfo", "40 39 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
            ],
            None,
            None,
        );
    }

    #[test]
    fn what_else_a_group_says() {
        let group = ("proc/self/cgroup", "0::/pod/gateway");
        let mount = ("proc/self/mountinfo", MOUNT_V2);
        let own =
            |file: &str, text: &str| Tree::new(&[group, mount, (&format!("sys/fs/cgroup/pod/gateway/{file}"), text)]);
        let above = |file: &str, text: &str| Tree::new(&[group, mount, (&format!("sys/fs/cgroup/pod/{file}"), text)]);
        assert_eq!(memory_bytes(&own("memory.max", "1048576").sysfs), Some(1 << 20));
        assert_eq!(memory_bytes(&own("memory.max", "max").sysfs), None);
        assert_eq!(memory_bytes(&above("memory.max", "4096").sysfs), Some(4096));
        assert_eq!(pids(&own("pids.max", "100").sysfs), Some(100));
        assert_eq!(throttling(&own("cpu.stat", "usage_usec 5\nnr_periods 40\nnr_throttled 4").sysfs), Some((40, 4)));
        assert_eq!(throttling(&own("cpu.stat", "usage_usec 5").sysfs), None);
        let v1 = Tree::new(&[
            ("proc/self/cgroup", "3:memory:/docker/abc"),
            ("proc/self/mountinfo", "40 39 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ]);
        assert_eq!(memory_bytes(&v1.sysfs), None);
        v1.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456");
        assert_eq!(memory_bytes(&v1.sysfs), Some(256 << 20));
    }

    #[test]
    fn nothing_mounted_or_damaged_means_no_limit() {
        check(&[], None, None);
        check(&[("proc/self/cgroup", "rubbish\n0::"), ("proc/self/mountinfo", "1 2 - cgroup\nx")], None, None);
    }
}
