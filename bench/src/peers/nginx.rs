//! nginx as a plain reverse proxy, one process, connections kept on both sides, passing the same bytes as the others.

use super::{Peer, Scenario, Setting, free_addresses, write_config};
use crate::peers::process::Process;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

pub fn start(program: &Path, setting: &Setting) -> io::Result<Peer> {
    let [plain, call] = free_addresses()?;
    let folder = setting.folder.join("nginx");
    std::fs::create_dir_all(&folder)?;
    let config = write_config(
        &folder,
        "nginx.conf",
        &config(&[(plain, setting.upstreams.plain), (call, setting.upstreams.mcp[0])]),
    )?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&folder).arg("-c").arg(config).stdout(Stdio::null());
    let process = Process::start(&mut command, setting.cpu, &[plain, call])?;
    Ok(Peer::new("nginx", vec![process], &[(Scenario::Plain, plain, 0), (Scenario::Call, call, 0)]))
}

/// Paths are relative to the prefix. The request limits of a kept connection are lifted, else it closes one in a thousand.
fn config(routes: &[(SocketAddr, SocketAddr)]) -> String {
    let mut text = String::from(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr warn;\nevents { worker_connections 16384; }\n\
         http {\n  access_log off;\n  client_max_body_size 0;\n  keepalive_requests 1000000000;\n\
         \x20 client_body_temp_path body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n",
    );
    for (number, (listen, upstream)) in routes.iter().enumerate() {
        let _ = write!(
            text,
            "  upstream u{number} {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n\
             \x20 server {{\n    listen {listen};\n    location / {{\n      proxy_pass http://u{number};\n      proxy_http_version 1.1;\n\
             \x20     proxy_set_header Connection \"\";\n    }}\n  }}\n"
        );
    }
    text + "}\n"
}
