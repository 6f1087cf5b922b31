//! Checks whether a stream still is as it was folded. A contradiction is not the same as a stream that does not answer.

use super::chain::message_hash;
use super::shards::ShardId;
use super::streams::{self, Found};
use crate::local::ShardPosition;
use async_nats::jetstream::stream::{Info, PeerInfo};
use async_nats::jetstream::{self, ErrorCode};
use std::time::Duration;

/// A server that a leader has heard from within this long is in contact with it: followers answer every second, and take
/// none for leader after four.
const CONTACT_WITHIN: Duration = Duration::from_secs(3);
/// A copy that is as many of its group's operations behind is not just the slowest of those that take part under load.
const OPERATIONS_BEHIND: u64 = 1_000;

/// Contradiction between a stream and its fold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// The stream is gone.
    #[error("stream {stream} is missing, and this node has followed it to {position}")]
    Missing {
        /// The stream.
        stream: String,
        /// Position of this node.
        position: u64,
    },
    /// Another stream is under the name.
    #[error("stream {stream} was recreated after this node had followed it to {position}")]
    Recreated {
        /// The stream.
        stream: String,
        /// Position of this node.
        position: u64,
    },
    /// It ends before the folded messages do.
    #[error("stream {stream} went back: it ends at {last}, and this node has followed it to {position}")]
    WentBack {
        /// The stream.
        stream: String,
        /// The stream's last sequence.
        last: u64,
        /// Position of this node.
        position: u64,
    },
    /// It ends before what another node has followed.
    #[error(
        "stream {stream} went back: it ends at {last}, another node has followed it to {furthest}, and this one to {position}"
    )]
    OthersHaveMore {
        /// The stream.
        stream: String,
        /// The stream's last sequence.
        last: u64,
        /// Position of the other node.
        furthest: u64,
        /// Position of this node.
        position: u64,
    },
    /// A message has other bytes.
    #[error("stream {stream} has other bytes at {position} than this node has folded")]
    OtherBytes {
        /// The stream.
        stream: String,
        /// Position of this node.
        position: u64,
    },
    /// Messages that this node has not followed are gone.
    #[error(
        "stream {stream} begins at {first}, and this node has followed it to {position} only; no checkpoint closes the gap while it \
         runs (started again, it begins with one, if there is one)"
    )]
    Behind {
        /// The stream.
        stream: String,
        /// The stream's first sequence.
        first: u64,
        /// Position of this node.
        position: u64,
    },
    /// A checkpoint of another history.
    #[error(
        "known nodes vouch for other messages of stream {stream} up to {sequence} than this node has followed: the nodes have diverged"
    )]
    Diverged {
        /// The stream.
        stream: String,
        /// The checkpoint's sequence.
        sequence: u64,
    },
    /// It does not match this node's configuration.
    #[error("stream {stream}: {problem}")]
    Settings {
        /// The stream.
        stream: String,
        /// The problem.
        problem: String,
    },
    /// The server's settings became weaker than promised.
    #[error("{problem}")]
    Weaker {
        /// The missing part.
        problem: String,
    },
}

impl Contradiction {
    /// Whether the stream has changed. Then the followed entries are good, and may be all that there are: they are
    /// served, nothing is added to the stream, and the stream is looked at again, since somebody may put it right. Any
    /// other contradiction is this node's own.
    pub(super) const fn is_of_stream(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::Recreated { .. }
            | Self::WentBack { .. }
            | Self::OthersHaveMore { .. }
            | Self::OtherBytes { .. } => true,
            Self::Behind { .. } | Self::Diverged { .. } | Self::Settings { .. } | Self::Weaker { .. } => false,
        }
    }
}

/// Result of a look at the stream.
pub(super) enum Look {
    /// All is as it was folded.
    Well(Box<Info>),
    /// It is not; a server that was cut off may say so for a while.
    Contradicts(Contradiction),
    /// Nobody could say.
    Unknown(String),
}

