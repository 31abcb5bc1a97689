//! Spare children: started ahead, not initialised, since `initialize` carries the params of the client that it is for.
//! Whoever asks for a child gets a spare of the same command and limits, and another one is started in its place. Runs on
//! the control thread.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Child, ChildSpec, Children};

/// A spare that lived for so long did not fail at its start.
const STEADY: Duration = Duration::from_secs(5);

/// Spares that shall be ready.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub spec: ChildSpec,
    pub count: usize,
    /// The pauses between starts of a spare that keeps ending: they double from the least to the most.
    pub pause_min: Duration,
    pub pause_max: Duration,
}

/// All spares.
#[derive(Debug)]
pub struct Warm {
    children: Children,
    pools: Vec<Pool>,
}

#[derive(Debug)]
struct Pool {
    wanted: Wanted,
    /// The oldest first: it has had the most time to get ready.
    spares: VecDeque<(Child, Instant)>,
    failures: u32,
    not_before: Instant,
}

impl Warm {
    pub fn new(children: Children) -> Self {
        Self { children, pools: Vec::new() }
    }

    /// Takes a new configuration: spares of equal commands stay, others are ended.
    pub fn follow(&mut self, wanted: Vec<Wanted>) {
        let mut old = std::mem::take(&mut self.pools);
        for wanted in wanted {
            // Two endpoints may have the same target.
            if let Some(pool) = self.pools.iter_mut().find(|pool| pool.wanted.spec == wanted.spec) {
                pool.wanted.count = pool.wanted.count.max(wanted.count);
                continue;
            }
            let mut pool = match old.iter().position(|pool| pool.wanted.spec == wanted.spec) {
                Some(place) => old.swap_remove(place),
                None => {
                    Pool { wanted: wanted.clone(), spares: VecDeque::new(), failures: 0, not_before: Instant::now() }
                }
            };
            pool.wanted = wanted;
            self.pools.push(pool);
        }
        for pool in &mut self.pools {
            pool.spares.truncate(pool.wanted.count);
        }
    }

    /// A spare of this command, if one is ready.
    pub fn take(&mut self, spec: &ChildSpec) -> Option<Child> {
        let pool = self.pools.iter_mut().find(|pool| pool.wanted.spec == *spec)?;
        pool.count_dead(&self.children);
        let (spare, _) = pool.spares.pop_front()?;
        Some(spare)
    }

    /// Starts one spare that is missing, waiting until one may be started. Dropping the future loses nothing.
    pub async fn tend(&mut self) {
        let mut ends = self.children.0.running.subscribe();
        loop {
            self.pools.iter_mut().for_each(|pool| pool.count_dead(&self.children));
            let lacking = self.pools.iter_mut().filter(|pool| pool.spares.len() < pool.wanted.count);
            let next = lacking.min_by_key(|pool| pool.not_before);
            match next {
                Some(pool) if pool.not_before <= Instant::now() => return pool.start(&self.children),
                Some(pool) => drop(tokio::time::timeout_at(pool.not_before, ends.changed()).await),
                None => drop(ends.changed().await),
            }
        }
    }
}

impl Pool {
    fn start(&mut self, children: &Children) {
        match children.spawn(&self.wanted.spec) {
            Ok(child) => self.spares.push_back((child, Instant::now())),
            Err(fault) => {
                tracing::warn!(%fault, "a spare child");
                self.failed();
            }
        }
    }

    /// Drops spares that ended before anybody needed them.
    fn count_dead(&mut self, children: &Children) {
        let now = Instant::now();
        let before = self.spares.len();
        let mut steady = false;
        self.spares.retain(|(child, since)| {
            let runs = children.is_running(child.id);
            steady |= now.saturating_duration_since(*since) >= STEADY;
            runs
        });
        if self.spares.len() < before {
            self.failures = if steady { 0 } else { self.failures };
            self.failed();
        }
    }

    fn failed(&mut self) {
        let pause = self.wanted.pause_min.saturating_mul(1 << self.failures.min(16)).min(self.wanted.pause_max);
        self.not_before = Instant::now() + pause;
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ChildrenLimits;
    use super::*;

    fn wanted(script: &str, count: usize) -> Wanted {
        let spec = ChildSpec {
            target: "t".into(),
            command: "sh".into(),
            args: vec!["-c".into(), script.into()],
            ..ChildSpec::default()
        };
        Wanted { spec, count, pause_min: Duration::from_millis(20), pause_max: Duration::from_secs(60) }
    }

    fn run<F: Future>(test: impl FnOnce(Children, Warm) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let limits = ChildrenLimits { children_max: 16, grace: Duration::from_millis(200) };
            let children = Children::new(limits);
            test(children.clone(), Warm::new(children.clone())).await;
            tokio::time::timeout(Duration::from_secs(20), children.shutdown_all()).await.expect("all reaped in time");
        });
    }

    fn pids(warm: &Warm) -> Vec<u32> {
        warm.pools.iter().flat_map(|pool| pool.spares.iter().map(|(child, _)| child.pid)).collect()
    }

    #[test]
    fn spares_are_kept_ready() {
        run(async |children, mut warm| {
            let cat = wanted("exec cat", 2);
            warm.follow(vec![cat.clone(), Wanted { count: 1, ..cat.clone() }, wanted("exec cat -", 1)]);
            assert!(warm.take(&cat.spec).is_none(), "none is ready yet");
            for _ in 0..3 {
                warm.tend().await;
            }
            assert_eq!((children.running(), warm.pools.len()), (3, 2), "equal commands have one pool");
            let first = pids(&warm)[0];
            let taken = warm.take(&cat.spec).expect("a spare");
            assert_eq!(taken.pid, first, "the oldest");
            assert!(
                warm.take(&ChildSpec { deny_network: true, ..cat.spec.clone() }).is_none(),
                "another sort of child"
            );
            warm.tend().await;
            assert_eq!(children.running(), 4, "another one in its place");
            // One that died in the pool is nobody's, and is replaced.
            let dead = pids(&warm)[0];
            // SAFETY: a child of this test that is not reaped before it has ended.
            unsafe { libc::kill(dead as libc::pid_t, libc::SIGKILL) };
            warm.tend().await;
            assert!(!pids(&warm).contains(&dead) && pids(&warm).len() == 3, "{:?}", pids(&warm));
            warm.follow(vec![Wanted { count: 1, ..cat }]);
            assert_eq!(pids(&warm).len(), 1, "what is not wanted any more is ended");
            drop(taken);
            drop(warm);
        });
    }

    #[test]
    fn a_command_that_keeps_failing_is_not_hammered() {
        run(async |children, mut warm| {
            let failing = wanted("exit 1", 1);
            warm.follow(vec![failing.clone()]);
            let begun = Instant::now();
            for _ in 0..5 {
                warm.tend().await;
            }
            // The pauses before the second to the fifth: 20, 40, 80 and 160 ms.
            assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
            let nothing = ChildSpec { command: "no-such-command-here".into(), ..ChildSpec::default() };
            warm.follow(vec![Wanted { spec: nothing, ..failing }]);
            warm.tend().await;
            assert!(warm.pools[0].failures == 1 && warm.pools[0].not_before > Instant::now());
            drop(children);
        });
    }
}
