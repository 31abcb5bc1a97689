//! The network: how many connections the kernel lets in, and whose processors the interrupts take.

use super::{Case, Finding};
use crate::Sysfs;
use crate::sysfs::{format_cpu_list, parse_cpu_list};

/// Connections that wait to be accepted, per listener.
const BACKLOG_MIN: i64 = 4096;
/// Local ports for connections to one upstream address.
const PORTS_MIN: i64 = 28_000;
/// Share of the connection tracker that may be full.
const TRACKED_SHARE_MAX: f64 = 0.5;

pub(super) fn examine(case: &Case<'_>) -> Vec<Finding> {
    let kernel =
        [accepted(case), half_open(case), ports(case), slow_start(case), backlog(case), tracked(case), balancer(case)];
    kernel.into_iter().flatten().chain(cards(case)).collect()
}

fn accepted(case: &Case<'_>) -> Option<Finding> {
    let limit = case.sysfs.number("proc/sys/net/core/somaxconn")?;
    let advice = "a burst of clients beyond it is refused: sysctl net.core.somaxconn=65535";
    Some(Finding::warn_unless(limit >= BACKLOG_MIN, "net.somaxconn", format!("{limit} connections wait"), advice))
}

fn half_open(case: &Case<'_>) -> Option<Finding> {
    let limit = case.sysfs.number("proc/sys/net/ipv4/tcp_max_syn_backlog")?;
    let cookies = case.sysfs.number("proc/sys/net/ipv4/tcp_syncookies").unwrap_or_default();
    let saw = format!("{limit} half-open, syncookies {cookies}");
    let advice =
        "a burst of clients or a flood fills it: sysctl net.ipv4.tcp_max_syn_backlog=65535 net.ipv4.tcp_syncookies=1";
    Some(Finding::warn_unless(limit >= 1024 && cookies > 0, "net.syn_backlog", saw, advice))
}

fn ports(case: &Case<'_>) -> Option<Finding> {
    let text = case.sysfs.text("proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ends = text.split_ascii_whitespace().filter_map(|end| end.parse::<i64>().ok());
    let (first, last) = (ends.next()?, ends.next()?);
    let ports = last.saturating_sub(first) + 1;
    let advice = "connections to one upstream run out of ports: sysctl net.ipv4.ip_local_port_range='1024 65535'";
    Some(Finding::warn_unless(ports >= PORTS_MIN, "net.ports", format!("{ports} local ports"), advice))
}

/// Pooled connections rest, and begin slowly again after one retransmission timeout of rest.
fn slow_start(case: &Case<'_>) -> Option<Finding> {
    let on = case.sysfs.number("proc/sys/net/ipv4/tcp_slow_start_after_idle")? != 0;
    let advice = "large answers on rested connections come slowly: sysctl net.ipv4.tcp_slow_start_after_idle=0";
    Some(Finding::warn_unless(!on, "net.slow_start", if on { "after idle" } else { "not after idle" }, advice))
}

fn backlog(case: &Case<'_>) -> Option<Finding> {
    let text = case.sysfs.text("proc/net/softnet_stat")?;
    // Hexadecimal columns, one line for each CPU; the second counts packets that found the queue full.
    let dropped: u64 =
        text.lines().filter_map(|line| u64::from_str_radix(line.split_ascii_whitespace().nth(1)?, 16).ok()).sum();
    let advice = "packets were lost before the stack saw them: sysctl net.core.netdev_max_backlog=16384";
    Some(Finding::warn_unless(dropped == 0, "net.backlog", format!("{dropped} packets dropped since start"), advice))
}

fn tracked(case: &Case<'_>) -> Option<Finding> {
    let max = case.sysfs.number("proc/sys/net/netfilter/nf_conntrack_max")?;
    let count = case.sysfs.number("proc/sys/net/netfilter/nf_conntrack_count")?;
    let advice =
        "when it is full new connections are dropped: sysctl net.netfilter.nf_conntrack_max, or NOTRACK for the ports";
    let room = count as f64 <= max as f64 * TRACKED_SHARE_MAX;
    Some(Finding::warn_unless(room, "net.conntrack", format!("{count} of {max} connections tracked"), advice))
}

/// irqbalance moves interrupts onto the processors of pinned shards.
fn balancer(case: &Case<'_>) -> Option<Finding> {
    let processes = case.sysfs.entries("proc");
    let running = processes
        .iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .any(|pid| case.sysfs.text(&format!("proc/{pid}/comm")).as_deref() == Some("irqbalance"));
    let advice = "it moves interrupts between the cores of shards at its own time: ban their cores (IRQBALANCE_BANNED_CPULIST) or stop it";
    Some(Finding::warn_unless(!running, "net.irqbalance", if running { "runs" } else { "does not run" }, advice))
}

/// One finding for the cards together: what is wrong with the first that is not well spread.
fn cards(case: &Case<'_>) -> Option<Finding> {
    let cards: Vec<Card> = case
        .sysfs
        .entries("sys/class/net")
        .into_iter()
        .filter(|name| case.sysfs.exists(&format!("sys/class/net/{name}/device")))
        .map(|name| Card::read(case.sysfs, name))
        .collect();
    if cards.is_empty() {
        return Some(Finding::unseen("net.queues", "no network card to be seen"));
    }
    let saw = cards.iter().map(Card::to_string).collect::<Vec<_>>().join("; ");
    let few = cards.iter().find(|card| card.queues < case.shards && !card.steered);
    let crowded = cards.iter().find(|card| card.irqs > 1 && card.cpus.len() == 1 && case.host.cpus.len() > 1);
    Some(match (few, crowded) {
        (Some(card), _) => Finding::warn(
            "net.queues",
            saw,
            format!(
                "{} has fewer queues than shards: ethtool -L {} combined {}, or spread its packets with rps_cpus",
                card.name, card.name, case.shards
            ),
        ),
        (None, Some(card)) => Finding::warn(
            "net.queues",
            saw,
            format!("every queue of {} interrupts one cpu: spread them over the cores (smp_affinity_list)", card.name),
        ),
        (None, None) => Finding::pass("net.queues", saw),
    })
}

/// A network card.
struct Card {
    name: String,
    /// Queues that receive.
    queues: usize,
    /// Its packets are spread by software (RPS).
    steered: bool,
    irqs: usize,
    /// The processors that its interrupts go to.
    cpus: Vec<usize>,
}

impl Card {
    fn read(sysfs: &Sysfs, name: String) -> Card {
        let folder = format!("sys/class/net/{name}");
        let queues = sysfs.entries(&format!("{folder}/queues"));
        let receive: Vec<&String> = queues.iter().filter(|queue| queue.starts_with("rx-")).collect();
        let steered = receive.iter().any(|queue| {
            let mask = sysfs.text(&format!("{folder}/queues/{queue}/rps_cpus")).unwrap_or_default();
            mask.chars().any(|digit| !matches!(digit, '0' | ','))
        });
        // Paravirtual cards have their interrupts one level up, at the bus's device.
        let irqs = ["device/msi_irqs", "device/../msi_irqs"]
            .iter()
            .map(|place| sysfs.entries(&format!("{folder}/{place}")))
            .find(|irqs| !irqs.is_empty())
            .unwrap_or_default();
        let mut cpus: Vec<usize> = irqs.iter().flat_map(|irq| affinity(sysfs, irq)).collect();
        cpus.sort_unstable();
        cpus.dedup();
        Card { name, queues: receive.len(), steered, irqs: irqs.len(), cpus }
    }
}

impl std::fmt::Display for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} queue{}", self.name, self.queues, if self.queues == 1 { "" } else { "s" })?;
        if !self.cpus.is_empty() {
            write!(f, ", interrupts on cpus {}", format_cpu_list(&self.cpus))?;
        }
        if self.steered { write!(f, ", spread by rps") } else { Ok(()) }
    }
}

