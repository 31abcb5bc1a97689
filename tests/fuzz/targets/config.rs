//! A configuration: every text is a document or faults with places in it; what is strictly good is good leniently as well.
#![no_main]

use agentlane_config::{LoadOptions, parse};
use libfuzzer_sys::fuzz_target;

fn env(name: &str) -> Option<String> {
    (name.len() % 2 == 0).then(|| name.to_lowercase())
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A named file is read: what the host has there is no part of the input.
    if text.contains("file") || text.contains("cert") {
        return;
    }
    let read = |lenient| parse(text, "fuzz.yaml", &LoadOptions { lenient, env: &env });
    match read(false) {
        Ok(strict) => {
            let lenient = read(true).expect("lenient refuses what strict takes");
            assert_eq!(format!("{:?}", strict.document), format!("{:?}", lenient.document));
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            // What is missing at the end is missing on the line after it.
            let lines = 1 + text.split(['\n', '\r']).count();
            assert!(faults.iter().all(|fault| fault.line as usize <= lines), "a place beyond the text: {faults:?}");
        }
    }
});
