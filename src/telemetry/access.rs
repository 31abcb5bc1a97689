//! Access records: one line per request, formatted on the shard, written by a thread of its own. Knows neither requests
//! nor sessions: the caller fills in the record.
//!
//! A shard formats into its own buffer and hands whole buffers over a bounded channel. It never waits: when the writer
//! is behind, the records of that buffer are dropped and counted.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::form::{Json, Line, Logfmt};
use super::lines::{BUFFER_BYTES, LineSink};
use super::metrics::Counter;
use super::time::Stamp;

/// What is known of a request when its answer has ended. Absent fields are left out of the line.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    pub start: SystemTime,
    pub shard: usize,
    pub remote: Option<SocketAddr>,
    /// The subject of the client's certificate, where one was verified.
    pub client: Option<&'a str>,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    pub method: &'a str,
    /// The target as received; the query is cut off unless [`AccessOptions::query`] is set.
    pub path: &'a str,
    pub host: Option<&'a str>,
    pub status: u16,
    pub duration: Duration,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub listener: Option<&'a str>,
    pub route: Option<&'a str>,
    pub backend: Option<&'a str>,
    pub mcp_method: Option<&'a str>,
    pub mcp_target: Option<&'a str>,
    pub mcp_tool: Option<&'a str>,
    /// A short fingerprint of the session, never its id.
    pub session: Option<u64>,
    /// The kind of fault that ended the request.
    pub fault: Option<&'a str>,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// `key=value` pairs.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// How records are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessOptions {
    pub format: AccessFormat,
    /// Keeps the query in the path. It often holds secrets, so this is off by default.
    pub query: bool,
}

/// The access log of one shard.
#[derive(Debug)]
pub struct AccessLog {
    sink: LineSink,
    options: AccessOptions,
    buffer: Vec<u8>,
    records: u64,
    stamp: Stamp,
    dropped: Counter,
}

impl AccessLog {
    /// `dropped` counts the records that were lost because the writer was behind or has ended.
    pub fn new(sink: LineSink, options: AccessOptions, dropped: Counter) -> Self {
        Self { sink, options, buffer: Vec::new(), records: 0, stamp: Stamp::default(), dropped }
    }

    /// Formats one record. Nothing is allocated once the first buffers have come back from the writer.
    pub fn record(&mut self, record: &AccessRecord<'_>) {
        if self.buffer.capacity() == 0 {
            self.buffer = self.sink.empty_buffer();
        }
        match self.options.format {
            AccessFormat::Json => self.line::<Json>(record),
            AccessFormat::Text => self.line::<Logfmt>(record),
        }
        self.records += 1;
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Hands what is buffered to the writer; to be called every 200 ms or so, and before the shard ends.
    pub fn flush(&mut self) {
        if self.records == 0 {
            return;
        }
        let full = std::mem::take(&mut self.buffer);
        if let Err(mut buffer) = self.sink.send(full) {
            self.dropped.add(self.records);
            buffer.clear();
            self.buffer = buffer;
        }
        self.records = 0;
    }

    /// Records lost so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.value()
    }

    fn line<L: Line>(&mut self, record: &AccessRecord<'_>) {
        let path = match self.options.query {
            true => record.path,
            false => record.path.split_once('?').map_or(record.path, |(path, _)| path),
        };
        let out = &mut self.buffer;
        L::open(out);
        L::literal("time", out);
        L::time(record.start, &mut self.stamp, out);
        L::number("shard", record.shard as u64, out);
        if let Some(remote) = record.remote {
            L::plain("remote", remote, out);
        }
        L::optional("client", record.client, out);
        L::string("protocol", record.protocol, out);
        L::string("method", record.method, out);
        L::string("path", path, out);
        L::optional("host", record.host, out);
        L::number("status", u64::from(record.status), out);
        L::duration(record.duration, out);
        L::number("bytes_in", record.bytes_in, out);
        L::number("bytes_out", record.bytes_out, out);
        L::optional("listener", record.listener, out);
        L::optional("route", record.route, out);
        L::optional("backend", record.backend, out);
        L::optional("mcp_method", record.mcp_method, out);
        L::optional("mcp_target", record.mcp_target, out);
        L::optional("mcp_tool", record.mcp_tool, out);
        L::session(record.session, out);
        L::optional("fault", record.fault, out);
        L::close(out);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
