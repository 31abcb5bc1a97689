//! The messages of a listen stream, both ways: written for our own listeners, read from a target.

use agentlane_wire::json::{self, Envelope, MessageKind};
use bytes::{BufMut, Bytes, BytesMut};

use super::filter::{Change, Filter, List, Uri};
use crate::protocol::mcp::error;
use crate::protocol::mcp::modern::{META_SERVER_INFO, META_SUBSCRIPTION};

const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const UPDATED: &str = "notifications/resources/updated";

/// The first message of a stream: what is really heard on it. `id`: the listen request's, as JSON text.
pub fn acknowledged(id: &[u8], granted: &Filter) -> Bytes {
    let mut params = tagged(id);
    params.put_slice(b",\"notifications\":");
    granted.write_into(&mut params);
    params.put_u8(b'}');
    error::notification(ACKNOWLEDGED, Some(&params))
}

/// A change, for the stream that the request `id` opened.
pub fn change(id: &[u8], change: &Change) -> Bytes {
    let mut params = tagged(id);
    if let Change::Resource(uri) = change {
        params.put_slice(b",\"uri\":");
        json::quote_into(&mut params, uri);
    }
    params.put_u8(b'}');
    error::notification(method(change), Some(&params))
}

/// The same for a session, whose stream needs no tag.
pub fn untagged_change(change: &Change) -> Bytes {
    let Change::Resource(uri) = change else { return error::notification(method(change), None) };
    let mut params = BytesMut::from(&b"{\"uri\":"[..]);
    json::quote_into(&mut params, uri);
    params.put_u8(b'}');
    error::notification(UPDATED, Some(&params))
}

/// The end of a stream that the server ends: the listen request's response.
pub fn ended(id: &[u8]) -> Bytes {
    let mut result = BytesMut::from(&b"{\"resultType\":\"complete\",\"_meta\":{\""[..]);
    result.put_slice(META_SUBSCRIPTION.as_bytes());
    result.put_slice(b"\":");
    result.put_slice(id);
    result.put_slice(b",\"");
    result.put_slice(META_SERVER_INFO.as_bytes());
    result.put_slice(b"\":{\"name\":\"agentlane\",\"version\":\"");
    result.put_slice(env!("CARGO_PKG_VERSION").as_bytes());
    result.put_slice(b"\"}}}");
    error::result_response(id, &result)
}

/// `{"_meta":{...}`, without its end.
fn tagged(id: &[u8]) -> BytesMut {
    let mut params = BytesMut::from(&b"{\"_meta\":{\""[..]);
    params.put_slice(META_SUBSCRIPTION.as_bytes());
    params.put_slice(b"\":");
    params.put_slice(id);
    params.put_u8(b'}');
    params
}

fn method(change: &Change) -> &'static str {
    match change {
        Change::List(list) => list.notification(),
        Change::Resource(_) => UPDATED,
    }
}

/// What a target's message says to a listener.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Acknowledged(Filter),
    Changed(Change),
    /// The target ended the stream in good order.
    Ended,
    /// It refused the listen, with this JSON-RPC code.
    Refused(i64),
    /// Nothing that is heard on such a stream.
    Other,
}

/// Reads a message of a target's listen stream, or a notification of an older one's own stream.
pub fn heard(message: &Bytes, envelope: &Envelope) -> Heard {
    match envelope.kind {
        MessageKind::Response => Heard::Ended,
        MessageKind::ErrorResponse => Heard::Refused(error_code(message, envelope).unwrap_or_default()),
        MessageKind::Notification if envelope.method_is(message, ACKNOWLEDGED) => {
            let granted = envelope.params.and_then(|params| json::get(message, params, "notifications").ok().flatten());
            match granted.map(|range| Filter::parse(message, range)) {
                Some(Ok(filter)) => Heard::Acknowledged(filter),
                _ => Heard::Other,
            }
        }
        MessageKind::Notification => match changed(message, envelope) {
            Some(change) => Heard::Changed(change),
            None => Heard::Other,
        },
        _ => Heard::Other,
    }
}

fn changed(message: &Bytes, envelope: &Envelope) -> Option<Change> {
    if let Some(list) = List::ALL.into_iter().find(|list| envelope.method_is(message, list.notification())) {
        return Some(Change::List(list));
    }
    let uri = envelope.uri.filter(|_| envelope.method_is(message, UPDATED))?;
    Some(Change::Resource(Uri::from(&*json::string(message, uri).ok()?)))
}

fn error_code(message: &Bytes, envelope: &Envelope) -> Option<i64> {
    let code = json::get(message, envelope.error?, "code").ok().flatten()?;
    std::str::from_utf8(code.of(message)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use agentlane_wire::json::ScanLimits;
    use serde_json::Value;

    use super::super::filter::Lists;
    use super::*;

    fn value(message: &Bytes) -> Value {
        serde_json::from_slice(message).unwrap()
    }

    fn read(message: Bytes) -> Heard {
        let envelope = json::scan(&message, &ScanLimits { max_depth: 64, validate_below: 4096 }).unwrap();
        heard(&message, &envelope)
    }

    fn filter() -> Filter {
        Filter { lists: Lists::one(List::Tools), uris: [Uri::from("memo:\"x\"")].into() }
    }

    #[test]
    fn every_message_carries_the_listens_id_with_its_type() {
        for id in ["7", "\"7\"", "\"a b\""] {
            let expected: Value = serde_json::from_str(id).unwrap();
            let update = Change::Resource(Uri::from("memo:x"));
            let messages = [
                acknowledged(id.as_bytes(), &filter()),
                change(id.as_bytes(), &Change::List(List::Prompts)),
                change(id.as_bytes(), &update),
            ];
            for message in &messages {
                assert_eq!(value(message)["params"]["_meta"][META_SUBSCRIPTION], expected);
            }
            let end = value(&ended(id.as_bytes()));
            assert_eq!((&end["id"], &end["result"]["_meta"][META_SUBSCRIPTION]), (&expected, &expected));
            assert_eq!(end["result"]["resultType"], "complete");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(read(acknowledged(b"1", &filter())), Heard::Acknowledged(filter()));
        assert_eq!(read(acknowledged(b"1", &Filter::default())), Heard::Acknowledged(Filter::default()));
        let changes = List::ALL.into_iter().map(Change::List).chain([Change::Resource(Uri::from("memo:\"x\""))]);
        for one in changes {
            assert_eq!(read(change(b"1", &one)), Heard::Changed(one.clone()));
            assert_eq!(read(untagged_change(&one)), Heard::Changed(one));
        }
        assert_eq!(read(ended(b"1")), Heard::Ended);
        assert_eq!(read(error::error_response(Some(b"1"), -32601, "no")), Heard::Refused(-32601));
        assert_eq!(read(error::notification("notifications/message", None)), Heard::Other);
        assert_eq!(read(error::notification(ACKNOWLEDGED, None)), Heard::Other);
        assert_eq!(read(error::request(1, "roots/list", None)), Heard::Other);
    }
}
