//! How good the scan is, on examples that say what they are: recall and rate of false alarms, by class and by half of the
//! examples. Phrases may be written after the one half (`dev`); the other (`held`) is for measuring alone.

use std::collections::BTreeMap;
use std::path::Path;

use crate::protocol::mcp::lock::definition::Hash;
use crate::protocol::mcp::lock::file::LockFile;
use crate::protocol::mcp::lock::json::{self, Node};
use crate::protocol::mcp::lock::scan::{self, RISK_HIGH, Scan};

struct Example {
    id: String,
    is_attack: bool,
    /// Of attacks, the manner; of others, the server.
    class: String,
    scan: Scan,
}

#[derive(Default, Clone, Copy)]
struct Count {
    flagged: usize,
    all: usize,
}

/// Reads `*.jsonl` (lines of `{"id", "attack": true|false, "class", "item", "others"?}`) and `*.lock.json` (lock files, all of
/// them harmless), and prints the table.
pub fn score(folder: &Path) -> Result<(), String> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .map_err(|error| format!("cannot read {}: {error}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    let mut examples = Vec::new();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let read =
            || std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()));
        if name.ends_with(".jsonl") {
            lines(&name, &read()?, &mut examples)?;
        } else if let Some(server) = name.strip_suffix(".lock.json") {
            lock_file(server, &name, &read()?, &mut examples)?;
        }
    }
    if examples.is_empty() {
        return Err(format!("{} holds no examples", folder.display()));
    }
    print(&examples);
    Ok(())
}

fn lines(file: &str, text: &str, examples: &mut Vec<Example>) -> Result<(), String> {
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: &str| format!("{file}:{}: {what}", number + 1);
        let node = json::parse(line).map_err(|broken| wrong(broken.message))?;
        let text = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
        let item = node.get("item").ok_or_else(|| wrong("item is missing"))?;
        let is_attack = matches!(node.get("attack").map(|node| &node.value), Some(json::Value::Bool(true)));
        let others: Vec<(String, String)> = node.get("others").map(others).unwrap_or_default();
        let id = text("id").ok_or_else(|| wrong("id is missing"))?;
        let class = text("class").ok_or_else(|| wrong("class is missing"))?;
        examples.push(Example { id, is_attack, class, scan: scanned(item, &others) });
    }
    Ok(())
}

/// `{"target": ["tool", ...]}`.
fn others(node: &Node) -> Vec<(String, String)> {
    let tools = node.members().iter().flat_map(|(target, tools)| {
        let names = match &tools.value {
            json::Value::Array(names) => names.as_slice(),
            _ => &[],
        };
        names.iter().filter_map(|name| Some((target.clone(), name.text()?.to_owned())))
    });
    tools.collect()
}

fn lock_file(server: &str, file: &str, text: &str, examples: &mut Vec<Example>) -> Result<(), String> {
    let lock = LockFile::parse(text).map_err(|faults| format!("{file}:{}", faults[0]))?;
    for (target, locked) in &lock.targets {
        for ((kind, name), definitions) in &locked.entries {
            for definition in definitions {
                let id = format!("{server}/{target}/{}/{name}/{}", kind.as_str(), definition.hash);
                let scan = scanned(&definition.content, &[]);
                examples.push(Example { id, is_attack: false, class: target.clone(), scan });
            }
        }
    }
    Ok(())
}

fn scanned(item: &Node, others: &[(String, String)]) -> Scan {
    let pairs = || others.iter().map(|(target, name)| (target.as_str(), name.as_str()));
    let text = |key: &str| item.get(key).and_then(Node::text).unwrap_or_default();
    let mut more = scan::names::find_mentions(text("description"), pairs());
    more.extend(scan::names::find_shadows(text("name"), pairs()));
    scan::item(item).with(more)
}

/// By the id alone, so that no example changes sides when others come.
fn is_held(id: &str) -> bool {
    Hash::of(id).0[0] & 1 == 1
}

fn print(examples: &[Example]) {
    let mut classes: BTreeMap<(bool, &str), [Count; 2]> = BTreeMap::new();
    let mut totals = [[Count::default(); 2]; 2];
    for example in examples {
        let (held, flagged) = (usize::from(is_held(&example.id)), usize::from(example.scan.risk >= RISK_HIGH));
        let class = &mut classes.entry((!example.is_attack, &example.class)).or_default()[held];
        for count in [class, &mut totals[usize::from(example.is_attack)][held]] {
            count.all += 1;
            count.flagged += flagged;
        }
    }
    println!("{:34} {:>12} {:>12}", format!("flagged: risk {RISK_HIGH} or more"), "dev", "held");
    for ((benign, class), counts) in &classes {
        let label = if *benign { "harmless" } else { "attack" };
        println!("{:34} {:>12} {:>12}", format!("{label} {class}"), of(counts[0]), of(counts[1]));
    }
    for (label, counts) in [("recall", totals[1]), ("false-positive rate", totals[0])] {
        let both = Count { flagged: counts[0].flagged + counts[1].flagged, all: counts[0].all + counts[1].all };
        println!("{label:34} {:>12} {:>12}   all {}", rate(counts[0]), rate(counts[1]), rate(both));
    }
    println!();
    for example in examples.iter().filter(|example| (example.scan.risk >= RISK_HIGH) != example.is_attack) {
        // What is held back is counted, not looked at.
        if !is_held(&example.id) {
            let what = if example.is_attack { "missed" } else { "false alarm" };
            println!("{what} (dev): {} risk {}", example.id, example.scan.risk);
            example.scan.findings.iter().for_each(|finding| println!("    {} {finding}", finding.weight));
        }
    }
}

fn of(count: Count) -> String {
    format!("{}/{}", count.flagged, count.all)
}

fn rate(count: Count) -> String {
    format!("{:.3}", count.flagged as f64 / count.all.max(1) as f64)
}
