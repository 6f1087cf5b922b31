//! `skytale channel tail`.

use super::{Reference, Session, message};
use crate::agent::{AgentArgs, Mode, connect, failed, with_agent};
use crate::output::{Failure, Outcome, Output};
use skytale_proto::Code;
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
                Some(event) = events.next() => tell(&session.output, channel.id(), event)?,
            }
        }
        Ok(())
    });
    shown.await
}

/// What a person who watches wants to know besides the messages.
fn tell(output: &Output, watched: skytale_proto::ChannelId, event: Event) -> Outcome {
    match event {
        Event::Disconnected { code, reason } => output.note(format_args!("disconnected ({code}): {reason}")),
        Event::Connected { .. } => output.note("connected"),
        Event::MemberAdded { channel, agent, .. } if channel == watched => output.note(format_args!("{agent} came")),
        Event::MemberRemoved { channel, agent, .. } if channel == watched => {
            output.note(format_args!("{agent} is gone"));
        }
        Event::EntryUnreadable {
            channel: Some(channel),
            offset,
            reason,
            ..
        } if channel == watched => {
            output.note(format_args!("the entry at offset {offset} cannot be read: {reason}"));
        }
        Event::Divergence {
            channel,
            offset,
            author,
            ours,
            theirs,
        } if channel == watched => {
            let ours = ours.map_or_else(|| "nothing".into(), |digest| digest.to_string());
            return Err(
                Failure::new(Code::Divergence, "the relay showed two agents different logs").since(format!(
                    "at offset {offset} this agent has {ours}, {author} has {theirs}"
                )),
            );
        }
        Event::Gap {
            channel: Some(channel),
            expected,
            found,
        } if channel == watched => {
            output.note(format_args!(
                "the relay skipped entries: {expected} had to come, {found} came"
            ));
        }
        _ => {}
    }
    Ok(())
}
