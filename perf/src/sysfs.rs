//! Reading `/proc` and `/sys` below a root that a test can replace. It knows files and their number formats, not what they mean.

use std::path::PathBuf;

/// Longest file read here, bytes: the kernel's pseudo files are a page or two, `cpuinfo` and `mountinfo` are the large ones.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Highest CPU number accepted in a list, so that a damaged file cannot ask for gigabytes.
const CPU_ID_MAX: usize = 65_535;

/// The root under which `proc/` and `sys/` are found: `/` on a live host.
#[derive(Debug, Clone)]
pub struct Sysfs {
    pub root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Sysfs { root: PathBuf::from("/") }
    }
}

impl Sysfs {
    /// A tree below `root`; paths given to the readers may be absolute and are taken as below it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Sysfs { root: root.into() }
    }

    /// The file's text without white space at the ends, or `None` if it cannot be read: on every host some of these files are missing.
    pub fn text(&self, path: &str) -> Option<String> {
        use std::io::Read;
        let file = std::fs::File::open(self.path(path)).ok()?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The file's single number.
    pub fn number(&self, path: &str) -> Option<i64> {
        self.text(path)?.parse().ok()
    }

    /// The file's CPU list, ascending; `None` if missing, malformed or empty.
    pub fn cpu_list(&self, path: &str) -> Option<Vec<usize>> {
        parse_cpu_list(&self.text(path)?).filter(|cpus| !cpus.is_empty())
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Names of the entries of a folder, sorted; empty if it cannot be read.
    pub fn entries(&self, path: &str) -> Vec<String> {
        let Ok(folder) = std::fs::read_dir(self.path(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> =
            folder.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// The kernel's list format (cpuset(7), "List format"): `0-3,8,10-11`. The empty list is valid.
pub fn parse_cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last): (usize, usize) = match part.split_once('-') {
            Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
            None => part.parse().map(|cpu| (cpu, cpu)).ok()?,
        };
        if first > last || last > CPU_ID_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// The inverse of [`parse_cpu_list`] for an ascending list: `0-3,8`.
pub fn format_cpu_list(cpus: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = cpus;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|(cpu, expected)| **cpu == *expected).count();
        parts.push(if run == 1 { first.to_string() } else { format!("{first}-{}", rest[run - 1]) });
        rest = &rest[run..];
    }
    parts.join(",")
}

/// Fake trees for the tests of this crate.
#[cfg(test)]
pub(crate) mod fake {
    use super::Sysfs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A tree in the temporary folder, removed on drop.
    pub(crate) struct Tree {
        pub(crate) sysfs: Sysfs,
    }

    impl Tree {
        pub(crate) fn new(files: &[(&str, &str)]) -> Tree {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("agentlane-perf-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let tree = Tree { sysfs: Sysfs::new(std::env::temp_dir().join(name)) };
            files.iter().for_each(|(path, text)| tree.write(path, text));
            tree
        }

        pub(crate) fn write(&self, path: &str, text: &str) {
            let path = self.sysfs.path(path);
            std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("temporary folder is writable");
            std::fs::write(path, format!("{text}\n")).expect("temporary folder is writable");
        }

        /// Writes the topology of `(cpu, package, core, node)` rows.
        pub(crate) fn cpus(self, rows: &[(usize, usize, usize, usize)]) -> Tree {
            for (cpu, package, core, node) in rows {
                let folder = format!("sys/devices/system/cpu/cpu{cpu}");
                self.write(&format!("{folder}/topology/physical_package_id"), &package.to_string());
                self.write(&format!("{folder}/topology/core_id"), &core.to_string());
                self.write(&format!("{folder}/node{node}/cpulist"), "");
            }
            self
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.sysfs.root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        let check =
            |text: &str, expected: Option<&[usize]>| assert_eq!(parse_cpu_list(text).as_deref(), expected, "{text:?}");
        check("0", Some(&[0]));
        check("0-3", Some(&[0, 1, 2, 3]));
        check("8,0-1, 10-11\n", Some(&[0, 1, 8, 10, 11]));
        check("1,1,0-1", Some(&[0, 1]));
        check("", Some(&[]));
        check("3-1", None);
        check("a", None);
        check("0-", None);
        check("0-99999999", None);
        for text in ["", "0", "0-3,8,10-11"] {
            assert_eq!(format_cpu_list(&parse_cpu_list(text).expect("well formed")), text);
        }
    }

    #[test]
    fn missing_files_are_none() {
        let tree = fake::Tree::new(&[("proc/number", "12"), ("proc/word", "max")]);
        assert_eq!(tree.sysfs.number("/proc/number"), Some(12));
        assert_eq!(tree.sysfs.number("/proc/word"), None);
        assert_eq!(tree.sysfs.text("/proc/absent"), None);
        assert_eq!(tree.sysfs.entries("proc"), ["number", "word"]);
        assert!(tree.sysfs.entries("absent").is_empty());
    }
}
