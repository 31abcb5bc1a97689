//! The `notes` server over standard input and output: one message a line. Knows nothing of notes.

use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use serde_json::Value;

use super::MESSAGE_BYTES_MAX;
use super::notes::Notes;
use super::server::{Server, id_less_error};

/// Serves until standard input ends. Success when it did, or when the reader of standard output has gone away.
pub fn run() -> ExitCode {
    match serve(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Nothing that this server offers waits for time, so that reading may block.
fn serve(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut server = Server::new(Notes::new());
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = input.by_ref().take(MESSAGE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        if length > MESSAGE_BYTES_MAX && !line.ends_with(b"\n") {
            input.skip_until(b'\n')?;
            write(&mut output, &id_less_error(-32600, "the message is too long"))?;
        } else if !line.trim_ascii().is_empty() {
            match serde_json::from_slice(&line) {
                Ok(message) => {
                    let replies = server.handle(message, Instant::now());
                    replies.iter().try_for_each(|reply| write(&mut output, &reply.message))?;
                }
                Err(_) => write(&mut output, &id_less_error(-32700, "not JSON"))?,
            }
        }
        output.flush()?;
    }
}

fn write(output: &mut impl Write, message: &Value) -> io::Result<()> {
    serde_json::to_writer(&mut *output, message)?;
    output.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn exchange(input: &[u8]) -> Vec<Value> {
        let mut output = Vec::new();
        serve(input, &mut output).expect("served");
        output
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect()
    }

    #[test]
    fn a_session() {
        let replies = exchange(
            br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}

{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"add_note","arguments":{"text":"milk"}}}
{"jsonrpc":"2.0","id":2,"method":"ping"}"#,
        );
        assert_eq!(replies.len(), 4, "{replies:?}");
        assert_eq!(replies[0]["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(replies[1], json!({ "jsonrpc": "2.0", "method": "notifications/resources/list_changed" }));
        assert_eq!(replies[2]["id"], "a");
        assert_eq!(replies[3], json!({ "jsonrpc": "2.0", "id": 2, "result": {} }));
    }

    #[test]
    fn bad_lines_are_answered_and_passed_over() {
        let mut input = b"nonsense\n".to_vec();
        input.extend(std::iter::repeat_n(b'x', MESSAGE_BYTES_MAX + 10));
        input.extend(b"\n[]\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n");
        let replies = exchange(&input);
        let codes: Vec<_> = replies.iter().map(|reply| reply["error"]["code"].as_i64()).collect();
        assert_eq!(codes, [Some(-32700), Some(-32600), Some(-32600), None]);
        assert!(replies[0].get("id").is_none());
        assert_eq!(replies[3]["id"], 1);
    }
}
