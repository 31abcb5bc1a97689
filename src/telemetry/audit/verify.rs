//! Whether an audit log is whole: every record as it was written, none missing, none moved. Pure: lines come in, in the order
//! of the files.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::chain::{Digest, Hex, Seal, of_line, split};

/// Which chain: the run of the process, and the shard in it.
pub type Chain = (String, u64);

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Break {
    /// Not a record: not JSON, or without the fields that every record has.
    NotARecord,
    /// The last line is not whole.
    Torn,
    /// Its hash is not that of what it says.
    Changed,
    /// The chain had hashes up to here, or has them from here on.
    HashMissing,
    /// The hash that it gives of the record before is another.
    BeforeChanged,
    /// The records before it, from the first number to the second, are not there.
    Removed(u64, u64),
    /// Its number was there already: it was moved or doubled.
    Moved,
    /// Something comes after the end of a chain.
    AfterEnd,
    /// What the file ended in when this run began is not there.
    TailRemoved,
    /// The gateway told another hash of this record.
    NotAsTold,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Break::NotARecord => f.write_str("not an audit record"),
            Break::Torn => f.write_str("the last line is cut off"),
            Break::Changed => f.write_str("the record was changed: its hash does not fit (or the key is another one)"),
            Break::HashMissing => f.write_str("the record has no hash"),
            Break::BeforeChanged => f.write_str("the record before it was replaced: its hash is another"),
            Break::Removed(from, to) if from == to => write!(f, "record {from} is missing before it"),
            Break::Removed(from, to) => write!(f, "records {from} to {to} are missing before it"),
            Break::Moved => f.write_str("the record is not in its place: its number was there already"),
            Break::AfterEnd => f.write_str("the record comes after the end of its chain"),
            Break::NotAsTold => f.write_str("the gateway told another hash of this record"),
            Break::TailRemoved => f.write_str("the line that stood before this run's start is missing or was changed"),
        }
    }
}

/// What is known of one chain at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The first and the last number.
    pub first: u64,
    pub last: u64,
    pub records: u64,
    /// Records that the gateway itself said were lost.
    pub lost: u64,
    /// The hash of the last one, in hexadecimal, where it is chained.
    pub hash: Option<String>,
    /// It ends in a record of the end.
    pub ended: bool,
}

/// Reads lines one by one.
pub struct Verifier {
    seal: Seal,
    chains: BTreeMap<Chain, Summary>,
    /// How many shards a run has, by its own word.
    shards: BTreeMap<String, u64>,
    line_before: Option<Digest>,
    /// What the gateway told of records, until they are found.
    told: BTreeMap<Chain, (u64, String)>,
}

impl Verifier {
    pub fn new(seal: Seal) -> Self {
        let (chains, shards, told) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { seal, chains, shards, line_before: None, told }
    }

    /// Adds what the gateway told elsewhere: a record with its hash, in hexadecimal. What is cut off at the end of a log
    /// shows by that.
    pub fn expect(&mut self, chain: Chain, seq: u64, hash: String) {
        self.told.insert(chain, (seq, hash));
    }

    /// Records that the gateway told of and that were not found.
    pub fn unmet(&self) -> impl Iterator<Item = (&Chain, u64)> {
        self.told.iter().map(|(chain, (seq, _))| (chain, *seq))
    }

    /// Takes the next line, without its line break.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Break> {
        let before = self.line_before.replace(of_line(line));
        let value: Value = serde_json::from_slice(line).map_err(|_| Break::NotARecord)?;
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        let (Some(event), Some(run), Some(shard), Some(seq)) =
            (text("event"), text("run"), number("shard"), number("seq"))
        else {
            return Err(Break::NotARecord);
        };
        let hash = match split(line) {
            Some((body, hash)) if *hash == Hex(&self.seal.hash(body)).to_string() => Some(hash.to_owned()),
            Some(_) => return Err(Break::Changed),
            None if value.get("hash").is_some() => return Err(Break::Changed),
            None if matches!(self.seal, Seal::Keyed(_)) => return Err(Break::HashMissing),
            None => None,
        };
        if event == "start" && !self.shards.contains_key(run) {
            self.shards.insert(run.to_owned(), number("shards").unwrap_or_default());
            if let (Some(after), Some(before)) = (text("after"), before)
                && after != Hex(&before).to_string()
            {
                return Err(Break::TailRemoved);
            }
        }
        let gap = if event == "gap" { number("lost").unwrap_or_default() } else { 0 };
        let chain = (run.to_owned(), shard);
        if let Some((told, of)) = self.told.get(&chain)
            && *told == seq
        {
            // Without hashes the number alone is known.
            if hash.as_ref().is_some_and(|hash| hash != of) {
                return Err(Break::NotAsTold);
            }
            self.told.remove(&chain);
        }
        let Some(known) = self.chains.get_mut(&chain) else {
            let begun = Summary { first: seq, last: seq, records: 1, lost: gap, hash, ended: event == "end" };
            self.chains.insert(chain, begun);
            return Ok(());
        };
        known.follow(event, seq, gap, text("prev"), hash)
    }

    /// Chains that a run says it has, and of which there is no record.
    pub fn missing(&self) -> Vec<Chain> {
        let all = self.shards.iter().flat_map(|(run, &shards)| (0..shards.min(1024)).map(move |at| (run.clone(), at)));
        all.filter(|chain| !self.chains.contains_key(chain)).collect()
    }

    pub fn chains(&self) -> &BTreeMap<Chain, Summary> {
        &self.chains
    }
}

impl Summary {
    fn follow(
        &mut self,
        event: &str,
        seq: u64,
        gap: u64,
        prev: Option<&str>,
        hash: Option<String>,
    ) -> Result<(), Break> {
        if self.ended {
            return Err(Break::AfterEnd);
        }
        if seq <= self.last {
            return Err(Break::Moved);
        }
        if seq - self.last - 1 != gap {
            return Err(Break::Removed(self.last + 1, seq - 1));
        }
        match (&self.hash, &hash) {
            (None, None) => {}
            (Some(before), Some(_)) if prev == Some(before) => {}
            (Some(_), Some(_)) => return Err(Break::BeforeChanged),
            _ => return Err(Break::HashMissing),
        }
        self.last = seq;
        self.records += 1;
        self.lost += gap;
        self.hash = hash;
        self.ended = event == "end";
        Ok(())
    }
}
