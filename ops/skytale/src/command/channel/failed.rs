//! Sends that have failed: shown, dropped, sent again.

use super::Session;
use super::outbox::{Drop, Retry, name};
use crate::agent::{Mode, failed, with_agent};
use crate::output::{Failure, Human, Outcome, Style, table};
use crate::time::utc;
use serde::Serialize;
use skytale_proto::{ChannelId, Code, FrameId};
use skytale_sdk::{Agent, FailedSend};
use std::fmt;

/// A send that has failed.
#[derive(Serialize)]
pub(super) struct Failed {
    channel: ChannelId,
    frame_id: FrameId,
    kind: &'static str,
    code: String,
    name: &'static str,
    help: &'static str,
    /// By this machine's clock, unix milliseconds; null where an older version did not keep it.
    failed_ms: Option<u64>,
    /// Size of a message's payload.
    bytes: Option<usize>,
}

impl From<FailedSend> for Failed {
    fn from(send: FailedSend) -> Self {
        Self {
            channel: send.channel,
            frame_id: send.frame_id,
            kind: name(send.kind),
            code: send.code.to_string(),
            name: send.code.name(),
            help: send.code.help(),
            failed_ms: send.failed_ms,
            bytes: send.payload.map(|payload| payload.len()),
        }
    }
}

impl Failed {
    pub(super) fn table(failed: &[Self], to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let rows = failed.iter().map(|row| {
            vec![
                row.channel.to_string(),
                row.frame_id.to_string(),
                row.kind.to_owned(),
                row.failed_ms.map_or_else(String::new, |at| utc(at / 1_000)),
                format!("{} {}", row.code, row.name),
            ]
        });
        table(to, style, &["channel", "frame", "kind", "failed", "why"], rows)
    }
}

pub(super) async fn dropped(args: Drop, session: Session) -> Outcome {
    let mut dropped = Vec::new();
    let done = with_agent(&session, &args.agent, Mode::Offline, async |agent| {
        let sends = if args.all {
            all(agent).await?
        } else {
            find(agent, &left(&args.ids, &dropped, |send: &Failed| send.frame_id)).await?
        };
        for send in sends {
            let what = "cannot forget a send that failed";
            let channel = agent.channel(send.channel).await.map_err(failed(what))?;
            channel.dismiss(send.frame_id).await.map_err(failed(what))?;
            dropped.push(Failed::from(send));
        }
        Ok(())
    });
    done.await?;
    session.output.give(&Dropped { dropped })
}

pub(super) async fn retried(args: Retry, session: Session) -> Outcome {
    let what = "cannot send it again";
    let mut retried = Vec::new();
    let done = with_agent(&session, &args.agent, Mode::Offline, async |agent| {
        for send in find(agent, &left(&args.ids, &retried, |send: &Again| send.before)).await? {
            let channel = agent.channel(send.channel).await.map_err(failed(what))?;
            let again = channel.retry(send.frame_id).await.map_err(|error| {
                let failure = failed(what)(error);
                match failure.code() {
                    Code::ChannelLeft => failure.help(
                        "A member must add this agent again; or forget the message: `skytale channel outbox drop`.",
                    ),
                    Code::RosterChange => failure.help(
                        "Make the change again, if it is still wanted, and forget this one: `skytale channel outbox \
                         drop`.",
                    ),
                    _ => failure,
                }
            })?;
            // Found a moment ago: another process was faster.
            let again = again.ok_or_else(|| unknown(send.frame_id))?;
            retried.push(Again {
                channel: send.channel,
                before: send.frame_id,
                frame_id: again.frame_id(),
                state: "queued",
            });
        }
        Ok(())
    });
    done.await?;
    session.output.give(&Retried { messages: retried })
}

/// The ids that nothing was done about yet: the process that had the vault open may have closed it meanwhile.
fn left<T>(ids: &[FrameId], done: &[T], id: impl Fn(&T) -> FrameId) -> Vec<FrameId> {
    let is_left = |wanted: &&FrameId| done.iter().all(|done| id(done) != **wanted);
    ids.iter().filter(is_left).copied().collect()
}

async fn all(agent: &Agent) -> Outcome<Vec<FailedSend>> {
    agent.failed().await.map_err(failed("cannot read the outbox"))
}

/// The failed sends with these ids: all of them, or none.
async fn find(agent: &Agent, ids: &[FrameId]) -> Outcome<Vec<FailedSend>> {
    let failed_sends = all(agent).await?;
    let mut found: Vec<FailedSend> = Vec::new();
    for id in ids {
        let send = failed_sends.iter().find(|send| send.frame_id == *id);
        let Some(send) = send else {
            let waiting = agent.outbox().await.map_err(failed("cannot read the outbox"))?;
            return Err(match waiting.iter().any(|queued| queued.frame_id == *id) {
                true => unknown(*id).help("It waits in the outbox, and goes out when this agent is online."),
                false => unknown(*id),
            });
        };
        if found.iter().all(|found| found.frame_id != *id) {
            found.push(send.clone());
        }
    }
    Ok(found)
}

fn unknown(id: FrameId) -> Failure {
    Failure::new(Code::NotFound, format!("no send with the id {id} has failed"))
        .help("`skytale channel outbox` shows what waits and what has failed.")
}

#[derive(Serialize)]
struct Dropped {
    dropped: Vec<Failed>,
}

impl Human for Dropped {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.dropped.is_empty() {
            return writeln!(to, "nothing has failed");
        }
        for row in &self.dropped {
            writeln!(to, "{} {}", style.good("dropped"), row.frame_id)?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Retried {
    messages: Vec<Again>,
}

/// A message that waits again.
#[derive(Serialize)]
struct Again {
    channel: ChannelId,
    /// The id under which it failed.
    before: FrameId,
    frame_id: FrameId,
    /// `queued`.
    state: &'static str,
}

impl Human for Retried {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        for message in &self.messages {
            writeln!(to, "{} {}", style.bold("queued"), message.frame_id)?;
        }
        Ok(())
    }
}
