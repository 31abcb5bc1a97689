//! Tests of the supervisor, with real processes.

use super::*;
use crate::session::board::CallMark;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

const LIMITS: ChildrenLimits = ChildrenLimits { children_max: 8, grace: Duration::from_millis(200) };
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn sh(script: &str) -> ChildSpec {
    ChildSpec {
        target: "t".into(),
        command: "sh".into(),
        args: vec!["-c".into(), script.into()],
        ..ChildSpec::default()
    }
}

pub(super) fn stream(io: OwnedFd) -> BufReader<UnixStream> {
    let stream = UnixStream::from(io);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    BufReader::new(stream)
}

pub(super) fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line in time");
    line.trim_end().to_owned()
}

pub(super) fn all(io: OwnedFd) -> String {
    let mut text = String::new();
    stream(io).read_to_string(&mut text).expect("the output in time");
    text
}

pub(super) async fn status(exit: &flume::Receiver<ExitStatus>) -> ExitStatus {
    tokio::time::timeout(PATIENCE, exit.recv_async()).await.expect("an end in time").expect("a status")
}

pub(super) fn run<F: Future>(test: impl FnOnce(Children) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let children = Children::new(LIMITS);
        test(children.clone()).await;
        tokio::time::timeout(PATIENCE, children.shutdown_all()).await.expect("all reaped in time");
        assert_eq!(children.running(), 0);
    });
}

