//! Watches files and SIGHUP, and says when to look again. Knows nothing of what the files mean.
//!
//! Files are polled: that sees renames, editors that replace, the symbolic links of mounted ConfigMaps, and network
//! file systems alike, for a few system calls each half second.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::telemetry::LineSink;

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(500);
/// Files must have stayed the same for so long before a change is told: writers rarely write all at once.
const SETTLE: Duration = Duration::from_millis(150);
/// A file that never stays the same is told after so long anyway.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Why to look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These files have changed, appeared or gone.
    Files(Vec<PathBuf>),
    /// SIGHUP.
    Hangup,
}

/// Watches a set of files.
#[derive(Debug)]
pub struct Watcher {
    /// What each file was like when it was last told, or set.
    told: BTreeMap<PathBuf, Option<Print>>,
    hangup: Signal,
    next_poll: Instant,
    unsettled: Option<Unsettled>,
}

/// A change that is waiting for the files to stay the same.
#[derive(Debug)]
struct Unsettled {
    seen: BTreeMap<PathBuf, Option<Print>>,
    deadline: Instant,
}

/// What tells one state of a file from another. It is of the file that symbolic links lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watcher {
    /// Watches `files` as they are now, and SIGHUP, which from now on does not end the process. Needs a tokio runtime.
    pub fn new(files: Vec<PathBuf>) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let mut watcher = Self { told: BTreeMap::new(), hangup, next_poll: Instant::now() + POLL, unsettled: None };
        watcher.set_files(files);
        Ok(watcher)
    }

    /// Replaces the set. A file that was watched before keeps the state that was told, so that a change made while a
    /// reload was going on is not missed.
    pub fn set_files(&mut self, files: Vec<PathBuf>) {
        let mut before = std::mem::take(&mut self.told);
        let state = |path: PathBuf| {
            let print = before.remove(&path).unwrap_or_else(|| print(&path));
            (path, print)
        };
        self.told = files.into_iter().map(state).collect();
        self.unsettled = None;
    }

    /// Waits for the next change. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Change {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    // The reload that follows reads the files as they are.
                    self.told = self.look();
                    self.unsettled = None;
                    return Change::Hangup;
                }
                () = sleep_until(self.next_poll) => {}
            }
            if let Some(files) = self.poll() {
                return Change::Files(files);
            }
        }
    }

    /// One look at the files: the changed ones, once they have settled.
    fn poll(&mut self) -> Option<Vec<PathBuf>> {
        let (now, seen) = (Instant::now(), self.look());
        self.next_poll = now + POLL;
        if seen == self.told {
            self.unsettled = None;
            return None;
        }
        let settled = self.unsettled.as_ref().is_some_and(|before| before.seen == seen || now >= before.deadline);
        if !settled {
            self.next_poll = now + SETTLE;
            let deadline = self.unsettled.as_ref().map_or(now + SETTLE_MAX, |before| before.deadline);
            self.unsettled = Some(Unsettled { seen, deadline });
            return None;
        }
        self.unsettled = None;
        let files = seen
            .iter()
            .filter(|(path, print)| self.told.get(*path) != Some(*print))
            .map(|(path, _)| path.clone())
            .collect();
        self.told = seen;
        Some(files)
    }

    fn look(&self) -> BTreeMap<PathBuf, Option<Print>> {
        self.told.keys().map(|path| (path.clone(), print(path))).collect()
    }
}

/// Reopens the files of these logs at each SIGUSR1, as log rotation asks. Never returns unless the signal cannot be caught.
pub async fn reopen_on_usr1(sinks: Vec<LineSink>) {
    match signal(SignalKind::user_defined1()) {
        Ok(mut asked) => {
            while asked.recv().await.is_some() {
                sinks.iter().for_each(LineSink::reopen);
            }
        }
        Err(error) => tracing::warn!(%error, "cannot catch SIGUSR1"),
    }
}

