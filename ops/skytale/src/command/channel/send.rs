//! `skytale channel send`.

use super::reference::not_followed;
use super::{Reference, Session};
use crate::agent::{AgentArgs, Mode, connect, failed, with_agent};
use crate::output::{Context as _, Failure, Human, Outcome, Style};
use crate::progress::while_sends_leave;
use crate::time::utc;
use serde::Serialize;
use skytale_proto::{ChannelId, Code, FrameId, Offset};
use skytale_sdk::{Agent, AgentError, Channel, Queued, Sent};
use std::fmt;
use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::PathBuf;
use tokio::time::timeout;

/// Maximum bytes read from standard input or a file.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The text that means standard input.
const STDIN: &str = "-";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// The message; `-` or nothing reads it from standard input. After `--` it may begin with a dash.
    text: Option<String>,
    /// Send the contents of a file.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Send each line as a message of its own.
    #[arg(long)]
    lines: bool,
    /// An id of your own for this message: the same id sent again in this channel is the same message, so that a script can
    /// repeat the command whatever its outcome. Remembered for 90 days.
    #[arg(long, value_name = "ID", conflicts_with = "lines")]
    id: Option<String>,
    /// Put it in the outbox and go: it is sent when this agent is online the next time.
    #[arg(long)]
    queue: bool,
    /// Connect first, and put nothing in the outbox if that fails.
    #[arg(long, conflicts_with = "queue")]
    no_queue: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let payloads = args.payloads(&session)?;
    let mode = if args.queue { Mode::Offline } else { Mode::Able };
    let mut queued: Option<Result> = None;
    let ended = with_agent(&session, &args.agent, mode, async |agent| {
        let (sent, result) = match &mut queued {
            None => {
                let channel = args.channel.of(agent, &session).await?;
                if args.no_queue {
                    ready(agent, &channel, &args.agent).await?;
                }
                let sent = args.send(&channel, &payloads).await?;
                let result = Result {
                    channel: channel.id(),
                    messages: sent.iter().map(Message::queued).collect(),
                };
                (sent, queued.insert(result))
            }
            // The process that had the vault open has closed it meanwhile.
            Some(result) => (take_up(agent, result).await?, result),
        };
        // From here on the messages are in the vault: whatever happens, they are not lost, and the result says where
        // they are.
        let went_out = match mode {
            Mode::Offline => Ok(()),
            _ => deliver(agent, sent, result, &args.agent).await,
        };
        if !went_out
            .as_ref()
            .is_err_and(|failure| failure.code() == Code::VaultOwnerGone)
        {
            session.output.give(result)?;
        }
        went_out
    });
    let ended = ended.await;
    if let (Err(failure), Some(result)) = (&ended, &queued)
        && failure.is_silent()
    {
        // Interrupted: queued messages are sent all the same.
        session.output.give(result)?;
        session
            .output
            .note("what is queued goes out when this agent is online the next time");
    }
    ended
}

/// Waits until a message would go out now.
async fn ready(agent: &Agent, channel: &Channel, args: &AgentArgs) -> Outcome {
    let nothing = |failure: Failure| failure.also("Nothing was queued.");
    connect(agent, args.patience()).await.map_err(nothing)?;
    let caught_up = timeout(args.timeout(), channel.caught_up()).await;
    let done = caught_up.unwrap_or_else(|_| Err(AgentError::Offline { waited: args.timeout() }));
    done.map_err(|error| {
        nothing(match error {
            AgentError::NotFollowed { channel, code } => not_followed(&channel.to_string(), code),
            error => failed("cannot send")(error),
        })
    })
}

/// Waits again for messages that were sent before.
async fn take_up(agent: &Agent, result: &mut Result) -> Outcome<Vec<Sent>> {
    let what = "cannot send";
    let channel = agent.channel(result.channel).await.map_err(failed(what))?;
    let mut all = Vec::new();
    for message in &mut result.messages {
        match channel.sent(message.frame_id).await.map_err(failed(what))? {
            Some(sent) => all.push(sent),
            // In the log, and not in the history any more.
            None => message.state = "delivered",
        }
    }
    Ok(all)
}

