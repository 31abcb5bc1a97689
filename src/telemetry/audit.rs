//! Audit records: who was refused what and why, and who called what. One line of JSON each, formatted on the shard, written
//! by a thread of its own. Knows neither requests nor sessions: the caller fills in the record.
//!
//! Every shard numbers its records. Chained, each holds the hash of the one before, so that a changed, removed or moved
//! record shows (`verify.rs`). A shard never waits for the writer. When it is behind, records are lost, and the next one
//! that gets through says how many (`gap`); or the shard holds them, and says that it is [`behind`](AuditLog::is_behind).

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::form::{Json, Line};
use super::lines::{BUFFER_BYTES, LineSink};
use super::metrics::Counter;
use super::time::Stamp;
use chain::Digest;

mod chain;
pub mod verify;

pub use chain::{Hex, Seal, last_line};

/// Bytes that a shard holds for a writer that is behind, where nothing may be lost; above it all of them are.
const HELD_BYTES_MAX: usize = 1 << 20;

/// Why somebody was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The kind of fault, by its label.
    pub kind: &'static str,
    /// What decided: the policy, and where there is one, its rule with its place in the configuration.
    pub rule: Option<Arc<str>>,
}

/// What is known of a request when its answer has ended. Absent fields are left out of the line.
#[derive(Clone, Copy, Debug)]
pub struct AuditRecord<'a> {
    /// `None`: it was served, and is written because it is a call.
    pub denial: Option<&'a Denial>,
    pub start: SystemTime,
    pub remote: Option<SocketAddr>,
    /// The subject of the client's certificate, where one was verified.
    pub client: Option<&'a str>,
    /// A digest of what identifies the caller, the same for the same identity.
    pub principal: Option<&'a [u8]>,
    /// What is known of the caller's identity, by name.
    pub claims: &'a [(&'a str, Cow<'a, str>)],
    pub method: &'a str,
    /// The target as received; the query is cut off.
    pub path: &'a str,
    pub host: Option<&'a str>,
    pub listener: Option<&'a str>,
    pub route: Option<&'a str>,
    pub backend: Option<&'a str>,
    pub mcp_method: Option<&'a str>,
    pub mcp_target: Option<&'a str>,
    /// The tool, prompt or resource.
    pub mcp_item: Option<&'a str>,
    /// The hash of the tool's definition, where tools are locked.
    pub item_hash: Option<&'a str>,
    /// A short fingerprint of the session, never its id.
    pub session: Option<u64>,
    pub status: u16,
    /// The kind of fault that ended the request.
    pub fault: Option<&'a str>,
    /// Bytes of the answer's body.
    pub result_bytes: u64,
    pub duration: Duration,
    /// The version of the configuration that decided.
    pub config: u64,
}

/// What holds for every shard's records.
#[derive(Debug)]
pub struct AuditOptions {
    /// Calls that were served are written as well.
    pub calls: bool,
    /// The names of the claims that are written, of those that a verified identity has.
    pub claims: Vec<String>,
    pub chain: Option<Seal>,
    /// Nothing is lost: see [`AuditLog::is_behind`].
    pub hold: bool,
    /// Names this run of the process.
    pub run: String,
    /// How many shards write.
    pub shards: usize,
    /// The hash of the line that the file ended in before.
    pub after: Option<Digest>,
}

/// The last record of a shard that is on its way to the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub seq: u64,
    /// Zeros where records are not chained.
    pub hash: Digest,
}

/// What a shard tells of its records to others.
#[derive(Clone, Debug, Default)]
pub struct AuditCells {
    pub written: Counter,
    pub lost: Counter,
    pub head: AuditHead,
}

/// A shard's [`Head`] as others may read it.
pub type AuditHead = Arc<ArcSwap<Head>>;

/// The audit log of one shard.
#[derive(Debug)]
pub struct AuditLog {
    sink: LineSink,
    options: Arc<AuditOptions>,
    shard: usize,
    buffer: Vec<u8>,
    /// Records in the buffer.
    records: u64,
    /// With the last record, wherever it is.
    head: Head,
    /// With the last record that was handed over.
    kept: Head,
    behind: bool,
    stamp: Stamp,
    cells: AuditCells,
}

impl AuditLog {
    /// Begins with a record of the start.
    pub fn new(sink: LineSink, options: Arc<AuditOptions>, shard: usize, cells: AuditCells) -> Self {
        let (head, buffer) = (Head::default(), Vec::new());
        let mut log = Self {
            sink,
            options,
            shard,
            buffer,
            records: 0,
            head,
            kept: head,
            behind: false,
            stamp: <_>::default(),
            cells,
        };
        let (shards, after) = (log.options.shards as u64, log.options.after);
        log.append("start", SystemTime::now(), |out| {
            Json::string("version", env!("CARGO_PKG_VERSION"), out);
            Json::number("shards", shards, out);
            if let Some(after) = after {
                Json::string("after", &Hex(&after).to_string(), out);
            }
        });
        log
    }

