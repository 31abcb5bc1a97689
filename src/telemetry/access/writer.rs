//! The thread that writes access lines out. Knows nothing of what a line says.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{AccessTarget, Message};

/// How often the writer looks whether its file still has its name.
const RENAME_CHECK: Duration = Duration::from_secs(1);

/// An open target.
pub(super) enum Output {
    Stdout,
    File { path: PathBuf, file: File, checked: Instant },
}

impl Output {
    pub(super) fn open(target: AccessTarget) -> io::Result<Self> {
        match target {
            AccessTarget::Stdout => Ok(Self::Stdout),
            AccessTarget::File(path) => Ok(Self::File { file: append(&path)?, path, checked: Instant::now() }),
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(lines),
        }
    }

    /// Opens the file anew when asked to, or when its name now means another file or none. A file that cannot be
    /// opened leaves the old one in use.
    fn follow(&mut self, asked: bool) -> io::Result<()> {
        let Self::File { path, file, checked } = self else {
            return Ok(());
        };
        if !asked && checked.elapsed() < RENAME_CHECK {
            return Ok(());
        }
        *checked = Instant::now();
        if asked || !is_same(path, file) {
            *file = append(path)?;
        }
        Ok(())
    }
}

/// Writes until told to stop or until nobody can send any more.
pub(super) fn run(
    mut output: Output,
    lines: &flume::Receiver<Message>,
    spare: &flume::Sender<Vec<u8>>,
    reopen: &AtomicBool,
) {
    let mut failing = false;
    while let Ok(message) = lines.recv() {
        let mut buffer = match message {
            Message::Lines(buffer) => buffer,
            Message::Stop(done) => {
                let _ = done.send(());
                return;
            }
        };
        if let Err(error) = output.follow(reopen.swap(false, Relaxed)) {
            tracing::warn!(%error, "cannot reopen the access log");
        }
        match output.write(&buffer) {
            Ok(()) => failing = false,
            // Said once per failure, not once per buffer: a full disk must not fill the other log.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "cannot write the access log");
            }
            Err(_) => {}
        }
        buffer.clear();
        // Too many spare buffers: this one is given back to the allocator.
        let _ = spare.try_send(buffer);
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
