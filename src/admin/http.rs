//! A small HTTP/1.1 server for operators: one request a connection, over TCP or a Unix socket.
//!
//! It serves a scraper and a command line, not the world: requests without bodies, at most a handful
//! at a time, each with a few seconds to be whole. It shares nothing with the shards.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::io::clock::Clock;

/// Longest request head.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Most header lines of a request.
const HEADERS_MAX: usize = 64;
/// Connections served at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 16;
/// How long a peer may take to send its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`...
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// What follows the question mark; may be empty.
    pub query: String,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// 200 with a JSON body.
    #[must_use]
    pub fn json(body: &serde_json::Value) -> Self {
        Self::with_status(200, body)
    }

    /// 200 with text.
    #[must_use]
    pub fn text(body: String) -> Self {
        Self {
            status: 200,
            content_type: "text/plain; charset=utf-8",
            body: body.into_bytes(),
        }
    }

    /// 200 with a capture file.
    #[must_use]
    pub const fn capture(body: Vec<u8>) -> Self {
        Self {
            status: 200,
            content_type: "application/vnd.tcpdump.pcap",
            body,
        }
    }

    /// An error as JSON: what is wrong and what to do about it.
    #[must_use]
    pub fn error(status: u16, what: &str) -> Self {
        Self::with_status(status, &serde_json::json!({ "error": what }))
    }

    fn with_status(status: u16, body: &serde_json::Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: format!("{body}\n").into_bytes(),
        }
    }
}

/// Answers requests. Called in threads of its own, several at a time.
pub trait Handler: Send + Sync + 'static {
    /// The answer to one request.
    fn answer(&self, request: &Request) -> Response;
}

impl<F: Fn(&Request) -> Response + Send + Sync + 'static> Handler for F {
    fn answer(&self, request: &Request) -> Response {
        self(request)
    }
}

/// A connection with a limit on waiting.
trait Stream: Read + Write + Send + 'static {
    fn limit(&self, patience: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn limit(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

impl Stream for UnixStream {
    fn limit(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

/// Serves a TCP listener until the process ends.
///
/// # Errors
/// The thread could not be started.
pub fn serve_tcp(listener: TcpListener, handler: Arc<dyn Handler>) -> io::Result<()> {
    serve(move || listener.accept().map(|(stream, _)| stream), handler)
}

/// Serves a Unix listener until the process ends.
///
/// # Errors
/// The thread could not be started.
pub fn serve_unix(listener: UnixListener, handler: Arc<dyn Handler>) -> io::Result<()> {
    serve(move || listener.accept().map(|(stream, _)| stream), handler)
}

fn serve<S: Stream>(
    accept: impl Fn() -> io::Result<S> + Send + 'static,
    handler: Arc<dyn Handler>,
) -> io::Result<()> {
    let busy = Arc::new(AtomicUsize::new(0));
    let run = move || {
        loop {
            let Ok(stream) = accept() else {
                // Out of descriptors, most likely: no reason to spin.
                std::thread::park_timeout(Duration::from_millis(100));
                continue;
            };
            let place = Place::take(&busy);
            let handler = Arc::clone(&handler);
            let Some(place) = place else { continue };
            let work = move || {
                let _place = place;
                let _ = converse(stream, &*handler);
            };
            let _ = std::thread::Builder::new()
                .name("admin-conn".into())
                .spawn(work);
        }
    };
    std::thread::Builder::new()
        .name("admin".into())
        .spawn(run)?;
    Ok(())
}

/// One of the connections that may be open.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(busy: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(busy));
        (busy.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse(mut stream: impl Stream, handler: &dyn Handler) -> io::Result<()> {
    stream.limit(PATIENCE)?;
    let response = match read_request(&mut stream) {
        Ok(request) => handler.answer(&request),
        Err(status) => Response::error(status, "this is no request that can be answered"),
    };
    let head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        response.status,
        reason(response.status),
        response.content_type,
        response.body.len(),
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&response.body)?;
    stream.flush()
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Bad Request",
    }
}

/// Reads a request's head; the status to answer otherwise.
fn read_request(stream: &mut impl Read) -> Result<Request, u16> {
    let mut bytes = Vec::with_capacity(1024);
    let mut piece = [0; 1024];
    let begun = Clock.now();
    while Clock.now().since(begun) < PATIENCE {
        let len = match stream.read(&mut piece) {
            Ok(0) => return Err(400),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(408),
        };
        bytes.extend_from_slice(&piece[..len]);
        if let Some(request) = parse(&bytes)? {
            return Ok(request);
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(431);
        }
    }
    Err(408)
}

fn parse(bytes: &[u8]) -> Result<Option<Request>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(_) => return Err(400),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(400);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Arc<dyn Handler> {
        Arc::new(|request: &Request| {
            let parts = [&request.method, &request.path, &request.query];
            Response::json(&serde_json::json!(parts))
        })
    }

    fn ask(bytes: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        serve_tcp(listener, echo()).expect("a thread");
        let mut stream = TcpStream::connect(address).expect("it listens");
        for piece in bytes.chunks(7) {
            stream.write_all(piece).expect("it reads");
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn a_request_in_pieces_is_answered() {
        let answer = ask(b"GET /users?id=sip%3Aa HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\n[\"GET\",\"/users\",\"id=sip%3Aa\"]\n"),
            "{answer}"
        );
    }

    #[test]
    fn what_is_no_request_is_refused_and_the_next_is_served() {
        assert!(ask(b"\x16\x03\x01\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(ask(b"GET /").starts_with("HTTP/1.1 400 "));
        let mut long = b"GET / HTTP/1.1\r\nX: ".to_vec();
        long.resize(3 * HEAD_BYTES_MAX, b'x');
        assert!(matches!(parse(&long), Ok(None)));
        assert_eq!(read_request(&mut &long[..]), Err(431));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(HEADERS_MAX + 1)
        );
        assert!(ask(many.as_bytes()).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let busy = Arc::new(AtomicUsize::new(0));
        let places: Vec<_> = (0..CONNECTIONS_MAX).map(|_| Place::take(&busy)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(Place::take(&busy).is_none());
        drop(places);
        assert!(Place::take(&busy).is_some());
        assert_eq!(busy.load(Ordering::Relaxed), 0);
    }
}
