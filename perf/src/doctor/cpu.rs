//! Processors: how many there are for shards, and what takes their time away.

use super::{Case, Finding};
use crate::sysfs::format_cpu_list;
use crate::{cgroup, topology};

/// Parts of a processor's time that another guest may take before it shows in tails.
const STEAL_SHARE_MAX: f64 = 0.01;
/// Microseconds that a processor may need to wake up.
const WAKE_US_MAX: i64 = 50;

pub(super) fn examine(case: &Case<'_>) -> Vec<Finding> {
    let findings = [
        shards(case),
        quota(case),
        throttled(case),
        classes(case),
        governor(case),
        idle(case),
        clock(case),
        steal(case),
    ];
    findings.into_iter().flatten().collect()
}

fn shards(case: &Case<'_>) -> Option<Finding> {
    let (cpus, cores) = (case.host.cpus.len(), case.host.cores());
    let saw = format!("{} shards, {cores} cores, {cpus} cpus", case.shards);
    Some(match case.shards {
        more if more > cpus => {
            let advice = "more shards than cpus share cores and wait for each other: start one per core";
            Finding::warn("cpu.shards", saw, advice)
        }
        more if more > cores => {
            let advice = "shards on both siblings of a core slow each other; measure whether more of them serve more";
            Finding::warn("cpu.shards", saw, advice)
        }
        _ => Finding::pass("cpu.shards", saw),
    })
}

fn quota(case: &Case<'_>) -> Option<Finding> {
    let Some(quota) = case.host.quota else { return Some(Finding::pass("cpu.quota", "none")) };
    let saw = format!("{quota:.2} cpus for {} shards", case.shards);
    if quota < case.shards as f64 {
        let advice = "when it is used up every shard stops for the rest of the period: fewer shards, or a higher limit";
        return Some(Finding::warn("cpu.quota", saw, advice));
    }
    let advice = "what is beyond a whole cpu serves no shard: use a whole number (or the static cpu manager policy)";
    Some(Finding::warn_unless(quota.fract() < 0.01, "cpu.quota", saw, advice))
}

fn throttled(case: &Case<'_>) -> Option<Finding> {
    let (periods, throttled) = cgroup::throttling(case.sysfs)?;
    let saw = format!("{throttled} of {periods} periods cut short");
    let advice = "the group has run out of its quota: its work stopped for up to 100 ms each time";
    Some(Finding::warn_unless(throttled * 1000 <= periods, "cpu.throttled", saw, advice))
}

/// Hybrid processors: shards are equal, so that the slow cores would make the tail.
fn classes(case: &Case<'_>) -> Option<Finding> {
    let fast = topology::fastest(&case.host.cpus);
    if fast.len() == case.host.cpus.len() {
        return None;
    }
    let ids: Vec<usize> = fast.iter().map(|cpu| cpu.id).collect();
    let saw = format!("{} of {} cpus are fast ones ({})", fast.len(), case.host.cpus.len(), format_cpu_list(&ids));
    let advice = "connections are spread evenly, so that a shard on a slow core makes the tail: start no more shards than fast cores";
    Some(Finding::warn_unless(case.shards <= topology::cores(&fast), "cpu.classes", saw, advice))
}

fn governor(case: &Case<'_>) -> Option<Finding> {
    let read = |id: usize| case.sysfs.text(&format!("sys/devices/system/cpu/cpu{id}/cpufreq/scaling_governor"));
    let mut governors: Vec<String> = case.host.cpus.iter().filter_map(|cpu| read(cpu.id)).collect();
    governors.sort();
    governors.dedup();
    if governors.is_empty() {
        return Some(Finding::unseen("cpu.governor", "no frequency scaling to be seen"));
    }
    let advice = "clocks fall between requests and rise late: cpupower frequency-set -g performance";
    let steady = governors.iter().all(|governor| governor == "performance");
    Some(Finding::warn_unless(steady, "cpu.governor", governors.join(", "), advice))
}

/// Sleep states that take long to leave, of the first processor: the others have the same.
fn idle(case: &Case<'_>) -> Option<Finding> {
    let folder = format!("sys/devices/system/cpu/cpu{}/cpuidle", case.host.cpus.first()?.id);
    let slowest = case
        .sysfs
        .entries(&folder)
        .iter()
        .filter(|state| case.sysfs.number(&format!("{folder}/{state}/disable")) != Some(1))
        .filter_map(|state| case.sysfs.number(&format!("{folder}/{state}/latency")))
        .max()?;
    let advice = "an idle shard wakes up late: tuned-adm profile network-latency, or hold /dev/cpu_dma_latency low";
    Some(Finding::warn_unless(slowest <= WAKE_US_MAX, "cpu.idle", format!("up to {slowest} us to wake"), advice))
}

