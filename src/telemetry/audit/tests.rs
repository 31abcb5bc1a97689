//! Tests of audit records and of their verification.

use super::super::lines::Message;
use super::verify::{Break, Verifier};
use super::*;
use std::time::UNIX_EPOCH;

fn denial() -> Denial {
    Denial { kind: "forbidden", rule: Some("authorization.rules[1] at agentlane.yaml:12:9".into()) }
}

fn record(denial: Option<&Denial>) -> AuditRecord<'_> {
    AuditRecord {
        denial,
        start: UNIX_EPOCH + Duration::from_millis(1_700_000_000_042),
        remote: Some("[::1]:5000".parse().expect("an address")),
        client: None,
        principal: Some(&[0xAB, 0xCD]),
        claims: &[("iss", Cow::Borrowed("https://issuer")), ("sub", Cow::Borrowed("some\"body\n"))],
        method: "POST",
        path: "/mcp?token=secret",
        host: None,
        listener: Some("main"),
        route: Some("tools"),
        backend: None,
        mcp_method: Some("tools/call"),
        mcp_target: Some("files"),
        mcp_item: Some("read"),
        item_hash: None,
        session: Some(0xBEEF),
        status: 403,
        fault: Some("forbidden"),
        result_bytes: 17,
        duration: Duration::from_micros(1_234),
        config: 3,
    }
}

fn options(chain: Option<Seal>, hold: bool) -> Arc<AuditOptions> {
    let (run, claims) = ("0123".to_owned(), Vec::new());
    Arc::new(AuditOptions { calls: true, claims, chain, hold, run, shards: 1, after: None })
}

fn log(options: Arc<AuditOptions>, buffers: usize) -> (AuditLog, flume::Receiver<Message>) {
    let (sink, lines) = LineSink::of_nobody(buffers);
    (AuditLog::new(sink, options, 0, AuditCells::default()), lines)
}

/// What has been handed over so far.
fn written(receiver: &flume::Receiver<Message>) -> String {
    let mut text = String::new();
    while let Ok(Message::Lines(bytes)) = receiver.try_recv() {
        text.push_str(std::str::from_utf8(&bytes).expect("lines are UTF-8"));
    }
    text
}

/// The number of the first broken line, from 1 on, and what is wrong with it.
fn first_break<'a>(seal: Seal, lines: impl IntoIterator<Item = &'a str>) -> Option<(usize, Break)> {
    let mut verifier = Verifier::new(seal);
    lines.into_iter().enumerate().find_map(|(at, line)| Some((at + 1, verifier.line(line.as_bytes()).err()?)))
}

/// A log of six records: start, three denials, a call, end.
fn whole(chain: Option<Seal>) -> String {
    let (mut log, receiver) = log(options(chain, false), 4);
    let denial = denial();
    (0..3).for_each(|_| log.record(&record(Some(&denial))));
    log.record(&record(None));
    drop(log);
    written(&receiver)
}

#[test]
fn records_say_who_what_and_why() {
    let text = whole(None);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect();
    assert!(!text.contains("secret"));
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["start", "deny", "deny", "deny", "call", "end"]);
    let expected = serde_json::json!({
        "event": "deny", "run": "0123", "shard": 0, "seq": 2, "time": "2023-11-14T22:13:20.042Z", "denied": "forbidden",
        "rule": "authorization.rules[1] at agentlane.yaml:12:9", "remote": "[::1]:5000", "principal": "abcd",
        "claims": {"iss": "https://issuer", "sub": "some\"body\n"}, "method": "POST", "path": "/mcp",
        "listener": "main", "route": "tools", "mcp_method": "tools/call", "mcp_target": "files", "mcp_item": "read",
        "session": "000000000000beef", "status": 403, "fault": "forbidden", "result_bytes": 17, "duration_ms": 1.234,
        "config": 3,
    });
    assert_eq!(lines[1], expected);
}

#[test]
fn what_was_done_to_a_chain_shows() {
    for seal in [Seal::Plain, Seal::keyed(b"a key of thirty-two bytes or not")] {
        let text = whole(Some(seal.clone()));
        let lines: Vec<&str> = text.lines().collect();
        let broken = |lines: &[&str]| first_break(seal.clone(), lines.iter().copied());
        assert_eq!(broken(&lines), None);
        let changed = lines[2].replace("\"status\":403", "\"status\":200");
        assert_eq!(broken(&[lines[0], lines[1], &changed, lines[3]]), Some((3, Break::Changed)));
        assert_eq!(broken(&[lines[0], lines[2]]), Some((2, Break::Removed(2, 2))));
        assert_eq!(broken(&[lines[0], lines[4]]), Some((2, Break::Removed(2, 4))));
        assert_eq!(broken(&[lines[0], lines[1], lines[3], lines[2]]), Some((3, Break::Removed(3, 3))));
        assert_eq!(broken(&[lines[0], lines[1], lines[1]]), Some((3, Break::Moved)));
        assert_eq!(broken(&[lines[0], lines[1], &lines[2][..50]]), Some((3, Break::NotARecord)));
        let unsealed = format!("{}}}", &lines[1][..lines[1].len() - chain::TAIL]);
        assert_eq!(broken(&[lines[0], &unsealed]), Some((2, Break::HashMissing)));
        assert_eq!(broken(&[lines[5], lines[1]]), Some((2, Break::AfterEnd)));
    }
}

