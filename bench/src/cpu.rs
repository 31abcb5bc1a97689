//! CPU time, memory and CPU affinity of a process, from outside it. It knows processes, not what they serve.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time of all threads of a process since each began, by the scheduler's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// On a CPU, the kernel's work for the process included.
    pub run: Duration,
    /// Ready to run while something else had the CPU.
    pub waited: Duration,
}

impl CpuTime {
    /// What was added since `earlier`.
    pub fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime { run: self.run.saturating_sub(earlier.run), waited: self.waited.saturating_sub(earlier.waited) }
    }
}

/// Reads `/proc/PID/task/TID/schedstat` of every thread. The time of threads that have ended is not in it.
pub fn time(pid: u32) -> io::Result<CpuTime> {
    let mut total = CpuTime::default();
    for thread in threads(pid)? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")) else {
            continue;
        };
        let time = parse_schedstat(&text);
        let time = time.ok_or_else(|| io::Error::other("schedstat is empty: the kernel lacks CONFIG_SCHED_INFO"))?;
        total.run += time.run;
        total.waited += time.waited;
    }
    Ok(total)
}

/// Resident memory of `pid`, bytes (`VmRSS`).
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_resident(&status).ok_or_else(|| io::Error::other("the process has no resident memory: it has ended"))
}

/// Restricts the calling thread, and every thread and process that it starts later, to one CPU. Safe between fork and exec.
pub fn pin_current(cpu: usize) -> io::Result<()> {
    pin(0, cpu)
}

/// Restricts every thread of `pid` to one CPU and says how many were somewhere else.
pub fn pin_process(pid: u32, cpu: usize) -> io::Result<usize> {
    let strayed: Vec<u32> = threads(pid)?.into_iter().filter(|&thread| !runs_only_on(thread, cpu)).collect();
    strayed.iter().try_for_each(|&thread| pin(thread, cpu))?;
    Ok(strayed.len())
}

fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// `thread` 0 is the caller. Allocates nothing.
fn pin(thread: u32, cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero set is valid, CPU_SET checks the bound, and the kernel reads the set during the call only.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(thread as libc::pid_t, size_of::<libc::cpu_set_t>(), &set)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn runs_only_on(thread: u32, cpu: usize) -> bool {
    // SAFETY: as in `pin`; the kernel writes into the local set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let status = libc::sched_getaffinity(thread as libc::pid_t, size_of::<libc::cpu_set_t>(), &mut set);
        status == 0 && libc::CPU_COUNT(&set) == 1 && libc::CPU_ISSET(cpu, &set)
    }
}

/// Run time and wait time in nanoseconds, and a count of turns (kernel documentation, "Scheduler Statistics").
fn parse_schedstat(text: &str) -> Option<CpuTime> {
    let mut fields = text.split_ascii_whitespace();
    let mut nanos = || Some(Duration::from_nanos(fields.next()?.parse().ok()?));
    Some(CpuTime { run: nanos()?, waited: nanos()? })
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn run_time_grows_with_work() {
        let pid = std::process::id();
        let before = time(pid).expect("this process runs");
        let start = Instant::now();
        let mut sum = 0_u64;
        while start.elapsed() < Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(time(pid).expect("this process runs").since(before).run > Duration::ZERO);
    }

    #[test]
    fn proc_formats() {
        let time = CpuTime { run: Duration::from_nanos(123), waited: Duration::from_nanos(45) };
        assert_eq!(parse_schedstat("123 45 6\n"), Some(time));
        assert_eq!(parse_schedstat("123"), None);
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2048 * 1024));
        assert_eq!(parse_resident("Name:\tx\n"), None);
        assert!(resident_bytes(std::process::id()).expect("this process runs") > 0);
    }

    #[test]
    fn pinning_holds_for_the_thread() {
        std::thread::spawn(|| {
            let cpu = agentlane_perf::probe().cpus[0].id;
            pin_current(cpu).expect("an allowed CPU");
            assert!(runs_only_on(0, cpu));
        })
        .join()
        .expect("the thread asserts");
    }
}
