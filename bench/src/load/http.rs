//! Plain HTTP work: the same POST again and again.

use super::{Failure, Work};
use crate::message::Message;
use crate::upstream::plain;
use std::net::SocketAddr;

/// One JSON POST; right is status 200 with a body of the length expected.
pub struct Plain {
    request: Vec<u8>,
    /// 0: any length is right.
    answer_bytes: usize,
}

impl Plain {
    /// `request_bytes` and `answer_bytes` are lengths of bodies.
    pub fn new(host: SocketAddr, path: &str, request_bytes: usize, answer_bytes: usize) -> Plain {
        let body = plain::body(request_bytes);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Plain { request: (head + &body).into_bytes(), answer_bytes }
    }
}

impl Work for Plain {
    fn request(&mut self, _lane: usize) -> &[u8] {
        &self.request
    }

    fn check(&mut self, _lane: usize, answer: &Message, bytes: &[u8]) -> Result<(), Failure> {
        if answer.status() != 200 {
            return Err(Failure::Status);
        }
        let body = answer.body(bytes, &mut Vec::new()).len();
        if self.answer_bytes == 0 || body == self.answer_bytes { Ok(()) } else { Err(Failure::Content) }
    }
}
