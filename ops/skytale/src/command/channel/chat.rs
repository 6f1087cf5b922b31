//! `skytale channel chat`: a conversation in one terminal.

use super::input::Input;
use super::talk::{Face, OnTheWay, Read, Refused, Wanted, run as talk};
use super::{Reference, Session, message};
use crate::agent::AgentArgs;
use crate::names::Names;
use crate::output::{Outcome, printable};
use skytale_proto::ChannelId;
use skytale_sdk::{Delivered, Message, PAYLOAD_BYTES_MAX};
use std::io::{IsTerminal as _, stdin};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    if stdin().is_terminal() {
        session
            .output
            .note("Type a line to send it. Ctrl-D ends, when all is delivered.");
    }
    talk(Chat, &args.channel, &args.agent, session).await
}

/// Lines are messages.
struct Chat;

impl Face for Chat {
    fn read(&mut self, session: &Session, line: u64, input: Input) -> Outcome<Read> {
        match input {
            Input::Line(payload) if payload.is_empty() => Ok(Read::Nothing),
            Input::Line(payload) if payload.len() <= PAYLOAD_BYTES_MAX => {
                Ok(Read::Ask(Wanted::Send { id: None, payload }))
            }
            _ => {
                let limit = PAYLOAD_BYTES_MAX;
                session.output.note(format_args!(
                    "line {line} was not sent: it is longer than {limit} bytes"
                ));
                Ok(Read::Refused)
            }
        }
    }

    fn message(&mut self, session: &Session, channel: ChannelId, message: &Message, names: &Names) -> Outcome {
        message::show(&session.output, channel, message, names, false)
    }

    fn delivered(&mut self, _: &Session, _: &OnTheWay, _: Delivered) -> Outcome {
        Ok(())
    }

    fn refused(&mut self, session: &Session, refused: Refused<'_>) -> Outcome {
        let text = refused.failure.text(session.output.style());
        let line = refused.line;
        session
            .output
            .note(format_args!("line {line} was not sent: {}", printable(text.trim_end())));
        Ok(())
    }

    fn acks(&self) -> bool {
        true
    }
}