    pub fn options(&self) -> &Arc<AuditOptions> {
        &self.options
    }

    /// Whether records wait that the writer does not take, and none may be lost: then no request should begin that may need
    /// another one.
    pub fn is_behind(&self) -> bool {
        self.behind || (self.options.hold && self.sink.is_failing())
    }

    /// Formats one record. Nothing is allocated once the first buffers have come back from the writer.
    pub fn record(&mut self, record: &AuditRecord<'_>) {
        let event = if record.denial.is_some() { "deny" } else { "call" };
        self.append(event, record.start, |out| fields(record, out));
    }

    /// Hands what is buffered to the writer; to be called every 200 ms or so.
    pub fn flush(&mut self) {
        if self.records == 0 {
            return;
        }
        match self.sink.send(std::mem::take(&mut self.buffer)) {
            Ok(()) => {
                self.cells.written.add(self.records);
                self.cells.head.store(Arc::new(self.head));
                (self.kept, self.records, self.behind) = (self.head, 0, false);
            }
            Err(buffer) if self.options.hold && buffer.len() < HELD_BYTES_MAX => {
                (self.buffer, self.behind) = (buffer, true);
            }
            Err(mut buffer) => {
                self.cells.lost.add(self.records);
                buffer.clear();
                (self.buffer, self.records) = (buffer, 0);
                // The numbers go on, the chain goes on from what is in the file.
                self.head.hash = self.kept.hash;
            }
        }
    }

    fn append(&mut self, event: &str, at: SystemTime, fields: impl FnOnce(&mut Vec<u8>)) {
        if self.buffer.capacity() == 0 {
            self.buffer = self.sink.empty_buffer();
        }
        let lost = self.head.seq - self.kept.seq;
        if self.records == 0 && lost > 0 {
            self.line("gap", SystemTime::now(), |out| Json::number("lost", lost, out));
        }
        self.line(event, at, fields);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    fn line(&mut self, event: &str, at: SystemTime, fields: impl FnOnce(&mut Vec<u8>)) {
        let out = &mut self.buffer;
        let begin = out.len();
        self.head.seq += 1;
        Json::open(out);
        Json::literal("event", out);
        Json::value(event, out);
        Json::string("run", &self.options.run, out);
        Json::number("shard", self.shard as u64, out);
        Json::number("seq", self.head.seq, out);
        Json::key("time", out);
        Json::time(at, &mut self.stamp, out);
        fields(out);
        if let Some(seal) = &self.options.chain {
            self.head.hash = seal.close(begin, &self.head.hash, out);
        }
        Json::close(out);
        self.records += 1;
    }
}

/// The end is a record as well: a file that lacks it was cut, or its process killed.
impl Drop for AuditLog {
    fn drop(&mut self) {
        self.append("end", SystemTime::now(), |_| {});
        self.flush();
    }
}

fn fields(record: &AuditRecord<'_>, out: &mut Vec<u8>) {
    if let Some(denial) = record.denial {
        Json::string("denied", denial.kind, out);
        Json::optional("rule", denial.rule.as_deref(), out);
    }
    if let Some(remote) = record.remote {
        Json::plain("remote", remote, out);
    }
    Json::optional("client", record.client, out);
    if let Some(principal) = record.principal {
        Json::plain("principal", Hex(principal), out);
    }
    if !record.claims.is_empty() {
        Json::key("claims", out);
        for (place, (name, value)) in record.claims.iter().enumerate() {
            out.push(if place == 0 { b'{' } else { b',' });
            Json::value(name, out);
            out.push(b':');
            Json::value(value, out);
        }
        out.push(b'}');
    }
    Json::string("method", record.method, out);
    Json::string("path", record.path.split_once('?').map_or(record.path, |(path, _)| path), out);
    Json::optional("host", record.host, out);
    Json::optional("listener", record.listener, out);
    Json::optional("route", record.route, out);
    Json::optional("backend", record.backend, out);
    Json::optional("mcp_method", record.mcp_method, out);
    Json::optional("mcp_target", record.mcp_target, out);
    Json::optional("mcp_item", record.mcp_item, out);
    Json::optional("item_hash", record.item_hash, out);
    Json::session(record.session, out);
    Json::number("status", u64::from(record.status), out);
    Json::optional("fault", record.fault, out);
    Json::number("result_bytes", record.result_bytes, out);
    Json::duration(record.duration, out);
    Json::number("config", record.config, out);
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, Hex(&self.hash))
    }
}

#[cfg(test)]
mod tests;
