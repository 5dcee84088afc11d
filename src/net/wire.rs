//! One exchange with one host: connections, proxies, time limits, stopping. No retry, no redirect, no credentials.
//!
//! With io_thread.rs and dns.rs, the one place that knows tokio. A thread of its own drives the connections; whoever
//! calls waits for them in short steps, so that every wait ends when the user stops. Knows no protocol above HTTP.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder, Method, Request, Response, StatusCode, Url};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::dns::CachedDns;
use super::fault::Fault;
use super::io_thread::IoThread;
use super::low_speed::LowSpeed;
use super::monitor::Monitor;
use super::tls::Trust;
use super::{Limits, Proxies};

/// How often a wait looks whether the user stopped.
const TICK: Duration = Duration::from_millis(100);
/// How much of a stream is read at once, in bytes.
const PIECE: usize = 256 << 10;
/// For how large a body room is made at once, in bytes: what a header says is no promise.
const AHEAD: u64 = 64 << 20;
/// How fast a host is expected to put away what it was sent, in bytes for each second: it may hash and move a large
/// blob before it answers, and moves no byte meanwhile.
const DIGESTION: u64 = 16 << 20;

/// What makes exchanges. Opens nothing before the first.
pub(crate) struct Wire {
    io_thread: OnceLock<IoThread>,
    clients: Mutex<BTreeMap<Trust, Client>>,
    names: CachedDns,
    proxies: Proxies,
    /// The socket of this machine that all connections go to, whatever their URL says.
    socket: Option<PathBuf>,
    /// Whether hosts are offered HTTP/2.
    is_many: bool,
    pub(super) limits: Limits,
    pub(super) monitor: Arc<dyn Monitor>,
}

/// A request.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body<'a>,
    pub(crate) trust: &'a Trust,
}

/// What a request carries.
pub(crate) enum Body<'a> {
    /// Nothing.
    None,
    /// A few bytes.
    Bytes(&'a [u8]),
    /// As many bytes of a reader as are said; whoever hears of them has the number.
    Stream {
        reader: &'a mut dyn Read,
        size: u64,
        transfer: u64,
    },
}

/// An answer, whose body is still to be read.
pub(crate) struct Answer<'a> {
    wire: &'a Wire,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    response: Response,
    speed: LowSpeed,
}

impl Wire {
    pub(crate) fn new(proxies: Proxies, limits: Limits, monitor: Arc<dyn Monitor>) -> Self {
        Self {
            io_thread: OnceLock::new(),
            clients: Mutex::default(),
            names: CachedDns::default(),
            proxies,
            socket: None,
            is_many: false,
            limits,
            monitor,
        }
    }

    /// What makes many small exchanges with one host at a time: over one connection, where the host speaks HTTP/2. For a few
    /// large ones several connections are better, since each has its own window.
    pub(crate) fn for_many(proxies: Proxies, limits: Limits, monitor: Arc<dyn Monitor>) -> Self {
        Self {
            is_many: true,
            ..Self::new(proxies, limits, monitor)
        }
    }

    /// What makes exchanges with a daemon of this machine, over its socket.
    pub(crate) fn local(socket: PathBuf, limits: Limits, monitor: Arc<dyn Monitor>) -> Self {
        Self {
            socket: Some(socket),
            ..Self::new(Proxies::default(), limits, monitor)
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) fn exchange(&self, call: Call<'_>) -> Result<Answer<'_>, Fault> {
        let client = self.client(call.trust)?;
        let mut request = Request::new(call.method, call.url);
        *request.headers_mut() = call.headers;
        let response = match call.body {
            Body::None => self.send(client, request, 0)?,
            Body::Bytes(bytes) => {
                length(&mut request, bytes.len() as u64);
                *request.body_mut() = Some(bytes.to_vec().into());
                self.send(client, request, bytes.len() as u64)?
            }
            Body::Stream {
                reader,
                size,
                transfer,
            } => self.stream(client, request, reader, size, transfer)?,
        };
        Ok(Answer {
            wire: self,
            status: response.status(),
            headers: response.headers().clone(),
            response,
            speed: LowSpeed::default(),
        })
    }

    /// Waits.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), Fault> {
        let end = Instant::now() + time;
        loop {
            if self.monitor.is_stopped() {
                return Err(Fault::Stopped);
            }
            match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => std::thread::sleep(left.min(TICK)),
            }
        }
    }