fn print(path: &Path) -> Option<Print> {
    let meta = path.metadata().ok()?;
    Some(Print {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("agentlane-watch-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a temporary folder");
            Self(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).expect("written");
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn run(test: impl AsyncFnOnce()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test());
    }

    async fn change(watcher: &mut Watcher) -> Change {
        tokio::time::timeout(Duration::from_secs(10), watcher.changed()).await.expect("a change in time")
    }

    async fn is_quiet(watcher: &mut Watcher) -> bool {
        tokio::time::timeout(2 * POLL, watcher.changed()).await.is_err()
    }

    #[test]
    fn tells_writes_renames_and_removals_once() {
        run(async || {
            let folder = Folder::new("writes");
            let (one, two) = (folder.write("one", "1"), folder.write("two", "2"));
            let absent = folder.0.join("absent");
            let mut watcher = Watcher::new(vec![one.clone(), two.clone(), absent.clone()]).expect("a watcher");
            assert!(is_quiet(&mut watcher).await);
            folder.write("one", "3");
            assert_eq!(change(&mut watcher).await, Change::Files(vec![one.clone()]));
            fs::rename(folder.write("new", "4"), &two).expect("renamed");
            folder.write("absent", "5");
            assert_eq!(change(&mut watcher).await, Change::Files(vec![absent, two]));
            fs::remove_file(&one).expect("removed");
            assert_eq!(change(&mut watcher).await, Change::Files(vec![one]));
            assert!(is_quiet(&mut watcher).await);
        });
    }

    #[test]
    fn sees_a_swapped_symbolic_link() {
        run(async || {
            let folder = Folder::new("links");
            for version in ["v1", "v2"] {
                fs::create_dir(folder.0.join(version)).expect("a folder");
                folder.write(&format!("{version}/config.yaml"), version);
            }
            // As a ConfigMap is mounted: config.yaml -> ..data/config.yaml, ..data -> the version.
            let (data, file) = (folder.0.join("..data"), folder.0.join("config.yaml"));
            symlink("v1", &data).expect("linked");
            symlink("..data/config.yaml", &file).expect("linked");
            let mut watcher = Watcher::new(vec![file.clone()]).expect("a watcher");
            symlink("v2", folder.0.join("..tmp")).expect("linked");
            fs::rename(folder.0.join("..tmp"), &data).expect("swapped");
            assert_eq!(change(&mut watcher).await, Change::Files(vec![file]));
        });
    }

    #[test]
    fn waits_until_a_file_settles() {
        run(async || {
            let folder = Folder::new("settles");
            let file = folder.write("file", "");
            let mut watcher = Watcher::new(vec![file.clone()]).expect("a watcher");
            let writing = async {
                for length in 1..=20 {
                    tokio::time::sleep(SETTLE / 3).await;
                    folder.write("file", &"x".repeat(length));
                }
                Instant::now()
            };
            let (ended, told) = tokio::join!(writing, async {
                let change = change(&mut watcher).await;
                (change, Instant::now())
            });
            assert_eq!(told.0, Change::Files(vec![file]));
            assert!(told.1 >= ended, "told while it was still written");
        });
    }

    #[test]
    fn a_new_set_keeps_what_was_told() {
        run(async || {
            let folder = Folder::new("set");
            let (kept, other) = (folder.write("kept", "1"), folder.write("other", "1"));
            let mut watcher = Watcher::new(vec![kept.clone()]).expect("a watcher");
            folder.write("kept", "22");
            watcher.set_files(vec![kept.clone(), other]);
            assert_eq!(change(&mut watcher).await, Change::Files(vec![kept]));
        });
    }

    #[test]
    fn a_hangup_is_a_change() {
        run(async || {
            let folder = Folder::new("hangup");
            let file = folder.write("file", "1");
            let mut watcher = Watcher::new(vec![file]).expect("a watcher");
            folder.write("file", "22");
            // SAFETY: the signal is caught since `new`.
            unsafe { libc::raise(libc::SIGHUP) };
            assert_eq!(change(&mut watcher).await, Change::Hangup);
            assert!(is_quiet(&mut watcher).await, "the hangup covers the write");
        });
    }
}
