//! `agentlane check FILE`.

use std::process::ExitCode;

use super::{CheckArgs, EXIT_CONFIG};

pub fn check(args: &CheckArgs) -> ExitCode {
    match crate::control::source::load(&args.file, args.lenient) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            println!("{}: valid", args.file.display());
            ExitCode::SUCCESS
        }
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            eprintln!("{}: {} fault{}", args.file.display(), faults.len(), if faults.len() == 1 { "" } else { "s" });
            ExitCode::from(EXIT_CONFIG)
        }
    }
}
