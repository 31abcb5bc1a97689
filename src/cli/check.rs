//! `agentlane check FILE`.

use std::process::ExitCode;

use super::{CheckArgs, EXIT_CONFIG};

pub fn check(args: &CheckArgs) -> ExitCode {
    let read = crate::control::source::load(&args.file, args.lenient);
    match read.and_then(|loaded| crate::control::lock::file::of(&loaded.document).map(|_| loaded)) {
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
