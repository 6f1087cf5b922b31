//! Newtypes for everything that is named or counted. Text forms are lower-case hex, except for
//! [`FrameId`] and the account's ids, which are UUIDs.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Text or bytes that are not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}: {found}")]
pub struct IdError {
    expected: &'static str,
    found: String,
}

impl IdError {
    fn new(expected: &'static str, found: impl Into<String>) -> Self {
        Self {
            expected,
            found: found.into(),
        }
    }

    fn length(expected: &'static str, bytes: usize) -> Self {
        Self::new(expected, format!("{bytes} bytes"))
    }

    /// A text as it may be shown: short, and without what could confuse a terminal.
    fn text(expected: &'static str, text: &str) -> Self {
        Self::new(expected, format!("`{}`", crate::shown(text, 80)))
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = $length;

            /// Makes it from its bytes.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError::length($what, bytes.len()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError::text($what, text);
                if text.len() != $length * 2 {
                    return Err(wrong());
                }
                let bytes = data_encoding::HEXLOWER_PERMISSIVE
                    .decode(text.as_bytes())
                    .map_err(|_| wrong())?;
                Self::try_from(bytes.as_slice())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

bytes_id!(
    /// An agent: its long-lived Ed25519 public key (RFC 8032), 32 bytes. It is also the signature
    /// key of the agent's leaf in every MLS group.
    AgentId, 32, "an agent id (64 hex digits)"
);
bytes_id!(
    /// An iroh endpoint: the Ed25519 public key that a QUIC connection proves, 32 bytes.
    EndpointId, 32, "an endpoint id (64 hex digits)"
);
bytes_id!(
    /// One process of a relay node, from its start to its end: 128 random bits.
    InstanceId, 16, "an instance id (32 hex digits)"
);
bytes_id!(
    /// A channel: its home region in the first byte, then 120 random bits.
    ChannelId, 16, "a channel id (32 hex digits)"
);

impl InstanceId {
    /// A new random id. Panics where the system has no randomness to give.
    pub fn generate() -> Self {
        Self(random())
    }
}

impl AgentId {
    /// The agent's own log.
    pub const fn log(self) -> LogId {
        LogId::Agent(self)
    }
}

/// The home region of a log; 0 on a single node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Region(pub u8);

impl ChannelId {
    /// A new random id on a single node. Panics where the system has no randomness to give.
    pub fn generate() -> Self {
        Self::generate_in(Region::default())
    }

    /// A new random id whose log lives in `region`.
    pub fn generate_in(region: Region) -> Self {
        let mut bytes = random();
        bytes[0] = region.0;
        Self(bytes)
    }

    /// Returns the region that keeps the channel's log.
    pub const fn home(&self) -> Region {
        Region(self.0[0])
    }

    /// The channel's log.
    pub const fn log(self) -> LogId {
        LogId::Channel(self)
    }
}

#[allow(clippy::expect_used)]
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    // A system without randomness can run nothing here: every key would be known.
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// A log: a channel's or an agent's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogId {
    /// One MLS group's (or raw channel's) log.
    Channel(ChannelId),
    /// KeyPackages offered and claimed by one agent, and Welcomes to it.
    Agent(AgentId),
}

impl LogId {
    const CHANNEL_TAG: u8 = 1;
    const AGENT_TAG: u8 = 2;
    /// The longest encoding, in bytes.
    pub const LENGTH_MAX: usize = 33;

    /// One tag byte, then the id.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (tag, id) = match self {
            Self::Channel(id) => (Self::CHANNEL_TAG, id.as_bytes().as_slice()),
            Self::Agent(id) => (Self::AGENT_TAG, id.as_bytes().as_slice()),
        };
        let mut bytes = Vec::with_capacity(1 + id.len());
        bytes.push(tag);
        bytes.extend_from_slice(id);
        bytes
    }

    /// The channel, if this is a channel's log.
    pub const fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Channel(id) => Some(*id),
            Self::Agent(_) => None,
        }
    }

    /// The agent, if this is an agent's log.
    pub const fn agent(&self) -> Option<AgentId> {
        match self {
            Self::Agent(id) => Some(*id),
            Self::Channel(_) => None,
        }
    }
}

