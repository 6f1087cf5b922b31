//! `skytale channel`.

mod change;
mod chat;
mod create;
mod failed;
mod forget;
mod input;
mod label;
mod list;
mod members;
mod message;
mod names;
mod naming;
mod outbox;
mod pipe;
mod problems;
mod purge;
mod read;
mod reference;
mod requests;
mod roles;
mod send;
mod start;
mod tail;
mod talk;

use super::Session;
use crate::agent::AgentArgs;
use crate::config::Layer;
use crate::names::AgentRef;
use crate::output::Outcome;
use clap::Subcommand;
use reference::Reference;

/// Shown by `skytale channel --help`.
pub(crate) const BESIDE: &str = "\
If another process of yours has the vault open (an agent program, `skytale channel tail`), these
commands work through it, by a socket beside the vault. They need the vault's key all the same.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a channel.
    Create(create::Args),
    /// List the channels of the vault, with what this agent and the account call them.
    List(list::Args),
    /// Give a channel a label, by which commands then find it. It never leaves the vault.
    Label(label::Args),
    /// Add agents, who need not be online. They read from here on.
    Add(change::Add),
    /// Remove agents. They read nothing that comes later.
    Remove(Agents),
    /// Take a channel that was left out of this agent's vault, with its history.
    Forget(forget::Args),
    /// List additions that wait: others have added this agent who may not do so without asking.
    Requests(requests::Args),
    /// Accept an addition that waits: join the channel.
    Accept(requests::Answer),
    /// Decline an addition that waits: leave, and see nothing of the channel.
    Decline(requests::Answer),
    /// Leave a channel: ask to be removed, which a member that is online does, or the next one that writes.
    Leave(One),
    /// List the agents in a channel, and its admins.
    Members(members::Args),
    /// Show who may add, invite, remove, trim and change this; with --grant change it, which admins may.
    Policy(roles::Args),
    /// Make members admins of a channel.
    Promote(Agents),
    /// Make admins members like others. At least one admin stays.
    Demote(Agents),
    /// Send a message: the text given, or standard input.
    Send(send::Args),
    /// Show messages: catches up first, also on messages that came while this agent was away.
    Read(read::Args),
    /// Show messages that were not shown before, then new ones as they come.
    Tail(tail::Args),
    /// Talk: send the lines that are typed, and show messages as they come.
    Chat(chat::Args),
    /// Use a channel from a program in any language: JSON lines in and out.
    Pipe(pipe::Args),
    /// Show messages that wait to be sent, with the reasons, and those that failed; drop or retry failed ones.
    Outbox(outbox::Args),
    /// Show lost and unreadable messages, divergences and failed sends, and the repair of each.
    Problems(problems::Args),
    /// Begin the group again, where no member can go on. Members come over; the others are added again.
    Reboot(change::Reboot),
    /// Take read messages out of this agent's vault, for good. Others keep their copies.
    Purge(purge::Args),
    /// Replace this agent's keys in the channel: stolen keys are of no use after.
    Rotate(One),
}

/// Commands of channels that have short forms: `skytale send` is `skytale channel send`.
#[derive(Debug, Subcommand)]
pub(crate) enum Short {
    /// Send a message: the text given, or standard input. Short for `channel send`.
    Send(send::Args),
    /// Show messages. Short for `channel read`.
    Read(read::Args),
    /// Show new messages as they come. Short for `channel tail`.
    Tail(tail::Args),
    /// Talk in a channel: send lines, show messages. Short for `channel chat`.
    Chat(chat::Args),
    /// Use a channel from a program: JSON lines in and out. Short for `channel pipe`.
    Pipe(pipe::Args),
}

impl From<Short> for Command {
    fn from(short: Short) -> Self {
        match short {
            Short::Send(args) => Self::Send(args),
            Short::Read(args) => Self::Read(args),
            Short::Tail(args) => Self::Tail(args),
            Short::Chat(args) => Self::Chat(args),
            Short::Pipe(args) => Self::Pipe(args),
        }
    }
}

/// A channel.
#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    #[command(flatten)]
    agent: AgentArgs,
}

/// A channel and agents.
#[derive(Debug, clap::Args)]
pub(crate) struct Agents {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// The agents: their ids, as `skytale whoami` shows them, or their names, as `skytale contact list` does.
    #[arg(required = true, value_name = "AGENT")]
    agents: Vec<AgentRef>,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Command {
    /// The settings among its options.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        let agent = match self {
            Self::Create(args) => &args.agent,
            Self::List(args) => &args.agent,
            Self::Label(args) => &args.agent,
            Self::Add(args) => &args.agents.agent,
            Self::Remove(args) => &args.agent,
            Self::Forget(args) => &args.agent,
            Self::Requests(args) => &args.agent,
            Self::Accept(args) | Self::Decline(args) => &args.agent,
            Self::Chat(args) => &args.agent,
            Self::Pipe(args) => &args.agent,
            Self::Leave(args) | Self::Rotate(args) => &args.agent,
            Self::Members(args) => &args.agent,
            Self::Policy(args) => &args.agent,
            Self::Promote(args) | Self::Demote(args) => &args.agent,
            Self::Send(args) => &args.agent,
            Self::Read(args) => &args.agent,
            Self::Tail(args) => &args.agent,
            Self::Outbox(args) => args.agent(),
            Self::Problems(args) => &args.agent,
            Self::Reboot(args) => &args.one.agent,
            Self::Purge(args) => &args.agent,
        };
        agent.layers()
    }
}

pub(crate) async fn run(command: Command, session: Session) -> Outcome {
    match command {
        Command::Create(args) => create::run(args, session).await,
        Command::List(args) => list::run(args, session).await,
        Command::Label(args) => label::run(args, session).await,
        Command::Add(args) => change::add(args, session).await,
        Command::Remove(args) => change::remove(args, session).await,
        Command::Forget(args) => forget::run(args, session).await,
        Command::Requests(args) => requests::run(args, session).await,
        Command::Accept(args) => requests::accept(args, session).await,
        Command::Decline(args) => requests::decline(args, session).await,
        Command::Chat(args) => chat::run(args, session).await,
        Command::Pipe(args) => pipe::run(args, session).await,
        Command::Leave(args) => change::leave(args, session).await,
        Command::Members(args) => members::run(args, session).await,
        Command::Policy(args) => roles::policy(args, session).await,
        Command::Promote(args) => roles::promote(args, session).await,
        Command::Demote(args) => roles::demote(args, session).await,
        Command::Send(args) => send::run(args, session).await,
        Command::Read(args) => read::run(args, session).await,
        Command::Tail(args) => tail::run(args, session).await,
        Command::Outbox(args) => outbox::run(args, session).await,
        Command::Problems(args) => problems::run(args, session).await,
        Command::Reboot(args) => change::reboot(args, session).await,
        Command::Purge(args) => purge::run(args, session).await,
        Command::Rotate(args) => change::rotate(args, session).await,
    }
}
