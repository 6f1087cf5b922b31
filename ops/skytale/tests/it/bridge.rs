//! `skytale bridge`, and the one in `dev`.

use crate::node::Node;
use crate::process::{Place, Running};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[test]
fn a_bridge_without_what_it_needs_does_not_start() {
    let place = Place::new();
    let ran = place.run(["bridge"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("bridge.secret_key_file"), "{}", ran.stderr);
    // Everything but a way to tell callers apart.
    place.write("accounts.toml", "");
    place.write(
        "skytale.toml",
        "[bridge]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\nsecret_key_file = 'bridge.key'\n\
         api_url = 'http://127.0.0.1:9'\napi_key = 'sk_live_marker_0123456789'\naccounts_file = 'accounts.toml'\n",
    );
    let ran = place.run(["bridge"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("no way in"), "{}", ran.stderr);
    // Beyond loopback without a certificate.
    let account = "[[account]]\nname = 'a'\nbearer = '0123456789abcdef0123456789abcdef'\nnames = ['*/*/*']\n";
    place.write("accounts.toml", account);
    let ran = place.run(["bridge", "--listen", "0.0.0.0:0"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("`bridge.tls.certificate_file`"), "{}", ran.stderr);
    assert!(
        !ran.stderr.contains("marker") && !ran.stderr.contains("0123456789abcdef"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_bridge_beside_a_node_becomes_ready_and_keeps_its_identity() {
    let node = Node::start("warn");
    let of_dev: SocketAddr = node.told["bridge"].as_str().expect("an address").parse().expect("one");
    TcpStream::connect(of_dev).expect("`dev` has a bridge");
    let account = "[[account]]\nname = 'a'\nbearer = '0123456789abcdef0123456789abcdef'\nnames = ['org/*/*']\n";
    node.place.write("accounts.toml", account);
    let settings = format!(
        "[bridge]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\nsecret_key_file = 'bridge.key'\n\
         api_url = '{}'\napi_key = '{}'\naccounts_file = 'accounts.toml'\n",
        node.told["api_url"].as_str().expect("a URL"),
        node.told["api_key"].as_str().expect("a key"),
    );
    node.place.write("skytale.toml", &settings);
    let mut keys = Vec::new();
    for _ in 0..2 {
        let log = node.place.path("bridge.log");
        let mut bridge = Running::start(node.place.command(["--json", "bridge"]), &log);
        let told = bridge.json();
        let admin: SocketAddr = told["admin"].as_str().expect("an address").parse().expect("one");
        let ready = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            get(admin, "/readyz").starts_with("HTTP/1.0 200")
        });
        assert!(ready, "{}", get(admin, "/readyz"));
        assert!(get(admin, "/metrics").starts_with("HTTP/1.0 200"));
        keys.push(std::fs::read(node.place.path("bridge.key")).expect("a key"));
        assert_eq!(bridge.stop("TERM").0, 0);
    }
    assert_eq!(keys[0], keys[1]);
    assert_eq!(node.running.stop("TERM").0, 0);
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("a socket");
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n").expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}
