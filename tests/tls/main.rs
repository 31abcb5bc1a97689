//! TLS through the real binary: curl, openssl and rustls against its listeners, TLS servers behind it.

mod listeners;
mod reload;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod upstreams;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What a program said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs a program with this input to its end.
#[track_caller]
fn run(program: &str, args: &[&str], input: &str) -> Said {
    // None of them may outlive its test.
    let mut command = Command::new("timeout");
    command.args(["20", program]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    // A program that does not read its input may have gone already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("a run");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Asks for a URL: the status, and the body behind it. 000: there was no answer.
#[track_caller]
fn curl(args: &[&str]) -> Said {
    let common = ["-sS", "--max-time", "15", "-w", "%{http_code}"];
    run("curl", &[&common, args].concat(), "")
}

/// A bind on 127.0.0.1 with these listeners.
fn bind(port: u16, listeners: Value) -> Value {
    json!({ "binds": [{ "port": port, "address": "127.0.0.1", "listeners": listeners }] })
}

/// A route that answers by itself.
fn says(text: &str) -> Value {
    json!([{ "policies": { "directResponse": { "status": 200, "body": text } } }])
}
