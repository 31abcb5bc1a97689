//! An event stream, whole and in pieces; and every event that comes out goes in again as it was.
#![no_main]

use agentlane_fuzz::cut;
use agentlane_wire::sse::{Event, SseDecoder, SseError, encode};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

const EVENT_BYTES_MAX: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let Some((stream, pieces)) = cut(data) else { return };
    let (events, failed) = read(&[stream], EVENT_BYTES_MAX);
    assert_eq!((events.clone(), failed), read(&pieces, EVENT_BYTES_MAX));
    for event in events {
        let mut parts: Vec<Bytes> = Vec::new();
        let Ok(bytes) = encode(&event, &mut BytesMut::new(), &mut parts) else {
            assert!(event.event.is_some_and(|name| name.contains(&0)), "only a NUL cannot be written");
            continue;
        };
        let encoded = parts.concat();
        assert_eq!(encoded.len(), bytes);
        let (again, failed) = read(&[&encoded], 8 * EVENT_BYTES_MAX);
        assert_eq!((again, failed), (vec![event], None));
    }
});

fn read(pieces: &[&[u8]], event_bytes_max: usize) -> (Vec<Event>, Option<SseError>) {
    let mut decoder = SseDecoder::new(event_bytes_max);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}
