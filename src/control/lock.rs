//! Judges what targets list: reads and scans each text once, compares it with the lock file, publishes the verdicts, and keeps the
//! table of them for operators. On a thread of its own, so that a long list delays neither shards nor control. Knows
//! nothing of how a lock file is read from disk; that is [`file`].

pub mod file;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use crate::backend::lock::TargetLock;
use crate::limits::{JUDGE_QUEUE, LOCK_ITEM_BYTES_MAX, LOCK_LIST_BYTES_MAX, LOCK_TEXTS_MAX, TARGET_TOOLS_MAX};
use crate::mesh::{JudgeRequest, Judged, Subject};
use crate::protocol::mcp::lock::definition::{Definition, Hash, Kind};
use crate::protocol::mcp::lock::drift::{self, Mode, Seen};
use crate::protocol::mcp::lock::json::{self, Broken};
use crate::protocol::mcp::lock::scan::{self, Scan, names};
use crate::protocol::mcp::lock::verdict::{State, Verdict};
use crate::telemetry::Registry;
pub use table::Table;

/// Whom control hands requests to. Ends its thread when dropped.
pub struct Judge {
    requests: flume::Sender<Box<JudgeRequest>>,
    table: Arc<Table>,
}

impl Judge {
    /// Starts the thread. `soon`: lists will come.
    pub fn start(registry: Arc<Registry>, soon: bool) -> std::io::Result<Judge> {
        let (requests, inbox) = flume::bounded::<Box<JudgeRequest>>(JUDGE_QUEUE);
        let table = Arc::new(Table::new(registry));
        let mut bench =
            Bench { table: table.clone(), texts: HashMap::new(), names: BTreeMap::new(), told: HashSet::new() };
        std::thread::Builder::new().name("lock".to_owned()).spawn(move || {
            if soon {
                scan::warm_up();
            }
            while let Ok(request) = inbox.recv() {
                bench.serve(*request);
            }
        })?;
        Ok(Judge { requests, table })
    }

    /// A request that finds the queue full is dropped, which its shard sees.
    pub fn ask(&self, request: Box<JudgeRequest>) {
        if self.requests.try_send(request).is_err() {
            tracing::warn!(target: "agentlane::lock", "more lists came than can be judged");
        }
    }

    /// Everything that was judged, with what was found in it: for the admin API.
    pub fn snapshot(&self) -> Value {
        self.table.snapshot()
    }

    /// The table itself, for whoever serves it.
    pub fn table(&self) -> Arc<Table> {
        self.table.clone()
    }
}

/// A text that was read and scanned.
struct Read {
    definition: Result<Definition, Broken>,
    scan: Scan,
    key: Hash,
    /// What mentions of other tools are looked for in.
    prose: String,
}

struct Parsed {
    definition: Result<Definition, Broken>,
    /// `None` of what could not be read.
    scan: Option<Scan>,
    prose: String,
}

impl Parsed {
    fn with(self, key: Hash) -> Read {
        let Parsed { definition, scan, prose } = self;
        let unreadable = || definition.as_ref().err().map(Scan::unreadable).unwrap_or_default();
        Read { scan: scan.unwrap_or_else(unreadable), definition, key, prose }
    }
}

struct Bench {
    table: Arc<Table>,
    /// By the hash of the text as it came.
    texts: HashMap<Hash, Arc<Read>>,
    /// Tools of each target.
    names: BTreeMap<String, Vec<Box<str>>>,
    /// What was logged, so that it is logged once.
    told: HashSet<Hash>,
}

impl Bench {
    fn serve(&mut self, request: JudgeRequest) {
        let JudgeRequest { lock, subject, reply } = request;
        let (kind, reads) = match &subject {
            Subject::List(kind, listing) => {
                let mut budget = LOCK_LIST_BYTES_MAX;
                let reads =
                    listing.texts().map(|(name, text)| (Box::from(&*name), self.read(*kind, text, &mut budget)));
                (*kind, reads.collect::<Vec<(Box<str>, Arc<Read>)>>())
            }
            Subject::Instructions(text) => (Kind::Instructions, vec![(Box::default(), self.instructions(text))]),
        };
        let digest: String = reads.iter().map(|(name, read)| format!("{name}\n{}\n", read.key)).collect();
        let digest = Hash::of(&digest);
        if kind == Kind::Tool {
            self.remember(&lock.key, &reads);
        }
        let scans: Vec<Scan> = reads.iter().map(|(name, read)| self.scanned(&lock.key, kind, name, read)).collect();
        let seen = reads.iter().zip(&scans).map(|((name, read), scan)| Seen {
            name: name.clone(),
            definition: read.definition.clone(),
            risk: scan.risk,
        });
        let seen: Vec<Seen> = seen.collect();
        let verdicts = drift::judge(lock.rules, lock.locked.as_ref(), kind, &seen);
        let keep = lock.rules.mode != Mode::Block;
        let mut all = lock.verdicts.load().with(kind, digest, &verdicts, TARGET_TOOLS_MAX, keep);
        let was_blocked = std::mem::take(&mut all.blocked).is_some();
        all.blocked = drifting(&lock, &all);
        let blocked = all.blocked.is_some();
        if blocked != was_blocked {
            let why = all.blocked.as_deref().unwrap_or_default();
            tracing::warn!(target: "agentlane::lock", target_name = %lock.key, blocked, why, "a target's lock has changed");
        }
        lock.publish(all);
        let rows = verdicts.iter().zip(scans).map(|((name, verdict), scan)| (name.clone(), verdict.clone(), scan));
        let rows: Vec<_> = rows.collect();
        rows.iter().for_each(|(name, verdict, scan)| self.tell(&lock, kind, name, verdict, scan));
        self.tell_gone(&lock, kind, &verdicts);
        self.table.note(&lock.key, kind, rows, blocked, keep);
        let hidden = verdicts.into_iter().filter(|(_, verdict)| verdict.hidden).map(|(name, _)| name).collect();
        let _ = reply.try_send(Judged { hidden, digest });
    }

