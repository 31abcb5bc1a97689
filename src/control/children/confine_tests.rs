//! What children are kept from, with real processes. Control groups are tested beside their code: whether there are any
//! is the host's affair.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;

use super::tests::{PATIENCE, all, in_own_process, run, sh, status, stream};
use super::*;

/// Set for a child that is this test binary: the port that it shall connect to.
const PORT: &str = "AGENTLANE_TEST_PORT";

fn limited(script: &str, limits: ChildLimits) -> ChildSpec {
    ChildSpec { limits, ..sh(script) }
}

/// This test binary as a child that runs the test `name` alone.
fn own_test(name: &str, port: u16) -> ChildSpec {
    let path = module_path!().split_once("::").map_or("", |(_, path)| path);
    let args = [&format!("{path}::{name}"), "--exact", "--nocapture", "--test-threads=1"];
    ChildSpec {
        target: "t".into(),
        command: std::env::current_exe().expect("the test's own path").to_string_lossy().into_owned(),
        args: args.map(str::to_owned).to_vec(),
        env: vec![(PORT.into(), port.to_string())],
        ..ChildSpec::default()
    }
}

#[test]
fn limits_are_inherited_by_all_that_it_starts() {
    run(async |children| {
        let limits = ChildLimits { files: Some(77), memory_bytes: Some(64 << 20), ..ChildLimits::default() };
        let child = children.spawn(&limited("ulimit -Hn; sh -c 'ulimit -n; ulimit -d'", limits)).expect("sh");
        let text = all(child.io);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["77", "77"], "{text}");
        // With a control group the memory is limited there.
        assert!(["65536", "unlimited"].contains(&lines[2]), "{text}");
    });
}

#[test]
fn a_hog_dies_of_its_limit() {
    run(async |children| {
        let limits = ChildLimits { memory_bytes: Some(32 << 20), ..ChildLimits::default() };
        let child = children.spawn(&limited("x=0123456789abcdef; while :; do x=$x$x; done", limits)).expect("sh");
        let status = status(&child.exit).await;
        assert!(!status.success(), "{status}");
        assert!(matches!(status.signal(), None | Some(libc::SIGKILL | libc::SIGSEGV | libc::SIGABRT)), "{status}");
    });
}

#[test]
fn processors_are_counted() {
    run(async |children| {
        let limits = ChildLimits { cpu_millis: Some(500), ..ChildLimits::default() };
        let text =
            all(children.spawn(&limited("grep Cpus_allowed_list: /proc/self/status; nproc", limits)).expect("sh").io);
        let by_group = children.0.groups(&limits).is_some_and(|groups| groups.cpu);
        assert!(by_group || text.ends_with("\n1\n"), "{text}");
    });
}

#[test]
fn a_limit_that_cannot_be_held_is_a_fault() {
    run(async |children| {
        let limits = ChildLimits { processes: Some(5), ..ChildLimits::default() };
        let outcome = children.spawn(&limited("ulimit -u || ulimit -p", limits));
        // SAFETY: a plain system call.
        let root = unsafe { libc::geteuid() } == 0;
        let by_group = children.0.groups(&limits).is_some_and(|groups| groups.pids);
        match outcome {
            Ok(child) if !root && !by_group => assert_eq!(all(child.io), "5\n"),
            Ok(_) => assert!(by_group),
            Err(fault) => assert!(root && fault.to_string().contains("processes of root"), "{fault}"),
        }
        assert_eq!(children.running(), 0);
    });
}

/// Both the test and what it starts: a child that says whether it can connect to a port of the loopback interface, and to
/// one of its own.
#[test]
fn a_child_is_kept_from_the_network() {
    if let Ok(port) = std::env::var(PORT) {
        let port: u16 = port.parse().expect("a port");
        let own = TcpListener::bind("127.0.0.1:0").expect("a listener").local_addr().expect("its address");
        let reached = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
        let listener = TcpListener::bind(own).expect("the same again");
        println!("REACHED {} {} {}", reached(port), reached(own.port()), listener.accept().is_ok());
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    run(async |children| {
        let spec = own_test("a_child_is_kept_from_the_network", port);
        let text = all(children.spawn(&spec).expect("this test").io);
        assert!(text.contains("REACHED true true true"), "{text}");
        match children.spawn(&ChildSpec { deny_network: true, ..spec }) {
            Ok(child) => {
                assert!(all(child.io).contains("REACHED false true true"), "loopback of its own, and nothing else")
            }
            // A host that forbids it; the next test is about that.
            Err(fault) => assert_eq!(fault.kind, ChildFaultKind::NoNetworkDenial),
        }
    });
    assert!(listener.accept().is_ok(), "the one that may");
    listener.set_nonblocking(true).expect("not blocking");
    assert!(listener.accept().is_err(), "nobody else came");
}

#[test]
fn who_cannot_be_kept_from_the_network_is_not_started() {
    in_own_process(module_path!(), "who_cannot_be_kept_from_the_network_is_not_started", || {
        forbid_unshare();
        run(async |children| {
            children.spawn(&sh("true")).expect("a child with the network");
            let fault =
                children.spawn(&ChildSpec { deny_network: true, ..sh("echo ran") }).expect_err("it must not run");
            assert_eq!(fault.kind, ChildFaultKind::NoNetworkDenial);
            assert!(fault.to_string().contains("network: deny cannot be held"), "{fault}");
        });
    });
}

/// As a container's filter does: unshare(2) fails for this thread and all that it starts (seccomp(2)).
fn forbid_unshare() {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD, 0, 0, 0), // the number of the call
        step(IF_EQUAL, 0, 1, libc::SYS_unshare as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program outlives the calls, which concern this thread alone.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// A user of no privileges gets his network taken away in a user namespace of his own, with the ids that he had.
#[test]
fn ids_stay_without_privileges() {
    in_own_process(module_path!(), "ids_stay_without_privileges", || {
        // SAFETY: plain system calls; of this thread alone, so that the others may read the test's files on.
        unsafe {
            if libc::geteuid() == 0 {
                assert_eq!(libc::syscall(libc::SYS_setresgid, 65_534, 65_534, 65_534), 0);
                assert_eq!(libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534), 0);
                // A change of ids takes /proc/self away from its new owner; a process that began as him has it.
                assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
            }
        }
        run(async |children| {
            let spec = ChildSpec { deny_network: true, ..sh("id -u; id -g; cat /proc/net/dev | grep -c :") };
            match children.spawn(&spec) {
                Ok(child) => {
                    // SAFETY: plain system calls.
                    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
                    assert_eq!(all(child.io), format!("{user}\n{group}\n1\n"));
                }
                Err(fault) => assert_eq!(fault.kind, ChildFaultKind::NoNetworkDenial),
            }
        });
    });
}

#[test]
fn a_denied_child_dies_with_its_thread() {
    in_own_process(module_path!(), "a_denied_child_dies_with_its_thread", || {
        let spawn = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let child = runtime.block_on(async {
                let children = Children::new(ChildrenLimits::default());
                children.spawn(&ChildSpec { deny_network: true, ..sh("echo up; exec sleep 1000") }).ok()
            });
            // As when the process crashes: nobody is left to clean up.
            std::mem::forget(runtime);
            child.map(|child| {
                child.lease.waive();
                stream(child.io)
            })
        };
        let Some(mut io) = std::thread::spawn(spawn).join().expect("the thread") else { return };
        io.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut text = String::new();
        // Its end is the end of its output.
        io.read_to_string(&mut text).expect("an end in time");
        let _ = io.get_mut().flush();
    });
}
