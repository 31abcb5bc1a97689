//! Control groups (cgroup v2, kernel's admin-guide/cgroup-v2): where the gateway may make them, and one for each child
//! that has limits. Knows no processes but their ids.
//!
//! A controller can be handed down only by a group without processes of its own (the same document, "No Internal Process
//! Constraint"), so that a gateway in a delegated group first moves itself, and what it has started, into a leaf of it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backend::mcp::ChildLimits;

/// The gateway's own leaf.
const LEAF: &str = "agentlane.gateway";
/// The group that holds one for each child.
const CHILDREN: &str = "agentlane.children";
/// The period of `cpu.max`, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The least quota that the kernel takes, in microseconds.
const CPU_QUOTA_US_MIN: u64 = 1_000;
/// A group can be removed once its last process is gone, which takes a moment after it was killed.
const REMOVE_TRIES: u32 = 40;
const REMOVE_PAUSE: Duration = Duration::from_millis(25);

/// The folder of the children's groups, and what can be limited there.
#[derive(Debug)]
pub(super) struct Cgroups {
    folder: PathBuf,
    pub(super) memory: bool,
    pub(super) cpu: bool,
    pub(super) pids: bool,
}

/// One child's group. To be removed once the child has been reaped.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    procs: File,
}

impl Cgroups {
    /// Takes the group that this process runs in, if it may be divided; else why not.
    pub(super) fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let own = own_folder(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?;
        Self::divide(&own, std::process::id())
    }

    /// Divides the group `own` into a leaf for this process and the children's group.
    fn divide(own: &Path, pid: u32) -> Result<Self, String> {
        let fault = |what: &str, error: io::Error| format!("{what} in {}: {error}", own.display());
        let offered =
            fs::read_to_string(own.join("cgroup.controllers")).map_err(|error| fault("controllers", error))?;
        let offers = |name: &str| offered.split_ascii_whitespace().any(|controller| controller == name);
        let wanted: Vec<&str> = ["memory", "cpu", "pids"].into_iter().filter(|name| offers(name)).collect();
        if wanted.is_empty() {
            return Err(format!("no controller is delegated to {}", own.display()));
        }
        let folder = own.join(CHILDREN);
        make(&folder).map_err(|error| fault("a group cannot be made", error))?;
        // Left by a gateway that was killed; what still runs keeps its group.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let enable: String = wanted.iter().map(|name| format!("+{name} ")).collect();
        let control = own.join("cgroup.subtree_control");
        // The root of the hierarchy may have processes; it alone has no type.
        if own.join("cgroup.type").exists() {
            let leaf = own.join(LEAF);
            make(&leaf).map_err(|error| fault("a group cannot be made", error))?;
            move_own(own, &leaf, pid).map_err(|error| fault("the leaf", error))?;
        }
        let enabled = write(&control, enable.trim_end())
            .and_then(|()| write(&folder.join("cgroup.subtree_control"), enable.trim_end()));
        if let Err(error) = enabled {
            // Back to where it was found: somebody else's processes are in this group too.
            let _ = move_own(&own.join(LEAF), own, pid);
            let _ = fs::remove_dir(own.join(LEAF));
            let _ = fs::remove_dir(&folder);
            return Err(fault("controllers cannot be handed down", error));
        }
        Ok(Self { folder, memory: offers("memory"), cpu: offers("cpu"), pids: offers("pids") })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether one of these limits can be held here.
    pub(super) fn holds(&self, limits: &ChildLimits) -> bool {
        (self.memory && limits.memory_bytes.is_some())
            || (self.cpu && limits.cpu_millis.is_some())
            || (self.pids && limits.processes.is_some())
    }

    /// A group with these limits.
    pub(super) fn make(&self, name: &str, limits: &ChildLimits) -> io::Result<Group> {
        let folder = self.folder.join(name);
        make(&folder)?;
        let filled = self.fill(&folder, limits);
        filled.inspect_err(|_| drop(fs::remove_dir(&folder)))
    }

    fn fill(&self, folder: &Path, limits: &ChildLimits) -> io::Result<Group> {
        if let Some(bytes) = limits.memory_bytes.filter(|_| self.memory) {
            write(&folder.join("memory.max"), &bytes.to_string())?;
            // Without swap accounting there are no such files, and nothing to hold.
            let _ = write(&folder.join("memory.swap.max"), "0");
            let _ = write(&folder.join("memory.oom.group"), "1");
        }
        if let Some(millis) = limits.cpu_millis.filter(|_| self.cpu) {
            let quota = (u64::from(millis) * CPU_PERIOD_US / 1_000).max(CPU_QUOTA_US_MIN);
            write(&folder.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))?;
        }
        if let Some(processes) = limits.processes.filter(|_| self.pids) {
            write(&folder.join("pids.max"), &processes.to_string())?;
        }
        let procs = OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?;
        Ok(Group { folder: folder.to_owned(), procs })
    }
}

