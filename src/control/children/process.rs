//! One process group: how it is started, signalled and reaped. Knows no table, no shard and no log.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::cgroup::{Cgroups, Group};
use super::confine::{self, Confinement, Hold};
use super::{ChildFaultKind, ChildSpec};

/// How often the end of a child is looked for where the kernel offers no pidfd.
const EXIT_POLL: Duration = Duration::from_millis(50);
/// Descriptors that are marked one by one where the kernel has no `close_range`.
const FALLBACK_DESCRIPTORS_MAX: u32 = 65_536;

/// A fresh child with our ends of its standard streams.
pub(super) struct Started {
    pub(super) leader: Leader,
    pub(super) io: OwnedFd,
    pub(super) stderr: pipe::Receiver,
    /// To be removed once the leader is reaped.
    pub(super) group: Option<Group>,
}

/// The first process of the group. As long as it is not reaped, its process id names it and its group and nothing else,
/// so that signals cannot hit a stranger. Dropped without being reaped, it is killed and reaped.
#[derive(Debug)]
pub(super) struct Leader {
    pid: libc::pid_t,
    /// Readable when the process has ended.
    pidfd: Option<AsyncFd<OwnedFd>>,
    reaped: bool,
}

/// Starts the command of `spec` as the leader of a new process group, with its limits held by a control group `name`
/// where that can be.
pub(super) fn start(spec: &ChildSpec, groups: Option<&Cgroups>, name: &str) -> Result<Started, ChildFaultKind> {
    let os = |error: io::Error| ChildFaultKind::Os(error.to_string());
    let hold = Hold::of(&spec.limits, groups, name)?;
    let (ours, theirs) = socket_pair().map_err(os)?;
    let (stderr, stderr_end) = stderr_pipe().map_err(os)?;
    let mut command = Command::new(&spec.command);
    if spec.clear_env {
        command.env_clear();
    }
    command.args(&spec.args).envs(spec.env.iter().map(|(name, value)| (name, value))).process_group(0);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    command
        .stdin(Stdio::from(theirs.try_clone().map_err(os)?))
        .stdout(Stdio::from(theirs))
        .stderr(Stdio::from(stderr_end));
    let prepare = Prepare::new(&hold, spec.deny_network);
    // SAFETY: `prepare` only makes system calls that are safe between fork and exec; it neither allocates nor locks.
    unsafe { command.pre_exec(move || prepare.run()) };
    let mut child = command.spawn().map_err(|error| start_fault(spec, &error))?;
    let pid = child.id() as libc::pid_t;
    // The pipes went into the command; nothing is left in `child` but the id, and it never waits on its own.
    debug_assert!(child.stdin.take().is_none() && child.stderr.take().is_none());
    let leader = Leader { pid, pidfd: pidfd(pid).ok(), reaped: false };
    Ok(Started { leader, io: ours, stderr, group: hold.group })
}

impl Leader {
    pub(super) fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// Returns when the process has ended and waits to be reaped.
    pub(super) async fn ended(&self) {
        match &self.pidfd {
            Some(pidfd) => drop(pidfd.readable().await),
            None => {
                while !has_ended(self.pid) {
                    tokio::time::sleep(EXIT_POLL).await;
                }
            }
        }
    }

    /// Sends a signal to every process of the group; to the leader alone when it has left its own group.
    pub(super) fn signal_group(&self, signal: libc::c_int) {
        // SAFETY: plain system calls. The leader is not reaped, so both ids are still its own.
        unsafe {
            if libc::kill(-self.pid, signal) != 0 {
                libc::kill(self.pid, signal);
            }
        }
    }

    /// Kills what is left of the group and takes the status. To be called once the leader has ended.
    pub(super) fn reap(mut self) -> ExitStatus {
        self.kill_and_wait()
    }

    /// The group is killed before the leader is reaped: afterwards its id could belong to somebody else.
    fn kill_and_wait(&mut self) -> ExitStatus {
        self.signal_group(libc::SIGKILL);
        self.reaped = true;
        let mut status = 0;
        loop {
            // SAFETY: `status` outlives the call.
            let result = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
            if result >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return ExitStatus::from_raw(status);
            }
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill_and_wait();
        }
    }
}

/// Whether processes that lose their parent become children of this one.
pub(super) fn adopts_orphans() -> bool {
    let mut subreaper: libc::c_int = 0;
    // SAFETY: `subreaper` outlives the call.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut subreaper) };
    std::process::id() == 1 || subreaper != 0
}

