//! Frames of a client through the adapter, over a pair of sockets: whatever comes, the connection ends by itself, every request
//! that it makes is answered or refused, and its head keeps the rules of HTTP/1.1. A first byte of 0 sends the input as it is
//! behind the preface; otherwise the frames are made from it, so that lengths are right.
#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use agentlane_link::Drain;
use agentlane_link::h2::Http2;
use agentlane_link::server::{Connection, ServerLimits};
use agentlane_runtime::{Driver, ShardOptions, Stream, block_on, spawn, timeout};
use agentlane_wire::h1::Version;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No input takes longer: it has ended before anything is read.
const END: Duration = Duration::from_secs(4);

fuzz_target!(|data: &[u8]| {
    let Some((&form, rest)) = data.split_first() else { return };
    let mut input = PREFACE.to_vec();
    match form {
        0 => input.extend(rest),
        _ => frames(rest, &mut input),
    }
    let outcome = block_on(Driver::Epoll, &ShardOptions::default(), || serve(input));
    outcome.expect("a shard");
});

/// Five bytes for a head, and up to 63 of payload.
fn frames(mut data: &[u8], out: &mut Vec<u8>) {
    out.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    while let Some((&[kind, flags, stream, length], rest)) = data.split_first_chunk::<4>() {
        let (payload, rest) = rest.split_at(usize::from(length % 64).min(rest.len()));
        out.extend([0, 0, payload.len() as u8, kind % 12, flags, 0, 0, 0, stream % 16]);
        out.extend(payload);
        data = rest;
    }
}

async fn serve(input: Vec<u8>) {
    let (ours, theirs) = Stream::pair().expect("sockets");
    let mut client = UnixStream::from(theirs);
    client.write_all(&input).expect("the input fits");
    client.shutdown(Shutdown::Write).expect("an end");
    let limits = ServerLimits { idle: Duration::from_secs(1), ..ServerLimits::default() };
    let drain = Drain::new();
    let served = timeout(END, async {
        let Ok(http2) = Http2::accept(ours, BytesMut::new(), Rc::new(limits), &drain).await else { return };
        http2.serve(|connection| spawn(answer(connection))).await;
    });
    served.await.expect("the connection ends by itself");
    drop(client);
}

async fn answer(mut connection: Connection) {
    match connection.head().await {
        Ok(Some(head)) => {
            assert_eq!(head.version, Version::Http2);
            assert!(!head.target().is_empty() && head.target().is_ascii() && !head.authority().is_empty());
            for header in head.headers.iter() {
                assert!(!header.value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
                assert!(!header.name.eq_ignore_ascii_case("connection"));
            }
            let body = connection.body_all(1 << 16).await.unwrap_or_default();
            let _ = connection.respond(200, |_| {}, [body].into_iter().collect()).await;
        }
        Ok(None) => {}
        Err(error) => _ = connection.refuse(&error).await,
    }
    connection.close().await;
}