impl Group {
    /// Where a process writes `0` to join.
    pub(super) fn procs(&self) -> &File {
        &self.procs
    }

    /// Kills what is left in it, wherever it went, and removes it.
    pub(super) async fn remove(self) {
        let _ = write(&self.folder.join("cgroup.kill"), "1");
        for _ in 0..REMOVE_TRIES {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => tokio::time::sleep(REMOVE_PAUSE).await,
                _ => return,
            }
        }
        tracing::warn!(folder = %self.folder.display(), "a child's control group could not be removed");
    }
}

impl Drop for Group {
    /// Of a child that did not start. The folder is empty then, or gone already.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// This process's group of the version-2 hierarchy as a folder: `/proc/self/mountinfo` says where that is mounted,
/// `/proc/self/cgroup` which group it is.
fn own_folder(mounts: &str, groups: &str) -> Result<PathBuf, String> {
    let mount = mounts.lines().find_map(|line| {
        // proc_pid_mountinfo(5): id, parent, device, root, mount point, ..., `-`, type, ...
        let (place, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4)).flatten()
    });
    let mount = mount.ok_or("no cgroup v2 is mounted")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).ok_or("this process is in no cgroup v2")?;
    Ok(Path::new(mount).join(own.trim_start_matches('/')))
}

/// Moves the process `pid` and what descends from it from one group to another. Strangers stay.
fn move_own(from: &Path, to: &Path, pid: u32) -> io::Result<()> {
    let into = to.join("cgroup.procs");
    write(&into, &pid.to_string())?;
    let members = fs::read_to_string(from.join("cgroup.procs"))?;
    for member in members.lines().filter_map(|line| line.parse().ok()).filter(|&member| descends(member, pid)) {
        // One that has ended meanwhile needs no place.
        let _ = write(&into, &member.to_string());
    }
    Ok(())
}

/// Whether `pid` is a descendant of `ancestor`, as far as its parents still live.
fn descends(mut pid: u32, ancestor: u32) -> bool {
    while let Some(parent) = parent_of(pid) {
        if parent == ancestor {
            return true;
        }
        pid = parent;
    }
    false
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): the name stands in parentheses and may hold anything; then the state, then the parent.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

