//! The few system calls that no driver offers in the form needed. Knows nothing of executors; every call returns at once.

use std::io;
use std::mem::{self, ManuallyDrop};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_int, c_void, socklen_t};

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Takes a descriptor that a call has just returned.
fn owned(result: c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel gave the descriptor to this call; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `f` on a socket that stays open and stays its owner's.
fn borrowed<T>(fd: RawFd, f: impl FnOnce(&TcpStream) -> T) -> T {
    // SAFETY: ManuallyDrop never closes the descriptor; the std type is only a set of socket calls here.
    let socket = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
    f(&socket)
}

pub(crate) fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take integers only.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    let wanted = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if wanted == flags {
        return Ok(());
    }
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, wanted) }).map(drop)
}

/// A second descriptor of the same open file, closed on exec.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    owned(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })
}

pub(crate) fn set_nodelay(fd: RawFd) -> io::Result<()> {
    borrowed(fd, |socket| socket.set_nodelay(true))
}

pub(crate) fn shutdown(fd: RawFd, how: Shutdown) -> io::Result<()> {
    borrowed(fd, |socket| socket.shutdown(how))
}

pub(crate) fn peer_addr(fd: RawFd) -> io::Result<SocketAddr> {
    borrowed(fd, TcpStream::peer_addr)
}

pub(crate) fn local_addr(fd: RawFd) -> io::Result<SocketAddr> {
    borrowed(fd, TcpStream::local_addr)
}

/// A connected pair of unix stream sockets, closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = std::os::unix::net::UnixStream::pair()?;
    Ok((a.into(), b.into()))
}

/// True when poll(2) says that a read would not block now.
pub(crate) fn is_readable(fd: RawFd) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry, and a zero timeout.
    check(unsafe { libc::poll(&raw mut entry, 1, 0) }).map(|ready| ready > 0)
}

/// An address in the form the kernel takes.
struct RawAddr {
    storage: libc::sockaddr_storage,
    len: socklen_t,
}

impl RawAddr {
    fn new() -> Self {
        // SAFETY: all zeroes is a valid sockaddr_storage (AF_UNSPEC).
        let storage = unsafe { mem::zeroed() };
        Self { storage, len: mem::size_of::<libc::sockaddr_storage>() as socklen_t }
    }

    fn from_ip(addr: SocketAddr) -> Self {
        let mut raw = Self::new();
        match addr {
            SocketAddr::V4(v4) => raw.put(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => raw.put(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            }),
        }
        raw
    }

    fn from_path(path: &Path) -> io::Result<Self> {
        // SAFETY: all zeroes is a valid sockaddr_un.
        let mut addr: libc::sockaddr_un = unsafe { mem::zeroed() };
        let bytes = path.as_os_str().as_bytes();
        // The last byte stays zero: the kernel takes the path as a C string.
        if bytes.is_empty() || bytes.len() >= addr.sun_path.len() || bytes.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "unix socket path is empty, too long or has a NUL",
            ));
        }
        addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in addr.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        let mut raw = Self::new();
        raw.put(addr);
        Ok(raw)
    }

    fn put<A>(&mut self, addr: A) {
        const { assert!(mem::size_of::<A>() <= mem::size_of::<libc::sockaddr_storage>()) };
        // SAFETY: the storage is at least as large (asserted) and aligned for every address family.
        unsafe { (&raw mut self.storage).cast::<A>().write(addr) };
        self.len = mem::size_of::<A>() as socklen_t;
    }

    fn to_ip(&self) -> Option<SocketAddr> {
        match c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says which type the kernel has written; the storage is large and aligned enough.
                let v4 = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }
}

fn socket(family: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    owned(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) })
}

fn set_option(fd: RawFd, name: c_int, value: c_int) -> io::Result<()> {
    let len = mem::size_of::<c_int>() as socklen_t;
    // SAFETY: the value lives through the call and its size is given.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, name, (&raw const value).cast::<c_void>(), len) };
    check(result).map(drop)
}