/// Where an interrupt really goes, or may go where the kernel does not say.
fn affinity(sysfs: &Sysfs, irq: &str) -> Vec<usize> {
    ["effective_affinity_list", "smp_affinity_list"]
        .iter()
        .filter_map(|file| sysfs.text(&format!("proc/irq/{irq}/{file}")))
        .find_map(|text| parse_cpu_list(&text).filter(|cpus| !cpus.is_empty()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{findings, verdict};
    use super::super::{Verdict, Verdict::*};
    use super::*;

    fn check(name: &str, files: &[(&str, &str)], expected: Option<Verdict>) {
        assert_eq!(verdict(examine, name, files), expected, "{name} {files:?}");
    }

    #[test]
    fn sysctls() {
        check("net.somaxconn", &[("proc/sys/net/core/somaxconn", "128")], Some(Warn));
        check("net.somaxconn", &[("proc/sys/net/core/somaxconn", "4096")], Some(Pass));
        check("net.somaxconn", &[], None);
        let range = "proc/sys/net/ipv4/ip_local_port_range";
        check("net.ports", &[(range, "32768\t60999")], Some(Pass));
        check("net.ports", &[(range, "50000\t60000")], Some(Warn));
        check("net.ports", &[(range, "50000")], None);
        check("net.slow_start", &[("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1")], Some(Warn));
        let (max, count) = ("proc/sys/net/netfilter/nf_conntrack_max", "proc/sys/net/netfilter/nf_conntrack_count");
        check("net.conntrack", &[(max, "1000"), (count, "600")], Some(Warn));
        check("net.conntrack", &[(max, "1000"), (count, "6")], Some(Pass));
        check("net.backlog", &[("proc/net/softnet_stat", "0000a0 00000000 0\n0000a0 0000000b 0")], Some(Warn));
        check("net.irqbalance", &[("proc/812/comm", "irqbalance")], Some(Warn));
        check("net.irqbalance", &[("proc/812/comm", "bash")], Some(Pass));
    }

    #[test]
    fn cards_are_spread() {
        let mut files = vec![("sys/class/net/lo/operstate", "unknown"), ("sys/class/net/eth0/device/vendor", "0x8086")];
        check("net.queues", &files[..1], Some(Unseen));
        for queue in ["rx-0", "rx-1", "rx-2", "rx-3", "tx-0"] {
            let path = format!("sys/class/net/eth0/queues/{queue}/rps_cpus");
            files.push((path.leak(), "0"));
        }
        check("net.queues", &files[..5], Some(Warn));
        check("net.queues", &files, Some(Pass));
        files.extend([
            ("sys/class/net/eth0/device/msi_irqs/40", "msix"),
            ("sys/class/net/eth0/device/msi_irqs/41", "msix"),
        ]);
        files.extend([("proc/irq/40/effective_affinity_list", "0"), ("proc/irq/41/smp_affinity_list", "0")]);
        check("net.queues", &files, Some(Warn));
        files.pop();
        files.push(("proc/irq/41/smp_affinity_list", "1-3"));
        let seen = findings(examine, &files);
        let queues = seen.iter().find(|finding| finding.name == "net.queues").expect("there is a card");
        assert_eq!(queues.saw, "eth0: 4 queues, interrupts on cpus 0-3");
    }

    #[test]
    fn software_spreads_a_single_queue() {
        let queue = ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0000000f");
        check("net.queues", &[("sys/class/net/eth0/device/vendor", "x"), queue], Some(Pass));
    }
}
