//! Start in a channel's history.

use crate::agent::failed;
use crate::config::age;
use crate::output::Outcome;
use skytale_proto::Offset;
use skytale_sdk::{Channel, Keep};
use std::time::Duration;

/// Options that say where to begin.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(id = "start", multiple = false)]
pub(super) struct Start {
    /// Begin with so many of the newest messages.
    #[arg(long, value_name = "COUNT")]
    last: Option<u64>,
    /// Begin with what the log accepted so long ago or later: 90s, 10m, 12h, 7d, 2w.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    since: Option<Duration>,
    /// Begin with the message at this offset.
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// Begin after this offset, as a cursor.
    #[arg(long, value_name = "OFFSET")]
    after: Option<u64>,
}

fn parse_age(text: &str) -> Result<Duration, &'static str> {
    age(text).ok_or("expected an age such as 10m (s, m, h, d, w)")
}

impl Start {
    /// The offset after which to begin, if that was said.
    pub(super) async fn after(self, channel: &Channel) -> Outcome<Option<Offset>> {
        let keep = match (self.last, self.since) {
            (Some(count), _) => Keep::Newest(count),
            (None, Some(age)) => Keep::Younger(age),
            (None, None) => {
                let from = self.from.map(|from| from.saturating_sub(1));
                return Ok(from.or(self.after).map(Offset::new));
            }
        };
        let first = channel
            .first_kept(keep)
            .await
            .map_err(failed("cannot read the channel"))?;
        Ok(Some(Offset::new(first.get().saturating_sub(1))))
    }
}

/// Messages that may be acknowledged: those with nothing unread before them that was not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    /// The first message that is unread.
    first: Option<Offset>,
}

impl Unread {
    pub(super) async fn of(channel: &Channel) -> Outcome<Self> {
        let inbox = channel.inbox(Offset::ZERO, 1).await;
        let inbox = inbox.map_err(failed("cannot read the channel"))?;
        Ok(Self {
            first: inbox.first().map(|message| message.offset),
        })
    }

    /// Whether a reader that begins after an offset skips some of them.
    pub(super) fn is_skipped_after(self, after: Offset) -> bool {
        self.first.is_some_and(|first| first <= after)
    }
}
