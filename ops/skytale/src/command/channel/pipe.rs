//! `skytale channel pipe`: a channel as JSON lines, for programs in any language.

use super::input::{Input, LINE_BYTES_MAX};
use super::message::Shown;
use super::talk::{Face, OnTheWay, Read, Refused, Wanted, run as talk};
use super::{Reference, Session};
use crate::agent::AgentArgs;
use crate::names::Names;
use crate::output::{Failure, Outcome};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use skytale_proto::{ChannelId, Code, FrameId, Offset};
use skytale_sdk::{Delivered, Message};

/// Shown by `skytale channel pipe --help`.
pub(super) const SHAPES: &str = "\
Standard input, one JSON object a line:
  {\"text\": \"hello\"}                    send a message
  {\"base64\": \"AAEC\"}                   send bytes
  {\"text\": \"hello\", \"id\": \"order-17\"}  send under an id of your own:
                                       sent again, it is the same message
  {\"ack\": 12}                          with --acks: messages up to offset 12
                                       are dealt with

Standard output, one JSON object a line, by its `type`:
  message    a message of another agent: channel, offset, frame_id, author,
             author_name, own, sent_ms, time_ms, and text, or base64 where it
             is no UTF-8
  delivered  what a line sent is in the log: line, id, frame_id, offset
  refused    what a line asked for was not done: line, id, frame_id, code,
             name, what, help

It ends when standard input has ended and all that was sent is delivered:
exit code 0, or 8 if a line was refused.

After a crash: a message is acknowledged once standard output has taken its
line, so it may come twice, and `frame_id` tells. What was sent is in the vault
and goes out the next time; a program that does not know whether its line was
taken sends it again under the same `id`.";

#[derive(Debug, clap::Args)]
#[command(after_help = SHAPES)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// Acknowledge messages when an `ack` line says so, and not when they were written: what a program has not dealt with when
    /// it dies is shown again.
    #[arg(long)]
    acks: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    talk(Pipe { by_lines: args.acks }, &args.channel, &args.agent, session).await
}

/// Lines are JSON.
struct Pipe {
    by_lines: bool,
}

/// A line of standard input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: Option<String>,
    base64: Option<String>,
    id: Option<String>,
    ack: Option<u64>,
}

impl Pipe {
    fn parse(&self, bytes: &[u8]) -> Result<Wanted, String> {
        let line: Line = serde_json::from_slice(bytes).map_err(|error| format!("not JSON of this shape: {error}"))?;
        match (line.text, line.base64, line.ack) {
            (Some(text), None, None) => Ok(Wanted::Send {
                id: line.id,
                payload: text.into_bytes(),
            }),
            (None, Some(base64), None) => {
                let payload = BASE64.decode(base64.as_bytes());
                Ok(Wanted::Send {
                    id: line.id,
                    payload: payload.map_err(|error| format!("`base64`: {error}"))?,
                })
            }
            (None, None, Some(offset)) if self.by_lines && line.id.is_none() => Ok(Wanted::Ack(Offset::new(offset))),
            (None, None, Some(_)) if !self.by_lines => Err("`ack` is for `--acks`".into()),
            _ => Err("give one of `text`, `base64` and `ack`".into()),
        }
    }
}

impl Face for Pipe {
    fn read(&mut self, session: &Session, line: u64, input: Input) -> Outcome<Read> {
        let parsed = match &input {
            Input::Line(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => return Ok(Read::Nothing),
            Input::Line(bytes) => self.parse(bytes),
            _ => Err(format!("the line is longer than {LINE_BYTES_MAX} bytes")),
        };
        match parsed {
            Ok(what) => Ok(Read::Ask(what)),
            Err(problem) => {
                let failure =
                    Failure::new(Code::Usage, problem).help("`skytale channel pipe --help` shows the shapes.");
                self.refused(
                    session,
                    Refused {
                        line,
                        id: None,
                        frame_id: None,
                        failure: &failure,
                    },
                )?;
                Ok(Read::Refused)
            }
        }
    }

    fn message(&mut self, session: &Session, channel: ChannelId, message: &Message, names: &Names) -> Outcome {
        write(session, &Told::Message(Shown::new(channel, message, names)))
    }

    fn delivered(&mut self, session: &Session, sent: &OnTheWay, delivered: Delivered) -> Outcome {
        write(
            session,
            &Told::Delivered {
                line: sent.line,
                id: sent.id.as_deref(),
                frame_id: sent.frame_id,
                offset: delivered.offset(),
            },
        )
    }

    fn refused(&mut self, session: &Session, refused: Refused<'_>) -> Outcome {
        let failure = refused.failure;
        write(
            session,
            &Told::Refused {
                line: refused.line,
                id: refused.id,
                frame_id: refused.frame_id,
                code: failure.code().to_string(),
                name: failure.code().name(),
                what: failure.reason(),
                help: failure.advice(),
            },
        )
    }

    fn acks(&self) -> bool {
        !self.by_lines
    }
}

/// A line of standard output.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Told<'a> {
    Message(Shown<'a>),
    Delivered {
        line: u64,
        id: Option<&'a str>,
        frame_id: FrameId,
        /// Null where it was delivered before and is no longer in the history.
        offset: Option<Offset>,
    },
    Refused {
        line: u64,
        id: Option<&'a str>,
        frame_id: Option<FrameId>,
        code: String,
        name: &'static str,
        what: String,
        help: &'a str,
    },
}

fn write(session: &Session, told: &Told<'_>) -> Outcome {
    let mut line = serde_json::to_string(told)
        .map_err(|error| Failure::new(Code::Environment, "cannot write the result as JSON").because(&error))?;
    line.push('\n');
    session.output.write(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_asks_for_one_thing() {
        let parse = |by_lines, text: &str| Pipe { by_lines }.parse(text.as_bytes());
        assert!(matches!(
            parse(false, r#"{"text":"hi","id":"a"}"#),
            Ok(Wanted::Send { id: Some(id), payload }) if id == "a" && payload == b"hi"
        ));
        assert!(matches!(
            parse(false, r#"{"base64":"AAEC"}"#),
            Ok(Wanted::Send { id: None, payload }) if payload == [0, 1, 2]
        ));
        assert!(matches!(parse(true, r#"{"ack":3}"#), Ok(Wanted::Ack(offset)) if offset == Offset::new(3)));
        for wrong in [
            "",
            "hello",
            "{}",
            r#"{"text":"a","base64":"AA=="}"#,
            r#"{"base64":"?"}"#,
            r#"{"ack":3}"#,
            r#"{"text":"a","wat":1}"#,
            r#"{"text":1}"#,
        ] {
            assert!(parse(false, wrong).is_err(), "{wrong}");
        }
        assert!(parse(true, r#"{"ack":3,"id":"a"}"#).is_err());
    }
}
