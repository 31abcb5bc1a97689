//! JSON-RPC errors and results that the gateway writes itself.

use agentlane_wire::json;
use bytes::{Bytes, BytesMut};

use super::revision::Revision;
use crate::fault::Fault;

/// An error response. An id that could not be read is left out: `null` fails the schema of every revision.
pub fn error_response(id: Option<&[u8]>, code: i32, message: &str) -> Bytes {
    error_with_data(id, code, message, None)
}

/// The same with `data`, which is JSON text.
pub fn error_with_data(id: Option<&[u8]>, code: i32, message: &str, data: Option<&[u8]>) -> Bytes {
    let mut out = BytesMut::with_capacity(96 + message.len());
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",");
    if let Some(id) = id {
        out.extend_from_slice(b"\"id\":");
        out.extend_from_slice(id);
        out.extend_from_slice(b",");
    }
    out.extend_from_slice(b"\"error\":{\"code\":");
    out.extend_from_slice(code.to_string().as_bytes());
    out.extend_from_slice(b",\"message\":");
    json::quote_into(&mut out, message);
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data);
    }
    out.extend_from_slice(b"}}");
    out.freeze()
}

/// A fault as the client reads it.
pub fn fault_response(id: Option<&[u8]>, fault: &Fault) -> Bytes {
    error_response(id, fault.kind.rpc_code(), fault.message)
}

/// A result whose JSON text is given.
pub fn result_response(id: &[u8], result: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(40 + id.len() + result.len());
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"result\":");
    out.extend_from_slice(result);
    out.extend_from_slice(b"}");
    out.freeze()
}

/// A `tools/call` result that tells the model what went wrong on the way to the tool: a protocol error would not reach it.
pub fn tool_failure(id: &[u8], text: &str) -> Bytes {
    let mut result = BytesMut::with_capacity(64 + text.len());
    result.extend_from_slice(b"{\"content\":[{\"type\":\"text\",\"text\":");
    json::quote_into(&mut result, text);
    result.extend_from_slice(b"}],\"isError\":true}");
    result_response(id, &result)
}

/// A request of the gateway's own. Its id is a string made of `number`, which must be new: servers tell the requests of a
/// session apart by nothing else, and a client's own ids are not like it. `params` is JSON text.
pub fn request(number: u64, method: &str, params: Option<&[u8]>) -> Bytes {
    let mut out = BytesMut::with_capacity(80 + method.len() + params.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":\"agentlane-");
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b"\",\"method\":\"");
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"\"");
    close_with_params(out, params)
}

/// `params` of an `initialize` of the gateway's own: `capabilities` and `client_info` are JSON text of objects.
pub fn initialize_params(revision: Revision, capabilities: &[u8], client_info: Option<&[u8]>) -> Bytes {
    const OURS: &str = concat!("{\"name\":\"agentlane\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}");
    let parts: [&[u8]; 7] = [
        b"{\"protocolVersion\":\"",
        revision.as_str().as_bytes(),
        b"\",\"capabilities\":",
        capabilities,
        b",\"clientInfo\":",
        client_info.unwrap_or(OURS.as_bytes()),
        b"}",
    ];
    Bytes::from(parts.concat())
}

/// A notification of the gateway's own.
pub fn notification(method: &str, params: Option<&[u8]>) -> Bytes {
    let mut out = BytesMut::with_capacity(48 + method.len() + params.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"method\":\"");
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"\"");
    close_with_params(out, params)
}

fn close_with_params(mut out: BytesMut, params: Option<&[u8]>) -> Bytes {
    if let Some(params) = params {
        out.extend_from_slice(b",\"params\":");
        out.extend_from_slice(params);
    }
    out.extend_from_slice(b"}");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_json() {
        let texts = [
            error_response(Some(b"7"), -32600, "say \"no\""),
            error_response(None, -32700, "x"),
            error_with_data(Some(b"7"), -32022, "x", Some(b"{\"supported\":[]}")),
            result_response(b"\"a\"", b"{}"),
            tool_failure(b"1", "line\nbreak"),
            request(7, "ping", None),
            notification("notifications/initialized", Some(b"{}")),
            request(8, "initialize", Some(&initialize_params(Revision::NEWEST, b"{\"roots\":{}}", None))),
        ];
        for text in texts {
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value["jsonrpc"], "2.0");
        }
        let value: serde_json::Value = serde_json::from_slice(&error_response(None, -1, "x")).unwrap();
        assert!(value.get("id").is_none());
    }
}
