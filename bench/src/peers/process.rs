//! A child process on one CPU, waited for until it listens and stopped when dropped.

use crate::cpu;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(15);
/// Between asking a process to stop and killing it.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Process {
    child: Child,
    cpu: usize,
}

impl Process {
    /// Starts `command` with every thread on `cpu`, and waits until all `addresses` accept connections. Its output is thrown away, save what the
    /// caller has set. If this process dies, so does the child.
    pub(super) fn start(command: &mut Command, cpu: usize, addresses: &[SocketAddr]) -> io::Result<Process> {
        command.stdin(Stdio::null());
        // SAFETY: between fork and exec only async-signal-safe calls are made: two system calls on local values.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                cpu::pin_current(cpu)
            });
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        let mut process = Process { child, cpu };
        process.wait_until_listening(addresses).map_err(|error| io::Error::other(format!("{command:?}: {error}")))?;
        process.hold_on_cpu(&program)?;
        Ok(process)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_listening(&mut self, addresses: &[SocketAddr]) -> io::Result<()> {
        let start = Instant::now();
        for &address in addresses {
            while TcpStream::connect_timeout(&address, POLL).is_err() {
                if let Some(status) = self.child.try_wait()? {
                    return Err(io::Error::other(format!("ended at start with {status}")));
                }
                if start.elapsed() > START_TIMEOUT {
                    return Err(io::Error::other(format!(
                        "does not listen on {address} after {} s",
                        START_TIMEOUT.as_secs()
                    )));
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// A program that pins its own threads may have left the CPU that it was given, which would void the comparison.
    fn hold_on_cpu(&self, program: &str) -> io::Result<()> {
        let strayed = cpu::pin_process(self.pid(), self.cpu)?;
        if strayed > 0 {
            eprintln!("WARNING: {program} had moved {strayed} threads away from CPU {}; moved back", self.cpu);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the child has not been waited for to its end, so its id is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let start = Instant::now();
        while start.elapsed() < STOP_TIMEOUT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_program_that_ends_or_is_absent_is_an_error() {
        let cpu = agentlane_perf::probe().cpus[0].id;
        let [address] = crate::peers::free_addresses().expect("a free port");
        let failed = Process::start(&mut Command::new("false"), cpu, &[address]).err().expect("it ends at once");
        assert!(failed.to_string().contains("ended at start"), "{failed}");
        assert!(Process::start(&mut Command::new("/no/such/program"), cpu, &[address]).is_err());
    }

    #[test]
    fn dropping_ends_the_child() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let cpu = agentlane_perf::probe().cpus[0].id;
        let address = listener.local_addr().expect("bound");
        let process = Process::start(Command::new("sleep").arg("60"), cpu, &[address]).expect("starts");
        let folder = format!("/proc/{}", process.pid());
        assert!(std::path::Path::new(&folder).exists());
        drop(process);
        assert!(!std::path::Path::new(&folder).exists());
    }
}
