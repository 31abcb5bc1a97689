//! What a question is about, as people write it: a principal as a document, a request by its parts. All of it is taken at its
//! word.

use std::sync::Arc;

use agentlane_wire::h1::{HeadLimits, RequestHead, parse_request};
use bytes::BytesMut;
use serde_json::Value as Json;

use crate::principal::Principal;
use crate::protocol::mcp::caller::Caller;

/// Who asks: the claims of a token, or an object of `jwt`, `apiKey` and `basicAuth`.
pub fn principal(document: &Json) -> Result<Principal, String> {
    let Some(members) = document.as_object() else { return Err("not a JSON object".to_owned()) };
    let mut principal = Principal::default();
    let is_whole = !members.is_empty() && members.keys().all(|key| ["jwt", "apiKey", "basicAuth"].contains(&&**key));
    if !is_whole {
        principal.set_jwt(Arc::new(document.clone()), Caller::NOBODY);
        return Ok(principal);
    }
    if let Some(claims) = members.get("jwt") {
        principal.set_jwt(Arc::new(claims.clone()), Caller::NOBODY);
    }
    if let Some(metadata) = members.get("apiKey") {
        principal.set_api_key(Arc::new(metadata.clone()), Caller::NOBODY);
    }
    if let Some(user) = members.get("basicAuth").and_then(|basic| basic.get("username")?.as_str()) {
        principal.set_basic(user.into(), Caller::NOBODY);
    }
    Ok(principal)
}

/// The request as it would come.
pub fn head<'a>(
    method: &str,
    path: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<RequestHead, String> {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    let mut has_host = false;
    for (name, value) in headers {
        has_host |= name.eq_ignore_ascii_case("host");
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !has_host {
        text.push_str("host: localhost\r\n");
    }
    text.push_str("\r\n");
    match parse_request(&mut BytesMut::from(text.as_bytes()), &HeadLimits::default()) {
        Ok(Some(head)) => Ok(head),
        _ => Err("method, path or headers are not those of a request".to_owned()),
    }
}