    fn send(&self, client: Client, request: Request, size: u64) -> Result<Response, Fault> {
        self.wait(
            self.patience(size),
            async move { client.execute(request).await },
        )?
        .map_err(|error| Fault::of(&error, self.limits.connect))
    }

    /// Sends a request with a long body: reads here, on the caller's thread, as fast as the connection takes it.
    fn stream(
        &self,
        client: Client,
        mut request: Request,
        reader: &mut dyn Read,
        size: u64,
        transfer: u64,
    ) -> Result<Response, Fault> {
        let (sender, receiver) = mpsc::channel::<io::Result<Vec<u8>>>(1);
        length(&mut request, size);
        *request.body_mut() = Some(reqwest::Body::wrap_stream(Chunks(receiver)));
        let io_thread = self.io_thread()?;
        let mut response = Box::pin(async move { client.execute(request).await });
        let mut left = size;
        let mut last = Instant::now();
        while left > 0 {
            let turn = first(response.as_mut(), sender.reserve());
            match io_thread
                .handle
                .block_on(async { timeout(TICK, turn).await })
            {
                // An answer before the end is a refusal.
                Ok(Turn::First(done)) => {
                    return done.map_err(|error| Fault::of(&error, self.limits.connect));
                }
                Ok(Turn::Second(Ok(room))) => {
                    let piece = match piece(reader, left) {
                        Ok(piece) => piece,
                        Err(error) => return Err(Fault::Local(Arc::new(error))),
                    };
                    last = Instant::now();
                    left -= piece.len() as u64;
                    self.monitor.more(transfer, piece.len() as u64);
                    room.send(Ok(piece));
                }
                // Nobody takes the rest: the answer, or the failure, is on its way.
                Ok(Turn::Second(Err(_))) => left = 0,
                Err(_) if last.elapsed() >= self.limits.idle => {
                    return Err(Fault::Idle(self.limits.idle));
                }
                Err(_) => {}
            }
            if self.monitor.is_stopped() {
                return Err(Fault::Stopped);
            }
        }
        drop(sender);
        self.wait(self.patience(size), response)?
            .map_err(|error| Fault::of(&error, self.limits.connect))
    }

    /// Returns how long an answer to so many bytes may take.
    fn patience(&self, size: u64) -> Duration {
        self.limits.idle + Duration::from_secs(size / DIGESTION)
    }

    /// Waits until something is there, or `idle` is over, or the user stops.
    fn wait<T>(&self, idle: Duration, future: impl Future<Output = T>) -> Result<T, Fault> {
        let io_thread = self.io_thread()?;
        let start = Instant::now();
        io_thread.handle.block_on(async {
            let mut future = pin!(future);
            loop {
                if self.monitor.is_stopped() {
                    return Err(Fault::Stopped);
                }
                let left = idle.saturating_sub(start.elapsed());
                match timeout(left.min(TICK), future.as_mut()).await {
                    Ok(done) => return Ok(done),
                    Err(_) if start.elapsed() >= idle => return Err(Fault::Idle(idle)),
                    Err(_) => {}
                }
            }
        })
    }

    fn io_thread(&self) -> Result<&IoThread, Fault> {
        if let Some(io_thread) = self.io_thread.get() {
            return Ok(io_thread);
        }
        let io_thread = IoThread::start().map_err(|error| Fault::Local(Arc::new(error)))?;
        Ok(self.io_thread.get_or_init(|| io_thread))
    }