impl TryFrom<&[u8]> for LogId {
    type Error = IdError;
    fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
        match bytes.split_first() {
            Some((&Self::CHANNEL_TAG, id)) => id.try_into().map(Self::Channel),
            Some((&Self::AGENT_TAG, id)) => id.try_into().map(Self::Agent),
            _ => Err(IdError::length("a log id", bytes.len())),
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(id) => write!(f, "channel:{id}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
        }
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

impl FromStr for LogId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once(':') {
            Some(("channel", id)) => id.parse().map(Self::Channel),
            Some(("agent", id)) => id.parse().map(Self::Agent),
            _ => Err(IdError::text("a log id (`channel:` or `agent:` and hex digits)", text)),
        }
    }
}

/// A position in one log: dense, from 1. As a cursor it is the last offset processed, and
/// [`Offset::ZERO`] is "nothing yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(u64);

impl Offset {
    /// Nothing yet.
    pub const ZERO: Self = Self(0);
    /// The first entry of a log.
    pub const FIRST: Self = Self(1);
    /// No entry will ever be here.
    pub const MAX: Self = Self(u64::MAX);

    /// Makes it from a number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset after this one. At 2^64 - 1 it stays there: no log gets so far.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The offset before this one; of [`Offset::ZERO`], itself.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offset({})", self.0)
    }
}

/// Length of a UUID's text with hyphens.
const HYPHENATED: usize = 36;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Its length, in bytes.
            pub const LENGTH: usize = 16;

            /// A new id (UUIDv7, RFC 9562 section 5.7): sorts by the time it was made.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Makes it from 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                let bytes: [u8; 16] =
                    bytes.try_into().map_err(|_| IdError::length($what, bytes.len()))?;
                Ok(Self::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                // One form: with hyphens.
                let uuid = (text.len() == HYPHENATED).then(|| Uuid::try_parse(text).ok()).flatten();
                uuid.map(Self).ok_or_else(|| IdError::text($what, text))
            }
        }
    };
}

uuid_id!(
    /// A frame: made by its author once and kept across retries.
    FrameId, "a frame id (a UUID)"
);
uuid_id!(
    /// An account of the API.
    AccountId, "an account id (a UUID)"
);
uuid_id!(
    /// An API key's public part.
    KeyId, "a key id (a UUID)"
);
uuid_id!(
    /// The enrolment of a relay node.
    EnrolmentId, "an enrolment id (a UUID)"
);

impl FrameId {
    /// The id of the Welcome that an accepted bundle causes: the same for the same
    /// (channel, offset, recipient), so that emitting it twice is a duplicate (UUIDv8, RFC 9562 section 5.8).
    pub fn of_welcome(channel: &ChannelId, offset: Offset, recipient: &AgentId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"skytale welcome 1");
        hasher.update(channel.as_bytes());
        hasher.update(&offset.get().to_le_bytes());
        hasher.update(recipient.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Whether the id is of the kind that [`FrameId::of_welcome`] makes. Anyone can compute those beforehand, so a log
    /// takes them for Welcomes alone; an author's own ids are of another version.
    pub const fn is_of_welcome(&self) -> bool {
        self.as_bytes()[6] >> 4 == 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_log_id_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(log) = LogId::try_from(bytes.as_slice()) {
                prop_assert_eq!(log.to_bytes(), bytes);
                prop_assert_eq!(log.to_string().parse::<LogId>(), Ok(log));
            }
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text in ".{0,100}") {
            let _ = text.parse::<LogId>();
            let _ = text.parse::<FrameId>();
            let _ = text.parse::<AgentId>();
        }
    }

    #[test]
    fn a_welcome_has_one_id_for_each_channel_offset_and_recipient() {
        let (channel, agent) = (ChannelId::from_bytes([1; 16]), AgentId::from_bytes([2; 32]));
        let id = FrameId::of_welcome(&channel, Offset::new(5), &agent);
        assert_eq!(id, FrameId::of_welcome(&channel, Offset::new(5), &agent));
        assert_ne!(id, FrameId::of_welcome(&channel, Offset::new(6), &agent));
        assert!(id.is_of_welcome());
        assert!(!FrameId::generate().is_of_welcome());
    }
}
