//! The log status stream: the state of a log and of its trimmed entries.

use super::error::{Refused, RelayError};
use super::session::Session;
use prost::Message as _;
use skytale_proto::session::{LogStatusRequest, LogStatusResponse, log_status_response::Outcome, open};
use skytale_proto::{ChannelId, LogId, Offset, limits};

/// Head and trimmed entries of a log, as a relay node reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// The last entry.
    pub head: Offset,
    /// The first available offset.
    pub first: Offset,
    /// The last entry given up that was not itself a Trim.
    pub given_up: Offset,
    /// For a channel: its handshake head.
    pub handshake_head: Offset,
    /// For this agent's own log: Welcomes among the entries given up, with the offsets of their bundles.
    pub welcomes: Vec<(ChannelId, Offset)>,
    /// Word of the node's operator that the log may have gone back: its time (unix milliseconds by the node's clock),
    /// and the log's last entry at that time.
    pub rollback: Option<(u64, Offset)>,
}

/// Requests a log's status.
pub async fn log_status(session: &Session, log: LogId) -> Result<LogStatus, RelayError> {
    let request = LogStatusRequest {
        log: log.to_bytes().into(),
    };
    let asked = request.encoded_len();
    let (mut send, mut answers) = session
        .open(open::Stream::LogStatus(request), limits::MESSAGE_BYTES_MAX)
        .await?;
    let _ = send.finish();
    answers.owed().begin(asked);
    let answer = answers.next::<LogStatusResponse>().await;
    answers.owed().end();
    let broken = |problem: &str| session.explain(RelayError::protocol(problem));
    let outcome = answer.map_err(|error| session.explain(error))?;
    let outcome = outcome.ok_or_else(|| RelayError::lost("the relay ended the log status stream"))?;
    let status = match outcome.outcome {
        Some(Outcome::Status(status)) => status,
        Some(Outcome::Refusal(refusal)) => return Err(Refused::from(refusal).into()),
        None => return Err(broken("a log status request answered with nothing")),
    };
    let (welcomes, rest) = status.welcomes.as_chunks::<WELCOME_BYTES>();
    if !rest.is_empty() || welcomes.len() > limits::WELCOMES_REMEMBERED_MAX {
        return Err(broken("a log status with malformed Welcomes"));
    }
    if status.given_up >= status.first || status.first > status.head.saturating_add(1) {
        return Err(broken("a log status that contradicts itself"));
    }
    Ok(LogStatus {
        head: Offset::new(status.head),
        first: Offset::new(status.first),
        given_up: Offset::new(status.given_up),
        handshake_head: Offset::new(status.handshake_head),
        welcomes: welcomes.iter().filter_map(welcome).collect(),
        rollback: (1..=TIME_MS_MAX)
            .contains(&status.rollback_ms)
            .then_some((status.rollback_ms, Offset::new(status.rollback_head.min(status.head)))),
    })
}

/// The end of the year 9999, unix milliseconds.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// A channel and a bundle's offset.
const WELCOME_BYTES: usize = ChannelId::LENGTH + 8;

fn welcome(bytes: &[u8; WELCOME_BYTES]) -> Option<(ChannelId, Offset)> {
    let (channel, bundle) = bytes.split_first_chunk::<{ ChannelId::LENGTH }>()?;
    let bundle = u64::from_le_bytes(*bundle.first_chunk()?);
    Some((ChannelId::from_bytes(*channel), Offset::new(bundle)))
}
