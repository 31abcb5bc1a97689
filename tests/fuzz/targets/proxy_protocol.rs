//! The first bytes of a connection as a PROXY header: whatever they are, what a beginning says holds for more of it, and
//! bytes behind a header change nothing.
#![no_main]

use agentlane_wire::proxy_protocol::{HEADER_BYTES_MAX, Parsed, Versions, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for versions in [Versions::V1, Versions::V2, Versions::All] {
        let whole = parse(data, versions);
        match whole {
            Ok(Parsed::Header(header)) => {
                assert!(header.length <= data.len() && header.length <= HEADER_BYTES_MAX);
                assert_eq!(parse(&data[..header.length], versions), whole);
                for end in 0..header.length {
                    assert!(matches!(parse(&data[..end], versions), Ok(Parsed::NeedMore { .. })));
                }
            }
            Ok(Parsed::NeedMore { certain }) => {
                assert!(data.len() < HEADER_BYTES_MAX);
                let mut more = data.to_vec();
                more.push(b'x');
                // What surely begins a header never becomes anything else.
                assert!(!certain || parse(&more, versions) != Ok(Parsed::Other));
            }
            Ok(Parsed::Other) | Err(_) => {}
        }
    }
});
