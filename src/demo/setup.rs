//! The configuration of `agentlane run --demo`, and what it says to whoever started it.

use std::io;
use std::net::TcpListener;

/// Where the demo is served.
const PORT: u16 = 3000;

/// A demo about to run: the text server's socket is bound, so that the configuration can name it.
pub struct Demo {
    /// The configuration, as a user would write it.
    pub document: String,
    /// For the text server; control takes it.
    pub listener: Option<TcpListener>,
}

/// Makes the demo's configuration: one server as a child of this very program, one over HTTP inside it.
pub fn config() -> io::Result<Demo> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let text_port = listener.local_addr()?.port();
    let program = std::env::current_exe()?;
    let program = serde_json::to_string(&program.to_string_lossy()).map_err(io::Error::other)?;
    let document = format!(
        r#"binds:
- port: {PORT}
  address: 127.0.0.1
  listeners:
  - routes:
    - matches: [{{path: {{pathPrefix: /mcp}}}}]
      policies:
        cors:
          allowOrigins: ["*"]
          allowMethods: [GET, POST, DELETE, OPTIONS]
          allowHeaders: ["*"]
          exposeHeaders: [Mcp-Session-Id]
      backends:
      - mcp:
          targets:
          - name: notes
            stdio: {{cmd: {program}, args: [demo-notes]}}
          - name: text
            mcp: {{host: "http://127.0.0.1:{text_port}/mcp"}}
"#
    );
    Ok(Demo { document, listener: Some(listener) })
}

impl Demo {
    /// How to connect.
    pub fn introduce(&self) {
        let url = format!("http://127.0.0.1:{PORT}/mcp");
        println!(
            r#"
agentlane serves two MCP servers as one at

    {url}

  notes   a child process over stdio: notes__add_note, notes__list_notes, notes__search_notes, ...
  text    over HTTP: text__word_count, text__slow_count, text__ask_name, text__sample_summary, ...

MCP Inspector:    npx @modelcontextprotocol/inspector
                  then transport "Streamable HTTP", URL {url}
Claude Desktop:   in claude_desktop_config.json
                  {{"mcpServers": {{"agentlane": {{"command": "npx", "args": ["mcp-remote", "{url}"]}}}}}}
Python SDK:       from mcp.client.streamable_http import streamable_http_client
                  async with streamable_http_client("{url}") as (read, write, *_): ...

Ctrl-C ends it.
"#
        );
    }
}
