//! `agentlane doctor` from outside: on this host, and on copies of others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const AGENTLANE: &str = env!("CARGO_BIN_EXE_agentlane");

fn doctor(arguments: &[&str]) -> Output {
    Command::new(AGENTLANE).arg("doctor").args(arguments).output().expect("the binary runs")
}

/// A copy of a host's pseudo files, removed with the value.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, files: &[(&str, &str)]) -> Tree {
        let root = std::env::temp_dir().join(format!("agentlane-doctor-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("temporary folder is writable");
            fs::write(path, text).expect("temporary folder is writable");
        }
        Tree(root)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn verdicts(document: &Value) -> Vec<(&str, &str)> {
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned().leak() as &str;
    let findings = document["findings"].as_array().expect("findings are a list");
    findings.iter().map(|finding| (text(&finding["name"]), text(&finding["verdict"]))).collect()
}

#[test]
fn this_host_is_judged() {
    let output = doctor(&[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ring.setup"), "{text}");
    let failed = text.lines().any(|line| line.starts_with("fail "));
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{text}");
    let output = doctor(&["--json", "--shards", "3"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    assert_eq!(document["shards"], 3);
}

#[test]
fn a_container_with_half_a_processor() {
    let tree = Tree::new(
        "container",
        &[
            ("proc/sys/kernel/osrelease", "5.10.0-cloud\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", "31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/cpu.stat", "nr_periods 100\nnr_throttled 60\n"),
            ("sys/fs/cgroup/memory.max", "134217728\n"),
            ("sys/devices/system/cpu/online", "0-7\n"),
        ],
    );
    let output = doctor(&["--json", "--root", tree.path().to_str().expect("the path is text")]);
    assert!(output.status.success(), "warnings are no failure");
    let document: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    assert_eq!(document["shards"], 1);
    let seen = verdicts(&document);
    for expected in [
        ("cpu.quota", "warn"),
        ("cpu.throttled", "warn"),
        ("memory.limit", "warn"),
        ("ring.kernel", "warn"),
        ("cpu.governor", "unseen"),
        ("net.queues", "unseen"),
    ] {
        assert!(seen.contains(&expected), "{expected:?} in {seen:?}");
    }
    assert!(!seen.iter().any(|(name, _)| *name == "ring.setup"), "no ring is tried for another host");
}

#[test]
fn a_hybrid_processor_gets_shards_for_its_fast_cores() {
    let speeds: Vec<(String, &str)> = (0..6)
        .map(|cpu| {
            let path = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq");
            (path, if cpu < 2 { "5200000" } else { "3900000" })
        })
        .collect();
    let mut files: Vec<(&str, &str)> = speeds.iter().map(|(path, khz)| (path.as_str(), *khz)).collect();
    files.push(("sys/devices/system/cpu/online", "0-5"));
    let tree = Tree::new("hybrid", &files);
    let root = tree.path().to_str().expect("the path is text");
    let run = |more: &[&str]| -> Value {
        let output = doctor(&[&["--json", "--root", root], more].concat());
        serde_json::from_slice(&output.stdout).expect("a JSON document")
    };
    let document = run(&[]);
    assert_eq!(document["shards"], 2);
    assert!(verdicts(&document).contains(&("cpu.classes", "pass")));
    assert!(verdicts(&run(&["--shards", "4"])).contains(&("cpu.classes", "warn")));
}
