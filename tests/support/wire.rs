//! One end of an HTTP/1.1 connection on blocking sockets: bytes out as the test writes them, messages in, read strictly.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A connection and what was read of it but not looked at yet.
pub struct Peer {
    stream: TcpStream,
    ahead: Vec<u8>,
}

/// A message's first line and headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub start_line: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
}

/// One Server-Sent Event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub data: Option<String>,
    pub retry: Option<u64>,
    /// The event's type, where it has one.
    pub name: Option<String>,
}

impl Head {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn method(&self) -> &str {
        self.start_line.split(' ').next().unwrap_or_default()
    }

    /// The request target.
    pub fn target(&self) -> &str {
        self.start_line.split(' ').nth(1).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        assert!(self.start_line.starts_with("HTTP/1.1 "), "no status line: {}", self.start_line);
        self.start_line[9..12].parse().expect("a status")
    }

    pub fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    pub fn length(&self) -> Option<usize> {
        self.get("content-length").map(|length| length.parse().expect("a length"))
    }
}

impl Response {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Peer { stream, ahead: Vec::new() }
    }

    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Peer::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, PATIENCE).map(Peer::new)
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout");
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes the bytes");
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Ends this direction.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection at once (RST).
    pub fn reset(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let size = libc::socklen_t::try_from(size_of::<libc::linger>()).expect("a small struct");
        // SAFETY: the descriptor is open, and the option's value is a `linger` of the size given.
        let outcome = unsafe {
            libc::setsockopt(
                self.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size,
            )
        };
        assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
    }

    /// One request with a length, and its answer.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
        self.send(request(method, target, headers, body.as_ref()));
        self.response(method)
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.ask("GET", target, &[], "")
    }

    /// Reads an answer to its end; interim ones are skipped.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Response {
        let head = self.head().expect("an answer");
        let status = head.status();
        if (100..200).contains(&status) {
            return self.response(method);
        }
        let bodiless = method == "HEAD" || status == 204 || status == 304;
        let body = if bodiless { Vec::new() } else { self.body(&head, true) };
        Response { status, head, body }
    }

    /// The next message's head; `None` when the peer closed before it began.
    #[track_caller]
    pub fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                break end;
            }
            match self.fill() {
                Ok(0) if self.ahead.is_empty() => return None,
                Ok(0) => panic!("closed within a head: {:?}", String::from_utf8_lossy(&self.ahead)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && self.ahead.is_empty() => return None,
                Err(error) => panic!("no head: {error}"),
            }
        };
        let text = String::from_utf8(self.ahead.drain(..end + 4).collect()).expect("a head in ASCII");
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(|line| line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}")));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Some(Head { start_line, headers })
    }

    /// The whole body of a message. `to_close`: one without a length goes to the end of the connection.
    #[track_caller]
    pub fn body(&mut self, head: &Head, to_close: bool) -> Vec<u8> {
        let mut body = Vec::new();
        if head.is_chunked() {
            assert_eq!(head.length(), None, "two framings: {head:?}");
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
        } else if let Some(length) = head.length() {
            body = self.take(length);
        } else if to_close {
            while !matches!(self.fill(), Ok(0) | Err(_)) {}
            body = std::mem::take(&mut self.ahead);
        }
        body
    }

    /// The next chunk of a chunked body; `None` at its end, trailers read.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        self.try_chunk().unwrap_or_else(|error| panic!("a broken body: {error}"))
    }

    /// The same for a body that may break.
    pub fn try_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| io::Error::other(format!("chunk size {line:?}")))?;
        if size == 0 {
            while !self.line()?.is_empty() {}
            return Ok(None);
        }
        let chunk = self.try_take(size)?;
        match self.line()?.is_empty() {
            true => Ok(Some(chunk)),
            false => Err(io::Error::other("a chunk without its end")),
        }
    }

    /// The next event of a chunked event stream, comments skipped; `None` at the stream's end. `text` holds what was
    /// read of it.
    pub fn event(&mut self, text: &mut String) -> io::Result<Option<Event>> {
        // Comments keep the connection busy; they are no progress.
        let deadline = Instant::now() + PATIENCE;
        loop {
            if Instant::now() > deadline {
                return Err(io::Error::other("only comments come"));
            }
            if let Some(end) = text.find("\n\n") {
                let block: String = text.drain(..end + 2).collect();
                match parse_event(&block) {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            match self.try_chunk()? {
                Some(chunk) => text.push_str(&String::from_utf8_lossy(&chunk)),
                None => return Ok(None),
            }
        }
    }

    /// So many bytes.
    #[track_caller]
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        self.try_take(length).unwrap_or_else(|error| panic!("{length} bytes expected: {error}"))
    }

    pub fn try_take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < length {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..length).collect())
    }

    /// Reads what is left until the peer closes; `None` when it does not.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(0) => return Some(std::mem::take(&mut self.ahead)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Some(std::mem::take(&mut self.ahead));
                }
                Err(_) => return None,
            }
        }
    }

    /// Waits for the peer to close, and says whether it did without another byte.
    pub fn closes(&mut self) -> bool {
        self.rest().is_some_and(|rest| rest.is_empty())
    }

    /// Whether nothing is there to read, and the connection is open.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a mode");
        let outcome = self.fill();
        self.stream.set_nonblocking(false).expect("a mode");
        self.ahead.is_empty() && outcome.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
                self.ahead.drain(..end + 2);
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let length = self.stream.read(&mut chunk)?;
        self.ahead.extend_from_slice(&chunk[..length]);
        Ok(length)
    }
}

/// A request with a length, for `localhost` unless `headers` say otherwise.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        out.push_str("host: localhost\r\n");
    }
    headers.iter().for_each(|(name, value)| out.push_str(&format!("{name}: {value}\r\n")));
    if !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method) {
        out.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out
}

/// All events of a finished stream.
pub fn events(text: &str) -> Vec<Event> {
    text.split("\n\n").filter_map(parse_event).collect()
}

fn parse_event(block: &str) -> Option<Event> {
    let mut event = Event::default();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => event.name = Some(value.to_owned()),
            "retry" => event.retry = value.parse().ok(),
            "data" => match &mut event.data {
                Some(data) => *data = format!("{data}\n{value}"),
                None => event.data = Some(value.to_owned()),
            },
            _ => {}
        }
    }
    (event != Event::default()).then_some(event)
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