    fn client(&self, trust: &Trust) -> Result<Client, Fault> {
        let mut clients = self
            .clients
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        if let Some(client) = clients.get(trust) {
            return Ok(client.clone());
        }
        let mut tls = trust.tls().map_err(Fault::Setup)?;
        if self.is_many {
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("imgdecl/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(self.limits.connect)
            .dns_resolver(self.names.clone())
            .no_proxy();
        for proxy in self.proxies.make()? {
            builder = builder.proxy(proxy);
        }
        if let Some(socket) = &self.socket {
            builder = to_socket(builder, socket)?;
        }
        let client = builder
            .build()
            .map_err(|error| Fault::Setup(Fault::of(&error, self.limits.connect).to_string()))?;
        clients.insert(trust.clone(), client.clone());
        Ok(client)
    }
}

impl Answer<'_> {
    /// Returns the next bytes of the body; `None` at its end.
    pub(crate) fn chunk(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let (wire, start) = (self.wire, Instant::now());
        let chunk = wire
            .wait(wire.limits.idle, self.response.chunk())?
            .map_err(|error| Fault::of(&error, wire.limits.connect))?;
        if let Some(bytes) = &chunk {
            self.speed
                .count(start.elapsed(), bytes.len(), wire.limits.idle)?;
        }
        Ok(chunk.map(Into::into))
    }

    /// Reads of the body what comes, up to `limit` bytes: less after a cut.
    pub(crate) fn read_some(&mut self, limit: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < limit
            && let Ok(Some(more)) = self.chunk()
        {
            bytes.extend_from_slice(&more);
        }
        bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        bytes
    }

    /// Reads the body up to `limit` bytes; one more byte says that it is longer.
    pub(crate) fn read(&mut self, limit: u64) -> Result<Vec<u8>, Fault> {
        // Not by doubling: of a large body half would be for nothing.
        let said = self.headers.get(CONTENT_LENGTH);
        let said = said.and_then(|it| it.to_str().ok()?.trim().parse::<u64>().ok());
        let said = said.filter(|it| *it <= limit.min(AHEAD));
        let mut bytes = Vec::with_capacity(said.map_or(0, |it| it as usize));
        while bytes.len() as u64 <= limit {
            match self.chunk()? {
                Some(more) => bytes.extend_from_slice(&more),
                None => return Ok(bytes),
            }
        }
        bytes.truncate(usize::try_from(limit + 1).unwrap_or(usize::MAX));
        Ok(bytes)
    }
}

/// Lets all connections go to a socket of this machine.
#[cfg(unix)]
fn to_socket(builder: ClientBuilder, socket: &Path) -> Result<ClientBuilder, Fault> {
    Ok(builder.unix_socket(socket))
}

#[cfg(not(unix))]
fn to_socket(_: ClientBuilder, _: &Path) -> Result<ClientBuilder, Fault> {
    Err(Fault::Setup("this system has no such sockets".to_owned()))
}

fn length(request: &mut Request, size: u64) {
    request
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(size));
}

