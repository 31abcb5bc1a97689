//! Resource limits of this process: open files and locked memory. The only thing in this crate that changes anything.

use std::io;

/// A soft and a hard limit (getrlimit(2)); `u64::MAX` is "unlimited".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    pub soft: u64,
    pub hard: u64,
}

/// RLIMIT_NOFILE: one more than the highest descriptor that may be opened.
pub fn nofile() -> io::Result<Rlimit> {
    // SAFETY: `read` passes a pointer to a local that lives through the call.
    read(|limit| unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit) })
}

/// RLIMIT_MEMLOCK, bytes: rings and registered buffers count against it on kernels before 5.12, and always do for some executors.
pub fn memlock() -> io::Result<Rlimit> {
    // SAFETY: `read` passes a pointer to a local that lives through the call.
    read(|limit| unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, limit) })
}

/// Lifts the soft limit of open files to the hard one and says what holds now. No privilege is needed. Children inherit it:
/// one that uses select(2) must not be given descriptors above 1023.
pub fn raise_nofile() -> io::Result<Rlimit> {
    let limit = nofile()?;
    if limit.soft >= limit.hard {
        return Ok(limit);
    }
    let raised = libc::rlimit { rlim_cur: limit.hard, rlim_max: limit.hard };
    // SAFETY: the pointer is to a local that lives through the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } != 0 {
        return Err(io::Error::last_os_error());
    }
    nofile()
}

/// The resource is named inside `getrlimit`, because libraries disagree on the type of its number.
fn read(getrlimit: impl Fn(*mut libc::rlimit) -> libc::c_int) -> io::Result<Rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    match getrlimit(&mut limit) {
        0 => Ok(Rlimit { soft: limit.rlim_cur, hard: limit.rlim_max }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_reaches_the_hard_limit_and_is_idempotent() {
        let before = nofile().expect("every process has this limit");
        let raised = raise_nofile().expect("soft to hard needs no privilege");
        assert_eq!(raised.hard, before.hard);
        assert_eq!(raised.soft, before.hard);
        assert_eq!(raise_nofile().expect("soft to hard needs no privilege"), raised);
        let memlock = memlock().expect("every process has this limit");
        assert!(memlock.soft <= memlock.hard);
    }
}
