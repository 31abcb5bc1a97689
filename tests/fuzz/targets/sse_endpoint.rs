//! The endpoint event of a server of 2024-11-05: it leads to a path of the same origin that can stand in a request, or nowhere.
#![no_main]

use agentlane_fuzz::limits::ENDPOINT_BYTES_MAX;
use agentlane_fuzz::protocol::mcp::sse2024::{message_endpoint, resolve, session_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for (secure, authority, stream) in [(false, "a.test:80", "/sse"), (true, "[::1]:8443", "/deep/er/sse?x=1")] {
        if let Ok(target) = resolve(secure, authority, stream, data) {
            assert!(target.starts_with('/'), "{target:?} is no path");
            assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{target:?} breaks a request's line");
            // A query may hold anything.
            let path = target.split('?').next().unwrap_or_default();
            assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{target:?} leads elsewhere");
            // Read again by a client that resolves it against the same stream it leads to the same place. The limit is on what is
            // read: behind the stream's folder it may be longer.
            if !path.starts_with("//") && target.len() <= ENDPOINT_BYTES_MAX {
                assert_eq!(resolve(secure, authority, stream, target.as_bytes()).as_deref(), Ok(target.as_str()));
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = session_of(Some(text));
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            assert_eq!(
                session_of(message_endpoint("/sse", None, text).split_once('?').map(|(_, query)| query)),
                Some(text)
            );
        }
    }
});
