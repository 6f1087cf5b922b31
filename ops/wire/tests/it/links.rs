//! A link that nothing happens to carries everything; one that is long carries it late.

use skytale_wire::{CHUNK_BYTES_MAX, CHUNKS_MAX, Link};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Waiting for longer is hanging.
pub(crate) const HANGING: Duration = Duration::from_secs(30);

/// A target, a link to it, and a connection through the link: the one who dialled, and the one who accepted.
pub(crate) async fn connected() -> (TcpListener, Link, TcpStream, TcpStream) {
    let target = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let link = Link::open(target.local_addr().expect("an address")).expect("a link");
    let (near, far) = connect(&target, &link).await;
    (target, link, near, far)
}

/// One more connection.
pub(crate) async fn connect(target: &TcpListener, link: &Link) -> (TcpStream, TcpStream) {
    let near = TcpStream::connect(link.address()).await.expect("accepted");
    let accepted = timeout(HANGING, target.accept()).await.expect("carried");
    (near, accepted.expect("accepted").0)
}

/// Says something and hears it at the other side.
pub(crate) async fn says(from: &mut TcpStream, to: &mut TcpStream, what: &[u8]) {
    from.write_all(what).await.expect("written");
    hears(to, what).await;
}

pub(crate) async fn hears(to: &mut TcpStream, what: &[u8]) {
    let mut heard = vec![0; what.len()];
    let read = timeout(HANGING, to.read_exact(&mut heard)).await;
    read.expect("it arrives").expect("read");
    assert_eq!(heard, what);
}

/// Returns the result of a read: bytes, an orderly end (0), or an error.
pub(crate) async fn outcome(stream: &mut TcpStream) -> io::Result<usize> {
    timeout(HANGING, stream.read(&mut [0; 64])).await.expect("it is told")
}

#[tokio::test]
async fn everything_is_carried_both_ways_and_an_end_is_an_end() {
    let (_target, link, mut near, mut far) = connected().await;
    says(&mut near, &mut far, b"a question").await;
    says(&mut far, &mut near, b"an answer").await;
    // One side has said all; the other still answers.
    near.shutdown().await.expect("shut down");
    assert_eq!(outcome(&mut far).await.expect("an end"), 0);
    says(&mut far, &mut near, b"and a last one").await;
    drop(far);
    assert_eq!(outcome(&mut near).await.expect("an end"), 0);
    assert_eq!((link.accepted(), link.carried()), (1, (10, 23)));
}

#[tokio::test]
async fn more_than_the_buffers_hold_arrives_whole() {
    let (_target, _link, mut near, mut far) = connected().await;
    let sent: Vec<u8> = (0..3 * CHUNKS_MAX * CHUNK_BYTES_MAX).map(|at| (at / 7) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        near.write_all(&sent).await.expect("written");
        near
    });
    hears(&mut far, &expected).await;
    writer.await.expect("all was sent");
}

#[tokio::test]
async fn a_reset_is_carried() {
    let (_target, _link, near, mut far) = connected().await;
    near.set_zero_linger().expect("set");
    drop(near);
    assert!(outcome(&mut far).await.is_err());
}

#[tokio::test]
async fn who_dials_a_target_that_is_not_there_is_told() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let link = Link::open(gone.local_addr().expect("an address")).expect("a link");
    drop(gone);
    let mut near = TcpStream::connect(link.address()).await.expect("the link is there");
    assert!(outcome(&mut near).await.is_err());
}

#[tokio::test]
async fn nothing_arrives_before_its_time_and_nothing_overtakes() {
    let (_target, link, mut near, mut far) = connected().await;
    let (there, back) = (Duration::from_millis(60), Duration::from_millis(20));
    link.delay_ways(there, back);
    let begun = Instant::now();
    says(&mut near, &mut far, b"far").await;
    assert!(begun.elapsed() >= there);
    says(&mut far, &mut near, b"away").await;
    assert!(begun.elapsed() >= there + back);
    // Pieces are on their way together, and a shorter way later does not let one pass another.
    near.write_all(b"first").await.expect("written");
    tokio::time::sleep(Duration::from_millis(5)).await;
    link.delay(Duration::ZERO);
    says(&mut near, &mut far, b"").await;
    near.write_all(b"second").await.expect("written");
    hears(&mut far, b"firstsecond").await;
}

#[tokio::test]
async fn a_link_that_is_closed_or_dropped_takes_its_connections_with_it() {
    let (target, link, mut near, mut far) = connected().await;
    let address = link.address();
    link.close().await;
    assert!(outcome(&mut near).await.is_err());
    assert!(outcome(&mut far).await.is_err());
    // Its port is free again.
    let again = Link::listen(address, target.local_addr().expect("an address")).expect("a link");
    let (mut near, _far) = connect(&target, &again).await;
    drop(again);
    assert!(outcome(&mut near).await.is_err());
}

#[tokio::test]
async fn a_link_for_one_dialler_carries_no_other() {
    let target = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let link = Link::open_for(target.local_addr().expect("an address"), b"I am one").expect("a link");
    let (mut near, mut far) = connect(&target, &link).await;
    // The side that is dialled may speak first.
    says(&mut far, &mut near, b"who are you?").await;
    says(&mut near, &mut far, b"Hello, I am one.").await;
    says(&mut near, &mut far, b"And more.").await;
    let (mut other, mut far) = connect(&target, &link).await;
    other.write_all(b"Hello, I am two.").await.expect("written");
    assert!(outcome(&mut far).await.is_err());
    assert!(outcome(&mut other).await.is_err());
}

#[tokio::test]
async fn a_link_stays_on_loopback() {
    let (out, local): (SocketAddr, SocketAddr) = (([0, 0, 0, 0], 0).into(), ([127, 0, 0, 1], 1).into());
    for (on, to) in [(out, local), (local, ([192, 0, 2, 1], 4222).into())] {
        let refused = Link::listen(on, to).expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
