//! What a child may use of the host: its limits and its network. Decided before the fork, done between fork and exec.
//! Knows no target and no log.
//!
//! Whoever is limited here cannot lift it: hard limits fall with the soft ones, and a group is left only by who may write
//! to another one.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::ChildFaultKind;
use super::cgroup::{Cgroups, Group};
use crate::backend::mcp::ChildLimits;

/// What [`Confinement::apply`] fails with when the network cannot be taken away. No step of an exec fails with it.
pub(super) const NO_NETWORK_DENIAL: libc::c_int = libc::ENONET;
/// The same for a limit that cannot be held.
pub(super) const NO_LIMIT: libc::c_int = libc::EDQUOT;

/// Resource limits that a child gets; `None` where another way holds it, or nothing is to be held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rlimits {
    /// Writable private memory. Not the address space: runtimes reserve far more of that than they use.
    pub(super) data_bytes: Option<u64>,
    pub(super) files: Option<u64>,
    /// Counts every process of the user, and none of root's.
    pub(super) processes: Option<u64>,
}

/// How the limits of one child are held.
#[derive(Debug, Default)]
pub(super) struct Hold {
    pub(super) group: Option<Group>,
    pub(super) rlimits: Rlimits,
    /// On so many processors it may run.
    pub(super) cpus: Option<usize>,
}

/// What happens in the child. Lives on the child's stack; `group` belongs to the parent and outlives the fork.
#[derive(Clone, Copy)]
pub(super) struct Confinement {
    group: Option<RawFd>,
    rlimits: [Option<(RawResource, libc::rlimit)>; 3],
    network: Option<IdMaps>,
}

/// `__rlimit_resource_t` of the C library, which differs among them.
type RawResource = u32;

impl Hold {
    /// Chooses a way for each limit: the group where there is one, else the next best.
    pub(super) fn of(limits: &ChildLimits, groups: Option<&Cgroups>, name: &str) -> Result<Self, ChildFaultKind> {
        let groups = groups.filter(|groups| groups.holds(limits));
        let made = groups.map(|groups| groups.make(name, limits)).transpose();
        let group = made.map_err(|error| ChildFaultKind::Os(format!("control group: {error}")))?;
        let held = |by: fn(&Cgroups) -> bool| groups.is_some_and(by);
        let processes = limits.processes.filter(|_| !held(|groups| groups.pids)).map(u64::from);
        // SAFETY: a plain system call.
        if processes.is_some() && unsafe { libc::geteuid() } == 0 {
            return Err(ChildFaultKind::NoLimit("processes of root can be limited by a control group only"));
        }
        let rlimits = Rlimits {
            data_bytes: limits.memory_bytes.filter(|_| !held(|groups| groups.memory)),
            files: limits.files.map(u64::from),
            processes,
        };
        let cpus = limits.cpu_millis.filter(|_| !held(|groups| groups.cpu));
        Ok(Self { group, rlimits, cpus: cpus.map(|millis| millis.div_ceil(1_000) as usize) })
    }
}

impl Confinement {
    /// Prepared in the parent.
    pub(super) fn new(hold: &Hold, deny_network: bool) -> Self {
        let wanted = [
            (libc::RLIMIT_DATA, hold.rlimits.data_bytes),
            (libc::RLIMIT_NOFILE, hold.rlimits.files),
            (libc::RLIMIT_NPROC, hold.rlimits.processes),
        ];
        Self {
            group: hold.group.as_ref().map(|group| group.procs().as_raw_fd()),
            rlimits: wanted.map(|(resource, value)| {
                let resource = resource as RawResource;
                value.map(|value| (resource, lowered(resource, value)))
            }),
            network: deny_network.then(IdMaps::new),
        }
    }

    /// Joins the group and leaves the network. Before anything that a change of credentials would undo.
    ///
    /// # Safety
    /// Only for a forked child before exec: system calls alone, on memory of this stack.
    pub(super) unsafe fn enter(&self) -> io::Result<()> {
        unsafe {
            if let Some(procs) = self.group
                && libc::write(procs, c"0".as_ptr().cast(), 1) != 1
            {
                return Err(io::Error::from_raw_os_error(NO_LIMIT));
            }
            if let Some(maps) = &self.network
                && !leave_network(maps)
            {
                return Err(io::Error::from_raw_os_error(NO_NETWORK_DENIAL));
            }
        }
        Ok(())
    }

    /// Lowers the limits of the process: the last step, since the others may need more.
    ///
    /// # Safety
    /// As [`Confinement::enter`].
    pub(super) unsafe fn lower(&self) -> io::Result<()> {
        for (resource, limit) in self.rlimits.iter().flatten() {
            if unsafe { libc::setrlimit(*resource as _, limit) } != 0 {
                return Err(io::Error::from_raw_os_error(NO_LIMIT));
            }
        }
        Ok(())
    }
}

/// `value` as a limit, soft and hard; never above the gateway's own, which it may not raise.
fn lowered(resource: RawResource, value: u64) -> libc::rlimit {
    // SAFETY: an all-zero limit is a valid one, and outlives the call.
    unsafe {
        let mut own: libc::rlimit = std::mem::zeroed();
        let known = libc::getrlimit(resource as _, &raw mut own) == 0;
        let value = if known { own.rlim_max.min(value) } else { value };
        libc::rlimit { rlim_cur: value, rlim_max: value }
    }
}

/// The lines that give a process of a new user namespace the ids that it had before (user_namespaces(7)).
#[derive(Clone, Copy)]
struct IdMaps {
    user: [u8; 32],
    group: [u8; 32],
}

impl IdMaps {
    fn new() -> Self {
        // SAFETY: plain system calls.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        Self { user: Self::line(user), group: Self::line(group) }
    }

    /// `ID ID 1`, and zeros after it.
    fn line(id: u32) -> [u8; 32] {
        let mut line = [0; 32];
        let text = format!("{id} {id} 1");
        line[..text.len()].copy_from_slice(text.as_bytes());
        line
    }
}

/// Moves the process into a network namespace of its own, with nothing but a loopback interface. Who is not privileged
/// may do that in a user namespace of his own, where the host allows one.
///
/// # Safety
/// As [`Confinement::enter`].
unsafe fn leave_network(maps: &IdMaps) -> bool {
    unsafe {
        if libc::unshare(libc::CLONE_NEWNET) != 0 {
            if libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) != 0 {
                return false;
            }
            // Kernels before 3.19 have no such file, and need none.
            put(c"/proc/self/setgroups", b"deny");
            if !put(c"/proc/self/uid_map", text(&maps.user)) || !put(c"/proc/self/gid_map", text(&maps.group)) {
                return false;
            }
        }
        raise_loopback();
    }
    true
}

fn text(line: &[u8; 32]) -> &[u8] {
    line.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// # Safety
/// As [`Confinement::enter`].
unsafe fn put(path: &std::ffi::CStr, text: &[u8]) -> bool {
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file < 0 {
            return false;
        }
        let written = libc::write(file, text.as_ptr().cast(), text.len()) == text.len() as isize;
        libc::close(file);
        written
    }
}

/// Servers talk to themselves over loopback; one that does not comes up without.
///
/// # Safety
/// As [`Confinement::enter`].
unsafe fn raise_loopback() {
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return;
        }
        let mut interface: libc::ifreq = std::mem::zeroed();
        interface.ifr_name[0] = b'l' as libc::c_char;
        interface.ifr_name[1] = b'o' as libc::c_char;
        interface.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const interface);
        libc::close(socket);
    }
}
