//! `agentlane doctor`: what of this host costs a gateway.

use std::io::{self, Write};
use std::process::ExitCode;

use agentlane_perf::doctor::{self, Case, Finding, Verdict};
use agentlane_perf::{Host, Sysfs};
use agentlane_runtime::{self as runtime, Driver, RuntimeChoice};
use serde_json::json;

use super::DoctorArgs;

/// Entries of the ring that is tried: what shards have unless the configuration says otherwise.
const RING_ENTRIES: u32 = 1024;

pub fn run(args: &DoctorArgs) -> ExitCode {
    let sysfs = args.root.clone().map_or_else(Sysfs::default, Sysfs::new);
    let host = match &args.root {
        None => agentlane_perf::probe(),
        // A tree of another host: its processors are those that it says are online.
        Some(_) => Host::read(&sysfs, &sysfs.cpu_list("sys/devices/system/cpu/online").unwrap_or_else(|| vec![0])),
    };
    let shards = args.shards.map_or_else(|| agentlane_perf::default_shards(&host), |shards| shards as usize);
    let ring = args.root.is_none().then(|| ring(shards));
    let findings = doctor::examine(&Case { sysfs: &sysfs, host: &host, shards, ring });
    let text = if args.json { document(&host, shards, &findings) } else { table(&host, &findings) };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) if doctor::worst(&findings) < Verdict::Fail => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Tries what shards will need.
fn ring(shards: usize) -> Result<(), String> {
    let selection = runtime::select(RuntimeChoice::Monoio, shards, RING_ENTRIES)?;
    match selection.driver {
        Driver::Uring => Ok(()),
        _ => Err(selection.note.unwrap_or_default()),
    }
}

fn table(host: &Host, findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
    let mut text = format!("{host}\n\n");
    for Finding { name, verdict, saw, advice } in findings {
        text += &format!("{verdict:<6}  {name:<width$}  {saw}\n");
        if !advice.is_empty() {
            text += &format!("{:8}{:width$}  -> {advice}\n", "", "");
        }
    }
    let count = |verdict: Verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let all = [Verdict::Pass, Verdict::Warn, Verdict::Fail, Verdict::Unseen];
    let counts: Vec<String> = all.iter().map(|&verdict| format!("{} {verdict}", count(verdict))).collect();
    text + &format!("\n{}\n", counts.join(", "))
}

fn document(host: &Host, shards: usize, findings: &[Finding]) -> String {
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "name": finding.name,
                "verdict": finding.verdict.label(),
                "saw": finding.saw,
                "advice": finding.advice,
            })
        })
        .collect();
    format!("{:#}\n", json!({"host": host.to_string(), "shards": shards, "findings": findings}))
}
