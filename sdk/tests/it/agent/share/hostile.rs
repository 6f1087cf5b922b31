//! Hostile clients of a vault's socket.

use super::super::world::{World, soon};
use super::{attach, open_or_attach, socket};
use skytale_proto::Code;
use skytale_sdk::Agent;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Encodes a frame: length, kind and id, as in the wire format.
fn frame(length: u32, kind: u8, id: u64, body: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes(), [kind].as_slice(), &id.to_be_bytes(), body].concat()
}

fn whole(kind: u8, body: &[u8]) -> Vec<u8> {
    frame(u32::try_from(body.len()).expect("small"), kind, 0, body)
}

/// The first message of a guest of another version, or of this one.
fn hello(version: u16) -> Vec<u8> {
    // {"version": ..., "nonce": [0; 32]} in CBOR.
    let mut body = vec![0xa2, 0x67];
    body.extend_from_slice(b"version");
    body.push(0x19);
    body.extend_from_slice(&version.to_be_bytes());
    body.push(0x65);
    body.extend_from_slice(b"nonce");
    body.extend_from_slice(&[0x98, 32]);
    body.extend_from_slice(&[0; 32]);
    whole(1, &body)
}

/// Returns everything that the owner sends until it hangs up.
async fn until_the_end(mut stream: UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    let reading = async {
        match stream.read_to_end(&mut said).await {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => {}
        }
    };
    soon("the owner hangs up", reading).await;
    said
}

async fn works(owner: &Agent, world: &World) {
    soon("the owner works", owner.channels()).await.expect("listed");
    let guest = attach(world, "alice").await;
    soon("a guest is served", guest.channels()).await.expect("listed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_its_connection_and_no_other() {
    let world = World::new().await;
    let owner = world.open("alice").await;
    let honest = attach(&world, "alice").await;
    let path = socket(&world, "alice");
    let said = [
        // Bytes of any kind.
        (0..=255).cycle().take(10_000).collect::<Vec<u8>>(),
        // Lengths that nobody may send before the proof, and that are not kept.
        frame(u32::MAX, 1, 0, b"x"),
        frame(1025, 1, 0, &[0; 1025]),
        // A request, and an answer, instead of a greeting.
        whole(6, b"\xa1\x68channels\xa0"),
        whole(8, b""),
        // A greeting that is none, and one with a request behind it instead of the proof.
        whole(1, b"\xff\xff\xff"),
        [hello(1), whole(6, b"\xa1\x68channels\xa0")].concat(),
        // A proof that is none.
        [hello(1), whole(3, b"\xa1\x65proof\x80")].concat(),
    ];
    for bytes in said {
        let mut stream = UnixStream::connect(&path).await.expect("connected");
        // It may hang up in the middle.
        let _ = stream.write_all(&bytes).await;
        let answer = until_the_end(stream).await;
        // Never more than a challenge.
        assert!(answer.len() < 200, "{}", answer.len());
        assert!(!answer.windows(5).any(|window| window == b"agent"), "no welcome");
    }
    soon("a guest is served", honest.channels()).await.expect("listed");
    works(&owner, &world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_of_another_version_is_refused_by_name() {
    let world = World::new().await;
    let owner = world.open("alice").await;
    let mut stream = UnixStream::connect(socket(&world, "alice")).await.expect("connected");
    stream.write_all(&hello(2)).await.expect("written");
    let answer = until_the_end(stream).await;
    let text = String::from_utf8_lossy(&answer);
    assert_eq!(answer[4], 5, "a refusal");
    assert!(text.contains("version 1, not 2"), "{text}");
    works(&owner, &world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impostor_at_the_socket_is_not_trusted() {
    let world = World::new().await;
    let owner = Agent::open(world.config("alice").with_sharing(false))
        .await
        .expect("opened");
    let listener = tokio::net::UnixListener::bind(socket(&world, "alice")).expect("bound");
    let impostor = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        // A welcome at once, and something that is no proof.
        stream
            .write_all(&whole(4, b"\xa1\x65proof\x80"))
            .await
            .expect("written");
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        said
    });
    let error = open_or_attach(world.config("alice")).await.expect_err("refused");
    assert_eq!(error.code(), Code::VaultOwnerVersion, "{error}");
    let said = soon("the impostor ends", impostor).await.expect("no panic");
    assert!(said.len() < 200, "nothing but a greeting: {}", said.len());
    drop(owner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_silent_connections_do_not_keep_a_guest_out() {
    let world = World::new().await;
    let owner = world.open("alice").await;
    let honest = attach(&world, "alice").await;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        match UnixStream::connect(socket(&world, "alice")).await {
            Ok(stream) => silent.push(stream),
            // The socket's queue is full: so much the better.
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused)
                    || error.raw_os_error() == Some(24),
                "{error}"
            ),
        }
    }
    soon("a guest is served", honest.channels()).await.expect("listed");
    // All of them are still there.
    works(&owner, &world).await;
    for stream in silent {
        until_the_end(stream).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_greeting_delays_neither_other_guests_nor_the_end() {
    let world = World::new().await;
    let owner = world.open("alice").await;
    // Within the greeting, and before it.
    let mut stopped = Vec::new();
    for bytes in [&hello(1)[..20], b"", &hello(1)] {
        let mut stream = UnixStream::connect(socket(&world, "alice")).await.expect("connected");
        stream.write_all(bytes).await.expect("written");
        stopped.push(stream);
    }
    works(&owner, &world).await;
    soon("closed", owner.close(Duration::from_secs(5))).await;
    let owner = world.open("alice").await;
    works(&owner, &world).await;
}

/// Connects as the user nobody, and returns the answer: `refused` if it could not connect.
fn as_nobody(path: &std::path::Path) -> Result<String, String> {
    let script = r#"
        use Socket;
        socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
        connect($s, pack_sockaddr_un($ARGV[0])) or do { print "not connected: $!"; exit };
        local $/;
        my $said = <$s>;
        print "told: ", $said;
    "#;
    let ran = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e", script])
        .arg(path)
        .output();
    let ran = ran.map_err(|error| format!("no setpriv: {error}"))?;
    match ran.status.success() {
        true => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_refused_even_if_file_permissions_allow_it() {
    let world = World::new().await;
    let owner = world.open("alice").await;
    let path = socket(&world, "alice");
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    mode(world.dir.path(), 0o755);
    // The other user must get as far as the socket.
    for above in world.dir.path().ancestors().skip(1) {
        if let Ok(found) = std::fs::metadata(above)
            && found.permissions().mode() & 0o001 == 0
        {
            mode(above, found.permissions().mode() & 0o777 | 0o011);
        }
    }
    let ask = || {
        let path = path.clone();
        tokio::task::spawn_blocking(move || as_nobody(&path))
    };
    let told = match soon("asked", ask()).await.expect("no panic") {
        Ok(told) => told,
        // Only root can become somebody else, and not on every machine.
        Err(why) => return println!("skipped: cannot act as another user: {why}"),
    };
    assert!(
        told.contains("not connected"),
        "the socket is its owner's alone: {told}"
    );

    mode(&path, 0o666);
    let told = soon("asked", ask()).await.expect("no panic").expect("as before");
    assert!(told.contains("told: ") && told.contains("another user"), "{told}");
    works(&owner, &world).await;
}
