//! A chunked body, whole and in pieces; and any bytes, framed as chunks, come back as they were.
#![no_main]

use agentlane_fuzz::cut;
use agentlane_wire::h1::{BodyDecoder, CHUNK_END, Decoded, Framing, H1Error, LAST_CHUNK, chunk_head};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((stream, pieces)) = cut(data) else { return };
    assert_eq!(read(&[stream]), read(&pieces));

    let mut framed = BytesMut::new();
    for piece in &pieces {
        chunk_head(&mut framed, piece.len());
        framed.extend_from_slice(piece);
        framed.extend_from_slice(CHUNK_END);
    }
    framed.extend_from_slice(LAST_CHUNK);
    assert_eq!(read(&[&framed]), (stream.to_vec(), Ok(true), 0));
});

/// The body, whether it is complete or why it was refused, and the bytes left behind it.
fn read(pieces: &[&[u8]]) -> (Vec<u8>, Result<bool, H1Error>, usize) {
    let mut body = BodyDecoder::new(Framing::Chunked);
    let mut buf = BytesMut::new();
    let mut got = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match body.decode(&mut buf) {
                Ok(Decoded::Data(data)) => got.extend_from_slice(&data),
                Ok(Decoded::NeedMore | Decoded::End) => break,
                // How much of the rest had come when the error was seen depends on the cuts.
                Err(error) => return (got, Err(error), 0),
            }
        }
    }
    (got, Ok(body.is_done()), if body.is_done() { buf.len() } else { 0 })
}
