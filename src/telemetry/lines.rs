//! Lines on their way from shards to a file or to the standard output, by a thread of their own. Knows nothing of what a
//! line says.
//!
//! A shard hands over whole buffers and never waits. When the writer is behind, the buffer comes back to whoever sent it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{io, thread};

mod writer;

/// A buffer of this size is handed over without waiting for a flush.
pub(super) const BUFFER_BYTES: usize = 16 * 1024;
/// Full buffers that may wait for the writer, of all shards together: 4 MiB and a little.
const BUFFERS_MAX: usize = 256;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineTarget {
    Stdout,
    /// Appended to; opened anew when it was renamed or removed, and when [`LineSink::reopen`] is called.
    File(PathBuf),
}

/// What becomes of lines that cannot be written, on a full disk for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// They are lost.
    Drop,
    /// They are written again and again until they are out, while what comes after them waits.
    Retry,
}

/// The shards' end of the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LineSink {
    pub(super) full: flume::Sender<Message>,
    pub(super) empty: flume::Receiver<Vec<u8>>,
    state: Arc<State>,
}

/// What the writer and its sinks tell each other.
#[derive(Debug, Default)]
struct State {
    reopen: AtomicBool,
    failing: AtomicBool,
}

impl LineSink {
    /// Asks the writer to open its file anew before the next line, as log rotation wants on SIGUSR1.
    pub fn reopen(&self) {
        self.state.reopen.store(true, Relaxed);
    }

    /// Whether the last lines could not be written.
    pub fn is_failing(&self) -> bool {
        self.state.failing.load(Relaxed)
    }

    /// Hands a buffer of whole lines over, or gives it back: the writer is behind, or has ended.
    pub(super) fn send(&self, lines: Vec<u8>) -> Result<(), Vec<u8>> {
        self.full.try_send(Message::Lines(lines)).map_err(|refused| match refused.into_inner() {
            Message::Lines(lines) => lines,
            Message::Stop(_) => Vec::new(),
        })
    }

    pub(super) fn empty_buffer(&self) -> Vec<u8> {
        self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 4))
    }

    /// One whose buffers nobody takes, and the receiving end.
    #[cfg(test)]
    pub(super) fn of_nobody(buffers: usize) -> (Self, flume::Receiver<Message>) {
        let (full, lines) = flume::bounded(buffers);
        let (_, empty) = flume::bounded(1);
        (Self { full, empty, state: Arc::default() }, lines)
    }
}

/// The writer thread.
#[derive(Debug)]
pub struct LineWriter {
    sink: LineSink,
    thread: thread::JoinHandle<()>,
}

impl LineWriter {
    /// Opens the target and starts the thread, which is called `name`. Fails when the file cannot be opened or no thread can
    /// be had.
    pub fn start(target: LineTarget, name: &'static str, on_error: OnError) -> io::Result<Self> {
        let (full, lines) = flume::bounded(BUFFERS_MAX);
        let (spare, empty) = flume::bounded(BUFFERS_MAX);
        let state = Arc::new(State::default());
        let output = writer::Output::open(target)?;
        let writer = writer::Writer { output, name, on_error, state: Arc::clone(&state) };
        let thread = thread::Builder::new().name(name.into()).spawn(move || writer.run(&lines, &spare))?;
        Ok(Self { sink: LineSink { full, empty, state }, thread })
    }

    /// The end to give to shards.
    pub fn sink(&self) -> LineSink {
        self.sink.clone()
    }

    /// Writes out what was handed over before this call and ends the thread. Gives `false` when that took longer than
    /// `limit`, which happens when nobody reads standard output.
    pub fn finish(self, limit: Duration) -> bool {
        let (done, ended) = flume::bounded(1);
        let deadline = Instant::now() + limit;
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
pub(super) enum Message {
    Lines(Vec<u8>),
    Stop(flume::Sender<()>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn wait_for(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "waited too long: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_cannot_be_written_is_written_later() {
        let folder = std::env::temp_dir().join(format!("agentlane-lines-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let (path, good) = (folder.join("audit.log"), folder.join("good.log"));
        // Every write to it fails: no space is left.
        symlink("/dev/full", &path).expect("linked");
        let writer = LineWriter::start(LineTarget::File(path.clone()), "audit-log", OnError::Retry).expect("a writer");
        let sink = writer.sink();
        sink.send(b"one\n".to_vec()).expect("room");
        wait_for("the failure is told", || sink.is_failing());
        sink.send(b"two\n".to_vec()).expect("room");
        symlink(&good, folder.join("next")).expect("linked");
        std::fs::rename(folder.join("next"), &path).expect("replaced");
        wait_for("the lines are there", || std::fs::read_to_string(&good).is_ok_and(|text| text == "one\ntwo\n"));
        wait_for("the end of the failure is told", || !sink.is_failing());
        assert!(writer.finish(Duration::from_secs(5)));
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
