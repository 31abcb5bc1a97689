//! A gateway process: started from a configuration, watched, signalled, and ended with its test.
//!
//! `AGENTLANE_TEST_DRIVER=epoll` or `glommio` runs every test on that driver, where the test does not choose one itself.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wire::{Peer, Response};
use super::{PATIENCE, eventually, free_port};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_agentlane");

/// A gateway that has not been started.
pub struct Setup {
    folder: Folder,
    args: Vec<String>,
    env: Vec<(String, String)>,
    driver: String,
    stats: SocketAddr,
    readiness: SocketAddr,
}

/// A running gateway. Dropped, it is killed.
pub struct Gateway {
    process: Child,
    folder: Folder,
    stats: SocketAddr,
    readiness: SocketAddr,
    stdout: Captured,
    stderr: Captured,
}

/// How a gateway ended by itself.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Setup {
    pub fn new(config: &str) -> Self {
        let folder = Folder::new();
        std::fs::write(folder.config(), config).expect("a configuration");
        let driver = std::env::var("AGENTLANE_TEST_DRIVER").unwrap_or_else(|_| "uring".to_owned());
        let (stats, readiness) = (local(free_port()), local(free_port()));
        Setup { folder, args: Vec::new(), env: Vec::new(), driver, stats, readiness }
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Runs on this driver, whatever the environment says: `uring`, `epoll` or `glommio`.
    pub fn on(mut self, driver: &str) -> Self {
        driver.clone_into(&mut self.driver);
        self
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Gateway {
        let mut gateway = self.launch();
        let deadline = Instant::now() + PATIENCE;
        while gateway.readiness() != Some(200) {
            if let Some(status) = gateway.process.try_wait().expect("a child") {
                panic!("the gateway ended at once: {status}\n{}", gateway.stderr());
            }
            assert!(Instant::now() < deadline, "the gateway is not ready\n{}", gateway.stderr());
            std::thread::sleep(Duration::from_millis(2));
        }
        gateway
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn run_to_end(self) -> Ended {
        let mut gateway = self.launch();
        let code = gateway.wait().code();
        gateway.ended(code)
    }

    fn launch(self) -> Gateway {
        let mut command = Command::new(BINARY);
        command.arg("run").arg("-f").arg(self.folder.config()).args(&self.args);
        command.env_remove("AGENTLANE_LOG").env_remove("AGENTLANE_IO_URING").env("ADMIN_ADDR", "off");
        command.env("STATS_ADDR", self.stats.to_string()).env("READINESS_ADDR", self.readiness.to_string());
        match self.driver.as_str() {
            "uring" => {}
            "epoll" => drop(command.env("AGENTLANE_IO_URING", "off")),
            "glommio" => drop(command.args(["--runtime", "glommio"])),
            other => panic!("the drivers are uring, epoll and glommio, not {other}"),
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.folder.0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the gateway's binary");
        let stdout = Captured::new(process.stdout.take().expect("piped"));
        let stderr = Captured::new(process.stderr.take().expect("piped"));
        Gateway { process, folder: self.folder, stats: self.stats, readiness: self.readiness, stdout, stderr }
    }
}

impl Gateway {
    /// One shard, so that what is counted in turn is counted exactly.
    #[track_caller]
    pub fn start(config: &str) -> Gateway {
        Setup::new(config).args(&["--shards", "1"]).start()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The status of the readiness endpoint; `None` when nobody listens.
    pub fn readiness(&self) -> Option<u16> {
        ask(self.readiness, "/healthz/ready").map(|response| response.status)
    }

    pub fn metrics(&self) -> String {
        let response = ask(self.stats, "/metrics").expect("the metrics server");
        assert_eq!(response.status, 200);
        String::from_utf8(response.body).expect("metrics are text")
    }

    /// The sum of a family's samples whose labels hold `having`.
    pub fn metric(&self, family: &str, having: &str) -> f64 {
        let metrics = self.metrics();
        let samples = metrics.lines().filter_map(|line| line.strip_prefix(family)?.strip_prefix('{')?.split_once("} "));
        samples
            .filter(|(labels, _)| labels.contains(having))
            .map(|(_, value)| value.parse::<f64>().expect("a number"))
            .sum()
    }

    /// Replaces the configuration in one step, as careful editors do.
    pub fn write_config(&self, config: &str) {
        let next = self.folder.0.join("next.yaml");
        std::fs::write(&next, config).expect("a configuration");
        std::fs::rename(next, self.folder.config()).expect("a configuration in place");
    }

    /// Replaces the configuration, says so, and waits until it is in use.
    #[track_caller]
    pub fn reload(&self, config: &str) {
        let before = self.stderr().matches("configuration is in use").count();
        self.write_config(config);
        self.signal(libc::SIGHUP);
        eventually("the configuration is in use", || self.stderr().matches("configuration is in use").count() > before);
    }

    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.process.id()).expect("a process id");
        // SAFETY: kill(2) has no memory effects; the child is not waited for yet, so that its id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the gateway is gone");
    }

    /// Sends SIGTERM and waits for the end.
    #[track_caller]
    pub fn terminate(mut self) -> Ended {
        self.signal(libc::SIGTERM);
        let code = self.wait().code();
        self.ended(code)
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway does not end\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn ended(mut self, code: Option<i32>) -> Ended {
        self.stdout.finish();
        self.stderr.finish();
        Ended { code, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}", self.stderr());
        }
    }
}

/// Runs the binary with these arguments to its end.
pub fn run(args: &[&str], env: &[(&str, &str)]) -> Ended {
    let output =
        Command::new(BINARY).args(args).envs(env.iter().copied()).stdin(Stdio::null()).output().expect("a run");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Asks one of the process's own servers.
#[track_caller]
pub fn ask_own(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let mut peer = Peer::connect(address);
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str(&format!("host: {address}\r\n"));
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    peer.send(format!("{head}\r\n{body}"));
    peer.response(method)
}

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn ask(address: SocketAddr, path: &str) -> Option<Response> {
    let mut peer = Peer::try_connect(address).ok()?;
    peer.send(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"));
    Some(peer.response("GET"))
}

/// A folder of its own under the system's temporary one.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("agentlane-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn config(&self) -> PathBuf {
        self.0.join("agentlane.yaml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a process has written so far.
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn new(pipe: impl Into<std::os::fd::OwnedFd>) -> Self {
        let mut pipe = File::from(pipe.into());
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let written = bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 16 * 1024];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                written.lock().expect("no panic in between").extend_from_slice(&chunk[..length]);
            }
        });
        Captured { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no panic in between")).into_owned()
    }

    /// Waits for the end of the output; the process must have ended, and its children as well.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
