//! What was judged, for operators: metrics, and a table that can be printed whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::limits::LOCK_TEXTS_MAX;
use crate::protocol::mcp::lock::definition::Kind;
use crate::protocol::mcp::lock::scan::{Class, Scan};
use crate::protocol::mcp::lock::verdict::{State, Verdict};
use crate::telemetry::{Counter, Gauge, Registry};

/// Written by the judge alone.
pub struct Table {
    registry: Arc<Registry>,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    by_target: BTreeMap<String, TargetRows>,
    classes: HashMap<Class, Counter>,
    gauges: HashMap<(String, &'static str), Gauge>,
}

#[derive(Default)]
struct TargetRows {
    blocked: bool,
    rows: BTreeMap<(Kind, Box<str>), (Verdict, Scan)>,
}

impl Table {
    pub fn new(registry: Arc<Registry>) -> Table {
        Table { registry, rows: Mutex::default() }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what was found in a text that was not seen before.
    pub fn count(&self, scan: &Scan) {
        let mut rows = self.rows();
        for finding in &scan.findings {
            let counter = rows.classes.entry(finding.class).or_insert_with(|| {
                let labels = [("class", finding.class.as_str())];
                self.registry.counter(
                    "agentlane_lock_findings_total",
                    "Suspicious things in what targets list, by class.",
                    &labels,
                )
            });
            counter.inc();
        }
    }

    /// Notes the verdicts of a list. `keep`: names that are not in it stay.
    pub fn note(&self, target: &str, kind: Kind, judged: Vec<(Box<str>, Verdict, Scan)>, blocked: bool, keep: bool) {
        let mut rows = self.rows();
        let of_target = rows.by_target.entry(target.to_owned()).or_default();
        of_target.blocked = blocked;
        if !keep || of_target.rows.len() + judged.len() > LOCK_TEXTS_MAX {
            of_target.rows.retain(|(of, _), _| *of != kind);
        }
        for (name, verdict, scan) in judged {
            of_target.rows.insert((kind, name), (verdict, scan));
        }
        let count =
            |is: &dyn Fn(&Verdict) -> bool| of_target.rows.values().filter(|(verdict, _)| is(verdict)).count() as i64;
        let values = [
            ("items", count(&|_| true)),
            ("drift", count(&|verdict| verdict.state.is_drift())),
            ("hidden", count(&|verdict| verdict.hidden)),
            ("blocked", i64::from(blocked)),
            ("risk_max", of_target.rows.values().map(|(verdict, _)| i64::from(verdict.risk)).max().unwrap_or_default()),
        ];
        for (what, value) in values {
            let gauge = rows.gauges.entry((target.to_owned(), what)).or_insert_with(|| {
                let labels = [("target", target), ("what", what)];
                let help = "What the tool lock knows of a target: items, drift, hidden, blocked, risk_max.";
                self.registry.gauge("agentlane_lock", help, &labels)
            });
            gauge.set(value);
        }
    }

    /// Everything, as JSON: by target, the riskiest first.
    pub fn snapshot(&self) -> Value {
        let rows = self.rows();
        let targets = rows.by_target.iter().map(|(target, of_target)| {
            let mut sorted: Vec<_> = of_target.rows.iter().collect();
            sorted.sort_by_key(|(_, (verdict, _))| std::cmp::Reverse(verdict.risk));
            let items: Vec<Value> =
                sorted.into_iter().map(|((kind, name), (verdict, scan))| row(*kind, name, verdict, scan)).collect();
            (target.clone(), json!({ "blocked": of_target.blocked, "items": items }))
        });
        Value::Object(targets.collect())
    }
}

fn row(kind: Kind, name: &str, verdict: &Verdict, scan: &Scan) -> Value {
    let findings = scan.findings.iter().map(|finding| {
        json!({ "class": finding.class.as_str(), "weight": finding.weight, "path": finding.path, "quote": finding.quote })
    });
    let mut row = json!({
        "kind": kind.as_str(),
        "name": name,
        "state": verdict.state.as_str(),
        "hidden": verdict.hidden,
        "risk": verdict.risk,
        "hash": verdict.hash.map(|hash| hash.to_string()),
        "findings": findings.collect::<Vec<_>>(),
    });
    if let State::Renamed(from) = &verdict.state {
        row["from"] = json!(from);
    }
    row
}
