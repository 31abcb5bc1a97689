//! Access records: one line per request, formatted on the shard, written by a thread of its own. Knows neither requests
//! nor sessions: the caller fills in the record.
//!
//! A shard formats into its own buffer and hands whole buffers over a bounded channel. It never waits: when the writer
//! is behind, the records of that buffer are dropped and counted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use std::{io, thread};

use super::metrics::Counter;
use super::text;
use super::time::Stamp;

mod writer;

/// A buffer of this size is handed over without waiting for a flush.
const BUFFER_BYTES: usize = 16 * 1024;
/// Full buffers that may wait for the writer, of all shards together: 4 MiB and a little.
const BUFFERS_MAX: usize = 256;

/// What is known of a request when its answer has ended. Absent fields are left out of the line.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    pub start: SystemTime,
    pub shard: usize,
    pub remote: Option<SocketAddr>,
    /// The subject of the client's certificate, where one was verified.
    pub client: Option<&'a str>,
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

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessTarget {
    Stdout,
    /// Appended to; opened anew when it was renamed or removed, and when [`AccessSink::reopen`] is called.
    File(PathBuf),
}

/// The access log of one shard.
#[derive(Debug)]
pub struct AccessLog {
    sink: AccessSink,
    options: AccessOptions,
    buffer: Vec<u8>,
    records: u64,
    stamp: Stamp,
    dropped: Counter,
}

impl AccessLog {
    /// `dropped` counts the records that were lost because the writer was behind or has ended.
    pub fn new(sink: AccessSink, options: AccessOptions, dropped: Counter) -> Self {
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
        if let Err(refused) = self.sink.full.try_send(Message::Lines(full)) {
            self.dropped.add(self.records);
            if let Message::Lines(mut buffer) = refused.into_inner() {
                buffer.clear();
                self.buffer = buffer;
            }
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
        let micros = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX);
        let out = &mut self.buffer;
        L::open(out);
        L::literal("time", out);
        L::quote(out);
        self.stamp.write(record.start, out);
        L::quote(out);
        L::number("shard", record.shard as u64, out);
        if let Some(remote) = record.remote {
            L::key("remote", out);
            L::quote(out);
            // Writing into a Vec cannot fail, and an address needs no escape.
            let _ = io::Write::write_fmt(out, format_args!("{remote}"));
            L::quote(out);
        }
        L::optional("client", record.client, out);
        L::string("method", record.method, out);
        L::string("path", path, out);
        L::optional("host", record.host, out);
        L::number("status", u64::from(record.status), out);
        L::key("duration_ms", out);
        text::thousandths(micros, out);
        L::number("bytes_in", record.bytes_in, out);
        L::number("bytes_out", record.bytes_out, out);
        L::optional("listener", record.listener, out);
        L::optional("route", record.route, out);
        L::optional("backend", record.backend, out);
        L::optional("mcp_method", record.mcp_method, out);
        L::optional("mcp_target", record.mcp_target, out);
        L::optional("mcp_tool", record.mcp_tool, out);
        if let Some(session) = record.session {
            L::key("session", out);
            L::quote(out);
            text::hex(session, out);
            L::quote(out);
        }
        L::optional("fault", record.fault, out);
        L::close(out);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The shards' end of the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessSink {
    full: flume::Sender<Message>,
    empty: flume::Receiver<Vec<u8>>,
    reopen: Arc<AtomicBool>,
}

impl AccessSink {
    /// Asks the writer to open its file anew before the next line, as log rotation wants on SIGUSR1.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    fn empty_buffer(&self) -> Vec<u8> {
        self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 4))
    }
}

/// The writer thread.
#[derive(Debug)]
pub struct AccessWriter {
    sink: AccessSink,
    thread: thread::JoinHandle<()>,
}

impl AccessWriter {
    /// Opens the target and starts the thread. Fails when the file cannot be opened or no thread can be had.
    pub fn start(target: AccessTarget) -> io::Result<Self> {
        let (full, lines) = flume::bounded(BUFFERS_MAX);
        let (spare, empty) = flume::bounded(BUFFERS_MAX);
        let reopen = Arc::new(AtomicBool::new(false));
        let output = writer::Output::open(target)?;
        let wanted = Arc::clone(&reopen);
        let thread = thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer::run(output, &lines, &spare, &wanted))?;
        Ok(Self { sink: AccessSink { full, empty, reopen }, thread })
    }

    /// The end to give to shards.
    pub fn sink(&self) -> AccessSink {
        self.sink.clone()
    }

    /// Writes out what was handed over before this call and ends the thread. Gives `false` when that took longer than
    /// `limit`, which happens when nobody reads standard output.
    pub fn finish(self, limit: Duration) -> bool {
        let (done, ended) = flume::bounded(1);
        let deadline = std::time::Instant::now() + limit;
        if self.sink.full.send_deadline(Message::Stop(done), deadline).is_err() {
            return self.thread.is_finished();
        }
        if ended.recv_deadline(deadline).is_err() {
            return false;
        }
        self.thread.join().is_ok()
    }
}

/// What crosses to the writer thread.
#[derive(Debug)]
enum Message {
    Lines(Vec<u8>),
    Stop(flume::Sender<()>),
}

/// One of the two forms of a line.
trait Line {
    fn open(out: &mut Vec<u8>);
    fn close(out: &mut Vec<u8>);
    /// The first key, without a separator before it.
    fn literal(name: &str, out: &mut Vec<u8>);
    fn key(name: &str, out: &mut Vec<u8>);
    /// The mark around a value that needs no escape.
    fn quote(out: &mut Vec<u8>);
    fn value(value: &str, out: &mut Vec<u8>);

    fn string(name: &str, value: &str, out: &mut Vec<u8>) {
        Self::key(name, out);
        Self::value(value, out);
    }

    fn optional(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
        if let Some(value) = value {
            Self::string(name, value, out);
        }
    }

    fn number(name: &str, value: u64, out: &mut Vec<u8>) {
        Self::key(name, out);
        text::number(value, out);
    }
}

struct Json;

impl Line for Json {
    fn open(out: &mut Vec<u8>) {
        out.push(b'{');
    }

    fn close(out: &mut Vec<u8>) {
        out.extend_from_slice(b"}\n");
    }

    fn literal(name: &str, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    }

    fn key(name: &str, out: &mut Vec<u8>) {
        out.push(b',');
        Self::literal(name, out);
    }

    fn quote(out: &mut Vec<u8>) {
        out.push(b'"');
    }

    fn value(value: &str, out: &mut Vec<u8>) {
        text::quoted(value, out);
    }
}

struct Logfmt;

impl Line for Logfmt {
    fn open(_: &mut Vec<u8>) {}

    fn close(out: &mut Vec<u8>) {
        out.push(b'\n');
    }

    fn literal(name: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
    }

    fn key(name: &str, out: &mut Vec<u8>) {
        out.push(b' ');
        Self::literal(name, out);
    }

    fn quote(_: &mut Vec<u8>) {}

    fn value(value: &str, out: &mut Vec<u8>) {
        text::logfmt(value, out);
    }
}

#[cfg(test)]
mod tests;
