//! A stream of responses, whole and in pieces: the same heads, bodies and verdict.
#![no_main]

use agentlane_fuzz::cut;
use agentlane_wire::h1::{BodyDecoder, Decoded, Framing, H1Error, HeadLimits, HeadParser, Method, response_head};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { bytes: 2048, start_line_bytes: 256, headers: 16 };

fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else { return };
    let method = [Method::Get, Method::Head, Method::Connect, Method::Post][usize::from(first % 4)];
    let Some((stream, pieces)) = cut(data) else { return };
    assert_eq!(read(&[stream], method), read(&pieces, method));
});

fn read(pieces: &[&[u8]], method: Method) -> (Vec<String>, Vec<u8>, Option<H1Error>) {
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
                Ok(Decoded::End) => match parser.response(&mut buf, &LIMITS, method) {
                    Ok(Some(head)) => {
                        assert!((100..600).contains(&head.status));
                        assert!(!(head.keep_alive && head.framing == Framing::UntilClose));
                        if method == Method::Head || matches!(head.status, 100..=199 | 204 | 304) {
                            assert!(head.framing == Framing::None);
                        }
                        let mut out = BytesMut::new();
                        let forwarded = response_head(&mut out, head.status).forward(&head.headers, |_| false).finish();
                        assert_eq!(forwarded, Ok(out.len()));
                        heads.push(format!("{} {:?} {}", head.status, head.framing, head.keep_alive));
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
