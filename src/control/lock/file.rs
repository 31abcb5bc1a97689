//! Lock files on disk.

use std::io::Write;
use std::path::Path;

use agentlane_config::{Document, Fault, FaultKind};

use crate::protocol::mcp::lock::file::{BYTES_MAX, LockFile};

/// The lock file that a document names; `None`: it names none.
///
/// # Errors
/// It cannot be read, or is wrong: every fault with its place.
pub fn of(document: &Document) -> Result<Option<LockFile>, Vec<Fault>> {
    let Some(path) = document.lock.as_ref().and_then(|lock| lock.file.as_ref()) else { return Ok(None) };
    match read(path)? {
        Some(file) => Ok(Some(file)),
        None => Err(vec![fault(path, FaultKind::Io, "is not there: `agentlane lock -f CONFIG` writes it".to_owned())]),
    }
}

/// A lock file; `None`: there is none.
///
/// # Errors
/// As [`of`].
pub fn read(path: &Path) -> Result<Option<LockFile>, Vec<Fault>> {
    let failed = |error: std::io::Error| vec![fault(path, FaultKind::Io, format!("cannot be read: {error}"))];
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if size > BYTES_MAX as u64 {
        return Err(vec![fault(path, FaultKind::Limit, format!("longer than {BYTES_MAX} bytes"))]);
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let file = LockFile::parse(&text).map_err(|faults| {
        let placed = faults.into_iter().map(|found| Fault {
            file: path.display().to_string(),
            line: found.line,
            column: found.column,
            path: found.path,
            message: found.message,
            kind: FaultKind::Invalid,
        });
        placed.collect::<Vec<_>>()
    })?;
    Ok(Some(file))
}

/// Replaces a lock file in one step, so that a gateway that watches it never reads half of it.
pub fn write(path: &Path, file: &LockFile) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = std::path::PathBuf::from(beside);
    let written = std::fs::File::create(&beside).and_then(|mut to| {
        to.write_all(file.render().as_bytes())?;
        to.sync_all()
    });
    let renamed = written.and_then(|()| std::fs::rename(&beside, path));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    renamed
}

fn fault(path: &Path, kind: FaultKind, message: String) -> Fault {
    Fault { file: path.display().to_string(), line: 0, column: 0, path: String::new(), message, kind }
}