#[test]
fn a_record_that_was_made_anew_does_not_fit_the_next() {
    let text = whole(Some(Seal::Plain));
    let lines: Vec<&str> = text.lines().collect();
    let (body, _) = chain::split(lines[2].as_bytes()).expect("a chained line");
    let body = String::from_utf8_lossy(body).replace("\"status\":403", "\"status\":200");
    let forged = format!("{body},\"hash\":\"{}\"}}", Hex(&Seal::Plain.hash(body.as_bytes())));
    let with = |seal| first_break(seal, [lines[0], lines[1], &forged, lines[3]]);
    assert_eq!(with(Seal::Plain), Some((4, Break::BeforeChanged)));
    // Whoever has no key cannot make one that fits.
    assert_eq!(with(Seal::keyed(b"the gateway's")), Some((1, Break::Changed)));
}

#[test]
fn the_next_run_says_what_the_file_ended_in() {
    let text = whole(Some(Seal::Plain));
    let path = std::env::temp_dir().join(format!("agentlane-audit-{}", std::process::id()));
    std::fs::write(&path, &text).expect("written");
    let after = last_line(&path).expect("readable");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(last_line(&path).expect("an absent file is none"), None);
    let next =
        AuditOptions { run: "4567".to_owned(), after, ..Arc::into_inner(options(Some(Seal::Plain), false)).unwrap() };
    let (log, receiver) = log(Arc::new(next), 1);
    drop(log);
    let next = written(&receiver);
    let lines: Vec<&str> = text.lines().collect();
    let broken = |kept: usize| first_break(Seal::Plain, lines[..kept].iter().copied().chain(next.lines()));
    assert_eq!(broken(6), None);
    assert_eq!(broken(5), Some((6, Break::TailRemoved)));
}

#[test]
fn chains_and_their_ends_are_told() {
    let text = whole(Some(Seal::Plain));
    let two = text.lines().next().expect("a line").replace("\"shards\":1", "\"shards\":2");
    let mut verifier = Verifier::new(Seal::Plain);
    text.lines().for_each(|line| verifier.line(line.as_bytes()).expect("whole"));
    assert!(verifier.missing().is_empty());
    let chain = ("0123".to_owned(), 0);
    let summary = &verifier.chains()[&chain];
    assert_eq!((summary.first, summary.last, summary.records, summary.ended), (1, 6, 6, true));
    let mut verifier = Verifier::new(Seal::Plain);
    let (body, _) = chain::split(two.as_bytes()).expect("a chained line");
    let two = format!("{},\"hash\":\"{}\"}}", String::from_utf8_lossy(body), Hex(&Seal::Plain.hash(body)));
    verifier.line(two.as_bytes()).expect("whole");
    assert_eq!(verifier.missing(), [("0123".to_owned(), 1)]);
}

#[test]
fn a_slow_writer_costs_records_and_the_chain_says_so() {
    let (mut log, receiver) = log(options(Some(Seal::Plain), false), 1);
    let denial = denial();
    let mut say = |times: usize| {
        (0..times).for_each(|_| log.record(&record(Some(&denial))));
        log.flush();
    };
    say(1);
    say(3);
    say(2);
    let mut text = written(&receiver);
    say(1);
    text += &written(&receiver);
    assert!(!log.is_behind());
    assert_eq!((log.cells.lost.value(), log.cells.written.value()), (6, 4));
    let head = **log.cells.head.load();
    drop(log);
    text += &written(&receiver);
    assert!(text.contains(r#""event":"gap","run":"0123","shard":0,"seq":9"#), "{text}");
    let mut verifier = Verifier::new(Seal::Plain);
    text.lines().for_each(|line| verifier.line(line.as_bytes()).expect("a gap that was told is none"));
    let summary = &verifier.chains()[&("0123".to_owned(), 0)];
    assert_eq!((summary.records, summary.lost, summary.last, head.seq), (5, 6, 11, 10));
}

#[test]
fn what_may_not_be_lost_is_held() {
    let (mut log, receiver) = log(options(None, true), 1);
    let denial = denial();
    log.record(&record(Some(&denial)));
    log.flush();
    log.record(&record(Some(&denial)));
    log.flush();
    assert!(log.is_behind());
    log.record(&record(Some(&denial)));
    let mut text = written(&receiver);
    log.flush();
    assert!(!log.is_behind());
    text += &written(&receiver);
    drop(log);
    text += &written(&receiver);
    assert_eq!(text.lines().count(), 5);
    assert_eq!(first_break(Seal::Plain, text.lines()), None);
}
