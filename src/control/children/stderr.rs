//! A child's standard error, line by line into the log. Knows nothing of the child but its target's name, and the call
//! that it is working on where there is only one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::session::board::Board;

/// Bytes of one line that are kept; the rest of the line is dropped.
pub(super) const LINE_BYTES_MAX: usize = 4096;
/// Lines logged in one second; the others are counted.
pub(super) const LINES_PER_SECOND: u32 = 200;
/// Bytes read in one second. A child that writes more is slowed down by its full pipe.
const BYTES_PER_SECOND: usize = 1 << 20;
/// How long the pipe may stay open after the child's end: what escaped the group may hold it for ever.
const LINGER: Duration = Duration::from_millis(200);
const READ_BYTES: usize = 8192;

/// Copies until the last writer is gone.
pub(super) async fn copy_to_log(pipe: pipe::Receiver, target: String, pid: u32, board: Arc<Board>) {
    let mut lines =
        Lines { target, pid, board, line: Vec::new(), second: Instant::now(), logged: 0, suppressed: 0, read: 0 };
    let mut chunk = vec![0; READ_BYTES];
    loop {
        if pipe.readable().await.is_err() {
            break;
        }
        match pipe.try_read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => lines.take(&chunk[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(_) => break,
        }
        if lines.read >= BYTES_PER_SECOND {
            tokio::time::sleep_until(lines.second + Duration::from_secs(1)).await;
        }
    }
}

/// Waits for the rest of the output of a child that has ended.
pub(super) async fn finish(mut log: JoinHandle<()>) {
    if tokio::time::timeout(LINGER, &mut log).await.is_err() {
        log.abort();
    }
}

struct Lines {
    target: String,
    pid: u32,
    board: Arc<Board>,
    line: Vec<u8>,
    second: Instant,
    logged: u32,
    suppressed: u64,
    read: usize,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8]) {
        self.turn_second();
        self.read += bytes.len();
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.append(&bytes[..end]);
            self.log_line();
            bytes = &bytes[end + 1..];
        }
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn log_line(&mut self) {
        let line = self.line.trim_ascii_end();
        if self.logged >= LINES_PER_SECOND {
            self.suppressed += 1;
        } else if !line.is_empty() {
            self.logged += 1;
            let text = String::from_utf8_lossy(line);
            match self.board.only(agentlane_runtime::now()) {
                Some(call) => tracing::info!(
                    target = self.target,
                    pid = self.pid,
                    session = call.session.map(|session| tracing::field::display(format!("{session:016x}"))),
                    id = %String::from_utf8_lossy(&call.id),
                    method = call.method,
                    "stderr: {text}"
                ),
                None => tracing::info!(target = self.target, pid = self.pid, "stderr: {text}"),
            }
        }
        self.line.clear();
    }

    fn turn_second(&mut self) {
        if self.second.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.report_suppressed();
        (self.second, self.logged, self.read) = (Instant::now(), 0, 0);
    }

    fn report_suppressed(&mut self) {
        if self.suppressed > 0 {
            tracing::warn!(
                target = self.target,
                pid = self.pid,
                lines = self.suppressed,
                "stderr: too many lines, some dropped"
            );
        }
        self.suppressed = 0;
    }
}

impl Drop for Lines {
    /// The last line may lack its line feed, also when the copying is cut short.
    fn drop(&mut self) {
        self.log_line();
        self.report_suppressed();
    }
}
