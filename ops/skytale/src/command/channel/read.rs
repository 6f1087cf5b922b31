//! `skytale channel read`.

use super::problems::{Strict, remark};
use super::{Reference, Session, message};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::output::Outcome;
use skytale_proto::Offset;
use skytale_sdk::channel::Channel;
use skytale_sdk::engine::Message;

/// Messages read from the vault at once.
const PAGE: u32 = 256;
const WHAT: &str = "cannot read the channel";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// Show messages after this offset.
    #[arg(long, value_name = "OFFSET", default_value_t = 0, conflicts_with = "unread")]
    after: u64,
    /// Show no more than this.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Show messages of others that `--unread` or `tail` have not shown before, and no others.
    #[arg(long)]
    unread: bool,
    /// Show what the vault has, without asking the network.
    #[arg(long)]
    offline: bool,
    /// Print the messages' bytes and nothing else, a newline after each.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    let shown = with_agent(&session, &args.agent, mode, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let show = |message: &Message| message::show(&session.output, channel.id(), message, args.raw);
        let limit = args.limit.unwrap_or(u64::MAX);
        remark(&session.output, &channel, Offset::new(args.after)).await?;
        if args.unread {
            unread(&channel, limit, show).await?;
        } else {
            history(&channel, Offset::new(args.after), limit, show).await?;
        }
        args.strict.judge_channel(&channel).await
    });
    shown.await
}

async fn unread(channel: &Channel, limit: u64, show: impl Fn(&Message) -> Outcome) -> Outcome {
    let waiting = channel.info().await.map_err(failed(WHAT))?.unacked;
    let mut messages = channel.messages();
    for _ in 0..waiting.min(limit) {
        let received = messages.next().await.map_err(failed(WHAT))?;
        show(&received)?;
        received.ack().await.map_err(failed(WHAT))?;
    }
    Ok(())
}

async fn history(channel: &Channel, after: Offset, limit: u64, show: impl Fn(&Message) -> Outcome) -> Outcome {
    let (mut after, mut left) = (after, limit);
    while left > 0 {
        let page = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE);
        let messages = channel.history(after, page).await.map_err(failed(WHAT))?;
        let Some(last) = messages.last() else { break };
        after = last.offset;
        left = left.saturating_sub(messages.len() as u64);
        for message in &messages {
            show(message)?;
        }
    }
    Ok(())
}
