//! Bytes through a link that is cut, and the reports of it.

use super::links::{HANGING, connect, connected, hears, outcome, says};
use skytale_wire::{Cut, Link};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Long enough for what was not cut to arrive. A forbidden arrival may only be missed by this, never be reported
/// wrongly.
const A_WHILE: Duration = Duration::from_millis(150);

async fn hears_nothing(stream: &mut TcpStream) {
    let read = timeout(A_WHILE, stream.read(&mut [0; 64])).await;
    assert!(read.is_err(), "something came through: {read:?}");
}

async fn carries(target: &TcpListener, link: &Link) {
    let (mut near, mut far) = connect(target, link).await;
    says(&mut near, &mut far, b"whole").await;
    says(&mut far, &mut near, b"again").await;
}

#[tokio::test]
async fn a_silent_cut_tells_nobody_until_it_is_mended() {
    let (target, link, mut near, mut far) = connected().await;
    says(&mut near, &mut far, b"before").await;
    link.cut(Cut::Silent);
    assert!(link.is_cut());
    near.write_all(b"lost").await.expect("written");
    far.write_all(b"lost too").await.expect("written");
    hears_nothing(&mut near).await;
    hears_nothing(&mut far).await;
    // One who dials meanwhile hears nothing either, and the target hears of nobody.
    let mut late = TcpStream::connect(link.address()).await.expect("accepted");
    late.write_all(b"anybody?").await.expect("written");
    hears_nothing(&mut late).await;
    assert!(timeout(A_WHILE, target.accept()).await.is_err());
    link.mend();
    for stream in [&mut near, &mut far, &mut late] {
        assert!(
            outcome(stream).await.is_err(),
            "bytes were lost: the connection must not go on"
        );
    }
    carries(&target, &link).await;
}

#[tokio::test]
async fn a_silent_cut_hides_that_a_side_is_gone() {
    for orderly in [true, false] {
        let (_target, link, near, mut far) = connected().await;
        link.cut(Cut::Silent);
        if !orderly {
            near.set_zero_linger().expect("set");
        }
        drop(near);
        hears_nothing(&mut far).await;
        link.mend();
        assert!(outcome(&mut far).await.is_err());
    }
}

#[tokio::test]
async fn a_reset_is_told_at_once_and_to_each_who_dials() {
    let (target, link, mut near, mut far) = connected().await;
    link.cut(Cut::Reset);
    assert!(outcome(&mut near).await.is_err());
    assert!(outcome(&mut far).await.is_err());
    // The kernel accepts, the link resets: whichever the dialler sees first.
    if let Ok(mut late) = TcpStream::connect(link.address()).await {
        assert!(outcome(&mut late).await.is_err());
    }
    assert!(timeout(A_WHILE, target.accept()).await.is_err());
    link.mend();
    carries(&target, &link).await;
}

#[tokio::test]
async fn a_one_way_cut_loses_one_way_alone() {
    for cut in [Cut::Requests, Cut::Answers] {
        let (target, link, mut near, mut far) = connected().await;
        link.cut(cut);
        let (mut late, mut accepted) = connect(&target, &link).await;
        for (near, far) in [(&mut near, &mut far), (&mut late, &mut accepted)] {
            let (lost, open) = if cut == Cut::Requests { (near, far) } else { (far, near) };
            lost.write_all(b"lost").await.expect("written");
            hears_nothing(open).await;
            says(open, lost, b"not lost").await;
        }
        link.mend();
        for stream in [&mut near, &mut far, &mut late, &mut accepted] {
            assert!(outcome(stream).await.is_err());
        }
        carries(&target, &link).await;
    }
}

#[tokio::test]
async fn what_is_held_arrives_late_and_whole() {
    let (target, link, mut near, mut far) = connected().await;
    link.cut(Cut::Held);
    near.write_all(b"held").await.expect("written");
    hears_nothing(&mut far).await;
    let mut late = TcpStream::connect(link.address()).await.expect("accepted");
    late.write_all(b"held too").await.expect("written");
    assert!(timeout(A_WHILE, target.accept()).await.is_err());
    // Even of one who is gone by then.
    near.shutdown().await.expect("shut down");
    link.mend();
    hears(&mut far, b"held").await;
    assert_eq!(outcome(&mut far).await.expect("an end"), 0);
    says(&mut far, &mut near, b"answered").await;
    let (mut accepted, _) = timeout(HANGING, target.accept())
        .await
        .expect("carried")
        .expect("accepted");
    hears(&mut accepted, b"held too").await;
}

#[tokio::test]
async fn what_is_held_and_then_cut_is_lost() {
    let (target, link, mut near, mut far) = connected().await;
    link.cut(Cut::Held);
    near.write_all(b"held").await.expect("written");
    link.cut(Cut::Silent);
    hears_nothing(&mut far).await;
    link.mend();
    assert!(outcome(&mut far).await.is_err());
    assert!(outcome(&mut near).await.is_err());
    carries(&target, &link).await;
}

#[tokio::test]
async fn what_is_on_a_long_way_when_it_is_cut_is_lost() {
    let (_target, link, mut near, mut far) = connected().await;
    link.delay(Duration::from_millis(50));
    near.write_all(b"on its way").await.expect("written");
    link.cut(Cut::Silent);
    hears_nothing(&mut far).await;
    assert_eq!(link.carried(), (0, 0));
}

#[tokio::test]
async fn a_side_that_does_not_read_keeps_nobody_from_cutting() {
    let (target, link, mut near, far) = connected().await;
    let flood = tokio::spawn(async move {
        while near.write_all(&[7; 64 * 1024]).await.is_ok() {}
        near
    });
    // The buffers are full when nothing more is carried.
    let mut before = link.carried();
    loop {
        tokio::time::sleep(A_WHILE).await;
        let now = link.carried();
        if now == before && now.0 > 0 {
            break;
        }
        before = now;
    }
    link.cut(Cut::Reset);
    timeout(HANGING, flood)
        .await
        .expect("the sender is told")
        .expect("ended");
    drop(far);
    link.mend();
    carries(&target, &link).await;
}
