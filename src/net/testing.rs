//! A server of the tests on loopback that answers as a closure says, and keeps what it was asked. Knows nothing of
//! registries or indexes. Compiled for tests alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Ended, Limits, Monitor, Transfer};

/// What the server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Method and path, as `GET /v2/`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What the server answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    cut: Option<usize>,
    /// Nothing more is said for so long.
    silence: Duration,
}

impl Told {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub(crate) fn silent(mut self, time: Duration) -> Self {
        self.silence = time;
        self
    }
}

/// The server. It ends with the value.
pub(crate) struct Server {
    /// Host and port.
    pub(crate) name: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server. The closure gets the requests so far, without the present one, and the present one.
    pub(crate) fn start(answer: impl Fn(&[Asked], &Asked) -> Told + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let answer = Arc::new(answer);
        let (all, over) = (Arc::clone(&asked), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let (all, answer, over) =
                    (Arc::clone(&all), Arc::clone(&answer), Arc::clone(&over));
                // A connection ends when the client goes, at the latest by its own time limit.
                thread::spawn(move || {
                    let _ = serve(stream.unwrap(), &all, &*answer, &over);
                });
            }
        });
        Self {
            name,
            asked,
            is_over,
            thread: Some(thread),
        }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns methods and paths of all requests.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.name);
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(
    stream: TcpStream,
    all: &Mutex<Vec<Asked>>,
    answer: &(dyn Fn(&[Asked], &Asked) -> Told + Send + Sync),
    over: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while !over.load(Ordering::Relaxed) {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let mut asked = Asked {
            method: words.next().unwrap_or_default().to_owned(),
            path: words.next().unwrap_or_default().to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            let name = name.trim().to_ascii_lowercase();
            asked.headers.push((name, value.trim().to_owned()));
        }
        let size = asked
            .header("content-length")
            .map_or(0, |it| it.parse().unwrap());
        (&mut reader).take(size).read_to_end(&mut asked.body)?;
        let told = {
            let mut all = all.lock().unwrap();
            let told = answer(&all, &asked);
            all.push(asked.clone());
            told
        };
        let mut head = format!("HTTP/1.1 {} x\r\n", told.status);
        for (name, value) in &told.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !told
            .headers
            .iter()
            .any(|(name, _)| matches!(name.as_str(), "content-length" | "transfer-encoding"))
        {
            head.push_str(&format!("content-length: {}\r\n", told.body.len()));
        }
        head.push_str("\r\n");
        writer.write_all(head.as_bytes())?;
        if asked.method != "HEAD" {
            let end = told.cut.unwrap_or(told.body.len());
            writer.write_all(&told.body[..end])?;
        }
        writer.flush()?;
        if !told.silence.is_zero() {
            thread::sleep(told.silence);
        }
        if told.cut.is_some() || !told.silence.is_zero() {
            return Ok(());
        }
    }
    Ok(())
}

/// Keeps what a client tells.
#[derive(Default)]
pub(crate) struct Ear {
    pub(crate) notes: Mutex<Vec<String>>,
    pub(crate) is_stopped: AtomicBool,
}

impl Monitor for Ear {
    fn start(&self, _: &Transfer<'_>) -> u64 {
        0
    }

    fn more(&self, _: u64, _: u64) {}

    fn end(&self, _: u64, _: Ended) {}

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// Returns limits that let tests wait little.
pub(crate) fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        idle: Duration::from_millis(500),
        tries: 3,
        backoff: Duration::from_millis(1),
        retry_after: Duration::from_millis(20),
        total: Duration::from_secs(5),
    }
}
