//! A message as it is shown.

use crate::names::{DIGITS, Names};
use crate::output::{Human, Outcome, Output, Style, printable};
use crate::time::utc;
use data_encoding::BASE64;
use serde::Serialize;
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
use skytale_sdk::Message;
use std::fmt;

/// One line. Exactly one of `text` and `base64` is there.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    channel: ChannelId,
    offset: Offset,
    frame_id: FrameId,
    author: AgentId,
    /// Name of the author in this vault; null if it has none.
    author_name: Option<&'a str>,
    own: bool,
    /// By the author's clock, unix milliseconds.
    sent_ms: u64,
    /// By the relay node's clock, unix milliseconds.
    time_ms: u64,
    text: Option<&'a str>,
    base64: Option<String>,
    #[serde(skip)]
    names: &'a Names,
}

impl<'a> Shown<'a> {
    pub(super) fn new(channel: ChannelId, message: &'a Message, names: &'a Names) -> Self {
        let text = std::str::from_utf8(&message.payload).ok();
        Self {
            channel,
            offset: message.offset,
            frame_id: message.frame_id,
            author: message.author,
            author_name: names.get(&message.author),
            own: message.own,
            sent_ms: message.sent_ms,
            time_ms: message.time_ms,
            names,
            base64: text.is_none().then(|| BASE64.encode(&message.payload)),
            text,
        }
    }
}

impl Human for Shown<'_> {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let author = match self.own {
            true => "me".to_owned(),
            false => self.names.short(&self.author),
        };
        let author = format!("{author:DIGITS$}");
        let head = format!("{:>6}  {}", self.offset.get(), utc(self.time_ms / 1_000));
        match (self.text, &self.base64) {
            (Some(text), _) => {
                // A line of the text must not look as if it were another message.
                let next = format!("\n{}", " ".repeat(head.len() + 2 + author.chars().count() + 2));
                let text = printable(text.trim_end_matches('\n')).replace('\n', &next);
                writeln!(to, "{}  {}  {text}", style.dim(&head), style.bold(&author))
            }
            (None, Some(base64)) => writeln!(to, "{}  {}  base64:{base64}", style.dim(&head), style.bold(&author)),
            (None, None) => Ok(()),
        }
    }
}

/// Shows a message: as JSON, for a person, or its bytes and nothing else, a newline after each.
pub(super) fn show(output: &Output, channel: ChannelId, message: &Message, names: &Names, raw: bool) -> Outcome {
    if raw && !output.is_json() {
        let mut bytes = message.payload.to_vec();
        bytes.push(b'\n');
        return output.write(&bytes);
    }
    output.give(&Shown::new(channel, message, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &'static [u8]) -> Message {
        let (frame_id, author) = (FrameId::from_bytes([1; 16]), AgentId::from_bytes([0xab; 32]));
        let mut message = Message::new(Offset::new(7), frame_id, author, payload);
        (message.sent_ms, message.time_ms) = (1, 2_000);
        message
    }

    fn line(payload: &'static [u8]) -> String {
        let mut text = String::new();
        let message = message(payload);
        Shown::new(ChannelId::from_bytes([2; 16]), &message, &Names::default())
            .human(&mut text, &Style::PLAIN)
            .expect("written");
        text
    }

    #[test]
    fn a_message_cannot_write_on_the_terminal_what_it_likes() {
        assert_eq!(
            line(b"hello\n"),
            "     7  1970-01-01T00:00:02Z  abababababababab  hello\n"
        );
        let fake = line(b"hi\n    21  2026-01-01T00:00:00Z  me                I approve");
        let mut lines = fake.lines();
        assert!(lines.next().is_some_and(|first| first.ends_with("  hi")), "{fake}");
        let indent = " ".repeat("     7  1970-01-01T00:00:02Z  abababababababab  ".len());
        assert!(lines.all(|line| line.starts_with(&indent)), "{fake}");
        assert!(line(b"\x1b]0;title\x07").contains("\\u{1b}]0;title\\u{7}"));
        assert!(line(b"\xff\xfe").contains("base64://4="));
    }

    #[test]
    fn json_has_the_text_or_its_base64() {
        let (text, bytes) = (message(b"hi"), message(b"\xff"));
        let channel = ChannelId::from_bytes([2; 16]);
        let json = |message| serde_json::to_value(Shown::new(channel, message, &Names::default())).expect("JSON");
        assert_eq!(
            (json(&text)["text"].as_str(), json(&text)["base64"].as_str()),
            (Some("hi"), None)
        );
        assert_eq!(
            (json(&bytes)["text"].as_str(), json(&bytes)["base64"].as_str()),
            (None, Some("/w=="))
        );
    }
}
