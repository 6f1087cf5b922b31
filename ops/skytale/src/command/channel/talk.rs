//! Both directions at once: lines from standard input are sent, messages in the channel are shown.

use super::input::{Input, lines};
use super::tail::{Watched, over};
use super::{Reference, Session};
use crate::agent::{AgentArgs, Mode, failed, wait_online, with_agent};
use crate::names::{Book, Names};
use crate::output::{Failure, Outcome};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use skytale_proto::{ChannelId, Code, FrameId, Offset};
use skytale_sdk::{Agent, AgentError, Channel, Delivered, Message, Sent};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Messages on their way at once; with more, standard input waits.
const ON_THE_WAY_MAX: usize = 256;
/// Messages read from the vault at once.
const PAGE: u32 = 64;
const WHAT: &str = "cannot send";
/// Time after the end of standard input at which the command says what it waits for.
const LATE: Duration = Duration::from_secs(1);

/// Interface to the user: reads lines, and shows events.
pub(super) trait Face {
    /// Returns the request in a line. A line that cannot be used is shown.
    fn read(&mut self, session: &Session, line: u64, input: Input) -> Outcome<Read>;

    /// Shows a message. It may be acknowledged when this returns.
    fn message(&mut self, session: &Session, channel: ChannelId, message: &Message, names: &Names) -> Outcome;

    /// Says that a message is in the log.
    fn delivered(&mut self, session: &Session, sent: &OnTheWay, delivered: Delivered) -> Outcome;

    /// Says that a message will not be delivered (`frame_id`), or was not taken.
    fn refused(&mut self, session: &Session, ask: Refused<'_>) -> Outcome;

    /// Whether a message that was shown is dealt with.
    fn acks(&self) -> bool;
}

/// Request in a line.
#[derive(Clone, Debug)]
struct Ask {
    line: u64,
    what: Wanted,
}

/// Contents of a line.
#[derive(Clone, Debug)]
pub(super) enum Read {
    Ask(Wanted),
    /// Empty.
    Nothing,
    /// It cannot be used, and that was shown.
    Refused,
}

#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// A message.
    Send { id: Option<String>, payload: Vec<u8> },
    /// The application has dealt with the messages so far.
    Ack(Offset),
}

/// A message that is not known to be in the log yet.
#[derive(Clone, Debug)]
pub(super) struct OnTheWay {
    pub(super) line: u64,
    pub(super) id: Option<String>,
    pub(super) frame_id: FrameId,
}

/// A message that is not delivered.
pub(super) struct Refused<'a> {
    pub(super) line: u64,
    pub(super) id: Option<&'a str>,
    pub(super) frame_id: Option<FrameId>,
    pub(super) failure: &'a Failure,
}

/// State that lasts when the process that has the vault open closes it meanwhile.
struct Talk<F> {
    face: F,
    input: mpsc::Receiver<Input>,
    lines: u64,
    ended: Option<Instant>,
    /// Read, and not done yet.
    held: Option<Ask>,
    on_the_way: Vec<OnTheWay>,
    last: Option<Offset>,
    refused: u64,
}

/// Runs until standard input has ended and all that it brought is in the log.
pub(super) async fn run<F: Face>(face: F, reference: &Reference, args: &AgentArgs, session: Session) -> Outcome {
    let mut talk = Talk {
        face,
        input: lines(),
        lines: 0,
        ended: None,
        held: None,
        on_the_way: Vec::new(),
        last: None,
        refused: 0,
    };
    let done = with_agent(&session, args, Mode::Able, async |agent| {
        wait_online(agent, args, &session.output).await?;
        let channel = reference.of(agent, &session).await?;
        talk.go_on(agent, &channel, args, &session).await
    });
    done.await?;
    match talk.refused {
        0 => Ok(()),
        refused => {
            let what = format!("{refused} of {} lines not sent", talk.lines);
            let help = "The answer to each says why.";
            Err(Failure::new(Code::Usage, what).help(help).partly())
        }
    }
}

impl<F: Face> Talk<F> {
    async fn go_on(&mut self, agent: &Agent, channel: &Channel, args: &AgentArgs, session: &Session) -> Outcome {
        let mut events = agent.events();
        let mut messages = channel
            .watch(self.last)
            .await
            .map_err(failed("cannot read the channel"))?;
        let mut book = Book::of(agent).await?;
        let mut watched = Watched::new(channel.id());
        let mut said = false;
        let mut waiting = FuturesUnordered::new();
        for sent in self.taken_up(channel, session).await? {
            waiting.push(settled(sent));
        }
        loop {
            if let Some(ask) = self.held.clone() {
                if let Some(sent) = self.done(channel, ask, session).await? {
                    waiting.push(settled(sent));
                }
                self.held = None;
            }
            if self.ended.is_some() && waiting.is_empty() {
                break;
            }
            let ended = self.ended;
            let takes = ended.is_none() && waiting.len() < ON_THE_WAY_MAX;
            tokio::select! {
                received = messages.next() => {
                    let received = received.map_err(over("cannot read the channel"))?;
                    self.show(channel, &received, book.names(agent).await?, session).await?;
                }
                Some((frame_id, settled)) = waiting.next(), if !waiting.is_empty() => {
                    self.settle(frame_id, settled, session)?;
                }
                input = self.input.recv(), if takes => self.read(input, session)?,
                Some(event) = events.next() => watched.tell(&session.output, &event, book.names(agent).await?),
                () = late(ended), if !said => {
                    said = true;
                    session.output.note(format_args!(
                        "waiting until {} delivered; Ctrl-C ends, and what is in the outbox goes out later",
                        counted(waiting.len())
                    ));
                }
                () = too_late(ended, args) => {
                    let what = format!("{} not delivered yet", counted(waiting.len()));
                    return Err(Failure::new(Code::Offline, what).queued());
                }
            }
        }
        // Messages before the last own one in the log are shown, too.
        self.rest(channel, book.names(agent).await?, session).await
    }

