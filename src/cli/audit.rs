//! `agentlane audit verify FILE...`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::{EXIT_UNAVAILABLE, VerifyArgs};
use crate::telemetry::audit::Seal;
use crate::telemetry::audit::verify::{Break, Chain, Summary, Verifier};

/// What ended the reading.
enum Stop {
    Unreadable(String),
    Broken(String),
}

pub fn verify(args: &VerifyArgs) -> ExitCode {
    match read(args) {
        Ok(verifier) => report(&verifier),
        Err(Stop::Broken(what)) => {
            println!("broken: {what}");
            ExitCode::FAILURE
        }
        Err(Stop::Unreadable(what)) => {
            eprintln!("agentlane: {what}");
            ExitCode::from(EXIT_UNAVAILABLE)
        }
    }
}

fn read(args: &VerifyArgs) -> Result<Verifier, Stop> {
    let unreadable =
        |path: &Path, error: io::Error| Stop::Unreadable(format!("cannot read {}: {error}", path.display()));
    let seal = match &args.key_file {
        Some(path) => {
            let mut key = std::fs::read(path).map_err(|error| unreadable(path, error))?;
            // As the configuration reads it.
            while key.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
                key.pop();
            }
            Seal::keyed(&key)
        }
        None => Seal::Plain,
    };
    let mut verifier = Verifier::new(seal);
    if let Some(path) = &args.heads {
        let text = std::fs::read(path).map_err(|error| unreadable(path, error))?;
        let told = heads(&text)
            .ok_or_else(|| Stop::Unreadable(format!("{} is not what GET /api/v1/audit answers", path.display())))?;
        told.into_iter().for_each(|(chain, seq, hash)| verifier.expect(chain, seq, hash));
    }
    for path in &args.files {
        let mut file = BufReader::new(File::open(path).map_err(|error| unreadable(path, error))?);
        let (mut line, mut number) = (Vec::new(), 0u64);
        while file.read_until(b'\n', &mut line).map_err(|error| unreadable(path, error))? > 0 {
            number += 1;
            let broken = |what: Break, line: &[u8]| {
                Stop::Broken(format!("{}:{number}: {what}{}", path.display(), name_of(line)))
            };
            if line.pop_if(|last| *last == b'\n').is_none() {
                return Err(broken(Break::Torn, &line));
            }
            verifier.line(&line).map_err(|what| broken(what, &line))?;
            line.clear();
        }
    }
    Ok(verifier)
}

/// Says of a broken line which record it claims to be.
fn name_of(line: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return String::new() };
    let part = |name: &str| value.get(name).map(ToString::to_string).unwrap_or_else(|| "?".to_owned());
    format!(" (run {}, shard {}, record {})", part("run"), part("shard"), part("seq"))
}

fn heads(text: &[u8]) -> Option<Vec<(Chain, u64, String)>> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let run = value.get("run")?.as_str()?;
    let head = |head: &Value| {
        let chain = (run.to_owned(), head.get("shard")?.as_u64()?);
        Some((
            chain,
            head.get("seq")?.as_u64()?,
            head.get("hash").and_then(Value::as_str).unwrap_or_default().to_owned(),
        ))
    };
    value.get("heads")?.as_array()?.iter().map(head).collect()
}

/// What is whole, and what is missing as a whole.
fn report(verifier: &Verifier) -> ExitCode {
    let mut whole = true;
    for ((run, shard), summary) in verifier.chains() {
        println!("run {run}, shard {shard}: {}", words(summary));
    }
    for (run, shard) in verifier.missing() {
        whole = false;
        println!("broken: run {run}, shard {shard}: no record of it is there");
    }
    for ((run, shard), seq) in verifier.unmet() {
        whole = false;
        println!("broken: run {run}, shard {shard}: record {seq}, of which the gateway told, is not there");
    }
    if !whole {
        return ExitCode::FAILURE;
    }
    let records: u64 = verifier.chains().values().map(|chain| chain.records).sum();
    println!("whole: {records} records");
    ExitCode::SUCCESS
}

fn words(chain: &Summary) -> String {
    let mut words = format!("records {} to {}", chain.first, chain.last);
    if chain.hash.is_none() {
        words += ", not chained: only their numbers were checked";
    }
    if chain.first > 1 {
        words += "; those before are in an earlier file, or were removed";
    }
    if chain.lost > 0 {
        words += &format!("; {} were lost by the gateway's own word", chain.lost);
    }
    if !chain.ended {
        words += "; no end: the gateway runs, was killed, or the end was cut off";
    }
    words
}
