//! `skytale channel forget`.

use super::{Reference, Session};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::output::{Failure, Human, Outcome, Style, printable};
use serde::Serialize;
use skytale_proto::{ChannelId, Code};
use skytale_sdk::ChannelState;
use std::fmt;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// Forget it although the vault has messages of it that are unread.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let what = "cannot forget the channel";
    let mut forgotten = None;
    let done = with_agent(&session, &args.agent, Mode::Offline, async |agent| {
        if forgotten.is_some() {
            return Ok(());
        }
        let channel = args.channel.known(agent, &session).await?;
        let info = channel.info().await.map_err(failed(what))?;
        // It never came into the log: nobody else is in it, and it needs no network to be gone.
        let is_stillborn =
            info.state == ChannelState::Creating && !channel.failed().await.map_err(failed(what))?.is_empty();
        if is_stillborn {
            channel.leave().await.map_err(failed(what))?;
        } else if info.state != ChannelState::Left {
            let state = info.state.name();
            return Err(
                Failure::new(Code::NotLeft, format!("channel {} is {state}", channel.id()))
                    .help(format!("Leave it first: `skytale channel leave {}`.", channel.id())),
            );
        }
        if info.unacked > 0 && !args.force {
            let what = format!(
                "the vault has unread messages of channel {}: {}",
                channel.id(),
                info.unacked
            );
            return Err(Failure::new(Code::Usage, what).help(format!(
                "`skytale channel read --unread --offline {}` shows them. `--force` forgets them, too.",
                channel.id()
            )));
        }
        channel.forget().await.map_err(failed(what))?;
        forgotten = Some(Forgotten {
            forgotten: channel.id(),
            label: info.label,
        });
        Ok(())
    });
    done.await?;
    match forgotten {
        Some(forgotten) => session.output.give(&forgotten),
        None => Ok(()),
    }
}

#[derive(Serialize)]
struct Forgotten {
    forgotten: ChannelId,
    label: String,
}

impl Human for Forgotten {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let label = match self.label.as_str() {
            "" => String::new(),
            label => format!(" (`{}`)", printable(label)),
        };
        writeln!(to, "{} {}{label}", style.good("forgotten:"), self.forgotten)
    }
}
