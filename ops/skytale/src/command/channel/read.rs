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
    /// Show messages that the log no longer has, since the relay node's data was put back to an earlier time: with the offsets
    /// that they had then.
    #[arg(long, conflicts_with_all = ["unread", "after"])]
    replaced: bool,
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
    let mut shown = Shown {
        after: Offset::new(args.after),
        left: args.limit.unwrap_or(u64::MAX),
    };
    let done = with_agent(&session, &args.agent, mode, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let show = |message: &Message| message::show(&session.output, channel.id(), message, args.raw);
        remark(&session.output, &channel, shown.after).await?;
        if args.replaced {
            let limit = u32::try_from(shown.left).unwrap_or(u32::MAX);
            for message in channel.replaced(limit).await.map_err(failed(WHAT))? {
                show(&message)?;
            }
        } else if args.unread {
            shown.unread(&channel, show).await?;
        } else {
            shown.history(&channel, show).await?;
        }
        args.strict.judge_channel(&channel).await
    });
    done.await
}

/// How far messages were shown.
struct Shown {
    after: Offset,
    left: u64,
}

impl Shown {
    fn page(&self) -> u32 {
        u32::try_from(self.left).unwrap_or(u32::MAX).min(PAGE)
    }

    fn one_more(&mut self, message: &Message) {
        self.after = message.offset;
        self.left -= 1;
    }

    /// Those that were not acknowledged when the command began.
    async fn unread(&mut self, channel: &Channel, show: impl Fn(&Message) -> Outcome) -> Outcome {
        let last = channel.cursor().await.map_err(failed(WHAT))?;
        while self.left > 0 {
            let messages = channel.inbox(self.after, self.page()).await.map_err(failed(WHAT))?;
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                if message.offset > last {
                    return Ok(());
                }
                show(message)?;
                self.one_more(message);
                channel.ack_message(message).await.map_err(failed(WHAT))?;
            }
        }
        Ok(())
    }

    async fn history(&mut self, channel: &Channel, show: impl Fn(&Message) -> Outcome) -> Outcome {
        while self.left > 0 {
            let messages = channel.history(self.after, self.page()).await.map_err(failed(WHAT))?;
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                show(message)?;
                self.one_more(message);
            }
        }
        Ok(())
    }
}
