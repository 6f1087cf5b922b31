//! A relay node, or an endpoint, in a process of its own: its memory is its own then. The child is this same program,
//! which learns its part from the environment.

use crate::client::{Agent, Client};
use crate::process::Process;
use crate::relay::{Relay, Tokens, parse_address, print_address};
use anyhow::{Context as _, ensure};
use iroh::EndpointAddr;
use skytale_log_store::LogStore;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Line of the child when it has closed everything.
const CLOSED: &str = "closed";

/// A process that serves until it is [ended](Self::end).
#[derive(Debug)]
pub struct Served {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    address: EndpointAddr,
    tokens: Tokens,
}

impl Served {
    /// Starts this program again, told by a variable what to be; it should [`serve`] then.
    pub fn start(variable: &str, role: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(variable, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("a pipe")?;
        let mut stdout = BufReader::new(child.stdout.take().context("a pipe")?);
        let address = parse_address(&line(&mut stdout)?)?;
        Ok(Self {
            child,
            stdin,
            stdout,
            address,
            tokens: Tokens::new(),
        })
    }

    /// Returns its address.
    pub const fn address(&self) -> &EndpointAddr {
        &self.address
    }

    /// A session for an agent, where it is a relay node.
    pub async fn session(&self, agent: &Agent) -> anyhow::Result<Client> {
        Client::start(agent, &self.address, self.tokens.token(agent)?).await
    }

    /// Returns the kernel's figures of it.
    pub fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    /// Lets it close its parts.
    pub fn end(mut self) -> anyhow::Result<()> {
        drop(self.stdin);
        ensure!(line(&mut self.stdout)? == CLOSED, "the child closes what it has");
        ensure!(self.child.wait()?.success(), "the child ends well");
        Ok(())
    }
}

fn line(from: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// The child's part: a relay node over a store, until its standard input is closed.
pub fn serve_relay(runtime: &Runtime, store: Arc<dyn LogStore>) -> anyhow::Result<()> {
    let relay = runtime.block_on(Relay::start(store.clone()))?;
    let address = relay.address().clone();
    serve(&address, || {
        runtime.block_on(relay.shutdown());
        Ok(runtime.block_on(store.close())?)
    })
}

/// The child's part: says where it is, waits until its standard input is closed, and closes.
#[allow(clippy::print_stdout)]
pub fn serve(address: &EndpointAddr, close: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("{}", print_address(address)?);
    std::io::stdout().flush()?;
    let mut lines = std::io::stdin().lock().lines();
    while lines.next().transpose()?.is_some() {}
    close()?;
    println!("{CLOSED}");
    Ok(())
}
