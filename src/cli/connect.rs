//! `agentlane connect`.

use std::process::ExitCode;

use super::{ConnectArgs, EXIT_UNAVAILABLE};
use crate::gateway::Failure;
use crate::gateway::connect::{self, Remote};

pub fn run(args: ConnectArgs) -> ExitCode {
    match connect::run(&Remote { url: args.url, headers: args.headers, protocol: args.protocol }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Unavailable(reason)) => {
            eprintln!("agentlane: {reason}");
            ExitCode::from(EXIT_UNAVAILABLE)
        }
        Err(Failure::Broken(reason)) => {
            eprintln!("agentlane: {reason}");
            ExitCode::FAILURE
        }
        Err(Failure::Config(faults)) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            ExitCode::FAILURE
        }
    }
}

/// A URL that can be connected to.
pub fn url(text: &str) -> Result<String, String> {
    Remote { url: text.to_owned(), ..Remote::default() }.document().map(|_| text.to_owned())
}

/// `Name: value`.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    let header = (name.trim().to_owned(), value.trim().to_owned());
    any(|remote| remote.headers.push(header.clone())).map(|()| header)
}

/// What a remote may be pinned to.
pub fn protocol(text: &str) -> Result<String, String> {
    any(|remote| remote.protocol = Some(text.to_owned())).map(|()| text.to_owned())
}

/// Whether a change of some remote makes sense.
fn any(change: impl FnOnce(&mut Remote)) -> Result<(), String> {
    let mut remote = Remote { url: "http://localhost".to_owned(), ..Remote::default() };
    change(&mut remote);
    remote.document().map(drop)
}
