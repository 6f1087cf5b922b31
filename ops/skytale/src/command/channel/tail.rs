//! `skytale channel tail`.

use super::problems::{Strict, remark};
use super::start::{Start, Unread};
use super::{Reference, Session, message};
use crate::agent::{AgentArgs, Mode, failed, wait_online, with_agent};
use crate::names::{Book, Names};
use crate::output::{Failure, Outcome, Output, printable};
use skytale_proto::{ChannelId, Code, Offset};
use skytale_sdk::{Agent, AgentError, Channel, Event, Lost, Message, Problem};

/// Messages read from the vault at once.
const PAGE: u32 = 256;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    #[command(flatten)]
    start: Start,
    /// End after so many messages.
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// Print the messages' bytes and nothing else, a newline after each.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

/// Progress of the shown messages.
struct Shown {
    left: u64,
    last: Option<Offset>,
    /// Messages before the first that is shown are unread: nothing is marked as read, since that would mark them, too.
    skips: bool,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mut shown = Shown {
        left: args.count.unwrap_or(u64::MAX),
        last: None,
        skips: false,
    };
    let done = with_agent(&session, &args.agent, Mode::Able, async |agent| {
        let what = "cannot read the channel";
        // A lost connection comes back by itself.
        wait_online(agent, &args.agent, &session.output).await?;
        let channel = args.channel.of(agent, &session).await?;
        let mut events = agent.events();
        if shown.last.is_none() {
            shown.begin(&args, &channel, agent, &session).await?;
        }
        // Also what another one acknowledges meanwhile: both show all.
        let mut messages = channel.watch(shown.last).await.map_err(failed(what))?;
        let mut book = Book::of(agent).await?;
        let mut watched = Watched::new(channel.id());
        remark(&session.output, &channel, shown_before(&channel).await?).await?;
        args.strict.judge_channel(&channel).await?;
        while shown.left > 0 {
            tokio::select! {
                received = messages.next() => {
                    let received = received.map_err(over(what))?;
                    let names = book.names(agent).await?;
                    message::show(&session.output, channel.id(), &received, names, args.raw)?;
                    shown.one_more(&received);
                    if !shown.skips {
                        // Shown, so it does not come again; killed in between, it does.
                        received.ack().await.map_err(failed(what))?;
                    }
                }
                Some(event) = events.next() => {
                    watched.tell(&session.output, &event, book.names(agent).await?);
                    if is_problem(channel.id(), &event) {
                        args.strict.judge_channel(&channel).await?;
                    }
                }
            }
        }
        args.strict.judge_channel(&channel).await
    });
    done.await
}

/// Returns the report for the end of messages.
pub(super) fn over(what: &'static str) -> impl Fn(AgentError) -> Failure {
    move |error| match error.code() {
        Code::ChannelLeft => Failure::new(error.code(), "this agent is no longer in the channel"),
        _ => failed(what)(error),
    }
}

impl Shown {
    fn one_more(&mut self, message: &Message) {
        self.last = Some(message.offset);
        self.left -= 1;
    }

    /// Shows what the history has from where the options say on, own messages too.
    async fn begin(&mut self, args: &Args, channel: &Channel, agent: &Agent, session: &Session) -> Outcome {
        let Some(mut after) = args.start.after(channel).await? else {
            return Ok(());
        };
        let what = "cannot read the channel";
        self.skips = Unread::of(channel).await?.is_skipped_after(after);
        if self.skips {
            let note = "messages before these are unread: nothing is marked as read";
            session.output.note(note);
        }
        let names = Names::of(agent).await?;
        self.last = Some(after);
        while self.left > 0 {
            let page = u32::try_from(self.left).unwrap_or(u32::MAX).min(PAGE);
            let messages = channel.history(after, page).await.map_err(failed(what))?;
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                message::show(&session.output, channel.id(), message, &names, args.raw)?;
                after = message.offset;
                self.one_more(message);
                if !self.skips {
                    channel.ack_message(message).await.map_err(failed(what))?;
                }
            }
        }
        Ok(())
    }
}

/// The last message that was shown before, as far as the history has it.
async fn shown_before(channel: &Channel) -> Outcome<Offset> {
    let what = "cannot read the channel";
    let unread = channel.info().await.map_err(failed(what))?.unacked;
    if unread == 0 {
        return channel.cursor().await.map_err(failed(what));
    }
    Ok(Offset::ZERO)
}

