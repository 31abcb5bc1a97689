//! The rounds: each peer and scenario in turn, again and again, so that a change of the machine's mood meets all of them alike.

use crate::cpu::{self, CpuTime};
use crate::load::http::Plain;
use crate::load::mcp::{CallOptions, Calls, Endpoint};
use crate::load::{ClosedLoop, Failure, Tally, Work};
use crate::peers::{Peer, Scenario};
use serde::Serialize;
use std::io;
use std::time::Duration;

/// How long and with what the peers are driven.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub rounds: usize,
    /// Connections of the load, each with one request under way.
    pub connections: usize,
    #[serde(serialize_with = "as_seconds")]
    pub warm_up: Duration,
    #[serde(serialize_with = "as_seconds")]
    pub measure: Duration,
    /// Body of a request, bytes.
    pub request_bytes: usize,
    /// Body of an answer, bytes; an event stream adds its framing.
    pub answer_bytes: usize,
}

/// What one peer did with one scenario in one round.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub peer: &'static str,
    pub scenario: Scenario,
    pub round: usize,
    /// Run time of all threads of the peer, microseconds per right answer.
    pub cpu_us: f64,
    /// Share of the time in which the peer was ready to run and something else had its CPU: the noise of the machine.
    pub waited: f64,
    pub requests: u64,
    pub requests_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub failed: u64,
    pub failures: Vec<(&'static str, u64)>,
}

/// Drives every scenario of every peer once per round and hands each sample to `seen`. The order shifts by one in each round.
pub fn run(peers: &[Peer], plan: &Plan, mut seen: impl FnMut(&Sample)) -> io::Result<Vec<Sample>> {
    let runs: Vec<(&Peer, Scenario)> =
        peers.iter().flat_map(|peer| peer.scenarios().map(move |scenario| (peer, scenario))).collect();
    let mut samples = Vec::new();
    for round in 0..plan.rounds {
        for turn in 0..runs.len() {
            let (peer, scenario) = runs[(round + turn) % runs.len()];
            let context = |error| io::Error::other(format!("{} {}: {error}", peer.name, scenario.name()));
            let sample = drive(peer, scenario, round, plan).map_err(context)?;
            seen(&sample);
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn drive(peer: &Peer, scenario: Scenario, round: usize, plan: &Plan) -> io::Result<Sample> {
    let (endpoint, pid) = peer.door(scenario).ok_or_else(|| io::Error::other("the peer has no such scenario"))?;
    let (tally, cpu_time) = match scenario.targets() {
        0 => measure(pid, plan, plain_load(endpoint, plan)?)?,
        targets => measure(pid, plan, call_load(endpoint, targets, plan)?)?,
    };
    Ok(Sample::new(peer.name, scenario, round, &tally, cpu_time))
}

fn plain_load(endpoint: &Endpoint, plan: &Plan) -> io::Result<ClosedLoop<Plain>> {
    let work = Plain::new(endpoint.address, &endpoint.path, plan.request_bytes, plan.answer_bytes);
    ClosedLoop::open(endpoint.address, plan.connections, work)
}

fn call_load(endpoint: &Endpoint, targets: usize, plan: &Plan) -> io::Result<ClosedLoop<Calls>> {
    let options = CallOptions { targets, request_bytes: plan.request_bytes, answer_bytes: plan.answer_bytes };
    let (calls, sockets) = Calls::open(endpoint, plan.connections, &options)?;
    ClosedLoop::over(endpoint.address, sockets, calls)
}

/// Warms up, then counts requests and run time over the same span; the requests under way at its ends cancel out.
fn measure<W: Work>(pid: u32, plan: &Plan, mut load: ClosedLoop<W>) -> io::Result<(Tally, CpuTime)> {
    load.run(plan.warm_up)?;
    let before = cpu::time(pid)?;
    let tally = load.run(plan.measure)?;
    let after = cpu::time(pid)?;
    Ok((tally, after.since(before)))
}

impl Sample {
    fn new(peer: &'static str, scenario: Scenario, round: usize, tally: &Tally, cpu_time: CpuTime) -> Sample {
        let micros = |quantile| tally.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        Sample {
            peer,
            scenario,
            round,
            cpu_us: cpu_time.run.as_secs_f64() * 1e6 / tally.requests.max(1) as f64,
            waited: cpu_time.waited.as_secs_f64() / tally.elapsed.as_secs_f64(),
            requests: tally.requests,
            requests_per_second: tally.requests as f64 / tally.elapsed.as_secs_f64(),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            failed: tally.failed(),
            failures: tally.failures().map(|(failure, count)| (Failure::name(failure), count)).collect(),
        }
    }
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
