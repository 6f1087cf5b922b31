//! `skytale channel read`.

use super::problems::{Strict, remark};
use super::start::{Start, Unread};
use super::{Reference, Session, message};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::names::Names;
use crate::output::{Failure, Outcome, Output};
use skytale_proto::{Code, Offset};
use skytale_sdk::{Channel, Message};

/// Messages read from the vault at once.
const PAGE: u32 = 256;
const WHAT: &str = "cannot read the channel";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    #[command(flatten)]
    start: Start,
    /// Show no more than this.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Show messages of others that are unread (not shown by `tail` or `--unread`, and not dealt with by a program that uses
    /// this vault), and mark them as read.
    #[arg(long, conflicts_with = "start")]
    unread: bool,
    /// Mark shown messages as read.
    #[arg(long)]
    ack: bool,
    /// Show messages that the log no longer has, since the relay node's data was put back to an earlier time: with the offsets
    /// that they had then.
    #[arg(long, conflicts_with_all = ["unread", "start", "ack"])]
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
        after: None,
        left: args.limit.unwrap_or(u64::MAX),
        acks: args.ack,
    };
    let done = with_agent(&session, &args.agent, mode, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let names = Names::of(agent).await?;
        let show = |message: &Message| message::show(&session.output, channel.id(), message, &names, args.raw);
        if shown.after.is_none() {
            shown.after = args.start.after(&channel).await?;
        }
        remark(&session.output, &channel, shown.after()).await?;
        if args.replaced {
            let limit = u32::try_from(shown.left).unwrap_or(u32::MAX);
            for message in channel.replaced(limit).await.map_err(failed(WHAT))? {
                show(&message)?;
            }
        } else if args.unread {
            shown.unread(&channel, show).await?;
        } else {
            shown.history(&channel, &session.output, show).await?;
        }
        args.strict.judge_channel(&channel).await
    });
    done.await
}

/// Progress of the shown messages.
struct Shown {
    after: Option<Offset>,
    left: u64,
    acks: bool,
}

impl Shown {
    fn after(&self) -> Offset {
        self.after.unwrap_or(Offset::ZERO)
    }

    fn page(&self) -> u32 {
        u32::try_from(self.left).unwrap_or(u32::MAX).min(PAGE)
    }

    fn one_more(&mut self, message: &Message) {
        self.after = Some(message.offset);
        self.left -= 1;
    }

    /// Those that were not acknowledged when the command began.
    async fn unread(&mut self, channel: &Channel, show: impl Fn(&Message) -> Outcome) -> Outcome {
        let last = channel.cursor().await.map_err(failed(WHAT))?;
        while self.left > 0 {
            let messages = channel.inbox(self.after(), self.page()).await.map_err(failed(WHAT))?;
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

    async fn history(&mut self, channel: &Channel, output: &Output, show: impl Fn(&Message) -> Outcome) -> Outcome {
        let skips = Unread::of(channel).await?.is_skipped_after(self.after());
        if self.acks && skips {
            return Err(Failure::new(
                Code::Usage,
                "messages before these are unread, and would be marked as read",
            )
            .help("Begin with the first that is unread (`--unread` shows it), or leave `--ack` out."));
        }
        let mut unmarked = false;
        while self.left > 0 {
            let messages = channel.history(self.after(), self.page()).await.map_err(failed(WHAT))?;
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                show(message)?;
                self.one_more(message);
                if self.acks {
                    channel.ack_message(message).await.map_err(failed(WHAT))?;
                }
            }
            unmarked |= !self.acks;
        }
        if unmarked {
            still_unread(channel, output).await?;
        }
        Ok(())
    }
}

/// To look at messages is not to have dealt with them: another program may use this vault. A person expects otherwise.
async fn still_unread(channel: &Channel, output: &Output) -> Outcome {
    let unread = channel.info().await.map_err(failed(WHAT))?.unacked;
    let what = match unread {
        0 => return Ok(()),
        1 => "1 message stays unread".to_owned(),
        more => format!("{more} messages stay unread"),
    };
    output.note(format_args!("{what}: `--ack` marks what is shown as read"));
    Ok(())
}
