//! `agentlane run`.

use std::process::ExitCode;

use super::{EXIT_CONFIG, EXIT_UNAVAILABLE, RunArgs};
use crate::control::source::Source;
use crate::gateway::{self, Failure, Options};

pub fn run(args: RunArgs) -> ExitCode {
    let source = match &args.file {
        Some(file) => Source::File { path: file.clone(), lenient: args.lenient },
        None => match crate::demo::config() {
            Ok(demo) => Source::Demo(demo),
            Err(error) => {
                eprintln!("agentlane: the demo cannot start: {error}");
                return ExitCode::FAILURE;
            }
        },
    };
    match gateway::run(source, Options { shards: args.shards, runtime: args.runtime }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(faults)) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            ExitCode::from(EXIT_CONFIG)
        }
        Err(Failure::Unavailable(reason)) => {
            eprintln!("agentlane: {reason}");
            ExitCode::from(EXIT_UNAVAILABLE)
        }
        Err(Failure::Broken(reason)) => {
            eprintln!("agentlane: {reason}");
            ExitCode::FAILURE
        }
    }
}
