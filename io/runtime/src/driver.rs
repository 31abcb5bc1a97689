//! Which driver this process can run on, and how each one is started. Knows nothing of what runs on them.

use std::fmt;
use std::io;
use std::str::FromStr;

use io_uring::{IoUring, Probe, opcode};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::shard::ShardOptions;
use crate::sys;

/// What moves the bytes of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Driver {
    /// monoio on io_uring.
    Uring,
    /// monoio on epoll, for where io_uring is forbidden.
    Epoll,
    /// glommio, on io_uring.
    Glommio,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "monoio (io_uring)",
            Self::Epoll => "monoio (epoll)",
            Self::Glommio => "glommio",
        })
    }
}

/// What the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RuntimeChoice {
    /// io_uring, or epoll where it is forbidden.
    #[default]
    Monoio,
    Glommio,
}

impl FromStr for RuntimeChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "monoio" => Ok(Self::Monoio),
            "glommio" => Ok(Self::Glommio),
            other => Err(format!("unknown runtime {other:?}, expected \"monoio\" or \"glommio\"")),
        }
    }
}

impl fmt::Display for RuntimeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Monoio => "monoio",
            Self::Glommio => "glommio",
        })
    }
}

/// The driver that [`select`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    pub driver: Driver,
    /// One line for the log where the driver is not the first choice; it says why.
    pub note: Option<String>,
}

/// Finds the driver for `shards` shards with `ring_entries` entries each, by trying what it will need. Call it once, at
/// start, before shards run.
///
/// The environment variable `AGENTLANE_IO_URING=off` forbids io_uring. Errors are for the user: one line that says what is
/// missing and what would help.
pub fn select(choice: RuntimeChoice, shards: usize, ring_entries: u32) -> Result<Selection, String> {
    let forbidden = std::env::var_os("AGENTLANE_IO_URING").is_some_and(|value| value == "off");
    let obstacle = if forbidden { Some("AGENTLANE_IO_URING=off".to_owned()) } else { uring_obstacle(ring_entries) };
    match (choice, obstacle) {
        (RuntimeChoice::Monoio, None) => Ok(Selection { driver: Driver::Uring, note: None }),
        (RuntimeChoice::Monoio, Some(obstacle)) => {
            let note = format!("io_uring is forbidden ({obstacle}): using epoll");
            Ok(Selection { driver: Driver::Epoll, note: Some(note) })
        }
        (RuntimeChoice::Glommio, Some(obstacle)) => Err(format!(
            "runtime glommio needs io_uring, which is forbidden ({obstacle}); runtime monoio can use epoll"
        )),
        (RuntimeChoice::Glommio, None) => {
            let limit = sys::memlock_bytes().map_err(|error| format!("cannot read the memlock limit: {error}"))?;
            let counted = if sys::may_lock_memory() { 0 } else { shards };
            check_memlock(limit, counted, ring_entries)?;
            Ok(Selection { driver: Driver::Glommio, note: None })
        }
    }
}

/// The limit below which glommio refuses to start at all, whatever it would lock, in bytes.
const GLOMMIO_MEMLOCK_MIN: u64 = 512 * 1024;
/// What one executor locks whatever its ring depth, in bytes. This and the next one bound measurements from above: 230 KiB
/// at 128 entries, 590 KiB at 1024, 2 MiB at 4096.
const GLOMMIO_MEMLOCK_BASE: u64 = 256 * 1024;
/// What each entry of its rings adds, in bytes.
const GLOMMIO_MEMLOCK_PER_ENTRY: u64 = 512;

/// `limit`: bytes, None when unlimited. `shards`: those whose rings the kernel counts.
fn check_memlock(limit: Option<u64>, shards: usize, ring_entries: u32) -> Result<(), String> {
    let Some(limit) = limit else { return Ok(()) };
    let one = GLOMMIO_MEMLOCK_BASE + GLOMMIO_MEMLOCK_PER_ENTRY * u64::from(ring_entries);
    let need = GLOMMIO_MEMLOCK_MIN.max(one.saturating_mul(shards as u64));
    if limit >= need {
        return Ok(());
    }
    Err(format!(
        "runtime glommio needs {} KiB of locked memory for {shards} shards, the limit is {} KiB: \
         raise it (LimitMEMLOCK= in systemd, ulimit -l), start fewer shards, or use runtime monoio",
        need.div_ceil(1024),
        limit / 1024,
    ))
}

/// None: a ring of this size can be set up and used for everything monoio asks of it.
fn uring_obstacle(ring_entries: u32) -> Option<String> {
    try_uring(ring_entries).err().map(|error| match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::ENOSYS) => "ENOSYS".to_owned(),
        Some(libc::ENOMEM) => "ENOMEM: the memlock limit is too low".to_owned(),
        _ => error.to_string(),
    })
}