fn clock(case: &Case<'_>) -> Option<Finding> {
    let source = case.sysfs.text("sys/devices/system/clocksource/clocksource0/current_clocksource");
    let Some(source) = source.filter(|source| !source.is_empty()) else {
        return Some(Finding::unseen("cpu.clock", "clock source not readable"));
    };
    let quick = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource"];
    let advice =
        "each reading of the clock is a system call: find out why the kernel gave the tsc up (dmesg | grep -i tsc)";
    Some(Finding::warn_unless(quick.contains(&source.as_str()), "cpu.clock", source, advice))
}

/// Time since the start that other guests of the machine had (proc_stat(5)).
fn steal(case: &Case<'_>) -> Option<Finding> {
    let text = case.sysfs.text("proc/stat")?;
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<f64> = line.split_ascii_whitespace().filter_map(|time| time.parse().ok()).collect();
    let (all, stolen) = (times.iter().take(8).sum::<f64>(), times.get(7).copied().unwrap_or_default());
    if all <= 0.0 {
        return None;
    }
    let share = stolen / all;
    let advice = "other guests take this machine's time: dedicated cpus, or another machine";
    Some(Finding::warn_unless(share <= STEAL_SHARE_MAX, "cpu.steal", format!("{:.2} %", share * 100.0), advice))
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::super::{Verdict, Verdict::*};
    use super::*;

    const MOUNT: (&str, &str) = ("proc/self/mountinfo", "31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
    const GROUP: (&str, &str) = ("proc/self/cgroup", "0::/g");

    fn check(name: &str, files: &[(&str, &str)], expected: Option<Verdict>) {
        assert_eq!(verdict(examine, name, files), expected, "{name} {files:?}");
    }

    #[test]
    fn what_takes_time_away() {
        check("cpu.quota", &[], Some(Pass));
        check("cpu.quota", &[MOUNT, GROUP, ("sys/fs/cgroup/g/cpu.max", "200000 100000")], Some(Pass));
        check("cpu.quota", &[MOUNT, GROUP, ("sys/fs/cgroup/g/cpu.max", "250000 100000")], Some(Warn));
        check("cpu.quota", &[MOUNT, GROUP, ("sys/fs/cgroup/g/cpu.max", "50000 100000")], Some(Warn));
        let stat = "sys/fs/cgroup/g/cpu.stat";
        check("cpu.throttled", &[MOUNT, GROUP, (stat, "nr_periods 5000\nnr_throttled 5")], Some(Pass));
        check("cpu.throttled", &[MOUNT, GROUP, (stat, "nr_periods 5000\nnr_throttled 50")], Some(Warn));
        check("cpu.throttled", &[], None);
        check("cpu.steal", &[("proc/stat", "cpu  900 0 50 1000 0 0 0 10 0 0")], Some(Pass));
        check("cpu.steal", &[("proc/stat", "cpu  900 0 50 1000 0 0 0 300 0 0")], Some(Warn));
        check("cpu.steal", &[("proc/stat", "rubbish")], None);
    }

    #[test]
    fn clocks() {
        let source = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        check("cpu.clock", &[(source, "tsc")], Some(Pass));
        check("cpu.clock", &[(source, "hpet")], Some(Warn));
        check("cpu.clock", &[], Some(Unseen));
        let governor = "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor";
        check("cpu.governor", &[(governor, "performance")], Some(Pass));
        check("cpu.governor", &[(governor, "powersave")], Some(Warn));
        check("cpu.governor", &[], Some(Unseen));
        let state = |file: &str| format!("sys/devices/system/cpu/cpu0/cpuidle/state3/{file}");
        check("cpu.idle", &[(&state("latency"), "133"), (&state("disable"), "0")], Some(Warn));
        check("cpu.idle", &[(&state("latency"), "133"), (&state("disable"), "1")], None);
        check("cpu.idle", &[(&state("latency"), "2"), (&state("disable"), "0")], Some(Pass));
    }

    #[test]
    fn hybrid_cores() {
        let speed = |cpu: usize| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq");
        let (a, b, c, d) = (speed(0), speed(1), speed(2), speed(3));
        let files = [(&*a, "5200000"), (&*b, "5200000"), (&*c, "3900000"), (&*d, "3900000")];
        check("cpu.classes", &files, Some(Pass));
        check("cpu.classes", &[(&*a, "5200000"), (&*b, "5000000")], None);
    }
}