/// Reaps ended children up to the first one that `is_ours` claims.
pub(super) fn reap_orphans(is_ours: impl Fn(u32) -> bool) {
    while let Some(pid) = peek_ended(libc::P_ALL, 0) {
        if is_ours(pid as u32) {
            return;
        }
        // SAFETY: a plain system call; a null status is allowed.
        if unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) } <= 0 {
            return;
        }
    }
}

/// What happens in the child between fork and exec. Made before the fork.
#[derive(Clone, Copy)]
struct Prepare {
    parent: libc::pid_t,
    affinity: Option<libc::cpu_set_t>,
    confinement: Confinement,
}

impl Prepare {
    fn new(hold: &Hold, deny_network: bool) -> Self {
        // SAFETY: plain system calls; an all-zero set is a valid one, and it outlives the call.
        unsafe {
            let parent = libc::getpid();
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let known = libc::sched_getaffinity(parent, size_of::<libc::cpu_set_t>(), &raw mut set) == 0;
            if let Some(cpus) = hold.cpus {
                keep_some(&mut set, cpus);
            }
            Self { parent, affinity: known.then_some(set), confinement: Confinement::new(hold, deny_network) }
        }
    }

    fn run(&self) -> io::Result<()> {
        // SAFETY: only system calls that are async-signal-safe, on memory that lives on this stack.
        unsafe {
            // First: a change of credentials clears the signal below.
            self.confinement.enter()?;
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The gateway may have died before the line above.
            if libc::getppid() != self.parent {
                libc::_exit(127);
            }
            default_signals();
            // The control thread may be pinned to one core; a child runs wherever the gateway's main thread may.
            if let Some(set) = &self.affinity {
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set);
            }
            close_on_exec_from(3);
            self.confinement.lower()
        }
    }
}

/// Leaves `count` processors in the set, beginning at another one each time so that children spread.
fn keep_some(set: &mut libc::cpu_set_t, count: usize) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let own = *set;
    // SAFETY: indices are below the size of the set.
    let allowed: Vec<usize> =
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &own) }).collect();
    if allowed.len() <= count {
        return;
    }
    let first = NEXT.fetch_add(count, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe {
        libc::CPU_ZERO(set);
        (0..count).for_each(|place| libc::CPU_SET(allowed[(first + place) % allowed.len()], set));
    }
}

/// Ignored signals and the signal mask survive an exec, so both are put back to what a fresh process expects.
///
/// # Safety
/// Only for a forked child before exec: it changes the dispositions of the whole process.
unsafe fn default_signals() {
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Marks every descriptor from `first` on. Not closed outright: one of them tells the parent whether exec succeeded.
///
/// # Safety
/// Only for a forked child before exec.
unsafe fn close_on_exec_from(first: u32) {
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 {
            return;
        }
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        for descriptor in first..FALLBACK_DESCRIPTORS_MAX.min(limit.rlim_cur as u32) {
            libc::fcntl(descriptor as libc::c_int, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

fn start_fault(spec: &ChildSpec, error: &io::Error) -> ChildFaultKind {
    if let Some(cwd) = spec.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
        return ChildFaultKind::NoDirectory(cwd.clone());
    }
    match error.raw_os_error() {
        Some(confine::NO_NETWORK_DENIAL) => return ChildFaultKind::NoNetworkDenial,
        Some(confine::NO_LIMIT) => return ChildFaultKind::NoLimit("the kernel refused them"),
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::NotFound => ChildFaultKind::NotFound,
        io::ErrorKind::PermissionDenied => ChildFaultKind::NotPermitted,
        _ => ChildFaultKind::Os(error.to_string()),
    }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    Ok((ours.into(), theirs.into()))
}

/// The gateway's end does not block, the child's does.
fn stderr_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(ours.into())?, theirs.into()))
}

fn pidfd(pid: libc::pid_t) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: a plain system call; a descriptor that it gives is new and ours (it is closed on exec by definition).
    let descriptor = unsafe {
        let raw = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(raw as libc::c_int)
    };
    debug_assert!(descriptor.as_raw_fd() > 2);
    // SAFETY: an `OwnedFd` gives the same open descriptor until it is dropped, and `AsyncFd` owns it from here on.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(io::Error::from)
}

fn has_ended(pid: libc::pid_t) -> bool {
    peek_ended(libc::P_PID, pid as libc::id_t).is_some()
}

/// The id of a child that has ended, which stays unreaped.
fn peek_ended(which: libc::idtype_t, id: libc::id_t) -> Option<libc::pid_t> {
    // SAFETY: an all-zero siginfo is valid and outlives the call; its pid stays zero when no child has ended.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let result = libc::waitid(which, id, &raw mut info, flags);
        (result == 0 && info.si_pid() != 0).then(|| info.si_pid())
    }
}
