//! `agentlane lock`: what targets offer, written down, compared and looked over.

mod corpus;
mod show;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agentlane_config as config;
use clap::{Args, Subcommand};

use super::{EXIT_CONFIG, EXIT_UNAVAILABLE};
use crate::control::lock::file;
use crate::control::source;
use crate::gateway::{Failure, survey};
use crate::protocol::mcp::lock::definition::{Definition, Kind};
use crate::protocol::mcp::lock::drift::{self, Change};
use crate::protocol::mcp::lock::file::{LockFile, LockedTarget};
use crate::protocol::mcp::lock::json;
use crate::protocol::mcp::lock::scan;
use crate::snapshot::lock::keys;

pub const ABOUT: &str = "Write, compare and approve what targets offer

Without a command it connects to every target and writes the lock file that the configuration names (lock.file), which says of
each tool, prompt, template and of the instructions what they were when they were approved. It belongs into Git. A running
gateway reads it again when it changes.";

pub const EXAMPLES: &str = "Examples:
  agentlane lock -f agentlane.yaml                       write the lock file: everything is approved
  agentlane lock diff -f agentlane.yaml                  what differs now, word by word; exit code 1 if something does
  agentlane lock approve -f agentlane.yaml notes/add     approve one tool as it is now
  agentlane lock approve -f agentlane.yaml --all         approve everything as it is now
  agentlane lock scan -f agentlane.yaml                  what is suspicious in what targets offer";

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LockArgs {
    #[command(subcommand)]
    command: Option<LockCommand>,
    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Args)]
struct WriteArgs {
    /// The configuration, YAML or JSON
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// Where to write, over what the configuration says
    #[arg(long, value_name = "LOCKFILE")]
    output: Option<PathBuf>,
    /// Take keys that are known but not built yet as warnings
    #[arg(long)]
    lenient: bool,
}

#[derive(Subcommand)]
enum LockCommand {
    /// Show what differs from the lock file, word by word
    Diff(OfConfig),
    /// Approve what targets offer now
    Approve(ApproveArgs),
    /// Look what targets offer over for hidden text, instructions and look-alikes
    Scan(ScanArgs),
}

#[derive(Args)]
struct OfConfig {
    /// The configuration, YAML or JSON
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Take keys that are known but not built yet as warnings
    #[arg(long)]
    lenient: bool,
}

#[derive(Args)]
struct ApproveArgs {
    #[command(flatten)]
    config: OfConfig,
    /// Names, as NAME, TARGET/NAME or TARGET; the name of instructions is `instructions`
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Beside what was approved before, not in its place: for things that differ by who asks
    #[arg(long)]
    also: bool,
}

#[derive(Args)]
struct ScanArgs {
    /// The configuration, YAML or JSON
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE",
        required_unless_present = "corpus",
        conflicts_with = "corpus"
    )]
    file: Option<PathBuf>,
    /// Score the scan on a folder of labelled examples instead
    #[arg(long, value_name = "FOLDER")]
    corpus: Option<PathBuf>,
    /// Every finding, however small
    #[arg(long)]
    all: bool,
    /// Take keys that are known but not built yet as warnings
    #[arg(long)]
    lenient: bool,
}

/// Why a command ends without success.
enum Stop {
    Failure(Failure),
    Said(String),
    /// What had to be said was said.
    Differs,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failure(failure)
    }
}

impl From<Vec<config::Fault>> for Stop {
    fn from(faults: Vec<config::Fault>) -> Self {
        Stop::Failure(Failure::Config(faults))
    }
}