/// State and parent of a process, `None` when there is no such process.
pub(super) fn process(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn process_group(pid: u32) -> u32 {
    // SAFETY: a plain system call.
    unsafe { libc::getpgid(pid as libc::pid_t) as u32 }
}

fn is_alive(pid: u32) -> bool {
    process(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

async fn gone(pid: u32) {
    let deadline = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "{pid} is still alive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs the body in a process of its own: some facts belong to a whole process, and the other tests share this one.
pub(super) fn in_own_process(module: &str, name: &str, body: impl FnOnce()) {
    const MARK: &str = "AGENTLANE_TEST_IN_OWN_PROCESS";
    if std::env::var(MARK).is_ok_and(|value| value == name) {
        return body();
    }
    let path = module.split_once("::").map_or("", |(_, path)| path);
    let output = std::process::Command::new(std::env::current_exe().expect("the test's own path"))
        .args([&format!("{path}::{name}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, name)
        .output()
        .expect("the test runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn one_socket_is_input_and_output() {
    run(async |children| {
        let child = children
            .spawn(&ChildSpec { target: "t".into(), command: "cat".into(), ..ChildSpec::default() })
            .expect("cat");
        let mut io = stream(child.io);
        let mut writer = io.get_ref().try_clone().expect("a second handle");
        let big = "x".repeat(300_000);
        let sender = std::thread::spawn(move || {
            writeln!(writer, "hello\n{big}").expect("written");
            writer.shutdown(Shutdown::Write).expect("end of input");
        });
        assert_eq!(line(&mut io), "hello");
        assert_eq!(line(&mut io).len(), 300_000);
        sender.join().expect("the sender");
        assert!(status(&child.exit).await.success());
        assert_eq!(line(&mut io), "");
    });
}

#[test]
fn the_end_is_seen_with_its_code() {
    run(async |children| {
        let child = children.spawn(&sh("exit 7")).expect("sh");
        assert_eq!(status(&child.exit).await.code(), Some(7));
        assert_eq!(process(child.pid), None, "reaped before the end is told");
        children.terminate(child.id);
    });
}

#[test]
fn what_cannot_start_is_named() {
    run(async |children| {
        let spec = ChildSpec { target: "files".into(), command: "no-such-command-here".into(), ..ChildSpec::default() };
        let fault = children.spawn(&spec).expect_err("no such command");
        assert_eq!(fault.to_string(), "target \"files\": cannot start \"no-such-command-here\": command not found");
        let fault =
            children.spawn(&ChildSpec { command: "/etc/passwd".into(), ..spec.clone() }).expect_err("not executable");
        assert_eq!(fault.kind, ChildFaultKind::NotPermitted);
        let cwd = PathBuf::from("/no/such/folder");
        let fault = children.spawn(&ChildSpec { cwd: Some(cwd.clone()), ..sh("true") }).expect_err("no folder");
        assert_eq!(fault.kind, ChildFaultKind::NoDirectory(cwd));
        let fault = children.spawn(&ChildSpec { command: "a\0b".into(), ..spec }).expect_err("a NUL");
        assert!(matches!(fault.kind, ChildFaultKind::Os(_)), "{fault}");
        assert_eq!(children.running(), 0);
    });
}

#[test]
fn environment_and_folder() {
    run(async |children| {
        let env = vec![("ADDED".into(), "a b".into()), ("PATH".into(), std::env::var("PATH").expect("a path"))];
        let spec = ChildSpec { env, cwd: Some("/".into()), ..sh("echo \"$ADDED|${HOME-unset}|$PWD\"") };
        assert_eq!(
            all(children.spawn(&ChildSpec { clear_env: true, ..spec.clone() }).expect("sh").io),
            "a b|unset|/\n"
        );
        let home = std::env::var("HOME").unwrap_or_else(|_| "unset".into());
        assert_eq!(all(children.spawn(&spec).expect("sh").io), format!("a b|{home}|/\n"));
    });
}

#[test]
fn nothing_is_inherited() {
    run(async |children| {
        // A descriptor without close-on-exec, as an io_uring accept gives.
        // SAFETY: plain system calls on a descriptor of this test.
        let leak = unsafe { libc::fcntl(0, libc::F_DUPFD, 100) };
        assert!(leak >= 100);
        // SAFETY: no other test cares for this signal.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        // The sets are read by the shell itself, which blocks signals while it starts another program.
        let sets = "while read -r name value; do case $name in Sig[BI]*) echo $value;; esac; done </proc/$$/status";
        let script = format!("ls /proc/$$/fd; {sets}");
        let child = children.spawn(&sh(&script)).expect("sh");
        // SAFETY: as above.
        unsafe { libc::close(leak) };
        let group = process_group(child.pid);
        let mut io = stream(child.io);
        assert_eq!([line(&mut io), line(&mut io), line(&mut io)], ["0", "1", "2"]);
        // A further descriptor would be read as a set here. Signals 32 and 33 belong to the C library, which ignores
        // them at its own pleasure.
        let sets = [line(&mut io), line(&mut io)]
            .map(|set| (set.len(), u64::from_str_radix(&set, 16).expect("a set") & !(3 << 31)));
        assert_eq!(sets, [(16, 0), (16, 0)], "blocked and ignored");
        assert_eq!(group, child.pid, "leads its own group");
    });
}

#[test]
fn grandchildren_die_with_a_stubborn_leader() {
    run(async |children| {
        let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & wait; sleep 1000";
        let child = children.spawn(&sh(script)).expect("sh");
        let mut io = stream(child.io);
        let grandchild = line(&mut io).parse().expect("a process id");
        assert!(is_alive(grandchild));
        let asked = Instant::now();
        children.terminate(child.id);
        assert_eq!(status(&child.exit).await.signal(), Some(libc::SIGKILL));
        assert!(asked.elapsed() >= 2 * LIMITS.grace);
        gone(grandchild).await;
    });
}

#[test]
fn what_a_leader_leaves_behind_is_killed() {
    run(async |children| {
        // The inner shell ends at once, so that the sleep has no parent any more when the leader ends.
        let child = children.spawn(&sh("sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'; exit 0")).expect("sh");
        let left = line(&mut stream(child.io)).parse().expect("a process id");
        assert!(status(&child.exit).await.success());
        gone(left).await;
    });
}

#[test]
fn a_polite_child_gets_its_grace() {
    run(async |children| {
        let child =
            children.spawn(&sh("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done")).expect("sh");
        let mut io = stream(child.io);
        assert_eq!(line(&mut io), "up");
        children.terminate(child.id);
        assert_eq!(status(&child.exit).await.code(), Some(3));
        assert_eq!(line(&mut io), "bye");
    });
}

#[test]
fn a_child_that_is_killed_gets_no_grace() {
    run(async |children| {
        let Child { pid, exit, lease, io, .. } = children.spawn(&sh("trap '' TERM; echo up; sleep 1000")).expect("sh");
        let mut io = stream(io);
        assert_eq!(line(&mut io), "up");
        let asked = Instant::now();
        Box::new(lease).kill();
        assert_eq!(status(&exit).await.signal(), Some(libc::SIGKILL));
        assert!(asked.elapsed() < 2 * LIMITS.grace, "{:?}", asked.elapsed());
        assert_eq!(process(pid), None);
    });
}

#[test]
fn a_dropped_lease_ends_the_child() {
    run(async |children| {
        let Child { pid, exit, lease, io, .. } = children.spawn(&sh("exec sleep 1000")).expect("sh");
        drop(lease);
        assert_eq!(status(&exit).await.signal(), Some(libc::SIGTERM));
        assert_eq!(process(pid), None);
        drop(io);
    });
}

#[test]
fn a_waived_lease_leaves_the_child_to_its_id() {
    run(async |children| {
        let Child { id, exit, lease, io, .. } = children.spawn(&sh("exec cat")).expect("cat");
        lease.waive();
        tokio::time::sleep(2 * LIMITS.grace).await;
        let mut io = stream(io);
        writeln!(io.get_mut(), "still here").expect("written");
        assert_eq!(line(&mut io), "still here");
        children.terminate(ChildId::of_number(id.number()));
        assert_eq!(status(&exit).await.signal(), Some(libc::SIGTERM));
    });
}

#[test]
fn requests_come_through_a_channel() {
    run(async |children| {
        let (requests, receiver) = flume::bounded(4);
        let serving = tokio::spawn({
            let children = children.clone();
            async move { children.serve(receiver).await }
        });
        let (reply, answer) = flume::bounded(1);
        let request = ChildRequest::Spawn { spec: sh("exec cat"), reply };
        requests.send_async(request).await.expect("served");
        let child = answer.recv_async().await.expect("an answer").expect("cat");
        requests.send_async(ChildRequest::Terminate { id: child.id }).await.expect("served");
        status(&child.exit).await;
        // The shard has given up waiting: its child must not stay.
        let (reply, answer) = flume::bounded(1);
        drop(answer);
        requests.send_async(ChildRequest::Spawn { spec: sh("exec sleep 1000"), reply }).await.expect("served");
        drop(requests);
        serving.await.expect("served to the end");
        let mut running = children.0.running.subscribe();
        tokio::time::timeout(PATIENCE, running.wait_for(|n| *n == 0)).await.expect("ended in time").expect("a count");
    });
}

#[test]
fn limits_and_closing() {
    run(async |children| {
        let held: Vec<Child> =
            (0..LIMITS.children_max).map(|_| children.spawn(&sh("exec cat")).expect("cat")).collect();
        assert_eq!(children.spawn(&sh("true")).expect_err("full").kind, ChildFaultKind::Limit(LIMITS.children_max));
        let exits: Vec<_> = held.iter().map(|child| child.exit.clone()).collect();
        // Dropping a child closes its input, which is all that cat needs.
        drop(held);
        for exit in exits {
            assert!(status(&exit).await.success());
        }
        children.shutdown_all().await;
        assert_eq!(children.spawn(&sh("true")).expect_err("closing").kind, ChildFaultKind::Closing);
    });
}

#[test]
fn standard_error_goes_to_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    run(async |children| {
        let script = format!(
            "exec >&2; echo 'hello there'; printf '%09000d\\n' 7; i=0; while [ $i -lt {} ]; do echo n; i=$((i+1)); done; \
             printf 'no end'",
            stderr::LINES_PER_SECOND
        );
        let child = children.spawn(&ChildSpec { target: "files".into(), ..sh(&script) }).expect("sh");
        status(&child.exit).await;
        let text = log.text();
        assert!(text.contains("stderr: hello there") && text.contains("target=\"files\""), "{text}");
        assert!(text.contains(&format!("pid={}", child.pid)), "{text}");
        let longest = text.lines().map(str::len).max().unwrap_or(0);
        assert!((stderr::LINE_BYTES_MAX..stderr::LINE_BYTES_MAX + 200).contains(&longest), "{longest}");
        assert!(text.contains("too many lines") && text.contains("lines=3"), "{text}");
        assert_eq!(text.matches("stderr: n ").count() as u32, stderr::LINES_PER_SECOND - 2);
    });
}

#[test]
fn standard_error_names_the_only_call() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    run(async |children| {
        let script = "while read -r word; do echo \"$word\" >&2; done";
        let Child { io, board, exit, lease, .. } = children.spawn(&sh(script)).expect("sh");
        let mut io = stream(io);
        let mut say = async |word: &str| {
            writeln!(io.get_mut(), "{word}").expect("written");
            let deadline = Instant::now() + PATIENCE;
            loop {
                let text = log.text();
                if let Some(line) = text.lines().find(|line| line.contains(word)) {
                    return line.to_owned();
                }
                assert!(Instant::now() < deadline, "{word} is not in the log: {text}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let mark = |session| Some(CallMark { session: Some(session), id: b"\"a\""[..].into(), method: "tools/call" });
        assert!(!say("before").await.contains("session="));
        board.works_on(mark(0xabc));
        let line = say("alone").await;
        assert!(line.contains("session=0000000000000abc id=\"a\" method=\"tools/call\""), "{line}");
        board.works_on(None);
        assert!(!say("both").await.contains("session="));
        board.works_on(mark(0xdef));
        assert!(say("second").await.contains("session=0000000000000def"));
        drop(lease);
        drop(io);
        status(&exit).await;
    });
}

#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("a list of descriptors").count()
}

fn zombies() -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").expect("proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| process(*pid) == Some(('Z', std::process::id()))).collect()
}

#[test]
fn cycles_leave_nothing() {
    in_own_process(module_path!(), "cycles_leave_nothing", || {
        run(async |children| {
            // AGENTLANE_CYCLES=10000 takes a while.
            let cycles = std::env::var("AGENTLANE_CYCLES").map_or(200, |count| count.parse().expect("a number"));
            let mut before = 0;
            for cycle in 0..cycles {
                let spec = if cycle % 2 == 0 { sh("exec cat") } else { sh("sleep 1000 & exec sleep 1000") };
                let child = children.spawn(&spec).expect("sh");
                drop(child.io);
                children.terminate(child.id);
                if cycle % 2 == 1 {
                    // Not worth a grace each: two hundred of them take a while.
                    // SAFETY: the group of a child that is not reaped before its exit is told.
                    unsafe { libc::kill(-(child.pid as libc::pid_t), libc::SIGTERM) };
                }
                status(&child.exit).await;
                if cycle == 20 {
                    before = descriptors();
                }
            }
            assert_eq!(descriptors(), before);
            assert_eq!(zombies(), Vec::<u32>::new());
        });
    });
}

#[test]
fn a_subreaper_reaps_orphans() {
    in_own_process(module_path!(), "a_subreaper_reaps_orphans", || {
        // SAFETY: a plain system call.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        run(async |children| {
            let (requests, receiver) = flume::bounded(4);
            let serving = tokio::spawn({
                let children = children.clone();
                async move { children.serve(receiver).await }
            });
            let (reply, answer) = flume::bounded(1);
            let script =
                "for i in 1 2 3; do sh -c 'sleep 0.01 & setsid sleep 0.02 & sleep 1000 & echo $!'; done; exec cat";
            requests.send_async(ChildRequest::Spawn { spec: sh(script), reply }).await.expect("served");
            let child = answer.recv_async().await.expect("an answer").expect("sh");
            let mut io = stream(child.io);
            let left: Vec<u32> = (0..3).map(|_| line(&mut io).parse().expect("a process id")).collect();
            drop(io);
            status(&child.exit).await;
            let deadline = Instant::now() + PATIENCE;
            while !zombies().is_empty() || left.iter().any(|pid| process(*pid).is_some()) {
                assert!(Instant::now() < deadline, "zombies: {:?}", zombies());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drop(requests);
            serving.await.expect("served to the end");
        });
    });
}

#[test]
fn children_die_with_the_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (pid, grandchild) = runtime.block_on(async {
        let child = Children::new(LIMITS).spawn(&sh("sleep 1000 & echo $!; wait")).expect("sh");
        child.lease.waive();
        (child.pid, line(&mut stream(child.io)).parse().expect("a process id"))
    });
    drop(runtime);
    assert_eq!(process(pid), None, "reaped");
    let deadline = Instant::now() + PATIENCE;
    while is_alive(grandchild) {
        assert!(Instant::now() < deadline, "{grandchild} is still alive");
    }
}

#[test]
fn the_kernel_kills_children_of_a_thread_that_has_ended() {
    in_own_process(module_path!(), "the_kernel_kills_children_of_a_thread_that_has_ended", || {
        let pid = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let pid = runtime.block_on(async {
                let child = Children::new(LIMITS).spawn(&sh("exec sleep 1000")).expect("sh");
                let pid = child.pid;
                std::mem::forget(child);
                pid
            });
            // As when the process crashes: nobody is left to clean up.
            std::mem::forget(runtime);
            pid
        })
        .join()
        .expect("the thread");
        let deadline = Instant::now() + PATIENCE;
        while is_alive(pid) {
            assert!(Instant::now() < deadline, "{pid} is still alive");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}
