//! The thread that writes lines out. Knows nothing of what a line says.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::{LineTarget, Message, OnError, State};

/// How often the writer looks whether its file still has its name.
const RENAME_CHECK: Duration = Duration::from_secs(1);
/// The pause before lines that could not be written are tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// An open target.
pub(super) enum Output {
    Stdout,
    File { path: PathBuf, file: File, checked: Instant },
}

impl Output {
    pub(super) fn open(target: LineTarget) -> io::Result<Self> {
        match target {
            LineTarget::Stdout => Ok(Self::Stdout),
            LineTarget::File(path) => Ok(Self::File { file: append(&path)?, path, checked: Instant::now() }),
        }
    }

    /// Some of it, as write(2).
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush().map(|()| lines.len())
            }
            Self::File { file, .. } => file.write(lines),
        }
    }

    /// Opens the file anew when asked to, or when its name now means another file or none; says whether it did. A file that
    /// cannot be opened leaves the old one in use.
    fn follow(&mut self, asked: bool) -> io::Result<bool> {
        let Self::File { path, file, checked } = self else {
            return Ok(false);
        };
        if !asked && checked.elapsed() < RENAME_CHECK {
            return Ok(false);
        }
        *checked = Instant::now();
        let anew = asked || !is_same(path, file);
        if anew {
            *file = append(path)?;
        }
        Ok(anew)
    }
}

pub(super) struct Writer {
    pub(super) output: Output,
    pub(super) name: &'static str,
    pub(super) on_error: OnError,
    pub(super) state: Arc<State>,
}

impl Writer {
    /// Writes until told to stop or until nobody can send any more.
    pub(super) fn run(mut self, lines: &flume::Receiver<Message>, spare: &flume::Sender<Vec<u8>>) {
        while let Ok(message) = lines.recv() {
            let mut buffer = match message {
                Message::Lines(buffer) => buffer,
                Message::Stop(done) => {
                    let _ = done.send(());
                    return;
                }
            };
            self.put(&buffer);
            buffer.clear();
            // Too many spare buffers: this one is given back to the allocator.
            let _ = spare.try_send(buffer);
        }
    }

    /// Writes one buffer, as far as that can be done.
    fn put(&mut self, lines: &[u8]) {
        let mut written = 0;
        loop {
            match self.output.follow(self.state.reopen.swap(false, Relaxed)) {
                // A line that was begun in the old file is whole in the new one.
                Ok(true) => written = lines[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, log = self.name, "cannot reopen a log file"),
            }
            match self.output.write(&lines[written..]) {
                Ok(more) => {
                    written += more;
                    self.state.failing.store(false, Relaxed);
                    if written == lines.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Said once per failure, not once per buffer: a full disk must not fill the other log.
                    if !self.state.failing.swap(true, Relaxed) {
                        tracing::error!(%error, log = self.name, "cannot write a log");
                    }
                    match self.on_error {
                        OnError::Drop => return,
                        OnError::Retry => thread::sleep(RETRY_PAUSE),
                    }
                }
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn is_same(path: &Path, file: &File) -> bool {
    let (Ok(named), Ok(open)) = (path.metadata(), file.metadata()) else {
        return false;
    };
    (named.dev(), named.ino()) == (open.dev(), open.ino())
}