async fn deliver(agent: &Agent, sent: Vec<Sent>, result: &mut Result, args: &AgentArgs) -> Outcome {
    connect(agent, args.patience()).await.map_err(Failure::queued)?;
    let all = async {
        let mut messages = result.messages.iter_mut();
        for sent in sent {
            // In the same order; some may be in the log already.
            let Some(message) = messages.find(|message| message.frame_id == sent.frame_id()) else {
                break;
            };
            let delivered = sent.delivered().await.map_err(|error| match error {
                AgentError::SendFailed { frame_id, .. } => failed("cannot send")(error).also(&format!(
                    "`skytale channel outbox retry {frame_id}` sends it again, `drop` in place of `retry` forgets it.",
                )),
                // It waits for what this agent lacks now.
                _ => failed("cannot send")(error).queued(),
            });
            match delivered {
                Ok(delivered) => (message.state, message.offset) = ("delivered", delivered.offset()),
                Err(failure) => {
                    if !failure.is_kept() {
                        message.state = "failed";
                    }
                    return Err(failure);
                }
            }
        }
        Ok(())
    };
    // Nothing is sent in a channel that cannot be followed.
    let channel = agent.channel(result.channel).await.map_err(failed("cannot send"))?;
    let unfollowed = async {
        match channel.caught_up().await {
            Err(AgentError::NotFollowed { channel, code }) => not_followed(&channel.to_string(), code).queued(),
            _ => std::future::pending().await,
        }
    };
    let all = async {
        tokio::select! {
            biased;
            done = all => done,
            failure = unfollowed => Err(failure),
        }
    };
    match while_sends_leave(agent, result.channel, args.timeout(), all).await {
        Some(delivered) => delivered,
        None => {
            let what = format!("not delivered, and nothing sent for {} s", args.timeout().as_secs());
            let outbox = channel.outbox().await.map_err(failed("cannot send"))?;
            Err(late(what, outbox).queued())
        }
    }
}

/// Something waits in the outbox: the last answer of a relay node, to it or to messages that wait before it.
fn late(what: String, outbox: Vec<Queued>) -> Failure {
    let refusals = outbox.into_iter().filter_map(|queued| queued.last_refusal);
    match refusals.max_by_key(|refusal| refusal.at_ms) {
        Some(refusal) => Failure::new(refusal.code, what).since(format!(
            "the relay node refused at {}: {} {}",
            utc(refusal.at_ms / 1_000),
            refusal.code,
            refusal.code.name()
        )),
        None => Failure::new(Code::Offline, what),
    }
}

impl Args {
    async fn send(&self, channel: &Channel, payloads: &[Vec<u8>]) -> Outcome<Vec<Sent>> {
        let what = "cannot send";
        match (&self.id, payloads) {
            (Some(id), [payload]) => {
                let sent = channel.send_once(id, payload.clone()).await;
                sent.map(|sent| vec![sent]).map_err(failed(what))
            }
            _ => {
                let payloads = payloads.iter().cloned().map(Into::into).collect();
                channel.send_many(payloads).await.map_err(failed(what))
            }
        }
    }

    fn payloads(&self, session: &Session) -> Outcome<Vec<Vec<u8>>> {
        if let Some(text) = self.text.as_ref().filter(|text| *text != STDIN) {
            if self.lines {
                return Err(Failure::new(
                    Code::Usage,
                    "`--lines` is for standard input or `--file`, not for a text",
                ));
            }
            return Ok(vec![text.clone().into_bytes()]);
        }
        let bytes = match &self.file {
            Some(file) => {
                let reading = || format!("cannot read {}", file.display());
                read(File::open(file).failing(Code::Environment, reading)?).failing(Code::Environment, reading)?
            }
            None => {
                let stdin = std::io::stdin();
                if stdin.is_terminal() {
                    session.output.note("Type the message, then Ctrl-D.");
                }
                read(stdin.lock()).failing(Code::Environment, || "cannot read standard input".into())?
            }
        };
        if bytes.len() as u64 > INPUT_BYTES_MAX {
            return Err(Failure::new(Code::PayloadTooLarge, "there is more to send than 64 MiB"));
        }
        if self.lines {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let lines: Vec<_> = lines.map(<[u8]>::to_vec).collect();
            if lines.is_empty() {
                return Err(Failure::new(Code::Usage, "there is no line to send"));
            }
            return Ok(lines);
        }
        Ok(vec![bytes])
    }
}

fn read(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Serialize)]
struct Result {
    channel: ChannelId,
    messages: Vec<Message>,
}

#[derive(Serialize)]
struct Message {
    frame_id: FrameId,
    /// `delivered`, `queued`, or `failed`: it will not be delivered.
    state: &'static str,
    offset: Option<Offset>,
}

impl Message {
    const fn queued(sent: &Sent) -> Self {
        Self {
            frame_id: sent.frame_id(),
            state: "queued",
            offset: None,
        }
    }
}

impl Human for Result {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        for message in &self.messages {
            match message.offset {
                Some(offset) => writeln!(to, "{} at offset {offset}", style.good("delivered"))?,
                None if message.state == "delivered" => writeln!(to, "{} before", style.good("delivered"))?,
                None if message.state == "failed" => writeln!(to, "{} {}", style.bad("failed"), message.frame_id)?,
                None => writeln!(to, "{} {}", style.bold("queued"), message.frame_id)?,
            }
        }
        Ok(())
    }
}
