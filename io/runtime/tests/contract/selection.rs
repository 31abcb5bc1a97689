//! Which driver is chosen, and that this host can run all of them.

use agentlane_runtime::{Driver, RuntimeChoice, Selection, select};
use bytes::Bytes;

use crate::support::{on_shard, own_process, recv_exact, tcp_pair};

/// Set in the processes in which io_uring is forbidden.
const FORBIDDEN: &str = "AGENTLANE_TEST_IO_URING_FORBIDDEN";

#[test]
fn this_host_runs_every_driver() {
    let monoio = select(RuntimeChoice::Monoio, 1, 128);
    assert_eq!(
        monoio,
        Ok(Selection { driver: Driver::Uring, note: None }),
        "THIS HOST CANNOT RUN io_uring: its third of the contract is not tested here"
    );
    let glommio = select(RuntimeChoice::Glommio, 1, 128);
    assert_eq!(
        glommio,
        Ok(Selection { driver: Driver::Glommio, note: None }),
        "THIS HOST CANNOT RUN glommio: its third of the contract is not tested here"
    );
}

#[test]
fn epoll_where_the_environment_forbids_io_uring() {
    if std::env::var_os(FORBIDDEN).is_some() {
        return assert_forbidden("AGENTLANE_IO_URING=off");
    }
    let name = "selection::epoll_where_the_environment_forbids_io_uring";
    let status = own_process(name, FORBIDDEN, "1").env("AGENTLANE_IO_URING", "off").status();
    assert!(status.unwrap().success());
}

#[test]
fn epoll_where_the_kernel_forbids_io_uring() {
    if std::env::var_os(FORBIDDEN).is_some() {
        forbid_io_uring();
        assert_forbidden("EPERM");
        return on_shard(Driver::Epoll, || async {
            let (mut near, mut far) = tcp_pair().await;
            near.send(Bytes::from_static(b"works")).await.unwrap();
            assert_eq!(recv_exact(&mut far, 5).await, "works");
        });
    }
    let status = own_process("selection::epoll_where_the_kernel_forbids_io_uring", FORBIDDEN, "1").status();
    assert!(status.unwrap().success());
}

fn assert_forbidden(why: &str) {
    let monoio = select(RuntimeChoice::Monoio, 1, 128).unwrap();
    let note = format!("io_uring is forbidden ({why}): using epoll");
    assert_eq!(monoio, Selection { driver: Driver::Epoll, note: Some(note) });
    let glommio = select(RuntimeChoice::Glommio, 1, 128).unwrap_err();
    assert!(glommio.contains("needs io_uring") && glommio.contains(why), "{glommio}");
}

/// io_uring_setup(2) fails with EPERM from now on in this thread and those that it starts, as in many containers.
fn forbid_io_uring() {
    let filter = [
        // The number of the call is the first word of what a filter sees.
        libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 },
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_io_uring_setup as u32,
        },
        libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        },
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
}
