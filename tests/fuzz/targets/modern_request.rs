//! A request of 2026-07-28: headers and envelope are judged alike however they are cut, what headers repeat is what the body
//! says, and what becomes of a request for the other era is JSON.
#![no_main]

use agentlane_fuzz::protocol::mcp::modern::{headers, request};
use agentlane_wire::h1::{HeadLimits, parse_request};
use agentlane_wire::json::{ScanLimits, Splice, scan};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

const LIMITS: ScanLimits = ScanLimits { max_depth: 64, validate_below: u32::MAX };

fuzz_target!(|data: &[u8]| {
    // The head's fields, an empty line, the body.
    let split = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (fields, body) = (&data[..split], data.get(split + 2..).unwrap_or_default());
    if let Some(value) = headers::decode(fields) {
        let again = headers::encode(&value);
        assert_eq!(headers::decode(again.as_bytes()).as_deref(), Some(&*value), "{again}");
    }
    if let Ok(text) = std::str::from_utf8(fields) {
        let encoded = headers::encode(text);
        assert!(encoded.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')), "{encoded}");
        assert_eq!(headers::decode(encoded.as_bytes()).as_deref(), Some(text));
    }
    let Ok(envelope) = scan(body, &LIMITS) else { return };
    let mut head = BytesMut::from(&b"POST /mcp HTTP/1.1\r\nhost: a\r\n"[..]);
    fields.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).for_each(|line| {
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
    });
    head.extend_from_slice(b"\r\n");
    if let Ok(Some(head)) = parse_request(&mut head, &HeadLimits::default()) {
        let _ = request::is_announced(&head.headers);
        let _ = request::check(&head.headers, body, &envelope);
    }
    // What the gateway itself repeats in headers is accepted where it is read. The version is not from the body.
    let mut mirrored = BytesMut::from(&b"POST /mcp HTTP/1.1\r\nhost: a\r\nmcp-protocol-version: 2026-07-28\r\n"[..]);
    headers::put_mirrored(&mut mirrored, body, &envelope, &[]);
    mirrored.extend_from_slice(b"\r\n");
    let limits = HeadLimits { bytes: 64 << 10, ..HeadLimits::default() };
    if let Ok(Some(head)) = parse_request(&mut mirrored, &limits)
        && let Err(refusal) = request::check(&head.headers, body, &envelope)
    {
        let (kind, said) = (refusal.fault.kind.label(), refusal.fault.to_string());
        assert!(kind != "header_mismatch" || said.contains("mcp-protocol-version"), "{said}");
    }
    let mut splice = Splice::default();
    if request::into_legacy(&mut splice, body, &envelope, &Bytes::from_static(b"7")).is_ok() {
        let legacy = splice.contiguous(body).expect("edits of a message that was scanned");
        assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&legacy).is_ok(), "no JSON any more");
    }
    let _ = request::digest(body, &envelope);
});
