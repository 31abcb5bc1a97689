//! The logs of requests: their writers, started before the shards and ended after them, and each shard's share of them.

use std::sync::Arc;
use std::time::Duration;

use agentlane_config as config;

use super::Failure;
use crate::protocol::mcp::seal::Sealer;
use crate::telemetry::audit::{self, AuditCells, AuditHead, Seal};
use crate::telemetry::{
    AccessFormat, AccessLog, AccessOptions, AuditLog, AuditOptions, LineSink, LineTarget, LineWriter, OnError, Registry,
};

/// How long the last records may take to be written.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// The writers of a process.
#[derive(Default)]
pub struct Logs {
    access: Option<LineWriter>,
    json: bool,
    audit: Option<Audit>,
}

struct Audit {
    writer: LineWriter,
    options: Arc<AuditOptions>,
    heads: Vec<AuditHead>,
}

/// What one shard takes along to its thread.
#[derive(Default)]
pub struct ShardLogs {
    access: Option<LineSink>,
    json: bool,
    audit: Option<(LineSink, Arc<AuditOptions>, AuditHead)>,
}

impl Logs {
    pub fn start(process: &config::ProcessConfig, shards: usize) -> Result<Logs, Failure> {
        let unavailable = |what, error| Failure::Unavailable(format!("{what}: {error}"));
        let access = match &process.logging.access_log {
            config::AccessLog::Off => None,
            config::AccessLog::Standard => Some(LineTarget::Stdout),
            config::AccessLog::File(path) => Some(LineTarget::File(path.clone())),
        };
        let access = access.map(|target| LineWriter::start(target, "access-log", OnError::Drop)).transpose();
        let audit = process.audit.as_ref().map(|audit| Audit::start(audit, shards)).transpose();
        Ok(Logs {
            access: access.map_err(|error| unavailable("access log", error))?,
            json: process.logging.format == config::LogFormat::Json,
            audit: audit.map_err(|error| unavailable("audit log", error))?,
        })
    }

    /// The ends by which files are opened again.
    pub fn sinks(&self) -> Vec<LineSink> {
        let writers = self.access.iter().chain(self.audit.as_ref().map(|audit| &audit.writer));
        writers.map(LineWriter::sink).collect()
    }

    /// The run and the last audit record of each shard; `None` without an audit log.
    pub fn audit_heads(&self) -> Option<(String, Vec<AuditHead>)> {
        self.audit.as_ref().map(|audit| (audit.options.run.clone(), audit.heads.clone()))
    }

    pub fn of_shard(&self, shard: usize) -> ShardLogs {
        let audit = self
            .audit
            .as_ref()
            .and_then(|audit| Some((audit.writer.sink(), audit.options.clone(), audit.heads.get(shard)?.clone())));
        ShardLogs { access: self.access.as_ref().map(LineWriter::sink), json: self.json, audit }
    }

    pub fn finish(self) {
        if let Some(writer) = self.access {
            writer.finish(LAST_RECORDS);
        }
        if let Some(audit) = self.audit
            && !audit.writer.finish(LAST_RECORDS)
        {
            tracing::error!("the last audit records could not be written");
        }
    }
}

impl Audit {
    fn start(audit: &config::Audit, shards: usize) -> std::io::Result<Audit> {
        let after = audit.file.as_deref().map(audit::last_line).transpose()?.flatten();
        let target = audit.file.clone().map_or(LineTarget::Stdout, LineTarget::File);
        let run = Sealer::fresh_key().map_err(|_| std::io::Error::other("the host gives no randomness"))?;
        let seal = || match &audit.key {
            Some(key) => Seal::keyed(key.expose().as_bytes()),
            None => Seal::Plain,
        };
        let options = AuditOptions {
            calls: audit.calls,
            claims: audit.claims.clone(),
            chain: audit.is_chained().then(seal),
            hold: audit.when_behind == config::WhenBehind::Refuse,
            run: audit::Hex(&run[..8]).to_string(),
            shards,
            after,
        };
        Ok(Audit {
            writer: LineWriter::start(target, "audit-log", OnError::Retry)?,
            options: Arc::new(options),
            heads: (0..shards).map(|_| AuditHead::default()).collect(),
        })
    }
}

impl ShardLogs {
    /// The shard's logs; called on its own thread.
    pub fn open(self, registry: &Registry, shard: usize) -> (Option<AccessLog>, Option<AuditLog>) {
        let name = shard.to_string();
        let counter = |family, help| registry.counter(family, help, &[("shard", name.as_str())]);
        let access = self.access.map(|sink| {
            let help = "Access records that were dropped because the writer was behind.";
            let dropped = counter("agentlane_access_records_dropped_total", help);
            let format = if self.json { AccessFormat::Json } else { AccessFormat::Text };
            AccessLog::new(sink, AccessOptions { format, query: false }, dropped)
        });
        let audit = self.audit.map(|(sink, options, head)| {
            let written = counter("agentlane_audit_records_total", "Audit records that were handed to their writer.");
            let lost = counter(
                "agentlane_audit_records_lost_total",
                "Audit records that were lost because the writer was behind.",
            );
            AuditLog::new(sink, options, shard, AuditCells { written, lost, head })
        });
        (access, audit)
    }
}
