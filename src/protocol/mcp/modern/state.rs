//! `requestState`, the one thing that a client brings back with a retry: where the request waits for it, or the state that a
//! target gave. Sealed, so that neither can be read, forged, or taken from one caller to another.

use super::super::caller::Caller;
use super::super::seal::{NoRandomness, Sealer};

const PARKED: &[u8] = b"agentlane parked request v1";
const WRAPPED: &[u8] = b"agentlane wrapped state v1";
/// In front of the sealed text: which of the two it is.
const PARKED_MARK: char = 'p';
const WRAPPED_MARK: char = 'w';

/// A request that waits on a shard for its client's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    pub shard: u16,
    /// Random: no place is ever given twice.
    pub place: u64,
}

/// What a state says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Parked(Parked),
    /// A target's own state, for that target alone.
    Wrapped {
        target: String,
        state: String,
    },
}

impl Parked {
    pub fn seal(&self, sealer: &Sealer) -> Result<String, NoRandomness> {
        let mut payload = [0; 10];
        payload[..2].copy_from_slice(&self.shard.to_le_bytes());
        payload[2..].copy_from_slice(&self.place.to_le_bytes());
        sealer.seal(PARKED, &payload).map(|text| marked(PARKED_MARK, &text))
    }

    /// The place that a state names, whoever brings it: the table of parked requests knows whose it is.
    pub fn open(sealer: &Sealer, text: &str) -> Option<Parked> {
        let payload = sealer.open(PARKED, text.strip_prefix(PARKED_MARK)?.as_bytes())?;
        Some(Parked {
            shard: u16::from_le_bytes(payload.get(..2)?.try_into().ok()?),
            place: u64::from_le_bytes(payload.get(2..10)?.try_into().ok()?),
        })
    }
}

/// Seals a target's state for one caller.
pub fn wrap(sealer: &Sealer, caller: &Caller, target: &str, state: &str) -> Result<String, NoRandomness> {
    let mut payload = caller.as_bytes().to_vec();
    payload.extend_from_slice(&(target.len() as u32).to_le_bytes());
    payload.extend_from_slice(target.as_bytes());
    payload.extend_from_slice(state.as_bytes());
    sealer.seal(WRAPPED, &payload).map(|text| marked(WRAPPED_MARK, &text))
}

/// What a state says to this caller; `None` for one that was not made here, or not for it.
pub fn open(sealer: &Sealer, caller: &Caller, text: &str) -> Option<State> {
    if let Some(parked) = Parked::open(sealer, text) {
        return Some(State::Parked(parked));
    }
    let payload = sealer.open(WRAPPED, text.strip_prefix(WRAPPED_MARK)?.as_bytes())?;
    let rest = payload.strip_prefix(caller.as_bytes().as_slice())?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (target, state) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    Some(State::Wrapped { target: text(target)?, state: text(state)? })
}

fn marked(mark: char, text: &str) -> String {
    let mut out = String::with_capacity(1 + text.len());
    out.push(mark);
    out.push_str(text);
    out
}

#[cfg(test)]
mod tests {
    use agentlane_wire::h1::{HeadLimits, parse_request};
    use bytes::BytesMut;

    use super::super::super::seal::KEY_LEN;
    use super::*;

    #[test]
    fn states_come_back_to_their_caller_alone() {
        let sealer = Sealer::new(&[7; KEY_LEN]);
        let mut head = BytesMut::from("POST / HTTP/1.1\r\nhost: a\r\nauthorization: b\r\n\r\n");
        let other = Caller::of(&parse_request(&mut head, &HeadLimits::default()).unwrap().unwrap().headers);
        let parked = Parked { shard: 3, place: u64::MAX - 1 };
        let text = parked.seal(&sealer).unwrap();
        assert_eq!(open(&sealer, &other, &text), Some(State::Parked(parked)));
        for state in ["", "opaque \"state\" ä", &"x".repeat(10_000)] {
            let text = wrap(&sealer, &other, "files", state).unwrap();
            let expected = State::Wrapped { target: "files".to_owned(), state: state.to_owned() };
            assert_eq!(open(&sealer, &other, &text), Some(expected));
            assert_eq!(open(&sealer, &Caller::NOBODY, &text), None, "another caller");
            assert_eq!(open(&sealer, &other, &text.replacen('w', "p", 1)), None, "another kind");
            assert_eq!(open(&sealer, &other, &text[1..]), None);
            assert_eq!(open(&Sealer::new(&[8; KEY_LEN]), &other, &text), None, "another key");
        }
        for text in ["", "p", "w", "pA", "tampered", "ä"] {
            assert_eq!(open(&sealer, &other, text), None, "{text}");
        }
    }
}