fn bind_and_listen(socket: &OwnedFd, addr: &RawAddr, backlog: i32) -> io::Result<()> {
    // SAFETY: the address lives through the call and its length is its own.
    check(unsafe { libc::bind(socket.as_raw_fd(), addr.as_ptr(), addr.len) })?;
    // SAFETY: takes integers only.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// A listening TCP socket: non-blocking, closed on exec, SO_REUSEADDR, and SO_REUSEPORT when asked for.
pub(crate) fn listen_tcp(addr: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<OwnedFd> {
    let socket = socket(if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })?;
    set_option(socket.as_raw_fd(), libc::SO_REUSEADDR, 1)?;
    if reuse_port {
        set_option(socket.as_raw_fd(), libc::SO_REUSEPORT, 1)?;
    }
    bind_and_listen(&socket, &RawAddr::from_ip(addr), backlog)?;
    Ok(socket)
}

/// A listening unix socket: non-blocking, closed on exec, never SO_REUSEPORT (which unix sockets refuse).
pub(crate) fn listen_unix(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_UNIX)?;
    bind_and_listen(&socket, &RawAddr::from_path(path)?, backlog)?;
    Ok(socket)
}

/// One connection of a non-blocking listening socket; CLOEXEC is set by the same call, so no child can get between.
pub(crate) fn accept(listener: RawFd, nonblocking: bool) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut addr = RawAddr::new();
    let flags = libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: the storage and its length live through the call.
    let fd = owned(unsafe { libc::accept4(listener, (&raw mut addr.storage).cast(), &raw mut addr.len, flags) })?;
    Ok((fd, addr.to_ip()))
}

/// Connects to a unix socket. `WouldBlock`: the backlog there is full.
pub(crate) fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let addr = RawAddr::from_path(path)?;
    let socket = socket(libc::AF_UNIX)?;
    // SAFETY: the address lives through the call and its length is its own.
    check(unsafe { libc::connect(socket.as_raw_fd(), addr.as_ptr(), addr.len) })?;
    Ok(socket)
}

/// Writes what fits now of `iov` (at most IOV_MAX entries) without waiting and without SIGPIPE.
pub(crate) fn send_vectored(fd: RawFd, iov: &[libc::iovec]) -> io::Result<usize> {
    // SAFETY: all zeroes is a valid msghdr (no address, no control data).
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = iov.as_ptr().cast_mut();
    message.msg_iovlen = iov.len() as _;
    // SAFETY: the caller's entries describe live memory; the kernel only reads it.
    let sent = unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// A monotonic timer that is read through its readiness.
pub(crate) fn timer() -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })
}

/// Arms the timer to fire once after `delay` (None: never) and takes back a readiness that was not seen yet.
pub(crate) fn arm_timer(fd: RawFd, delay: Option<std::time::Duration>) -> io::Result<()> {
    // A delay of zero would disarm.
    let delay = delay.map_or(std::time::Duration::ZERO, |d| d.max(std::time::Duration::from_nanos(1)));
    let spec = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec {
            tv_sec: libc::time_t::try_from(delay.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: delay.subsec_nanos() as _,
        },
    };
    // SAFETY: the new value lives through the call; the old one is not asked for.
    check(unsafe { libc::timerfd_settime(fd, 0, &raw const spec, std::ptr::null_mut()) }).map(drop)
}

pub(crate) fn event() -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

pub(crate) fn raise_event(fd: RawFd) -> io::Result<()> {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the buffer has the given length.
    let written = unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(crate) fn clear_event(fd: RawFd) {
    let mut count = [0u8; 8];
    // SAFETY: the buffer has the given length. Nothing to read (EAGAIN) is as good as read.
    let _ = unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) };
}

/// Pins the calling thread to one processor.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such cpu"));
    }
    // SAFETY: all zeroes is the empty set; the index is below its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    // SAFETY: the set lives through the call; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw const set) }).map(drop)
}

/// Names the calling thread for `top` and debuggers; the kernel keeps 15 bytes.
pub(crate) fn name_thread(name: &str) {
    let mut bytes: Vec<u8> = name.bytes().filter(|b| *b != 0).take(15).collect();
    bytes.push(0);
    // SAFETY: a C string that lives through the call. A failure costs a name only.
    let _ = unsafe { libc::pthread_setname_np(libc::pthread_self(), bytes.as_ptr().cast()) };
}

/// The soft limit of locked memory in bytes; None: unlimited.
pub(crate) fn memlock_bytes() -> io::Result<Option<u64>> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) })?;
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
}

/// True for a process with CAP_IPC_LOCK, whose locked memory the kernel does not count.
pub(crate) fn may_lock_memory() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1)
}

/// Nanoseconds of a clock since its zero.
pub(crate) fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives through the call. The clocks used here exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut at) };
    (at.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(at.tv_nsec as u64)
}
