//! An MCP server over stdio as plain as can be: a shell script. What a tool does is in its name.

use serde_json::{Value, json};

/// One case for each message. `pid` says the process id; `hang` stops reading for ever; `long` answers after it was pinged
/// three times; `stderr` writes a line to standard error; `hog` takes memory until it dies; `nets` counts the network
/// interfaces. `PING=refuse` makes pings an error, `RESOURCES` is what it lists.
const SCRIPT: &str = r#"
say() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }
text() { say "\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"$1\"}]}"; }
long=
while IFS= read -r line; do
  id=${line#*'"id":'}
  id=${id%%[,\}]*}
  case $line in
  *'"method":"initialize"'*)
    offers='{"tools":{},"resources":{"subscribe":true}}'
    say "\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":$offers,\"serverInfo\":{\"name\":\"sh\",\"version\":\"1\"}}" ;;
  *'"method":"ping"'*)
    if [ "$PING" = refuse ]; then
      say '"error":{"code":-32601,"message":"method not found"}'
    else
      say '"result":{}'
    fi
    pings=$((pings + 1))
    if [ -n "$long" ] && [ "$pings" -ge 3 ]; then id=$long; long=; text "after $pings pings"; fi ;;
  *'"method":"tools/list"'*) say '"result":{"tools":[{"name":"pid","inputSchema":{"type":"object"}}]}' ;;
  *'"method":"resources/list"'*) say "\"result\":{\"resources\":[$RESOURCES]}" ;;
  *'"name":"pid"'*) text $$ ;;
  *'"name":"hang"'*) exec sleep 1000 ;;
  *'"name":"long"'*) long=$id; pings=0 ;;
  *'"name":"stderr"'*) echo 'working hard' >&2; text done ;;
  *'"name":"hog"'*) x=0123456789abcdef; while :; do x=$x$x; done ;;
  *'"name":"nets"'*) text "$(grep -c : /proc/net/dev)" ;;
  *'"method":"notifications/'*) ;;
  *) say '"result":{}' ;;
  esac
done
"#;

/// The server as a target, with these keys beside its command.
pub fn target(name: &str, stdio: Value) -> Value {
    // The configuration expands variables.
    let mut all = json!({ "cmd": "sh", "args": ["-c", SCRIPT.replace('$', "$$")] });
    let (Some(all_keys), Value::Object(keys)) = (all.as_object_mut(), stdio) else { panic!("not an object") };
    all_keys.extend(keys);
    json!({ "name": name, "stdio": all })
}
