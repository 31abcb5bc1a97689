//! Tests of whole documents: the faults of bad ones, the meaning of good ones, the examples and the schema.

mod audit;
mod auth;
mod examples;
mod faults;
mod meaning;
mod schema_check;
mod tls;

use crate::{Document, Fault, LoadOptions, Loaded, parse};

/// The environment of the tests.
fn env(name: &str) -> Option<String> {
    let value = match name {
        "AGENTLANE_SESSION_KEY" => "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "AGENTLANE_AUDIT_KEY" | "AGENTLANE_ADMIN_KEY" => "a-key-of-more-than-sixteen-bytes",
        "LOG_FOLDER" => "/var/log/agentlane",
        "PORT" => "3000",
        "SEARCH_HOST" => "search.internal",
        "SEARCH_TOKEN" => "token-of-search",
        "TRACKER_TOKEN" => "token-of-tracker",
        "CERTS" => return Some(tls::folder().display().to_string()),
        _ => return None,
    };
    Some(value.to_owned())
}

fn read(text: &str, lenient: bool) -> Result<Loaded, Vec<Fault>> {
    parse(text, "t.yaml", &LoadOptions { lenient, env: &env })
}

/// The faults as a user sees them, without the name of the file.
fn printed(faults: &[Fault]) -> Vec<String> {
    let print = |fault: &Fault| fault.to_string().trim_start_matches("t.yaml:").to_owned();
    faults.iter().map(print).collect()
}

#[track_caller]
fn good(text: &str) -> Document {
    match read(text, false) {
        Ok(loaded) => loaded.document,
        Err(faults) => panic!("{:#?}", printed(&faults)),
    }
}
