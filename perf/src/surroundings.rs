//! Whether the process seems to run in a container or a virtual machine. Hints for messages; nothing may depend on them.

use crate::Sysfs;

/// What is known of the layers below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Name of the container engine, as far as it shows itself.
    pub container: Option<&'static str>,
    /// Hypervisor or machine vendor, as the firmware or the kernel names it.
    pub machine: Option<String>,
}

/// Words in the control group of process 1 that name an engine.
const ENGINES: &[(&str, &str)] = &[
    ("kubepods", "kubernetes"),
    ("docker", "docker"),
    ("containerd", "containerd"),
    ("libpod", "podman"),
    ("lxc", "lxc"),
];

/// Firmware vendors that only virtual machines have.
const HYPERVISORS: &[&str] = &[
    "QEMU",
    "KVM",
    "VMware",
    "Xen",
    "innotek",
    "Parallels",
    "Bochs",
    "Amazon EC2",
    "Google",
    "Microsoft Corporation",
    "OpenStack",
];

pub fn read(sysfs: &Sysfs) -> Surroundings {
    Surroundings { container: container(sysfs), machine: machine(sysfs) }
}

fn container(sysfs: &Sysfs) -> Option<&'static str> {
    let groups = sysfs.text("proc/1/cgroup").unwrap_or_default();
    if let Some((_, engine)) = ENGINES.iter().find(|(word, _)| groups.contains(word)) {
        return Some(engine);
    }
    if sysfs.exists("run/.containerenv") {
        return Some("podman");
    }
    sysfs.exists(".dockerenv").then_some("docker")
}

fn machine(sysfs: &Sysfs) -> Option<String> {
    if let Some(hypervisor) = sysfs.text("sys/hypervisor/type").filter(|name| !name.is_empty()) {
        return Some(hypervisor);
    }
    let vendor = sysfs.text("sys/class/dmi/id/sys_vendor").unwrap_or_default();
    if HYPERVISORS.iter().any(|name| vendor.contains(name)) {
        return Some(vendor);
    }
    let cpuinfo = sysfs.text("proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    flags.split(' ').any(|flag| flag == "hypervisor").then(|| "unknown hypervisor".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::fake::Tree;

    fn check(files: &[(&str, &str)], container: Option<&'static str>, machine: Option<&str>) {
        let seen = read(&Tree::new(files).sysfs);
        assert_eq!(seen, Surroundings { container, machine: machine.map(str::to_owned) }, "{files:?}");
    }

    #[test]
    fn hints() {
        check(&[], None, None);
        check(&[(".dockerenv", "")], Some("docker"), None);
        check(&[("run/.containerenv", "")], Some("podman"), None);
        check(&[("proc/1/cgroup", "0::/kubepods.slice/docker-abc")], Some("kubernetes"), None);
        check(&[("sys/class/dmi/id/sys_vendor", "QEMU")], None, Some("QEMU"));
        check(&[("sys/class/dmi/id/sys_vendor", "Dell Inc.")], None, None);
        check(&[("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu hypervisor sse")], None, Some("unknown hypervisor"));
        check(&[("sys/hypervisor/type", "xen")], None, Some("xen"));
    }
}