/// Writes to a file that the kernel provides: never creates one.
fn write(file: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::confine::{Confinement, Hold};
    use super::*;

    /// A folder that looks like a group; the kernel's files are plain ones here.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str, controllers: &str) -> Self {
            let own = std::env::temp_dir().join(format!("agentlane-cgroup-{}-{name}", std::process::id()));
            let fake = Self(own);
            for folder in ["", LEAF, CHILDREN, "agentlane.children/t.7"] {
                fs::create_dir_all(fake.0.join(folder)).expect("a folder");
            }
            fake.put("cgroup.controllers", controllers);
            fake.put("cgroup.type", "domain\n");
            let files = [
                "cgroup.procs",
                "cgroup.subtree_control",
                "agentlane.gateway/cgroup.procs",
                "agentlane.children/cgroup.subtree_control",
            ];
            files.iter().for_each(|file| fake.put(file, ""));
            for file in ["cgroup.procs", "memory.max", "memory.swap.max", "cpu.max", "pids.max"] {
                fake.put(&format!("agentlane.children/t.7/{file}"), "");
            }
            fake
        }

        fn put(&self, file: &str, text: &str) {
            fs::write(self.0.join(file), text).expect("a file");
        }

        fn text(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).expect("a file")
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_group_is_found() {
        let mounts = "25 30 0:23 / /sys rw - sysfs sysfs rw\n31 25 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let groups = "1:name=systemd:/x\n0::/system.slice/agentlane.service\n";
        let folder = Path::new("/sys/fs/cgroup/system.slice/agentlane.service");
        assert_eq!(own_folder(mounts, groups).as_deref(), Ok(folder));
        assert_eq!(own_folder(mounts, "0::/\n").as_deref(), Ok(Path::new("/sys/fs/cgroup/")));
        assert!(own_folder("25 30 0:23 / /sys rw - sysfs sysfs rw\n", groups).is_err());
        assert!(own_folder(mounts, "4:memory:/x\n").is_err());
    }

    #[test]
    fn what_is_delegated_is_handed_down() {
        let fake = Fake::new("down", "cpuset cpu memory\n");
        let groups = Cgroups::divide(&fake.0, 42).expect("delegated");
        assert_eq!((groups.memory, groups.cpu, groups.pids), (true, true, false));
        assert_eq!(fake.text("cgroup.subtree_control"), "+memory +cpu");
        assert_eq!(fake.text("agentlane.children/cgroup.subtree_control"), "+memory +cpu");
        assert_eq!(fake.text("agentlane.gateway/cgroup.procs"), "42");
        let limits =
            ChildLimits { memory_bytes: Some(1 << 20), cpu_millis: Some(1_500), processes: Some(9), files: None };
        assert!(groups.holds(&limits) && !groups.holds(&ChildLimits { processes: Some(9), ..ChildLimits::default() }));
        groups.make("t.7", &limits).expect("a group");
        assert_eq!(fake.text("agentlane.children/t.7/memory.max"), "1048576");
        assert_eq!(fake.text("agentlane.children/t.7/memory.swap.max"), "0");
        assert_eq!(fake.text("agentlane.children/t.7/cpu.max"), "150000 100000");
        assert_eq!(fake.text("agentlane.children/t.7/pids.max"), "", "that controller is not there");
    }

    #[test]
    fn what_is_not_delegated_is_left_alone() {
        let fake = Fake::new("alone", "hugetlb\n");
        assert!(Cgroups::divide(&fake.0, 42).is_err_and(|reason| reason.contains("no controller is delegated")));
        assert_eq!(fake.text("cgroup.subtree_control"), "");
        let gone = Fake::new("gone", "memory\n");
        // What a missing file stands for here is a refused write.
        fs::remove_file(gone.0.join("agentlane.children/cgroup.subtree_control")).expect("removed");
        assert!(Cgroups::divide(&gone.0, 42).is_err_and(|reason| reason.contains("cannot be handed down")));
        assert_eq!(gone.text("cgroup.procs"), "42", "back where it was");
    }

    #[test]
    fn what_descends_from_the_gateway_is_its_own() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a child");
        assert!(descends(child.id(), own));
        assert!(!descends(own, own) && !descends(1, own) && !descends(own, child.id()));
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    /// With the kernel's own files, where this process may make groups; none of the limits, which need controllers.
    #[test]
    fn a_group_takes_all_that_a_child_started_with_it() {
        use std::os::unix::process::CommandExt;
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let Ok(own) = own_folder(&read("/proc/self/mountinfo"), "0::/\n") else { return };
        let folder = own.join(format!("agentlane.test-{}", std::process::id()));
        if fs::create_dir(&folder).is_err() {
            return;
        }
        let groups = Cgroups { folder: folder.clone(), memory: false, cpu: false, pids: false };
        let group = groups.make("t.1", &ChildLimits::default()).expect("a group");
        let hold = Hold { group: Some(group), ..Hold::default() };
        let confinement = Confinement::new(&hold, false);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!; cat /proc/self/cgroup"]);
        // SAFETY: system calls only.
        unsafe { command.pre_exec(move || confinement.enter()) };
        let text = String::from_utf8(command.output().expect("sh").stdout).expect("text");
        assert!(text.contains(&format!("agentlane.test-{}/t.1\n", std::process::id())), "{text}");
        let left: u32 = text.lines().next().and_then(|line| line.parse().ok()).expect("a process id");
        assert!(parent_of(left).is_some(), "it left the process group, not the control group");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(hold.group.expect("still held").remove());
        assert!(!folder.join("t.1").exists());
        let state = read(&format!("/proc/{left}/stat"));
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
        fs::remove_dir(&folder).expect("empty");
    }
}
