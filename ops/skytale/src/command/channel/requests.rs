//! `skytale channel requests`, `accept` and `decline`: additions that wait for this agent's word.

use super::Session;
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::names::Names;
use crate::output::{Failure, Human, Outcome, Style, table};
use crate::time::utc;
use serde::Serialize;
use skytale_proto::{AccountId, AgentId, ChannelId, Code};
use skytale_sdk::{Agent, JoinRequest};
use std::fmt;
use tokio::time::timeout;

/// The shortest beginning of a channel's id, in digits.
const PREFIX_MIN: usize = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show those that the vault knows, without asking the network.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Answer {
    /// The channel: its id or the beginning of it, as `skytale channel requests` shows it.
    channel: String,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    let listed = with_agent(&session, &args.agent, mode, async |agent| {
        let names = Names::of(agent).await?;
        let requests = requests(agent).await?;
        Ok(Listed {
            requests: requests.into_iter().map(|request| Row::new(request, &names)).collect(),
        })
    });
    session.output.give(&listed.await?)
}

pub(super) async fn accept(args: Answer, session: Session) -> Outcome {
    let what = "cannot accept the addition";
    let mut accepted = None;
    let done = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        if accepted.is_none() {
            let request = meant(&args.channel, &requests(agent).await?)?;
            agent.accept(request.channel).await.map_err(failed(what))?;
            accepted = Some(request);
        }
        // The channel is joined then.
        match timeout(args.agent.timeout(), agent.caught_up()).await {
            Ok(caught_up) => caught_up.map_err(failed(what)),
            Err(_) => Err(Failure::new(Code::Offline, what)
                .help("It is accepted: the channel is there once this agent is online.")),
        }
    });
    done.await?;
    match accepted {
        Some(request) => session.output.give(&Accepted {
            accepted: request.channel,
        }),
        None => Ok(()),
    }
}

pub(super) async fn decline(args: Answer, session: Session) -> Outcome {
    let what = "cannot decline the addition";
    let mut declined = None;
    let done = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        if declined.is_none() {
            let request = meant(&args.channel, &requests(agent).await?)?;
            agent.decline(request.channel).await.map_err(failed(what))?;
            declined = Some(request);
        }
        // Requests for removals go out then; otherwise they do when this agent is online the next time.
        let asked = async {
            agent.caught_up().await?;
            agent.flushed().await
        };
        match timeout(args.agent.timeout(), asked).await {
            Ok(asked) => asked.map_err(failed(what)),
            Err(_) => Ok(()),
        }
    });
    done.await?;
    match declined {
        Some(request) => session.output.give(&Declined {
            declined: request.channel,
        }),
        None => Ok(()),
    }
}

async fn requests(agent: &Agent) -> Outcome<Vec<JoinRequest>> {
    agent
        .requests()
        .await
        .map_err(failed("cannot list the additions that wait"))
}

/// The request that is meant by a channel's id, or by the beginning of one.
fn meant(text: &str, requests: &[JoinRequest]) -> Outcome<JoinRequest> {
    let begins = |request: &&JoinRequest| {
        text.len() >= PREFIX_MIN && request.channel.to_string().starts_with(&text.to_ascii_lowercase())
    };
    let found: Vec<&JoinRequest> = requests.iter().filter(begins).collect();
    match found.as_slice() {
        [one] => Ok(**one),
        [] => Err(Failure::new(
            Code::RequestUnknown,
            format!("no addition to a channel {text} waits to be accepted"),
        )
        .help("`skytale channel requests` lists those that wait.")),
        _ => Err(
            Failure::new(Code::Usage, format!("several channels' ids begin with {text}")).help("Give more of the id."),
        ),
    }
}

#[derive(Serialize)]
struct Row {
    channel: ChannelId,
    /// Agent that added this one; null if the log no longer has it.
    by: Option<AgentId>,
    /// Name of that agent in this vault; null if it has none.
    by_name: Option<String>,
    /// The account of the agent that added it, as the relay node says; null if that is not known.
    account: Option<AccountId>,
    /// Members of the channel then, this agent included.
    members: Option<u32>,
    /// By this machine's clock, unix milliseconds.
    since_ms: u64,
    #[serde(skip)]
    shown: String,
}

impl Row {
    fn new(request: JoinRequest, names: &Names) -> Self {
        Self {
            channel: request.channel,
            by_name: request.by.and_then(|by| names.get(&by)).map(str::to_owned),
            shown: request.by.map_or("not known".to_owned(), |by| names.long(&by)),
            by: request.by,
            account: request.account,
            members: request.members,
            since_ms: request.since_ms,
        }
    }
}

#[derive(Serialize)]
struct Listed {
    requests: Vec<Row>,
}

impl Human for Listed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.requests.is_empty() {
            return writeln!(to, "no additions wait to be accepted");
        }
        let rows = self.requests.iter().map(|row| {
            vec![
                row.channel.to_string(),
                row.shown.clone(),
                row.account
                    .map_or("not known".to_owned(), |account| account.to_string()),
                row.members.map(|members| members.to_string()).unwrap_or_default(),
                utc(row.since_ms / 1_000),
            ]
        });
        table(to, style, &["channel", "added by", "account", "members", "since"], rows)?;
        writeln!(
            to,
            "{}",
            style.dim("`skytale channel accept CHANNEL` joins one, `skytale channel decline CHANNEL` leaves it.")
        )
    }
}

#[derive(Serialize)]
struct Accepted {
    accepted: ChannelId,
}

impl Human for Accepted {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(to, "{} {}", style.good("accepted:"), self.accepted)
    }
}

#[derive(Serialize)]
struct Declined {
    declined: ChannelId,
}

impl Human for Declined {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(to, "{} {}", style.good("declined:"), self.declined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::Offset;

    #[test]
    fn a_request_is_meant_by_the_beginning_of_its_channels_id() {
        let request = |first| JoinRequest::new(ChannelId::from_bytes([first; 16]), Offset::FIRST);
        let requests = [request(0xab), request(0xac)];
        assert_eq!(meant("ABAB", &requests).expect("one"), requests[0]);
        assert_eq!(
            meant(&requests[1].channel.to_string(), &requests).expect("one"),
            requests[1]
        );
        assert_eq!(
            meant("a", &requests).expect_err("too short").code(),
            Code::RequestUnknown
        );
        let twice = [request(0xab), request(0xab)];
        assert_eq!(meant("abab", &twice).expect_err("two").code(), Code::Usage);
        assert_eq!(meant("ffff", &requests).expect_err("none").code(), Code::RequestUnknown);
    }
}
