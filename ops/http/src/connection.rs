//! A connection on which hyper's own refusals are problem documents.
//!
//! Bytes that are no HTTP never reach a route: hyper answers them itself, with a status and an empty body, and closes.
//! Nothing of hyper's can be asked to say more, so the answer is completed where it is written. It is known by its
//! form: the last bytes to write are a head with one of hyper's three statuses and no body, which no route of ours
//! gives.

use axum::http::StatusCode;
use skytale_proto::Code;
use skytale_proto::rest::Problem;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The longest head that hyper writes for a refusal of its own, in bytes.
const HEAD_BYTES_MAX: usize = 256;
/// Maximum bytes read after an answer that refuses the rest of a request, so that the client gets to see the answer: a
/// socket that is closed with bytes unread is reset, and a reset takes the answer away.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Maximum time for that.
const LINGER: Duration = Duration::from_secs(2);

/// A stream under hyper.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    /// Bytes to write in place of the last ones that hyper gave, how many of them are written, and how many hyper gave.
    instead: Option<(Vec<u8>, usize, usize)>,
    /// Whether the answer leaves a part of the request unread.
    refused: bool,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Connection<S> {
    /// Makes one over a stream.
    pub const fn new(stream: S) -> Self {
        Self {
            stream,
            instead: None,
            refused: false,
            linger: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.instead.is_none() {
            let Some(completed) = completed(buf) else {
                this.refused |= buf.starts_with(b"HTTP/1.1 413 ");
                return Pin::new(&mut this.stream).poll_write(cx, buf);
            };
            this.refused = true;
            this.instead = Some((completed, 0, buf.len()));
        }
        while let Some((bytes, written, given)) = &mut this.instead {
            let given = *given;
            if *written == bytes.len() {
                this.instead = None;
                return Poll::Ready(Ok(given));
            }
            match ready!(Pin::new(&mut this.stream).poll_write(cx, &bytes[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => *written += more,
            }
        }
        Poll::Ready(Ok(0))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.refused {
                return Poll::Ready(Ok(()));
            }
        }
        let (until, bytes) = this
            .linger
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER)), 0));
        let mut scratch = [0; 16 * 1024];
        while *bytes < LINGER_BYTES_MAX && until.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => *bytes += read.filled().len(),
                // The client has closed, too, or is gone.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns the replacement for bytes that end with a refusal of hyper's own.
fn completed(buf: &[u8]) -> Option<Vec<u8>> {
    const LENGTH: &str = "content-length: 0\r\n";
    if !buf.ends_with(b"\r\n\r\n") {
        return None;
    }
    let last = buf.len().saturating_sub(HEAD_BYTES_MAX);
    let start = last + buf[last..].windows(9).rposition(|window| window == b"HTTP/1.1 ")?;
    let head = std::str::from_utf8(&buf[start..]).ok()?;
    let status = head
        .get(9..12)?
        .parse()
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())?;
    let (code, detail) = match status {
        StatusCode::BAD_REQUEST => (
            Code::BadRequest,
            "this is not a request of HTTP/1.1: its first line, a header or the length of its body is malformed",
        ),
        StatusCode::URI_TOO_LONG => (Code::BodyTooLarge, "the request's path and query are too long"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
            Code::BodyTooLarge,
            "the request's head is too long, or has too many headers",
        ),
        _ => return None,
    };
    let at = start + head.find(LENGTH)?;
    let body = serde_json::to_string(&Problem::new(code, status.as_u16(), detail)).ok()?;
    let headers = format!(
        "content-type: {}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\nx-request-id: {}\r\n\
         content-length: {}\r\n",
        crate::PROBLEM_JSON,
        uuid::Uuid::now_v7(),
        body.len()
    );
    Some(
        [
            &buf[..at],
            headers.as_bytes(),
            &buf[at + LENGTH.len()..],
            body.as_bytes(),
        ]
        .concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// Returns a server's answer to these bytes, up to the end of the connection.
    async fn answer(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = private(Router::new().route("/", get(async || "here")));
        let server = tokio::spawn(async move { axum::serve(crate::Listener::new(listener), routes).await });
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        server.abort();
        text
    }

    fn problem(answer: &str) -> Problem {
        let (head, body) = answer.rsplit_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: application/problem+json\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let problem: Problem = serde_json::from_str(body).unwrap();
        assert!(head.contains(&format!("HTTP/1.1 {} ", problem.status)), "{head}");
        problem
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_with_a_code() {
        let long_path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000));
        let many: String = (0..200).map(|n| format!("X-{n}: a\r\n")).collect();
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
        let too_large = Code::BodyTooLarge;
        for (request, status, code) in [
            ("nonsense\r\n\r\n", 400, Code::BadRequest),
            ("GET / HTTP/7.1\r\n\r\n", 400, Code::BadRequest),
            ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Code::BadRequest),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
                400,
                Code::BadRequest,
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n", 400, Code::BadRequest),
            ("GET / HTTP/1.1\r\n\r\n", 400, Code::BadRequest),
            (&many, 431, too_large),
            (&long_path, 414, too_large),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n",
                413,
                too_large,
            ),
        ] {
            let answer = answer(request.as_bytes()).await;
            let problem = problem(&answer);
            let shown = &request[..request.len().min(80)];
            assert_eq!(
                (problem.status, problem.known_code()),
                (status, Some(code)),
                "{shown}: {answer}"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_before_it_is_left_as_it_is() {
        let answer = answer(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n").await;
        let (first, second) = answer.split_at(answer.rfind("HTTP/1.1 ").unwrap());
        assert!(
            first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with("\r\n\r\nhere"),
            "{first}"
        );
        assert_eq!(problem(second).status, 400);
    }

    #[test]
    fn nothing_else_is_taken_for_one() {
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 20\r\n\r\n",
            "{\"detail\":\"HTTP/1.1 400 Bad Request\\r\\ncontent-length: 0\\r\\n\\r\\n\"}",
            "",
        ] {
            assert_eq!(completed(other.as_bytes()), None, "{other}");
        }
    }
}