fn try_uring(ring_entries: u32) -> io::Result<()> {
    let mut ring = with_best_flags(|flags| flags.builder(ring_entries).build(ring_entries))?;
    let mut known = Probe::new();
    ring.submitter().register_probe(&mut known)?;
    let needed = [
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::Writev::CODE,
        opcode::Connect::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Close::CODE,
    ];
    if needed.iter().any(|code| !known.is_supported(*code)) {
        return Err(io::Error::other("the kernel lacks operations of Linux 5.6"));
    }
    // A filter may allow the set-up and forbid the use.
    // SAFETY: a nop refers to no memory.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }
        .map_err(|_| io::Error::other("submission ring is full"))?;
    ring.submit_and_wait(1).map(drop)
}

/// Set-up flags, best first. The kernel refuses with EINVAL what it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flags {
    /// Linux 6.1: completions wait until this thread asks for them, nothing interrupts it.
    DeferTaskrun,
    /// Linux 5.19: completions are delivered when this thread enters the kernel anyway.
    CoopTaskrun,
    Plain,
}

impl Flags {
    fn builder(self, entries: u32) -> io_uring::Builder {
        let mut builder = IoUring::builder();
        // Each socket has an operation in flight, so completions come in larger bursts than submissions.
        builder.setup_clamp().setup_cqsize(entries.max(256).saturating_mul(4));
        match self {
            Self::DeferTaskrun => builder.setup_single_issuer().setup_defer_taskrun(),
            Self::CoopTaskrun => builder.setup_coop_taskrun(),
            Self::Plain => &mut builder,
        };
        builder
    }
}

fn with_best_flags<T>(mut build: impl FnMut(Flags) -> io::Result<T>) -> io::Result<T> {
    for flags in [Flags::DeferTaskrun, Flags::CoopTaskrun] {
        match build(flags) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            result => return result,
        }
    }
    build(Flags::Plain)
}

pub(crate) fn uring(entries: u32) -> io::Result<monoio::Runtime<IoUringDriver>> {
    with_best_flags(|flags| {
        RuntimeBuilder::<IoUringDriver>::new().with_entries(entries).uring_builder(flags.builder(entries)).build()
    })
}

pub(crate) fn epoll(entries: u32) -> io::Result<monoio::Runtime<LegacyDriver>> {
    RuntimeBuilder::<LegacyDriver>::new().with_entries(entries).build()
}

pub(crate) fn glommio(options: &ShardOptions) -> io::Result<glommio::LocalExecutor> {
    glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
        .name(&options.name)
        .ring_depth(options.ring_entries as usize)
        // Registered buffers are for storage, of which there is none.
        .io_memory(0)
        .spin_before_park(options.spin)
        .make()
        .map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_names() {
        for choice in [RuntimeChoice::Monoio, RuntimeChoice::Glommio] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!(
            "tokio".parse::<RuntimeChoice>().is_err_and(|error| error.contains("tokio") && error.contains("glommio"))
        );
    }

    #[test]
    fn flags_fall_back_only_where_the_kernel_does_not_know_them() {
        let einval = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        let old_kernel = with_best_flags(|flags| if flags == Flags::DeferTaskrun { einval() } else { Ok(flags) });
        assert_eq!(old_kernel.ok(), Some(Flags::CoopTaskrun));
        let older_kernel = with_best_flags(|flags| if flags == Flags::Plain { Ok(flags) } else { einval() });
        assert_eq!(older_kernel.ok(), Some(Flags::Plain));
        let mut tries = 0;
        let forbidden: io::Result<()> = with_best_flags(|_| {
            tries += 1;
            Err(io::Error::from_raw_os_error(libc::EPERM))
        });
        assert_eq!((forbidden.is_err(), tries), (true, 1));
    }

    #[test]
    fn glommio_memlock_is_checked_at_start_and_says_what_is_needed() {
        assert_eq!(check_memlock(None, 1000, 1024), Ok(()));
        assert_eq!(check_memlock(Some(8 << 20), 4, 1024), Ok(()));
        assert_eq!(check_memlock(Some(8 << 20), 0, 4096), Ok(()), "nothing is counted for a privileged process");
        assert!(check_memlock(Some(256 << 10), 0, 128).is_err(), "glommio itself refuses");
        let too_low = check_memlock(Some(64 << 10), 1, 128).unwrap_err();
        assert!(
            too_low.contains("512 KiB") && too_low.contains("64 KiB") && too_low.contains("LimitMEMLOCK"),
            "{too_low}"
        );
        let too_many = check_memlock(Some(8 << 20), 32, 128).unwrap_err();
        assert!(too_many.contains("32 shards") && too_many.contains("10240 KiB"), "{too_many}");
    }
}