    fn read(&mut self, kind: Kind, text: &[u8], budget: &mut usize) -> Arc<Read> {
        let broken = |message| {
            let read = Parsed { definition: Err(Broken { at: 0, message }), scan: None, prose: String::new() };
            Arc::new(read.with(Hash::of_bytes(text)))
        };
        let Ok(text) = std::str::from_utf8(text) else { return broken("not UTF-8") };
        if text.len() > LOCK_ITEM_BYTES_MAX.min(*budget) {
            return broken("too long to be looked at");
        }
        *budget -= text.len();
        self.once(kind, text, || match json::parse(text) {
            Ok(node) => {
                let prose = node.get("description").and_then(json::Node::text).unwrap_or_default().to_owned();
                Parsed { scan: Some(scan::item(&node)), prose, definition: Definition::of(kind, node) }
            }
            Err(broken) => Parsed { scan: None, definition: Err(broken), prose: String::new() },
        })
    }

    fn instructions(&mut self, text: &str) -> Arc<Read> {
        self.once(Kind::Instructions, text, || {
            let definition = Definition::instructions(text);
            Parsed { scan: Some(scan::item(&definition.content)), prose: text.to_owned(), definition: Ok(definition) }
        })
    }

    fn once(&mut self, kind: Kind, text: &str, make: impl FnOnce() -> Parsed) -> Arc<Read> {
        let key = Hash::of(&format!("{} {text}", kind.as_str()));
        if let Some(known) = self.texts.get(&key) {
            return known.clone();
        }
        if self.texts.len() >= LOCK_TEXTS_MAX {
            self.texts.clear();
        }
        let read = Arc::new(make().with(key));
        self.table.count(&read.scan);
        self.texts.insert(key, read.clone());
        read
    }

    fn remember(&mut self, key: &str, reads: &[(Box<str>, Arc<Read>)]) {
        let known = self.names.entry(key.to_owned()).or_default();
        let names: HashSet<&str> = reads.iter().map(|(name, _)| &**name).collect();
        known.retain(|name| !names.contains(&**name));
        known.extend(names.into_iter().map(Box::from));
        known.truncate(TARGET_TOOLS_MAX);
    }

    /// What was found in a text, and in its company.
    fn scanned(&self, key: &str, kind: Kind, name: &str, read: &Read) -> Scan {
        let others = || {
            let others = self.names.iter().filter(|(other, _)| *other != key);
            others.flat_map(|(target, names)| names.iter().map(move |name| (target.as_str(), &**name)))
        };
        // A name that the target has as well is its own.
        let own: HashSet<&str> = self.names.get(key).into_iter().flatten().map(|name| &**name).collect();
        let foreign = others().filter(|(_, name)| !own.contains(name));
        let mut more = names::find_mentions(&read.prose, foreign);
        if kind == Kind::Tool {
            more.extend(names::find_shadows(name, others()));
        }
        read.scan.with(more)
    }

    fn tell(&mut self, lock: &TargetLock, kind: Kind, name: &str, verdict: &Verdict, scan: &Scan) {
        let notable = verdict.state != State::Approved && scan.risk >= scan::RISK_NOTABLE;
        if !verdict.state.is_drift() && !notable {
            return;
        }
        let hash = verdict.hash.map(|hash| hash.to_string()).unwrap_or_default();
        let state = verdict.state.as_str();
        let what = format!("{}\n{}\n{name}\n{hash}\n{state}\n{}", lock.key, kind.as_str(), scan.risk);
        if !self.is_new(&what) {
            return;
        }
        let from = if let State::Renamed(from) = &verdict.state { from } else { "" };
        let found: Vec<String> = scan.findings.iter().take(3).map(ToString::to_string).collect();
        tracing::warn!(
            target: "agentlane::lock", target_name = %lock.key, kind = kind.as_str(), name, state, from,
            risk = scan.risk, hidden = verdict.hidden, hash, found = found.join("; "),
            "a target shows what was not approved"
        );
    }

    fn tell_gone(&mut self, lock: &TargetLock, kind: Kind, verdicts: &[(Box<str>, Verdict)]) {
        let Some(locked) = &lock.locked else { return };
        let listed: HashSet<&str> = verdicts.iter().map(|(name, _)| &**name).collect();
        for name in drift::gone(locked, kind, &listed) {
            if self.is_new(&format!("{}\n{}\n{name}\ngone", lock.key, kind.as_str())) {
                tracing::info!(
                    target: "agentlane::lock", target_name = %lock.key, kind = kind.as_str(), name,
                    "a target does not show what was approved"
                );
            }
        }
    }

    fn is_new(&mut self, what: &str) -> bool {
        if self.told.len() >= LOCK_TEXTS_MAX {
            self.told.clear();
        }
        self.told.insert(Hash::of(what))
    }
}

/// Why a target in mode `block` is not served.
fn drifting(lock: &TargetLock, all: &crate::protocol::mcp::lock::verdict::Verdicts) -> Option<Box<str>> {
    if lock.rules.mode != Mode::Block {
        return None;
    }
    let each =
        Kind::ALL.into_iter().flat_map(|kind| all.of_kind(kind).map(move |(name, verdict)| (kind, name, verdict)));
    let (kind, name, verdict) = each.into_iter().find(|(_, _, verdict)| verdict.hidden)?;
    Some(format!("{} {name:?}: {}, risk {}", kind.as_str(), verdict.state.as_str(), verdict.risk).into())
}