/// Reads the next piece of a body that has `left` bytes to come.
fn piece(reader: &mut dyn Read, left: u64) -> io::Result<Vec<u8>> {
    let size = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
    let mut piece = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match reader.read(&mut piece[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(piece)
}

/// The body of a request, as it comes through a channel.
struct Chunks(mpsc::Receiver<io::Result<Vec<u8>>>);

impl futures_core::Stream for Chunks {
    type Item = io::Result<Vec<u8>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

enum Turn<A, B> {
    First(A),
    Second(B),
}

/// Waits for either of two futures.
async fn first<A: Future, B: Future>(mut a: Pin<&mut A>, b: B) -> Turn<A::Output, B::Output> {
    let mut b = pin!(b);
    poll_fn(|context| {
        if let Poll::Ready(done) = a.as_mut().poll(context) {
            return Poll::Ready(Turn::First(done));
        }
        b.as_mut().poll(context).map(Turn::Second)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::atomic::Ordering;

    use super::super::testing::{Ear, Server, Told};
    use super::*;

    fn wire(proxies: Proxies, idle: u64) -> (Wire, Arc<Ear>) {
        let ear = Arc::new(Ear::default());
        let limits = Limits {
            idle: Duration::from_millis(idle),
            ..Limits::default()
        };
        let monitor = Arc::clone(&ear) as Arc<dyn Monitor>;
        (Wire::new(proxies, limits, monitor), ear)
    }

    fn get(wire: &Wire, url: &str) -> Result<u16, Fault> {
        let call = Call {
            method: Method::GET,
            url: url.parse().unwrap(),
            headers: HeaderMap::new(),
            body: Body::None,
            trust: &Trust::default(),
        };
        wire.exchange(call).map(|answer| answer.status.as_u16())
    }

    #[test]
    fn faults_are_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let (wire, _) = wire(Proxies::default(), 300);
        let fault = |url: &str| get(&wire, url).unwrap_err();
        assert!(matches!(fault(&format!("http://{free}/")), Fault::Refused));
        assert!(matches!(fault("http://nowhere.invalid/"), Fault::Name));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            for bytes in [
                &b"SSH-2.0-x\r\n"[..],
                b"",
                b"HTTP/1.1 200 x\r\n",
                b"HTTP/1.1 400 x\r\n\r\n",
            ] {
                let mut stream = listener.accept().unwrap().0;
                let _ = stream.read(&mut [0; 4096]);
                stream.write_all(bytes).unwrap();
            }
        });
        let url = format!("http://{name}/");
        assert!(matches!(fault(&url), Fault::NotHttp));
        assert!(matches!(fault(&url), Fault::Cut));
        assert!(matches!(fault(&url), Fault::Cut));
        let tls = fault(&format!("https://{name}/"));
        assert!(
            matches!(tls, Fault::Tls(super::super::Tls::Unspoken)),
            "{tls:?}"
        );
        thread.join().unwrap();
    }

    #[test]
    fn silence_and_the_user_end_every_wait() {
        let server = Server::start(|_, asked| match asked.path.as_str() {
            "/slow" => {
                std::thread::sleep(Duration::from_secs(2));
                Told::new(200)
            }
            _ => Told::new(200),
        });
        let url = format!("http://{}/slow", server.name);
        let (idle, _) = wire(Proxies::default(), 200);
        assert!(matches!(get(&idle, &url), Err(Fault::Idle(_))));
        let (patient, ear) = wire(Proxies::default(), 60_000);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                ear.is_stopped.store(true, Ordering::Relaxed);
            });
            let start = Instant::now();
            assert!(matches!(get(&patient, &url), Err(Fault::Stopped)));
            assert!(start.elapsed() < Duration::from_secs(1));
        });
        let start = Instant::now();
        assert!(matches!(
            patient.pause(Duration::from_secs(9)),
            Err(Fault::Stopped)
        ));
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn an_answer_before_the_end_of_a_body_counts() {
        // It reads the head and answers; the body never comes through.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 4096]);
            stream
                .write_all(b"HTTP/1.1 413 x\r\ncontent-length: 0\r\n\r\n")
                .unwrap();
            // Open until the client had time to read the answer.
            std::thread::sleep(Duration::from_millis(500));
        });
        let (wire, _) = wire(Proxies::default(), 5_000);
        let answer = wire.exchange(Call {
            method: Method::PUT,
            url: format!("http://{name}/").parse().unwrap(),
            headers: HeaderMap::new(),
            body: Body::Stream {
                reader: &mut io::repeat(7),
                size: 1 << 30,
                transfer: 0,
            },
            trust: &Trust::default(),
        });
        assert_eq!(answer.unwrap().status, 413);
        thread.join().unwrap();
    }

    #[test]
    fn a_body_that_is_too_short_is_an_error_of_ours() {
        let server = Server::start(|_, _| Told::new(201));
        let (wire, _) = wire(Proxies::default(), 5_000);
        let answer = wire.exchange(Call {
            method: Method::PUT,
            url: format!("http://{}/", server.name).parse().unwrap(),
            headers: HeaderMap::new(),
            body: Body::Stream {
                reader: &mut &b"short"[..],
                size: 100,
                transfer: 0,
            },
            trust: &Trust::default(),
        });
        assert!(matches!(answer.err(), Some(Fault::Local(_))));
    }

    #[test]
    fn proxies_are_for_other_machines() {
        let proxy = Server::start(|_, _| Told::new(204));
        let server = Server::start(|_, _| Told::new(200));
        let proxies = |none: Option<&str>| Proxies {
            http: Some(proxy.name.clone()),
            none: none.map(str::to_owned),
            ..Proxies::default()
        };
        let (through, _) = wire(proxies(None), 5_000);
        assert_eq!(get(&through, "http://r.invalid/x").unwrap(), 204);
        assert_eq!(
            get(&through, &format!("http://{}/", server.name)).unwrap(),
            200
        );
        let (past, _) = wire(proxies(Some("r.invalid")), 5_000);
        assert!(matches!(get(&past, "http://r.invalid/x"), Err(Fault::Name)));
        assert_eq!(proxy.lines(), ["GET http://r.invalid/x"]);
    }
}
