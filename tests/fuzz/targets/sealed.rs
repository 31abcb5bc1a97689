//! Sealed texts that a client brings back: whatever it brings is nothing, unless it was made here, for it, and is as it was.
#![no_main]

use agentlane_fuzz::protocol::mcp::caller::Caller;
use agentlane_fuzz::protocol::mcp::modern::state::{self, Parked, State};
use agentlane_fuzz::protocol::mcp::seal::Sealer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let sealer = Sealer::new(&[7; 32]);
    let (me, other) = (Caller::verified("fuzz", &[b"me"]), Caller::verified("fuzz", &[b"other"]));
    // Forged: nobody who has no key makes one.
    assert!(sealer.open(b"context", data).is_none());
    assert!(sealer.open_session_id(data).is_none());
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert!(Parked::open(&sealer, text).is_none() && state::open(&sealer, &me, text).is_none());
    // Made here: it says what it said, to its caller alone, and not when one byte of it is another.
    let sealed = state::wrap(&sealer, &me, "target", text).expect("randomness");
    let expected = State::Wrapped { target: "target".to_owned(), state: text.to_owned() };
    assert_eq!(state::open(&sealer, &me, &sealed), Some(expected));
    assert_eq!(state::open(&sealer, &other, &sealed), None);
    let at = data.iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte))) % sealed.len();
    let mut bent = sealed.clone().into_bytes();
    bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).expect("one ASCII byte for another");
    assert_eq!(state::open(&sealer, &me, &bent), None);
    let same = sealer.seal_same(b"context", data).expect("sealed");
    assert_eq!(sealer.open(b"context", same.as_bytes()).as_deref(), Some(data));
    assert!(sealer.open(b"another", same.as_bytes()).is_none());
});
