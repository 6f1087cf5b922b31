//! `skytale channel tail`.

use super::problems::{Strict, remark};
use super::{Reference, Session, message};
use crate::agent::{AgentArgs, Mode, connect, failed, with_agent};
use crate::output::{Failure, Outcome, Output, printable};
use skytale_proto::{ChannelId, Code, Offset};
use skytale_sdk::channel::Channel;
use skytale_sdk::engine::{Lost, Problem};
use skytale_sdk::event::Event;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// End after so many messages.
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// Print the messages' bytes and nothing else, a newline after each.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut last = None;
    let shown = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let what = "cannot read the channel";
        let channel = args.channel.of(agent, &session).await?;
        // Where the connection is lost it comes back by itself.
        connect(agent, args.agent.timeout()).await?;
        let mut events = agent.events();
        // Also what another one acknowledges meanwhile: both show all.
        let mut messages = channel.watch(last).await.map_err(failed(what))?;
        remark(&session.output, &channel, shown_before(&channel).await?).await?;
        args.strict.judge_channel(&channel).await?;
        while left > 0 {
            tokio::select! {
                received = messages.next() => {
                    let received = received.map_err(|error| match error.code() {
                        Code::ChannelLeft => Failure::new(error.code(), "this agent is no longer in the channel"),
                        _ => failed(what)(error),
                    })?;
                    message::show(&session.output, channel.id(), &received, args.raw)?;
                    left -= 1;
                    last = Some(received.offset);
                    // Shown, so it does not come again; killed in between, it does.
                    received.ack().await.map_err(failed(what))?;
                }
                Some(event) = events.next() => {
                    tell(&session.output, channel.id(), &event);
                    if is_problem(channel.id(), &event) {
                        args.strict.judge_channel(&channel).await?;
                    }
                }
            }
        }
        args.strict.judge_channel(&channel).await
    });
    shown.await
}

/// The last message that was shown before, as far as the history has it.
async fn shown_before(channel: &Channel) -> Outcome<Offset> {
    let what = "cannot read the channel";
    let unread = channel.info().await.map_err(failed(what))?.unacked;
    if unread == 0 {
        return channel.cursor().await.map_err(failed(what));
    }
    Ok(Offset::ZERO)
}

/// Whether an event may have brought a problem.
fn is_problem(watched: ChannelId, event: &Event) -> bool {
    match event {
        Event::Divergence { channel, .. }
        | Event::Settled { channel, .. }
        | Event::OutOfSync { channel, .. }
        | Event::Superseded { channel, .. }
        | Event::Renewing { channel, .. }
        | Event::SendFailed { channel, .. } => *channel == watched,
        Event::EntriesLost { channel, .. }
        | Event::RolledBack { channel, .. }
        | Event::EntryUnreadable { channel, .. } => *channel == Some(watched),
        // It may have been among those that are gone.
        Event::Lagged { .. } => true,
        _ => false,
    }
}

/// What a person who watches wants to know besides the messages.
fn tell(output: &Output, watched: ChannelId, event: &Event) {
    let text = match event {
        Event::Disconnected { code, reason } => format!("disconnected ({code}): {reason}"),
        Event::Connected { over_https: true, .. } => "connected, over HTTPS".to_owned(),
        Event::Connected { .. } => "connected".to_owned(),
        Event::MemberAdded { channel, agent, .. } if *channel == watched => format!("{agent} came"),
        Event::MemberRemoved { channel, agent, .. } if *channel == watched => format!("{agent} is gone"),
        Event::MemberOutOfSync { channel, agent, .. } if *channel == watched => {
            format!("{agent} is out of sync, and has asked to be added again")
        }
        Event::MemberRejoined { channel, agent, .. } if *channel == watched => format!("{agent} is back"),
        Event::EntriesLost {
            channel: Some(channel),
            first,
            last,
            reason,
        } if *channel == watched => Problem::Lost(Lost {
            first: *first,
            last: *last,
            reason: *reason,
        })
        .describe(),
        Event::OutOfSync { channel, since, reason } if *channel == watched => format!(
            "out of sync with the group since entry {since}: {reason}; it has asked to be added again, what is sent waits"
        ),
        Event::Rejoined { channel, missed, .. } if *channel == watched => match missed {
            0 => "rejoined".to_owned(),
            1 => "rejoined; 1 message was not read".to_owned(),
            missed => format!("rejoined; {missed} messages were not read"),
        },
        Event::Renewing { channel, reason, .. } if *channel == watched => {
            format!("this vault is an older copy: {reason}; what is sent waits for new keys")
        }
        Event::Renewed { channel, .. } if *channel == watched => "new keys are in force".to_owned(),
        Event::Rebooted { channel, by, .. } if *channel == watched => format!("{by} began the group again"),
        Event::Superseded { channel, .. } if *channel == watched => {
            "another copy of this vault has taken its place: this one sends and reads no more".to_owned()
        }
        Event::EntryUnreadable {
            channel: Some(channel),
            offset,
            reason,
            ..
        } if *channel == watched => format!("entry {offset} cannot be read: {reason}"),
        Event::Gap {
            channel: Some(channel),
            expected,
            found,
        } if *channel == watched => format!("the relay skipped entries: {expected} had to come, {found} came"),
        Event::Refused {
            channel: Some(channel),
            code,
            reason,
            ..
        } if *channel == watched => format!("the relay does not give the channel ({code}): {reason}"),
        _ => return,
    };
    output.note(printable(&text));
}
