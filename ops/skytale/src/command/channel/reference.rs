//! References to channels on the command line.

use crate::agent::failed;
use crate::client;
use crate::command::Session;
use crate::command::likeness::{nearest, normal};
use crate::output::{Failure, Outcome, printable};
use skytale_proto::rest::{self, ChannelName};
use skytale_proto::{ChannelId, Code};
use skytale_sdk::internals::net::Method;
use skytale_sdk::{Agent, Channel, ChannelInfo, ChannelState};
use std::convert::Infallible;
use std::str::FromStr;

/// The shortest beginning of an id that names a channel, in digits.
const PREFIX_MIN: usize = 4;

/// A label, an id or the beginning of one, or a name that the API knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference(String);

impl FromStr for Reference {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl Reference {
    /// The channel of this agent that is meant; a failure where it cannot be followed in this session.
    pub(super) async fn of(&self, agent: &Agent, session: &Session) -> Outcome<Channel> {
        let channel = self.known(agent, session).await?;
        match channel.not_followed() {
            // It may have been removed: the vault's history is as it was.
            None | Some(Code::NotMember) => Ok(channel),
            Some(code) => Err(not_followed(&self.0, code)),
        }
    }

    /// The channel of this agent that is meant, whatever is in its way.
    pub(super) async fn known(&self, agent: &Agent, session: &Session) -> Outcome<Channel> {
        let channels = agent.channels().await.map_err(failed("cannot list the channels"))?;
        let id = match self.among(&channels)? {
            Some(id) => id,
            None => self.named(session, &channels).await?,
        };
        agent.channel(id).await.map_err(|error| {
            Failure::new(error.code(), format!("channel `{}` is not in this vault", self.0))
                .because(&error)
                .help("`skytale channel list` shows what is; an agent joins a channel by being added.")
        })
    }

    /// Looks among an agent's channels. A label in use wins over one of a channel that was left.
    fn among(&self, channels: &[ChannelInfo]) -> Outcome<Option<ChannelId>> {
        if let Ok(id) = self.0.parse() {
            return Ok(Some(id));
        }
        let wanted = normal(&self.0);
        let labelled = |left: bool| {
            let fits = move |channel: &&ChannelInfo| (channel.state == ChannelState::Left) == left;
            channels
                .iter()
                .filter(|channel| !channel.label.is_empty() && normal(&channel.label) == wanted)
                .filter(fits)
                .collect::<Vec<_>>()
        };
        let is_digits = self.0.len() >= PREFIX_MIN && self.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        let begins = |channel: &&ChannelInfo| is_digits && channel.id.to_string().starts_with(&self.0.to_lowercase());
        let found = [
            labelled(false),
            channels.iter().filter(begins).collect(),
            labelled(true),
        ]
        .into_iter()
        .find(|found| !found.is_empty())
        .unwrap_or_default();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.id)),
            several => {
                let ids: Vec<_> = several.iter().map(|channel| channel.id.to_string()).collect();
                Err(
                    Failure::new(Code::Usage, format!("`{}` names several channels", self.0))
                        .help(format!("Give the id of the one that is meant: {}.", ids.join(", "))),
                )
            }
        }
    }

    /// Asks the API.
    async fn named(&self, session: &Session, channels: &[ChannelInfo]) -> Outcome<ChannelId> {
        let Ok(name) = self.0.parse::<ChannelName>() else {
            return Err(self.unknown("this vault has no channel", channels));
        };
        let client = client::account(&session.loaded)?;
        let path = format!("/v1/channels/{name}");
        match client.call::<(), rest::Channel>(Method::Get, &path, None).await {
            Ok(channel) => Ok(channel.channel),
            Err(error) if error.code() == Code::NotFound => {
                Err(self.unknown("neither this vault nor the account has a channel", channels))
            }
            Err(error) => Err(client::failed(&session.loaded)(error)),
        }
    }

    /// No channel is meant by this; the label most like it, if one is.
    fn unknown(&self, what: &str, channels: &[ChannelInfo]) -> Failure {
        let failure = Failure::new(Code::ChannelUnknown, format!("{what} `{}`", printable(&self.0)));
        let help = "`skytale channel list` shows what there is; an agent joins a channel by being added.";
        match nearest(&self.0, channels.iter().map(|channel| channel.label.as_str())) {
            Some(near) => failure.help(format!("Did you mean `{}`? {help}", printable(near))),
            None => failure.help(help),
        }
    }
}

/// A channel cannot be followed, for a reason that lasts.
pub(super) fn not_followed(name: &str, code: Code) -> Failure {
    let failure = Failure::new(code, format!("channel `{name}` cannot be followed"));
    match code {
        Code::CursorBeyondHead => failure
            .since("the relay's log is shorter than what this agent has seen")
            .help(
                "Ask the relay's operator whether its data was put back from a copy. What this agent sends here waits; its \
                 other channels work. `--offline` reads what the vault has, `skytale channel problems` shows the evidence.",
            ),
        Code::UnknownLog => failure
            .since("the relay does not know the channel, which this agent is in")
            .help(
                "Ask the relay's operator whether its data was put back from a copy. What this agent sends here waits; its \
                 other channels work.",
            ),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(first: u8, label: &str, state: ChannelState) -> ChannelInfo {
        ChannelInfo::new(ChannelId::from_bytes([first; 16]), label, state)
    }

    #[test]
    fn a_channel_is_found_by_label_id_and_the_beginning_of_its_id() {
        let channels = [
            channel(0xaa, "plans", ChannelState::Left),
            channel(0xbb, "plans", ChannelState::Active),
            channel(0xcc, "twice", ChannelState::Active),
            channel(0xcd, "twice", ChannelState::Active),
            channel(0xdd, "old", ChannelState::Left),
        ];
        let find = |text: &str| Reference(text.into()).among(&channels);
        assert_eq!(find("plans").expect("one"), Some(channels[1].id));
        assert_eq!(find("old").expect("one"), Some(channels[4].id));
        assert_eq!(find("BBBBBB").expect("one"), Some(channels[1].id));
        assert_eq!(find(&channels[0].id.to_string()).expect("one"), Some(channels[0].id));
        assert_eq!(find("bbb").expect("none"), None);
        assert_eq!(find("nothing").expect("none"), None);
        assert_eq!(find("twice").expect_err("two").code(), Code::Usage);
        assert_eq!(find("").expect("an empty text names no channel"), None);
    }

    #[test]
    fn a_label_that_is_not_there_is_answered_with_the_nearest() {
        let channels = [channel(0xaa, "plans", ChannelState::Active)];
        let text = |wanted: &str| {
            let failure = Reference(wanted.into()).unknown("this vault has no channel", &channels);
            failure.text(&crate::output::Style::PLAIN)
        };
        assert!(text("plnas").contains("Did you mean `plans`?"));
        assert!(!text("zzz").contains("Did you mean"));
    }
}
