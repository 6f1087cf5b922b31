//! `skytale channel purge`.

use super::{Reference, Session};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::config::{History, age};
use crate::output::{Human, Outcome, Style};
use serde::Serialize;
use skytale_proto::{ChannelId, Offset};
use skytale_sdk::{Keep, Purged};
use std::fmt;
use std::str::FromStr;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// Messages before this offset (120), or older than this (90s, 15m, 12h, 30d, 2w).
    #[arg(long, value_name = "OFFSET|AGE", group = "what")]
    before: Option<Before>,
    /// All but so many of the newest messages (1000), or but those younger than this (30d).
    #[arg(long, value_name = "COUNT|AGE", group = "what")]
    keep: Option<History>,
    /// All messages that were read.
    #[arg(long, group = "what")]
    all: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

/// Cut of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Before(Keep);

impl FromStr for Before {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let offset = text.parse().ok().map(|offset| Keep::From(Offset::new(offset)));
        offset
            .or_else(|| age(text).map(Keep::Younger))
            .map(Self)
            .ok_or("expected an offset such as 120, or an age such as 30d (s, m, h, d, w)")
    }
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let keep = match (args.before, &args.keep) {
        (Some(Before(keep)), _) => keep,
        (None, Some(history)) => history.keep(),
        (None, None) => Keep::Newest(0),
    };
    let done = with_agent(&session, &args.agent, Mode::Offline, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let purged = channel.purge(keep).await.map_err(failed("cannot purge the channel"))?;
        let Purged {
            messages,
            bytes,
            unacked: unread,
            ..
        } = purged;
        Ok(Done {
            channel: channel.id(),
            messages,
            bytes,
            unread,
        })
    });
    session.output.give(&done.await?)
}

#[derive(Serialize)]
struct Done {
    channel: ChannelId,
    messages: u64,
    bytes: u64,
    /// Messages that stay only since they were not read.
    unread: u64,
}

impl Human for Done {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let gone = format!("{} messages, {} bytes", self.messages, self.bytes);
        writeln!(to, "{} {gone}", style.good("purged:"))?;
        if self.unread > 0 {
            writeln!(
                to,
                "{} {} more are unread and stay: `skytale channel read --unread` shows them",
                style.dim("note:"),
                self.unread
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn before_is_an_offset_or_an_age() {
        let before = |text: &str| text.parse::<Before>().map(|before| before.0);
        assert_eq!(before("120"), Ok(Keep::From(Offset::new(120))));
        assert_eq!(before("2h"), Ok(Keep::Younger(Duration::from_secs(7_200))));
        assert!(before("yesterday").is_err() && before("-1").is_err() && before("").is_err());
    }
}