pub fn run(args: &LockArgs) -> ExitCode {
    let outcome = match &args.command {
        None => write(&args.write),
        Some(LockCommand::Diff(of)) => diff(of),
        Some(LockCommand::Approve(args)) => approve(args),
        Some(LockCommand::Scan(args)) => scan(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Differs) => ExitCode::FAILURE,
        Err(Stop::Failure(Failure::Config(faults))) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            ExitCode::from(EXIT_CONFIG)
        }
        Err(Stop::Failure(Failure::Unavailable(reason))) => {
            eprintln!("agentlane: {reason}");
            ExitCode::from(EXIT_UNAVAILABLE)
        }
        Err(Stop::Failure(Failure::Broken(reason)) | Stop::Said(reason)) => {
            eprintln!("agentlane: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// What one target offers now.
struct Now {
    /// With whether another era shows it so.
    definitions: Vec<(Definition, bool)>,
    /// Of each item with its name, whether it can be locked or not.
    scans: Vec<(Kind, String, scan::Scan)>,
    /// Something could not be read.
    unreadable: Vec<String>,
}

/// By the targets' names in the lock file.
type Offers = BTreeMap<String, Result<Now, String>>;

fn load(path: &Path, lenient: bool) -> Result<config::Document, Stop> {
    Ok(source::load(path, lenient)?.document)
}

/// Asks every target.
fn ask(document: &config::Document) -> Result<Offers, Stop> {
    let surveyed = survey::run(document)?;
    let mut offers = Offers::new();
    for (backend, target, key) in keys(document) {
        let of_backend = surveyed.iter().find(|(name, _)| *name == backend.name);
        let found = of_backend.and_then(|(_, targets)| targets.iter().find(|found| found.target == target.name));
        if let Some(found) = found {
            let now = found.outcome.as_ref().map(|items| now(items)).map_err(Clone::clone);
            offers.entry(key).or_insert(now);
        }
    }
    Ok(offers)
}

fn now(items: &[crate::mesh::SurveyedItem]) -> Now {
    let mut now = Now { definitions: Vec::new(), scans: Vec::new(), unreadable: Vec::new() };
    for item in items {
        let parsed = match item.kind {
            Kind::Instructions => Ok(Definition::instructions(&item.text).content),
            _ => json::parse(&item.text),
        };
        let definition = parsed.and_then(|node| {
            let scan = scan::item(&node);
            let definition = match item.kind {
                Kind::Instructions => Ok(Definition::instructions(&item.text)),
                kind => Definition::of(kind, node),
            };
            definition.map(|definition| (definition, scan))
        });
        match definition {
            Ok((definition, scan)) => {
                if !item.variant {
                    now.scans.push((item.kind, definition.name.clone(), scan));
                }
                now.definitions.push((definition, item.variant));
            }
            Err(broken) => {
                now.unreadable.push(format!("a {} cannot be locked: {}", item.kind.as_str(), broken.message))
            }
        }
    }
    now
}

fn lock_path(document: &config::Document) -> Result<PathBuf, Stop> {
    let path = document.lock.as_ref().and_then(|lock| lock.file.clone());
    path.ok_or_else(|| {
        Stop::Said("the configuration names no lock file: write `lock: {file: agentlane.lock.json}`".to_owned())
    })
}

fn write(args: &WriteArgs) -> Result<(), Stop> {
    let path = args.file.as_deref().unwrap_or(Path::new(""));
    let document = load(path, args.lenient)?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => lock_path(&document)?,
    };
    let before = file::read(&path)?;
    let mut lock = LockFile::default();
    let mut complete = true;
    for (key, offered) in ask(&document)? {
        let known = before.as_ref().and_then(|before| before.targets.get(&key));
        match offered {
            Ok(now) => {
                complete &= report(&key, &now);
                let target = of_now(&now);
                if let Some(known) = known {
                    show::changes(&key, known, &drift::changes(known, &definitions(&now)));
                }
                println!("{key}: {}", show::counts(&target));
                lock.targets.insert(key, target);
            }
            Err(reason) => {
                complete = false;
                eprintln!("agentlane: {key}: {reason}");
                lock.targets.extend(known.map(|known| (key, known.clone())));
            }
        }
    }
    save(&path, &lock)?;
    if complete { Ok(()) } else { Err(Stop::Differs) }
}

/// Says what cannot be locked; whether there is nothing.
fn report(key: &str, now: &Now) -> bool {
    now.unreadable.iter().for_each(|why| eprintln!("agentlane: {key}: {why}"));
    now.unreadable.is_empty()
}

fn of_now(now: &Now) -> LockedTarget {
    let mut target = LockedTarget::default();
    for (definition, variant) in &now.definitions {
        let known = target.get(definition.kind, &definition.name).first();
        let variant = *variant && known.is_some();
        target.approve(definition.clone(), variant);
    }
    target
}

fn definitions(now: &Now) -> Vec<Definition> {
    now.definitions.iter().map(|(definition, _)| definition.clone()).collect()
}

fn save(path: &Path, lock: &LockFile) -> Result<(), Stop> {
    file::write(path, lock).map_err(|error| Stop::Said(format!("cannot write {}: {error}", path.display())))?;
    println!("{} is written", path.display());
    Ok(())
}

fn diff(args: &OfConfig) -> Result<(), Stop> {
    let document = load(&args.file, args.lenient)?;
    let path = lock_path(&document)?;
    let lock = file::read(&path)?.unwrap_or_default();
    let mut differs = false;
    for (key, offered) in ask(&document)? {
        let known = lock.targets.get(&key).cloned().unwrap_or_default();
        match offered {
            Ok(now) => {
                differs |= !report(&key, &now);
                let changes = drift::changes(&known, &definitions(&now));
                differs |= !changes.is_empty();
                show::changes(&key, &known, &changes);
            }
            Err(reason) => {
                differs = true;
                eprintln!("agentlane: {key}: {reason}");
            }
        }
    }
    if differs { Err(Stop::Differs) } else { Ok(()) }
}

fn approve(args: &ApproveArgs) -> Result<(), Stop> {
    let document = load(&args.config.file, args.config.lenient)?;
    let path = lock_path(&document)?;
    let mut lock = file::read(&path)?.unwrap_or_default();
    let mut used = vec![false; args.names.len()];
    for (key, offered) in ask(&document)? {
        let now = match offered {
            Ok(now) => now,
            Err(reason) => {
                eprintln!("agentlane: {key}: {reason}");
                continue;
            }
        };
        report(&key, &now);
        let target = lock.targets.entry(key.clone()).or_default();
        let mut wanted = |change: &Change| {
            let mut is = args.all;
            for (name, used) in args.names.iter().zip(&mut used) {
                let matches = names(name, &key, change);
                *used |= matches;
                is |= matches;
            }
            is
        };
        let known = target.clone();
        let changes: Vec<Change> = drift::changes(&known, &definitions(&now)).into_iter().filter(&mut wanted).collect();
        show::changes(&key, &known, &changes);
        changes.into_iter().for_each(|change| change.apply(target, args.also));
    }
    if let Some((name, _)) = args.names.iter().zip(&used).find(|(_, used)| !**used) {
        return Err(Stop::Said(format!("nothing called {name:?} differs from the lock file")));
    }
    save(&path, &lock)
}

/// Whether a name on the command line means this change.
fn names(typed: &str, key: &str, change: &Change) -> bool {
    let own = match change.kind() {
        Kind::Instructions => "instructions",
        _ => change.name(),
    };
    typed == key || typed == own || typed.strip_prefix(key).and_then(|rest| rest.strip_prefix('/')) == Some(own)
}

fn scan(args: &ScanArgs) -> Result<(), Stop> {
    if let Some(folder) = &args.corpus {
        return corpus::score(folder).map_err(Stop::Said);
    }
    let document = load(args.file.as_deref().unwrap_or(Path::new("")), args.lenient)?;
    let offers = ask(&document)?;
    let least = if args.all { 1 } else { scan::RISK_NOTABLE };
    let mut worst = 0;
    for (key, offered) in &offers {
        match offered {
            Ok(now) => {
                report(key, now);
                let others = tools_of_others(&offers, key);
                for (kind, name, scan) in &now.scans {
                    let shadows = match kind {
                        Kind::Tool => {
                            scan::names::find_shadows(name, others.iter().map(|(t, n)| (t.as_str(), n.as_str())))
                        }
                        _ => Vec::new(),
                    };
                    let scan = scan.with(shadows);
                    worst = worst.max(scan.risk);
                    if scan.risk >= least {
                        show::scan(key, *kind, name, &scan);
                    }
                }
            }
            Err(reason) => eprintln!("agentlane: {key}: {reason}"),
        }
    }
    if worst >= scan::RISK_HIGH { Err(Stop::Differs) } else { Ok(()) }
}

fn tools_of_others(offers: &Offers, key: &str) -> Vec<(String, String)> {
    let others = offers.iter().filter(|(other, _)| *other != key);
    let named = others.filter_map(|(other, offered)| offered.as_ref().ok().map(|now| (other, now)));
    let tools = named.flat_map(|(other, now)| {
        let tools = now.scans.iter().filter(|(kind, ..)| *kind == Kind::Tool);
        tools.map(move |(_, name, _)| (other.clone(), name.clone()))
    });
    tools.collect()
}