/// Whether an event may have brought a problem.
fn is_problem(watched: ChannelId, event: &Event) -> bool {
    match event {
        Event::Divergence { channel, .. }
        | Event::Settled { channel, .. }
        | Event::OutOfSync { channel, .. }
        | Event::Superseded { channel, .. }
        | Event::Renewing { channel, .. }
        | Event::SendFailed { channel, .. } => *channel == watched,
        Event::EntriesLost { channel, .. }
        | Event::RolledBack { channel, .. }
        | Event::EntryUnreadable { channel, .. } => *channel == Some(watched),
        // It may have been among those that are gone.
        Event::Lagged { .. } => true,
        _ => false,
    }
}

/// A channel that a person watches.
pub(super) struct Watched {
    channel: ChannelId,
    /// It was said that the node is not there.
    waits: bool,
}

impl Watched {
    pub(super) const fn new(channel: ChannelId) -> Self {
        Self { channel, waits: false }
    }

    /// Says what a person who watches wants to know besides the messages. That the node is not there is said once.
    pub(super) fn tell(&mut self, output: &Output, event: &Event, names: &Names) {
        match event {
            Event::NobodyListens { .. } if std::mem::replace(&mut self.waits, true) => return,
            Event::Connected { .. } => self.waits = false,
            _ => {}
        }
        tell(output, self.channel, event, names);
    }
}

fn tell(output: &Output, watched: ChannelId, event: &Event, names: &Names) {
    let text = match event {
        Event::NobodyListens { reason } => format!("the node is not running, waiting for it: {reason}"),
        Event::Disconnected { code, reason } => format!("disconnected ({code}): {reason}"),
        Event::Connected { over_https: true, .. } => "connected, over HTTPS".to_owned(),
        Event::Connected { .. } => "connected".to_owned(),
        Event::MemberAdded { channel, agent, .. } if *channel == watched => format!("{} came", names.long(agent)),
        Event::MemberRemoved { channel, agent, .. } if *channel == watched => format!("{} is gone", names.long(agent)),
        Event::MemberNotAdded { channel, agent, code } if *channel == watched => format!(
            "{} is not added yet ({code}); what was sent after the addition goes out without it",
            names.long(agent)
        ),
        Event::MemberOutOfSync { channel, agent, .. } if *channel == watched => {
            format!("{} is out of sync, and has asked to be added again", names.long(agent))
        }
        Event::MemberRejoined { channel, agent, .. } if *channel == watched => format!("{} is back", names.long(agent)),
        Event::EntriesLost {
            channel: Some(channel),
            first,
            last,
            reason,
        } if *channel == watched => Problem::Lost(Lost::new(*first, *last, *reason)).describe(),
        Event::OutOfSync { channel, since, reason } if *channel == watched => format!(
            "out of sync with the group since entry {since}: {reason}; it has asked to be added again, what is sent waits"
        ),
        Event::Rejoined { channel, missed, .. } if *channel == watched => match missed {
            0 => "rejoined".to_owned(),
            1 => "rejoined; 1 message was not read".to_owned(),
            missed => format!("rejoined; {missed} messages were not read"),
        },
        Event::Renewing { channel, reason, .. } if *channel == watched => {
            format!("this vault is an older copy: {reason}; what is sent waits for new keys")
        }
        Event::Renewed { channel, .. } if *channel == watched => "new keys are in force".to_owned(),
        Event::Rebooted { channel, by, .. } if *channel == watched => {
            format!("{} began the group again", names.long(by))
        }
        Event::Superseded { channel, .. } if *channel == watched => {
            "another copy of this vault has taken its place: this one sends and reads no more".to_owned()
        }
        Event::EntryUnreadable {
            channel: Some(channel),
            offset,
            reason,
            ..
        } if *channel == watched => format!("entry {offset} cannot be read: {reason}"),
        Event::Gap {
            channel: Some(channel),
            expected,
            found,
        } if *channel == watched => format!("the relay skipped entries: {expected} had to come, {found} came"),
        Event::Refused {
            channel: Some(channel),
            code,
            reason,
            ..
        } if *channel == watched => format!("the relay does not give the channel ({code}): {reason}"),
        _ => return,
    };
    output.note(printable(&text));
}
