//! The kernel's version and whether it lets this process use io_uring. It opens no ring: seccomp may still refuse one, and only a try can tell.

use crate::Sysfs;

/// A kernel release such as `6.1.0-13-amd64`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    pub major: u32,
    pub minor: u32,
    /// As the kernel says it.
    pub release: String,
    pub io_uring: IoUring,
}

/// The sysctl `kernel.io_uring_disabled` (kernel admin guide, "sysctl/kernel").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IoUring {
    /// Every process may create rings, or the kernel is too old to have the switch (before 6.6) and new enough to have rings (5.1).
    Allowed,
    /// Only processes of the group `kernel.io_uring_group`, or with CAP_SYS_ADMIN.
    Privileged,
    /// Nobody may.
    Forbidden,
    /// The kernel has none, or nothing could be read.
    #[default]
    Unknown,
}

impl Kernel {
    /// Whether the release is `major.minor` or newer; false if it is not known.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

pub fn read(sysfs: &Sysfs) -> Kernel {
    let release = sysfs.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let (major, minor) = parse_release(&release).unwrap_or((0, 0));
    let mut kernel = Kernel { major, minor, release, io_uring: IoUring::Unknown };
    kernel.io_uring = match sysfs.number("proc/sys/kernel/io_uring_disabled") {
        Some(0) => IoUring::Allowed,
        Some(1) => IoUring::Privileged,
        Some(2) => IoUring::Forbidden,
        Some(_) => IoUring::Unknown,
        None if kernel.at_least(5, 1) => IoUring::Allowed,
        None => IoUring::Unknown,
    };
    kernel
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::fake::Tree;

    #[test]
    fn releases() {
        let check = |release: &str, expected| assert_eq!(parse_release(release), expected, "{release}");
        check("6.18.44-fc-v595", Some((6, 18)));
        check("5.10", Some((5, 10)));
        check("6.1.0-13-amd64", Some((6, 1)));
        check("4.18-rc1", Some((4, 18)));
        check("", None);
        check("linux", None);
    }

    #[test]
    fn io_uring_switch() {
        let check = |release: &str, switch: Option<&str>, expected| {
            let tree = Tree::new(&[("proc/sys/kernel/osrelease", release)]);
            switch.into_iter().for_each(|value| tree.write("proc/sys/kernel/io_uring_disabled", value));
            assert_eq!(read(&tree.sysfs).io_uring, expected, "{release} {switch:?}");
        };
        check("6.8.0", Some("0"), IoUring::Allowed);
        check("6.8.0", Some("1"), IoUring::Privileged);
        check("6.8.0", Some("2"), IoUring::Forbidden);
        check("6.8.0", Some("9"), IoUring::Unknown);
        check("5.15.0", None, IoUring::Allowed);
        check("4.19.0", None, IoUring::Unknown);
        assert!(!read(&Tree::new(&[]).sysfs).at_least(1, 0));
    }
}
