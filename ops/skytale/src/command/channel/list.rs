//! `skytale channel list`.

use super::Session;
use super::names::{self, Names};
use super::problems::{self, Strict, named};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::output::{Human, Outcome, Style, table};
use serde::Serialize;
use skytale_proto::rest::ChannelName;
use skytale_proto::{ChannelId, Offset};
use skytale_sdk::{ChannelInfo, ChannelState, Problem};
use std::fmt;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show what the vault knows, without asking the network.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    let channels = with_agent(&session, &args.agent, mode, async |agent| {
        let channels = agent.channels().await.map_err(failed("cannot list the channels"))?;
        let names = match mode {
            Mode::Offline => Names::new(),
            _ => names::of(&session, &channels).await,
        };
        let problems = problems::all(agent).await?;
        let row = |info: ChannelInfo| {
            let own = problems.iter().find(|(channel, _)| *channel == Some(info.id));
            Row::new(info, &names, own.map_or(&[][..], |(_, problems)| problems))
        };
        let rows: Vec<_> = channels.into_iter().map(row).collect();
        Ok((rows, problems))
    });
    let (channels, problems) = channels.await?;
    let list = List { channels };
    session.output.give(&list)?;
    if mode == Mode::Offline && !args.strict.is_strict() {
        return Ok(());
    }
    // Problems in a channel that was left no longer count.
    let left = |channel: Option<ChannelId>| {
        list.channels
            .iter()
            .any(|row| Some(row.channel) == channel && row.is_left())
    };
    let counted = problems.iter().filter(|(channel, _)| !left(*channel));
    args.strict.judge(counted.flat_map(|(channel, problems)| {
        let label = list.channels.iter().find(|row| Some(row.channel) == *channel);
        let name = named(*channel, label.map_or("", |row| &row.label));
        problems.iter().map(move |problem| (name.clone(), problem))
    }))
}

#[derive(Serialize)]
struct List {
    channels: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    channel: ChannelId,
    label: String,
    /// Name under which the account's other agents find it. Not known offline.
    name: Option<ChannelName>,
    state: &'static str,
    /// Its standing with its group: `current`, `renewing`, `out-of-sync` or `superseded`.
    standing: &'static str,
    /// The relay showed this agent and others different logs, or its log went back.
    diverged: bool,
    /// Number of problems that `skytale channel problems` lists, without sends that failed.
    problems: usize,
    cursor: Offset,
    epoch: u64,
    unread: u64,
    outbox: u64,
    /// Sent, will not be delivered, and not dismissed.
    failed: u64,
}

impl Row {
    fn new(info: ChannelInfo, names: &Names, problems: &[Problem]) -> Self {
        let is_shown = |problem: &&Problem| !matches!(problem, Problem::SendFailed(_));
        Self {
            channel: info.id,
            label: info.label,
            name: names.get(&info.id).cloned(),
            state: info.state.name(),
            standing: info.standing.name(),
            diverged: problems.iter().any(Problem::is_divergence),
            problems: problems.iter().filter(is_shown).count(),
            cursor: info.cursor,
            epoch: info.epoch,
            unread: info.unacked,
            outbox: info.outbox,
            failed: info.failed,
        }
    }

    fn is_left(&self) -> bool {
        self.state == ChannelState::Left.name()
    }

    /// Returns the state that a person must know first.
    fn shown_state(&self) -> &'static str {
        match self.standing {
            _ if self.is_left() => self.state,
            _ if self.diverged => "diverged",
            "current" => self.state,
            standing => standing,
        }
    }
}

/// Says that sends have failed, where any have.
fn failed_hint(to: &mut dyn fmt::Write, style: &Style, failed: u64) -> fmt::Result {
    let text = match failed {
        0 => return Ok(()),
        1 => "1 send failed".to_owned(),
        more => format!("{more} sends failed"),
    };
    writeln!(
        to,
        "{} `skytale channel outbox` shows why",
        style.bad(&format!("{text}:"))
    )
}

impl Human for List {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.channels.is_empty() {
            return writeln!(to, "no channels");
        }
        let named = self.channels.iter().any(|row| row.name.is_some());
        let rows = self.channels.iter().map(|row| {
            let name = row.name.as_ref().map(ToString::to_string).unwrap_or_default();
            let numbers = [row.unread, row.outbox, row.cursor.get(), row.epoch].map(|number| number.to_string());
            [row.channel.to_string(), row.label.clone()]
                .into_iter()
                .chain(named.then_some(name))
                .chain([row.shown_state().into()])
                .chain(numbers)
                .collect()
        });
        let heads: Vec<&str> = ["channel", "label"]
            .into_iter()
            .chain(named.then_some("name"))
            .chain(["state", "unread", "unsent", "cursor", "epoch"])
            .collect();
        table(to, style, &heads, rows)?;
        let failed = self.channels.iter().map(|row| row.failed).sum();
        failed_hint(to, style, failed)?;
        match self.channels.iter().map(|row| row.problems).sum::<usize>() {
            0 => Ok(()),
            1 => writeln!(to, "{} `skytale channel problems` shows it", style.bad("1 problem:")),
            more => {
                let count = style.bad(&format!("{more} problems:"));
                writeln!(to, "{count} `skytale channel problems` shows them")
            }
        }
    }
}
