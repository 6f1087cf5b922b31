//! The least of an HTTP client: what a health or metrics page on this machine says.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest page, in bytes.
const PAGE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Maximum time for it.
const WITHIN: Duration = Duration::from_secs(3);

/// A page's status and text.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0: the answer is not in pieces, and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(WITHIN, asking).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let text = String::from_utf8_lossy(&answer);
    let malformed = || io::Error::other("not an HTTP answer");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(malformed)?, body.to_owned()))
}
