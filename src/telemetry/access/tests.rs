//! Tests of the access log.

use super::super::lines::{LineTarget, LineWriter, Message, OnError};
use super::*;
use std::thread;
use std::time::UNIX_EPOCH;

fn record() -> AccessRecord<'static> {
    AccessRecord {
        start: UNIX_EPOCH + Duration::from_millis(1_700_000_000_042),
        shard: 3,
        remote: Some("[::1]:5000".parse().expect("an address")),
        client: None,
        protocol: "HTTP/2",
        method: "POST",
        path: "/mcp?token=secret",
        host: Some("evil\"\n\u{1b}[0m"),
        status: 200,
        duration: Duration::from_micros(1_234),
        bytes_in: 10,
        bytes_out: u64::MAX,
        listener: Some("main"),
        route: None,
        backend: None,
        mcp_method: Some("tools/call"),
        mcp_target: Some("my target"),
        mcp_tool: None,
        session: Some(0xBEEF),
        fault: None,
    }
}

/// A log whose buffers nobody takes, and the receiving end.
fn log(format: AccessFormat, query: bool, buffers: usize) -> (AccessLog, flume::Receiver<Message>) {
    let (sink, lines) = LineSink::of_nobody(buffers);
    (AccessLog::new(sink, AccessOptions { format, query }, Counter::default()), lines)
}

fn lines(receiver: &flume::Receiver<Message>) -> String {
    let Ok(Message::Lines(bytes)) = receiver.try_recv() else { panic!("no buffer was handed over") };
    String::from_utf8(bytes).expect("lines are UTF-8")
}

#[test]
fn json_lines_parse_and_keep_no_secret() {
    let (mut log, receiver) = log(AccessFormat::Json, false, 1);
    log.record(&record());
    log.record(&AccessRecord { remote: None, session: None, mcp_target: None, ..record() });
    log.flush();
    let text = lines(&receiver);
    assert!(!text.contains("secret"));
    let parsed: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect();
    assert_eq!(parsed.len(), 2);
    let expected = serde_json::json!({
        "time": "2023-11-14T22:13:20.042Z", "shard": 3, "remote": "[::1]:5000", "protocol": "HTTP/2", "method": "POST", "path": "/mcp",
        "host": "evil\"\n\u{1b}[0m", "status": 200, "duration_ms": 1.234, "bytes_in": 10, "bytes_out": u64::MAX,
        "listener": "main", "mcp_method": "tools/call", "mcp_target": "my target", "session": "000000000000beef",
    });
    assert_eq!(parsed[0], expected);
    assert!(parsed[1].get("remote").is_none() && parsed[1].get("session").is_none());
}

#[test]
fn text_lines_are_logfmt() {
    let (mut log, receiver) = log(AccessFormat::Text, true, 1);
    log.record(&record());
    log.flush();
    assert_eq!(
        lines(&receiver),
        "time=2023-11-14T22:13:20.042Z shard=3 remote=[::1]:5000 protocol=HTTP/2 method=POST path=\"/mcp?token=secret\" \
         host=\"evil\\\"\\n\\u001b[0m\" status=200 duration_ms=1.234 bytes_in=10 bytes_out=18446744073709551615 \
         listener=main mcp_method=tools/call mcp_target=\"my target\" session=000000000000beef\n"
    );
}

#[test]
fn a_slow_writer_costs_records_and_never_time() {
    let (mut log, receiver) = log(AccessFormat::Text, false, 1);
    log.flush();
    assert!(receiver.is_empty(), "an empty buffer is not handed over");
    log.record(&record());
    log.flush();
    (0..3).for_each(|_| log.record(&record()));
    log.flush();
    assert_eq!(log.dropped(), 3);
    lines(&receiver);
    log.record(&record());
    log.flush();
    assert_eq!((lines(&receiver).lines().count(), log.dropped()), (1, 3));
}

#[test]
fn a_full_buffer_is_handed_over_at_once() {
    let (mut log, receiver) = log(AccessFormat::Json, false, 4);
    while receiver.is_empty() {
        log.record(&record());
        assert!(log.buffer.len() < BUFFER_BYTES);
    }
    assert!(lines(&receiver).len() >= BUFFER_BYTES);
}

#[test]
fn the_file_is_followed_through_rotation() {
    let folder = std::env::temp_dir().join(format!("agentlane-access-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let (path, old) = (folder.join("access.log"), folder.join("access.log.1"));
    let writer = LineWriter::start(LineTarget::File(path.clone()), "access-log", OnError::Drop).expect("a writer");
    let mut log = AccessLog::new(writer.sink(), AccessOptions::default(), Counter::default());
    log.record(&record());
    log.flush();
    wait_for(|| std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 1));
    std::fs::rename(&path, &old).expect("rotated");
    writer.sink().reopen();
    log.record(&record());
    log.record(&record());
    log.flush();
    wait_for(|| std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 2));
    // A shard may still hold its end when the process goes down.
    log.record(&record());
    log.flush();
    assert!(writer.finish(Duration::from_secs(5)));
    assert_eq!(std::fs::read_to_string(&path).expect("readable").lines().count(), 3);
    assert_eq!(std::fs::read_to_string(&old).expect("readable").lines().count(), 1);
    log.record(&record());
    log.flush();
    assert_eq!(log.dropped(), 1, "after the end records are counted as lost");
    std::fs::remove_dir_all(&folder).expect("removed");
}

fn wait_for(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "waited too long");
        thread::sleep(Duration::from_millis(5));
    }
}
