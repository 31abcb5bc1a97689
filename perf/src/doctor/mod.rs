//! What of a host costs a gateway latency, connections or its start, finding by finding. It reads and judges; it changes
//! nothing. What to set instead is said in words that an operator can type.
//!
//! - [`Finding`]: one judgement; [`examine`] makes them all
//! - `cpu`, `memory`, `rings`, `network`: one area each

mod cpu;
mod memory;
mod network;
mod rings;

use std::fmt;

use crate::{Host, Sysfs};

/// How a finding is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Pass,
    /// Nothing could be read, which is usual in containers: what that hides is said.
    Unseen,
    /// It costs speed, or will cost connections under load.
    Warn,
    /// The gateway would not start, or not as configured.
    Fail,
}

impl Verdict {
    /// `pass`, `unseen`, `warn` or `fail`.
    pub const fn label(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Unseen => "unseen",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// One judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable, for scripts: `cpu.quota`, `net.somaxconn`.
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was seen, with its unit.
    pub saw: String,
    /// Why it matters and what to do; empty where nothing is to be done.
    pub advice: String,
}

impl Finding {
    fn pass(name: &'static str, saw: impl Into<String>) -> Finding {
        Finding { name, verdict: Verdict::Pass, saw: saw.into(), advice: String::new() }
    }

    fn warn(name: &'static str, saw: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { name, verdict: Verdict::Warn, saw: saw.into(), advice: advice.into() }
    }

    fn fail(name: &'static str, saw: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { name, verdict: Verdict::Fail, saw: saw.into(), advice: advice.into() }
    }

    fn unseen(name: &'static str, what: impl Into<String>) -> Finding {
        let advice = "not visible from here: look on the host itself".to_owned();
        Finding { name, verdict: Verdict::Unseen, saw: what.into(), advice }
    }

    /// A pass where `good`, else a warning.
    fn warn_unless(good: bool, name: &'static str, saw: impl Into<String>, advice: impl Into<String>) -> Finding {
        if good { Finding::pass(name, saw) } else { Finding::warn(name, saw, advice) }
    }
}

/// What is examined: a host, and what is meant to run on it.
pub struct Case<'a> {
    pub sysfs: &'a Sysfs,
    pub host: &'a Host,
    /// Shards that are meant to run.
    pub shards: usize,
    /// What setting up a ring came to; `None`: not tried.
    pub ring: Option<Result<(), String>>,
}

/// Every finding, area by area.
pub fn examine(case: &Case<'_>) -> Vec<Finding> {
    [cpu::examine, memory::examine, rings::examine, network::examine].iter().flat_map(|area| area(case)).collect()
}

/// The worst of the findings; `Pass` for none.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass)
}

/// One case per area: files of a tree, and the verdicts that must come of it.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::sysfs::fake::Tree;

    /// Examines a fake tree with four CPUs on four cores, and gives the findings.
    pub(crate) fn findings(area: fn(&Case<'_>) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<Finding> {
        let tree = Tree::new(files).cpus(&[(0, 0, 0, 0), (1, 0, 1, 0), (2, 0, 2, 0), (3, 0, 3, 0)]);
        let host = Host::read(&tree.sysfs, &[0, 1, 2, 3]);
        let shards = crate::default_shards(&host);
        area(&Case { sysfs: &tree.sysfs, host: &host, shards, ring: None })
    }

    /// The verdict of one finding; `None` if there is none of that name.
    pub(crate) fn verdict(area: fn(&Case<'_>) -> Vec<Finding>, name: &str, files: &[(&str, &str)]) -> Option<Verdict> {
        findings(area, files).iter().find(|finding| finding.name == name).map(|finding| finding.verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_host_is_examined() {
        let (sysfs, host) = (Sysfs::default(), crate::probe());
        let findings = examine(&Case { sysfs: &sysfs, host: &host, shards: 1, ring: Some(Ok(())) });
        assert!(findings.iter().any(|finding| finding.name == "ring.setup" && finding.verdict == Verdict::Pass));
        for finding in &findings {
            let told = !finding.advice.is_empty();
            assert_eq!(told, finding.verdict != Verdict::Pass, "{finding:?}");
            assert!(!finding.saw.is_empty() && !finding.saw.contains('\n'), "{finding:?}");
        }
        let names: std::collections::HashSet<_> = findings.iter().map(|finding| finding.name).collect();
        assert_eq!(names.len(), findings.len(), "names are unique");
    }

    #[test]
    fn an_empty_tree_is_no_failure() {
        let sysfs = Sysfs::new("/nonexistent/agentlane");
        let host = Host::read(&sysfs, &[0]);
        let findings = examine(&Case { sysfs: &sysfs, host: &host, shards: 1, ring: None });
        assert!(worst(&findings) <= Verdict::Unseen, "{findings:?}");
        assert!(findings.iter().any(|finding| finding.verdict == Verdict::Unseen));
    }
}
