//! A plain HTTP upstream: every request has the same JSON answer. It looks at nothing but the end of the request.

use super::Service;
use crate::message::Message;

/// Answers every request with one fixed answer.
pub struct Plain {
    answer: Vec<u8>,
}

impl Plain {
    /// The answer's body is JSON of `body_bytes` bytes, or the shortest there is.
    pub fn new(body_bytes: usize) -> Plain {
        let body = body(body_bytes);
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        Plain { answer: (head + &body).into_bytes() }
    }
}

/// The JSON document of `bytes` bytes that plain requests and answers carry.
pub fn body(bytes: usize) -> String {
    const FRAME: &str = r#"{"text":""}"#;
    format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes.saturating_sub(FRAME.len())))
}

impl Service for Plain {
    fn answer(&mut self, _request: &Message, _bytes: &[u8], _body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_size_asked_for() {
        assert_eq!(body(200).len(), 200);
        assert_eq!(body(0), r#"{"text":""}"#);
    }
}
