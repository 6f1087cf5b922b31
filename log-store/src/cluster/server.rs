//! One server: the program, its process, its configuration.

use super::{ACCOUNTS, Sync};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Address on which nobody listens: advertised by servers that others must reach only by links that they are given.
const NOWHERE: &str = "127.0.0.1:1";

fn program() -> PathBuf {
    let named = std::env::var_os("SKYTALE_NATS_SERVER").map(PathBuf::from);
    let named = named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|dir| dir.join("nats-server"))
            .find(|program| program.is_file())
    });
    let cached = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(".cache/skytale-test/nats-server-2.15.1/nats-server"))
        .filter(|program| program.is_file());
    named.or(cached).expect(
        "these tests start real NATS servers: run them with `ops/test/run test`, which installs nats-server 2.15.1, or \
         set SKYTALE_NATS_SERVER to the program",
    )
}

#[derive(Debug)]
pub(super) struct Server {
    shell: Child,
    /// Its end is the server's.
    input: Option<ChildStdin>,
    pid: u32,
}

impl Server {
    /// Starts the program with a configuration, in a folder.
    pub(super) fn start(folder: &Path, configuration: &str) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let config = folder.join("nats.conf");
        fs::write(&config, configuration).expect("written");
        let script =
            "\"$0\" -c \"$1\" >/dev/null 2>&1 & server=$!; echo $server; read -r _; kill -9 $server; wait $server";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .arg(program())
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let output = shell.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("the server's id");
        Self {
            input: shell.stdin.take(),
            shell,
            pid: line.trim().parse().expect("the server's id"),
        }
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.pid.to_string()])
            .status()
            .expect("kill");
        assert!(status.success());
    }

    /// Kills it.
    pub(super) fn end(mut self) {
        drop(self.input.take());
        self.shell.wait().expect("the shell ends");
    }
}

/// A server's settings.
pub(super) struct Configuration<'a> {
    pub(super) number: usize,
    pub(super) folder: &'a Path,
    pub(super) sync: Sync,
    /// Port for clients.
    pub(super) port: u16,
    /// Port for servers of its cluster.
    pub(super) route: u16,
    /// Port for other regions, if it is one.
    pub(super) gateway: Option<u16>,
    /// Ports by which it reaches each server, itself too.
    pub(super) peers: &'a [u16],
    /// Whether those ports are the only ways: then nobody learns of others.
    pub(super) only: bool,
}

impl Configuration<'_> {
    pub(super) fn text(&self) -> String {
        let number = self.number;
        let accounts: String = (0..ACCOUNTS)
            .map(|number| {
                format!("  A{number} {{ jetstream: enabled, users: [{{ user: relay{number}, password: secret }}] }}\n")
            })
            .collect();
        let sync = match self.sync {
            Sync::Always => "always",
            Sync::Sometimes => "2m",
        };
        format!(
            "server_name: n{number}\nlisten: \"127.0.0.1:{}\"\nmax_payload: 2MB\npid_file: {:?}\nlog_file: {:?}\n\
             jetstream {{ store_dir: {:?}, max_mem: 256MB, max_file: 20GB, sync_interval: {sync} }}\n{}\
             accounts {{\n  SYS {{ users: [{{ user: sys, password: secret }}] }}\n{accounts}}}\nsystem_account: SYS\n",
            self.port,
            self.folder.join("pid"),
            self.folder.join("log"),
            self.folder.join("data"),
            self.others(),
        )
    }

    /// Returns the settings by which it finds the others.
    fn others(&self) -> String {
        // A server gossips to clients, routes and gateways where it can be reached, and each would go there by itself.
        let (quiet, advertise) = if self.only {
            (
                format!(", advertise: {NOWHERE:?}, no_advertise: true"),
                format!(", advertise: {NOWHERE:?}"),
            )
        } else {
            (String::new(), String::new())
        };
        let urls: Vec<String> = self
            .peers
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        if let Some(gateway) = self.gateway {
            let remotes: Vec<String> = urls
                .iter()
                .enumerate()
                // Facts that a region states about itself are gossiped too.
                .filter(|(number, _)| !self.only || *number != self.number)
                .map(|(number, url)| format!("{{ name: r{number}, url: {url:?} }}"))
                .collect();
            format!(
                "cluster {{ name: r{0}, listen: \"127.0.0.1:{1}\", routes: [\"nats://127.0.0.1:{1}\"]{quiet} }}\n\
                 gateway {{ name: r{0}, listen: \"127.0.0.1:{gateway}\"{advertise}, gateways: [ {2} ] }}\n",
                self.number,
                self.route,
                remotes.join(", ")
            )
        } else if self.peers.len() > 1 {
            format!(
                "cluster {{ name: test, listen: \"127.0.0.1:{}\", routes: {urls:?}{quiet} }}\n",
                self.route
            )
        } else {
            String::new()
        }
    }
}
