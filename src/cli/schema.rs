//! `agentlane schema`.

use std::io::Write;
use std::process::ExitCode;

pub fn print() -> ExitCode {
    let schema = format!("{:#}\n", agentlane_config::schema());
    match std::io::stdout().write_all(schema.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