/// Compares a stream with a position, and with how far another node has followed it: as known before this was called.
pub(super) async fn look(
    context: &jetstream::Context,
    shard: ShardId,
    position: &ShardPosition,
    furthest: impl Fn(u64) -> Option<u64>,
) -> Look {
    let stream = shard.stream();
    let at = position.sequence;
    let info = match streams::find(context, &stream).await {
        Ok(Found::There(info)) => info,
        Ok(Found::Missing) => {
            return Look::Contradicts(Contradiction::Missing { stream, position: at });
        }
        Err(error) => return Look::Unknown(error.to_string()),
    };
    if !is_in_contact(&info) {
        return Look::Unknown("its leader, if there is one, has not heard from a majority of its servers".into());
    }
    let furthest = furthest(streams::stream_id(&info));
    if let Some(contradiction) = contradiction(&stream, &info, position, furthest) {
        return Look::Contradicts(contradiction);
    }
    if at == 0 || at < info.state.first_sequence {
        // Nothing folded, or purged: there are no bytes to compare.
        return Look::Well(info);
    }
    match context.get_stream_no_info(&stream).await {
        Err(error) => Look::Unknown(error.to_string()),
        Ok(handle) => match handle.get_raw_message(at).await {
            Ok(message) if message_hash(&message.subject, &message.payload) == position.message => Look::Well(info),
            Ok(_) => Look::Contradicts(Contradiction::OtherBytes { stream, position: at }),
            Err(error) => {
                use async_nats::jetstream::stream::RawMessageErrorKind as Kind;
                match error.kind() {
                    // A purge may have come between the two questions.
                    Kind::NoMessageFound => Look::Unknown("the message was purged just now".into()),
                    Kind::JetStream(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
                        Look::Unknown("the message was purged just now".into())
                    }
                    _ => Look::Unknown(error.to_string()),
                }
            }
        },
    }
}

/// Whether a stream's leader has heard from a majority of the stream's servers just now. One server alone is one.
pub(super) fn is_in_contact(info: &Info) -> bool {
    let Some(cluster) = &info.cluster else { return true };
    let servers = 1 + cluster.replicas.len();
    let near = cluster.replicas.iter().filter(|peer| is_heard(peer)).count();
    cluster.leader.is_some() && 2 * (1 + near) > servers
}

/// Copies that a stream's leader has not heard from just now, or that are far behind it. Appends go on without them for as
/// long as the others are a majority.
pub(super) fn copies_behind(info: &Info) -> usize {
    let replicas = info.cluster.iter().flat_map(|cluster| &cluster.replicas);
    replicas.filter(|peer| is_behind(peer)).count()
}

/// Whether a leader has heard from a server just now.
fn is_heard(peer: &PeerInfo) -> bool {
    !peer.offline && !peer.active.is_zero() && peer.active < CONTACT_WITHIN
}

fn is_behind(peer: &PeerInfo) -> bool {
    // A server that lags by nothing does not say so.
    let far = peer.lag.unwrap_or(0) > OPERATIONS_BEHIND;
    !is_heard(peer) || (!peer.current && far)
}

fn contradiction(stream: &str, info: &Info, position: &ShardPosition, furthest: Option<u64>) -> Option<Contradiction> {
    let (stream, at) = (stream.to_owned(), position.sequence);
    let (first, last) = (info.state.first_sequence, info.state.last_sequence);
    if streams::stream_id(info) != position.stream {
        return Some(Contradiction::Recreated { stream, position: at });
    }
    if last < at {
        return Some(Contradiction::WentBack {
            stream,
            last,
            position: at,
        });
    }
    if let Some(furthest) = furthest.filter(|furthest| *furthest > last) {
        return Some(Contradiction::OthersHaveMore {
            stream,
            last,
            furthest,
            position: at,
        });
    }
    (at + 1 < first).then_some(Contradiction::Behind {
        stream,
        first,
        position: at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(current: bool, active: Duration, lag: Option<u64>) -> PeerInfo {
        PeerInfo {
            name: "n1".into(),
            current,
            active,
            offline: false,
            lag,
        }
    }

    #[test]
    fn a_copy_is_behind_that_is_not_heard_or_lags_far() {
        let (now, long_ago) = (Duration::from_millis(700), Duration::from_secs(5));
        assert!(!is_behind(&peer(true, now, None)));
        assert!(
            !is_behind(&peer(false, now, Some(3))),
            "the slowest of those that take part"
        );
        assert!(is_behind(&peer(false, now, Some(OPERATIONS_BEHIND + 1))));
        // However little was to be taken since then.
        for lag in [None, Some(1), Some(OPERATIONS_BEHIND + 1)] {
            assert!(is_behind(&peer(false, long_ago, lag)), "{lag:?}");
        }
        assert!(is_behind(&peer(false, Duration::ZERO, None)), "never heard");
        let offline = PeerInfo {
            offline: true,
            ..peer(true, now, None)
        };
        assert!(is_behind(&offline));
    }
}
