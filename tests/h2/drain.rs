//! The end: what runs is answered, what comes later is turned away, and nothing stays.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use crate::frames::{Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, head};
use crate::support::config::to_backend;
use crate::support::free_port;
use crate::support::gateway::{Gateway, local};
use crate::support::upstream::{Upstream, reply};

#[test]
fn a_connection_is_told_to_go_and_its_requests_are_answered() {
    let (answer, waits) = mpsc::channel::<()>();
    let waits = Arc::new(Mutex::new(waits));
    let upstream = Upstream::answering(move |_| {
        let _ = waits.lock().expect("no panic").recv();
        Some(reply(200, &[], "late"))
    });
    let port = free_port();
    let gateway = Gateway::start(&to_backend(port, upstream.address).to_string());
    let mut busy = Client::connect(local(port), &[]);
    busy.send(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "/"));
    upstream.await_requests(1);
    let mut idle = Client::connect(local(port), &[]);
    let ending = std::thread::spawn(move || gateway.terminate());
    assert_eq!(idle.end(), Some(0), "GOAWAY without an error, and the end");
    busy.expect(|frame| frame.kind == GOAWAY && frame.code() == 0);
    answer.send(()).expect("the upstream waits");
    assert!(busy.expect(|frame| frame.kind == HEADERS).is_ok());
    assert_eq!(busy.expect(|frame| frame.kind == DATA).payload, b"late");
    busy.end();
    assert_eq!(ending.join().expect("an end").code, Some(0));
}