    /// Takes a line, or the end of them.
    fn read(&mut self, input: Option<Input>, session: &Session) -> Outcome {
        let Some(input) = input else {
            self.ended = Some(Instant::now());
            return Ok(());
        };
        if let Input::Failed(reason) = input {
            return Err(Failure::new(Code::Environment, "cannot read standard input").since(reason));
        }
        self.lines += 1;
        let line = self.lines;
        match self.face.read(session, line, input)? {
            Read::Ask(what) => self.held = Some(Ask { line, what }),
            Read::Nothing => {}
            Read::Refused => self.refused += 1,
        }
        Ok(())
    }

    /// Does what a line asks for.
    async fn done(&mut self, channel: &Channel, ask: Ask, session: &Session) -> Outcome<Option<Sent>> {
        let (id, payload) = match ask.what {
            Wanted::Ack(offset) => {
                channel.ack(offset).await.map_err(failed("cannot acknowledge"))?;
                return Ok(None);
            }
            Wanted::Send { id, payload } => (id, payload),
        };
        let sent = match &id {
            Some(id) => channel.send_once(id, payload).await,
            None => channel.send(payload).await,
        };
        match sent {
            Ok(sent) => {
                self.on_the_way.push(OnTheWay {
                    line: ask.line,
                    id,
                    frame_id: sent.frame_id(),
                });
                Ok(Some(sent))
            }
            // The line is still held, and is done again.
            Err(error) if error.code() == Code::VaultOwnerGone => Err(failed(WHAT)(error)),
            Err(error) => {
                self.refused += 1;
                let refused = Refused {
                    line: ask.line,
                    id: id.as_deref(),
                    frame_id: None,
                    failure: &failed(WHAT)(error),
                };
                self.face.refused(session, refused)?;
                Ok(None)
            }
        }
    }

    async fn show(&mut self, channel: &Channel, message: &Message, names: &Names, session: &Session) -> Outcome {
        self.face.message(session, channel.id(), message, names)?;
        self.last = Some(message.offset);
        if self.face.acks() {
            // Shown, so it does not come again; killed in between, it does.
            let acked = channel.ack_message(message).await;
            acked.map_err(failed("cannot acknowledge"))?;
        }
        Ok(())
    }

    async fn rest(&mut self, channel: &Channel, names: &Names, session: &Session) -> Outcome {
        loop {
            let after = self.last.unwrap_or(Offset::ZERO);
            let inbox = channel.inbox(after, PAGE).await;
            let inbox = inbox.map_err(failed("cannot read the channel"))?;
            if inbox.is_empty() {
                return Ok(());
            }
            for message in &inbox {
                self.show(channel, message, names, session).await?;
            }
        }
    }

    /// Something that was sent is in the log, or never will be.
    fn settle(&mut self, frame_id: FrameId, settled: Result<Delivered, AgentError>, session: &Session) -> Outcome {
        let Some(at) = self.on_the_way.iter().position(|sent| sent.frame_id == frame_id) else {
            return Ok(());
        };
        match settled {
            Ok(delivered) => {
                let sent = self.on_the_way.remove(at);
                self.face.delivered(session, &sent, delivered)
            }
            Err(error @ AgentError::SendFailed { .. }) => {
                let sent = self.on_the_way.remove(at);
                self.refused += 1;
                let refused = Refused {
                    line: sent.line,
                    id: sent.id.as_deref(),
                    frame_id: Some(frame_id),
                    failure: &failed(WHAT)(error),
                };
                self.face.refused(session, refused)
            }
            Err(error) => Err(failed(WHAT)(error).queued()),
        }
    }

    /// Waits again for messages on their way, if the process that had the vault open has closed it meanwhile.
    async fn taken_up(&mut self, channel: &Channel, session: &Session) -> Outcome<Vec<Sent>> {
        let mut all = Vec::new();
        for frame_id in self.on_the_way.iter().map(|sent| sent.frame_id).collect::<Vec<_>>() {
            match channel.sent(frame_id).await.map_err(failed(WHAT))? {
                Some(sent) => all.push(sent),
                // In the log, and not in the history any more.
                None => self.settle(frame_id, Ok(Delivered::Unneeded), session)?,
            }
        }
        Ok(all)
    }
}

/// `1 message is`, `2 messages are`.
fn counted(messages: usize) -> String {
    match messages {
        1 => "1 message is".to_owned(),
        more => format!("{more} messages are"),
    }
}

/// Resolves when a person wonders why it has not ended yet.
async fn late(ended: Option<Instant>) {
    match ended {
        Some(ended) => sleep(LATE.saturating_sub(ended.elapsed())).await,
        None => std::future::pending().await,
    }
}

/// Resolves when messages on their way had their allowed time, after the end of standard input.
async fn too_late(ended: Option<Instant>, args: &AgentArgs) {
    match (ended, args.timeout_s) {
        (Some(ended), Some(_)) => sleep(args.timeout().saturating_sub(ended.elapsed())).await,
        _ => std::future::pending().await,
    }
}

async fn settled(sent: Sent) -> (FrameId, Result<Delivered, AgentError>) {
    (sent.frame_id(), sent.delivered().await)
}
