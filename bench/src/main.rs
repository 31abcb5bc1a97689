//! Runs each part of the benchmark by itself, or the comparison that uses them all. It starts and prints; the library measures.

mod cli;

use agentlane_bench::compare::{self, Sample};
use agentlane_bench::load::http::Plain;
use agentlane_bench::load::idle::{self, IdleOptions};
use agentlane_bench::load::mcp::{CallOptions, Calls, Endpoint};
use agentlane_bench::load::never_read::{self, NeverReadOptions};
use agentlane_bench::load::{ClosedLoop, Tally, Work};
use agentlane_bench::peers::{self, Peer, Setting, Upstreams};
use agentlane_bench::upstream::mcp::Mcp;
use agentlane_bench::upstream::{self, Upstream};
use agentlane_bench::{cpu, forward, report};
use clap::Parser;
use cli::{Cli, Command, Compare, Kind, Load, LoadWork, UpstreamArgs};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Compare(args) => run_compare(&args),
        Command::Forward(args) => TcpListener::bind(args.listen)
            .and_then(|listener| forward::run(&listener, args.to, &AtomicBool::new(false))),
        Command::Upstream(args) => run_upstream(&args),
        Command::Load(args) => run_load(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agentlane-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_compare(args: &Compare) -> io::Result<()> {
    // Before anything is pinned: children that only inherit must see the whole host first.
    let host = agentlane_perf::probe();
    agentlane_perf::raise_nofile()?;
    let (proxy_cpu, load_cpu) = choose_cpus(&host, args)?;
    println!("host: {host}");
    println!("proxy on CPU {proxy_cpu}, load and upstreams on CPU {load_cpu}");
    let mcp = || Upstream::start(Mcp::new(args.answers.mcp()), args.answers.latency(), Some(load_cpu));
    let plain = Upstream::start(
        upstream::plain::Plain::new(args.answers.answer_bytes),
        args.answers.latency(),
        Some(load_cpu),
    )?;
    let (one, two) = (mcp()?, mcp()?);
    let folder = Folder::create()?;
    let upstreams = Upstreams { plain: plain.address, mcp: [one.address, two.address] };
    let peers = start_peers(args, &Setting { upstreams, cpu: proxy_cpu, folder: folder.0.clone() })?;
    cpu::pin_current(load_cpu)?;
    let plan = args.plan();
    let samples = compare::run(&peers, &plan, print_progress)?;
    let summary = report::summarize(&samples);
    println!("\n{}", report::table(&summary));
    println!("median (min-max) of {} rounds; a ratio is taken within its round", plan.rounds);
    if let Some(noise) = report::noise(&samples) {
        eprintln!("{noise}");
    }
    if let Some(path) = &args.json {
        let record = report::Record::new(&host, &plan, &summary, &samples);
        std::fs::write(path, serde_json::to_string_pretty(&record)?)?;
    }
    Ok(())
}

fn choose_cpus(host: &agentlane_perf::Host, args: &Compare) -> io::Result<(usize, usize)> {
    let [first, second] = agentlane_perf::place(host, 2)[..] else {
        return Err(io::Error::other("no CPU to run on"));
    };
    let (proxy, load) = (args.proxy_cpu.unwrap_or(first), args.load_cpu.unwrap_or(second));
    if proxy == load {
        eprintln!("WARNING: proxy and load share CPU {proxy}: the figures hold for nothing but a smoke test");
    }
    Ok((proxy, load))
}

/// The floor always; the others as asked. One that is asked for and absent is left out loudly, save the gateway, without which there is no answer.
fn start_peers(args: &Compare, setting: &Setting) -> io::Result<Vec<Peer>> {
    let mut peers = vec![peers::forward::start(&std::env::current_exe()?, setting)?];
    match &args.agentlane {
        Some(program) => peers.push(start_gateway(program, args, setting)?),
        None => eprintln!("SKIPPED: agentlane, since no --agentlane PATH was given"),
    }
    let nginx = args.nginx.as_ref().map(|program| peers::nginx::start(program, setting));
    let haproxy = args.haproxy.as_ref().map(|program| peers::haproxy::start(program, setting));
    for other in [nginx, haproxy].into_iter().flatten() {
        match other {
            Ok(peer) => peers.push(peer),
            Err(error) => eprintln!("SKIPPED: {error}"),
        }
    }
    Ok(peers)
}

fn start_gateway(program: &Path, args: &Compare, setting: &Setting) -> io::Result<Peer> {
    peers::agentlane::start(&args.gateway(program), setting).map_err(|error| match args.gateway_output {
        Some(_) => error,
        None => io::Error::other(format!("{error}; --gateway-output FILE shows what it says")),
    })
}

fn print_progress(sample: &Sample) {
    let Sample { round, cpu_us, requests_per_second, failed, .. } = sample;
    let failed = if *failed > 0 { format!("  {failed} FAILED") } else { String::new() };
    println!(
        "round {:>2}  {:<10} {:<16} {cpu_us:>7.2} us  {requests_per_second:>8.0}/s{failed}",
        round + 1,
        sample.peer,
        sample.scenario.name()
    );
}

fn run_upstream(args: &UpstreamArgs) -> io::Result<()> {
    agentlane_perf::raise_nofile()?;
    let listener = TcpListener::bind(args.listen)?;
    let (stop, latency) = (AtomicBool::new(false), args.answers.latency());
    match args.kind {
        Kind::Plain => upstream::run(&listener, upstream::plain::Plain::new(args.answers.answer_bytes), latency, &stop),
        Kind::Mcp => upstream::run(&listener, Mcp::new(args.answers.mcp()), latency, &stop),
    }
}

fn run_load(args: &Load) -> io::Result<()> {
    let hold = Duration::from_secs_f64(args.hold);
    if args.idle {
        return idle::run(
            &args.url,
            &IdleOptions { sessions: args.sessions, stream: args.stream, hold, pid: args.pid },
        );
    }
    if args.never_read {
        let Load { connections, request_bytes, pid, .. } = *args;
        return never_read::run(&args.url, &NeverReadOptions { connections, request_bytes, hold, pid }).map(drop);
    }
    agentlane_perf::raise_nofile()?;
    let Endpoint { address, path } = &args.url;
    match args.work {
        LoadWork::Http => {
            let work = Plain::new(*address, path, args.request_bytes, 0);
            drive(ClosedLoop::open(*address, args.connections, work)?, args)
        }
        LoadWork::Call => {
            let options = CallOptions { targets: 1, request_bytes: args.request_bytes, answer_bytes: 0 };
            let (calls, sockets) = Calls::open(&args.url, args.connections, &options)?;
            drive(ClosedLoop::over(*address, sockets, calls)?, args)
        }
    }
}

fn drive<W: Work>(mut load: ClosedLoop<W>, args: &Load) -> io::Result<()> {
    let before = args.pid.map(cpu::time).transpose()?;
    let tally = load.run(Duration::from_secs_f64(args.seconds))?;
    let after = args.pid.map(cpu::time).transpose()?;
    print_tally(&tally);
    if let (Some(pid), Some(before), Some(after)) = (args.pid, before, after) {
        let micros = after.since(before).run.as_secs_f64() * 1e6 / tally.requests.max(1) as f64;
        println!("process {pid}: {micros:.2} CPU us per request, {} KiB resident", cpu::resident_bytes(pid)? / 1024);
    }
    Ok(())
}

fn print_tally(tally: &Tally) {
    let rate = tally.requests as f64 / tally.elapsed.as_secs_f64();
    let micros = |quantile| tally.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
    println!("{} requests, {rate:.0}/s", tally.requests);
    println!(
        "latency us: p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}",
        micros(0.5),
        micros(0.9),
        micros(0.99),
        micros(0.999),
        micros(1.0)
    );
    tally.failures().for_each(|(failure, count)| println!("FAILED: {} {count}", failure.name()));
}

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("agentlane-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
