//! `agentlane explain`: which rule allows or refuses something, and what it read.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;

use agentlane_link::tls::RootCertStore;
use agentlane_wire::h1::RequestHead;
use serde_json::Value as Json;

use super::{EXIT_CONFIG, ExplainArgs};
use crate::policy::rules::access::ItemKind;
use crate::principal::Principal;
use crate::snapshot::compile::{self, Addresses};
use crate::snapshot::explain::{Question, Thing, asked, explain};
use crate::snapshot::kept::Kept;

/// Most bytes of a principal's document.
const PRINCIPAL_BYTES_MAX: u64 = 1 << 20;

pub fn run(args: &ExplainArgs) -> ExitCode {
    let loaded = match crate::control::source::load(&args.file, args.lenient) {
        Ok(loaded) => loaded,
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    // Names are not looked up and roots not loaded: nothing is connected to.
    let mut kept = Kept::new(|| Arc::new(RootCertStore::empty()), 1);
    let snapshot = match compile::compile(&loaded.document, 0, &Addresses::new(), &mut kept) {
        Ok(snapshot) => snapshot,
        Err(fault) => {
            eprintln!("{}: {fault}", args.file.display());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let said = principal(args.principal.as_deref()).and_then(|principal| {
        let head = head(args)?;
        let thing =
            [(ItemKind::Tool, &args.tool), (ItemKind::Prompt, &args.prompt), (ItemKind::Resource, &args.resource)]
                .into_iter()
                .find_map(|(kind, name)| Some(Thing { kind, name: name.as_deref()?, target: args.target.as_deref() }));
        let peer = args.source.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        explain(
            &snapshot,
            &Question { route: &args.route, principal: &principal, head: &head, peer, session: None, thing },
        )
    });
    match said {
        Ok(said) if args.json => println!("{:#}", said.to_json()),
        Ok(said) => print!("{said}"),
        Err(fault) => {
            eprintln!("{fault}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Who asks: the claims of a token, or an object of `jwt`, `apiKey` and `basicAuth`. Taken at its word.
fn principal(file: Option<&str>) -> Result<Principal, String> {
    let principal = Principal::default();
    let Some(file) = file else { return Ok(principal) };
    let failed = |error: &dyn std::fmt::Display| format!("{file}: {error}");
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().take(PRINCIPAL_BYTES_MAX).read_to_string(&mut text),
        path => std::fs::File::open(path).and_then(|file| file.take(PRINCIPAL_BYTES_MAX).read_to_string(&mut text)),
    };
    read.map_err(|error| failed(&error))?;
    let document: Json = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    asked::principal(&document).map_err(|fault| failed(&fault))
}

/// The request as it would come.
fn head(args: &ExplainArgs) -> Result<RequestHead, String> {
    let headers = args.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    asked::head(&args.method, &args.path, headers)
}
