//! HTTP/1.1 as a server sees it: requests are read, replies are written, whole or cut. Knows nothing of registries.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest head of a request.
const HEAD: usize = 64 << 10;
/// The longest body: what tests send is far smaller.
const BODY: u64 = 64 << 20;
/// How long a peer may neither send nor take a byte.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection: plain or TLS. Its reads give up after a short time, so that a server can stop.
pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A request without its body.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path and query as they came; of an absolute URL only these.
    pub(crate) target: String,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
}

/// What a server answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// How a reply is put on the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivery {
    /// Close the connection after so many bytes of the body.
    pub(crate) cut: Option<u64>,
    /// What Content-Length says, whatever the body's length is.
    pub(crate) length: Option<u64>,
    /// Send so many bytes at a time, with a pause between.
    pub(crate) drip: Option<(usize, Duration)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The pairs of the query, decoded.
    pub(crate) fn query(&self) -> Vec<(String, String)> {
        pairs(self.target.split_once('?').map_or("", |(_, query)| query))
    }

    /// The first value of a key in the query.
    pub(crate) fn asks(&self, key: &str) -> Option<String> {
        let mut query = self.query().into_iter();
        query.find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// What Content-Length says.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }
}

/// Decodes `a=b&c=d`, as queries and forms have it.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    };
    text.split('&')
        .filter(|it| !it.is_empty())
        .map(pair)
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&hex, 16).expect("two hex digits after %"));
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).expect("a query in UTF-8")
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.set(name, value.to_string());
        self
    }

    pub(crate) fn json(self, value: &serde_json::Value) -> Self {
        self.text("application/json", value.to_string())
    }

    pub(crate) fn text(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.with("Content-Type", kind)
    }

    /// An error as the distribution spec has it.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let errors = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Self::new(status).json(&errors)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Sets a header in the place of others of its name.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        self.remove(name);
        self.headers.push((name.to_owned(), value));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.headers
            .retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }
}

/// One side of a connection, with what was read too far.
pub(crate) struct Connection<'a> {
    stream: Box<dyn Stream + 'a>,
    buffer: Vec<u8>,
    stop: &'a AtomicBool,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(stream: Box<dyn Stream + 'a>, stop: &'a AtomicBool) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            stop,
        }
    }

    /// Reads some bytes into the buffer; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 64 << 10];
        let begin = Instant::now();
        loop {
            if self.stop.load(Ordering::Relaxed) || begin.elapsed() > PATIENCE {
                return Err(ErrorKind::TimedOut.into());
            }
            match self.stream.read(&mut bytes) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&bytes[..count]);
                    return Ok(count > 0);
                }
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the head of the next request; `None` when the peer closed, or sends no HTTP.
    pub(crate) fn request(&mut self) -> io::Result<Option<Request>> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|it| it == b"\r\n\r\n") {
                break at;
            }
            // As Go's servers answer to TLS.
            if self
                .buffer
                .first()
                .is_some_and(|it| !it.is_ascii_uppercase())
            {
                self.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")?;
                return Ok(None);
            }
            if self.buffer.len() > HEAD || !self.fill()? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let Ok(head) = String::from_utf8(head) else {
            return Ok(None);
        };
        let mut lines = head.split("\r\n");
        let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, "HTTP/1.1"] = words[..] else {
            return Ok(None);
        };
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Ok(Some(Request {
            method: method.to_owned(),
            target: origin_form(target),
            headers: lines.filter_map(pair).collect(),
        }))
    }

    /// Reads the request's body, or `limit` bytes of it; what came before the peer closed.
    pub(crate) fn body(&mut self, request: &Request, limit: u64) -> io::Result<Vec<u8>> {
        let limit = limit.min(BODY);
        if request.header("expect").is_some() && limit > 0 {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = Vec::new();
        if request.header("transfer-encoding").is_none() {
            let length = request.length().unwrap_or(0).min(limit);
            self.take(length, &mut body)?;
            return Ok(body);
        }
        loop {
            let Some(line) = self.line()? else {
                return Ok(body);
            };
            let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let left = limit.saturating_sub(body.len() as u64);
            let whole = self.take(size.min(left), &mut body)?;
            if size > left || !whole {
                return Ok(body);
            }
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Moves bytes into `body`; `false` when the peer closed before.
    fn take(&mut self, length: u64, body: &mut Vec<u8>) -> io::Result<bool> {
        let mut left = usize::try_from(length).map_err(io::Error::other)?;
        while left > 0 {
            if self.buffer.is_empty() && !self.fill()? {
                return Ok(false);
            }
            let count = left.min(self.buffer.len());
            body.extend(self.buffer.drain(..count));
            left -= count;
        }
        Ok(true)
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|it| it == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            if self.buffer.len() > HEAD || !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Writes all bytes, as long as the peer takes them.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut begin = Instant::now();
        while !bytes.is_empty() {
            if self.stop.load(Ordering::Relaxed) || begin.elapsed() > PATIENCE {
                return Err(ErrorKind::TimedOut.into());
            }
            match self.stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    begin = Instant::now();
                }
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.stream.flush()
    }

    /// Writes a reply; returns how many bytes of the body went out, and whether the connection can be used again.
    pub(crate) fn reply(
        &mut self,
        request: &Request,
        reply: &Reply,
        delivery: &Delivery,
    ) -> io::Result<(u64, bool)> {
        let mut head = format!("HTTP/1.1 {} Status\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = delivery.length.unwrap_or(reply.body.len() as u64);
        // A reply to HEAD says the length of what GET would give.
        let has_length = ["Content-Length", "Transfer-Encoding"]
            .iter()
            .any(|name| reply.header(name).is_some());
        if !has_length && reply.status != 204 {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        self.write(format!("{head}\r\n").as_bytes())?;
        if request.method == "HEAD" {
            return Ok((0, delivery.length.is_none()));
        }
        let cut = delivery.cut.map(usize::try_from).transpose();
        let cut = cut.map_err(io::Error::other)?.unwrap_or(usize::MAX);
        let body = &reply.body[..cut.min(reply.body.len())];
        match delivery.drip {
            None => self.write(body)?,
            Some((size, pause)) => {
                for part in body.chunks(size.max(1)) {
                    self.write(part)?;
                    if !wait(pause, self.stop) {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
            }
        }
        let whole = delivery.cut.is_none() && delivery.length.is_none();
        Ok((body.len() as u64, whole))
    }

    /// Waits until the peer closes, or the server stops.
    pub(crate) fn hang(&mut self) {
        while let Ok(true) = self.fill() {
            self.buffer.clear();
        }
    }
}

/// Sleeps; `false` if the server stopped meanwhile.
pub(super) fn wait(time: Duration, stop: &AtomicBool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < time && !stop.load(Ordering::Relaxed) {
        let left = time.saturating_sub(begin.elapsed());
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
    !stop.load(Ordering::Relaxed)
}

/// Requests to a proxy name a whole URL: the path and query of it.
fn origin_form(target: &str) -> String {
    match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
        None => target.to_owned(),
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
