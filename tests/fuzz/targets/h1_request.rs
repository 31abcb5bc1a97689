//! A stream of requests, whole and in pieces: the same heads, bodies and verdict. What is accepted can be forwarded, and
//! the forwarded head reads as the same request.
#![no_main]

use agentlane_fuzz::cut;
use agentlane_wire::h1::{
    BodyDecoder, Decoded, Framing, H1Error, HeadLimits, HeadParser, RequestHead, TargetForm, parse_request,
    request_head,
};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { bytes: 2048, start_line_bytes: 256, headers: 16 };

fuzz_target!(|data: &[u8]| {
    let Some((stream, pieces)) = cut(data) else { return };
    let whole = read(&[stream]);
    assert_eq!(whole, read(&pieces));
});

/// What a stream says: a line per head, the body bytes, and the error that ended it.
fn read(pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>, Option<H1Error>) {
    let (mut heads, mut bodies) = (Vec::new(), Vec::new());
    let mut parser = HeadParser::default();
    let mut body = BodyDecoder::new(Framing::None);
    let mut buf = BytesMut::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match body.decode(&mut buf) {
                Ok(Decoded::Data(data)) => bodies.extend_from_slice(&data),
                Ok(Decoded::NeedMore) => break,
                Ok(Decoded::End) => match parser.request(&mut buf, &LIMITS) {
                    Ok(Some(head)) => {
                        check(&head);
                        heads.push(format!("{} {} {:?}", head.method_str(), head.target(), head.framing));
                        body = BodyDecoder::new(head.framing);
                    }
                    Ok(None) => break,
                    Err(error) => return (heads, bodies, Some(error)),
                },
                Err(error) => return (heads, bodies, Some(error)),
            }
        }
    }
    (heads, bodies, None)
}

fn check(head: &RequestHead) {
    assert!(head.framing != Framing::UntilClose);
    assert!(!head.target().is_empty() && head.target().is_ascii());
    for header in head.headers.iter() {
        assert!(!header.name.is_empty());
        assert!(!header.value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        assert_eq!(header.value, header.value.trim_ascii());
        assert!(head.headers.get(header.name).is_some());
    }
    if head.target_form() == TargetForm::Authority {
        return;
    }
    let mut out = BytesMut::new();
    let authority = if head.authority().is_empty() { "none" } else { head.authority() };
    let written = request_head(&mut out, head.method_str(), head.path_and_query())
        .header("host", authority)
        .forward(&head.headers, |header| header.name.eq_ignore_ascii_case("host"))
        .framing(head.framing)
        .finish();
    assert_eq!(written, Ok(out.len()));
    let limits = HeadLimits { bytes: 4096, start_line_bytes: 512, headers: 32 };
    let again = parse_request(&mut out, &limits).expect("what was forwarded is sound").expect("and complete");
    assert!(out.is_empty());
    assert_eq!((again.method, again.method_str(), again.framing), (head.method, head.method_str(), head.framing));
    assert_eq!(again.target(), head.path_and_query());
}
