//! Reads what each node kept, and puts it beside what agents learned.

use crate::output::{Failure, Outcome};
use skytale_history::{Entry, EntryKind, Event};
use skytale_log_store::inspect::{self, InspectError};
use skytale_proto::{AgentId, ChannelId, Code, Detail, Frame, Kind, Offset, Record};
use std::path::Path;

/// The channel as a stopped node kept it.
#[derive(Debug)]
pub(super) struct Replica {
    /// Events of a reader that stands for the node.
    pub events: Vec<Event>,
    /// Entries that were given up as too old.
    pub given_up: u64,
}

/// Reads it.
pub(super) fn replica(node: usize, log: &Path, channel: ChannelId) -> Outcome<Replica> {
    let failed = |error: InspectError| Failure::new(error.code(), "cannot read a relay node's replica").because(&error);
    let mut bytes = Vec::new();
    inspect::export(log, channel.log(), &mut bytes).map_err(failed)?;
    let damaged = |what: String| Failure::new(Code::StoreCorrupt, "a relay node's replica is damaged").since(what);
    // No agent has such a key.
    let agent = AgentId::from_bytes([u8::try_from(node).unwrap_or(u8::MAX); 32]);
    let mut events = Vec::new();
    let (mut last, mut given_up) = (Offset::ZERO, 0);
    for record in Record::decode_batch(bytes.into()) {
        let record = record.map_err(|error| damaged(error.to_string()))?;
        let digest = blake3::hash(&record.payload).to_string();
        let frame = Frame::decode(record.payload).map_err(|error| damaged(error.to_string()))?;
        let header = frame.header();
        if events.is_empty() {
            events.push(super::traffic::reads(agent, channel, record.offset));
        }
        if let Detail::Trim { up_to } = &header.detail {
            given_up = given_up.max(up_to.get());
        }
        events.push(Event::Delivered {
            agent,
            channel,
            entry: Entry {
                offset: record.offset,
                frame: header.id,
                author: header.author,
                parent: header.parent,
                kind: match header.kind() {
                    Kind::Create => EntryKind::Create,
                    Kind::Commit => EntryKind::Commit,
                    Kind::Proposal => EntryKind::Proposal,
                    Kind::Message => EntryKind::Message,
                    _ => EntryKind::Other,
                },
                digest,
            },
        });
        last = record.offset;
    }
    events.push(Event::Finished {
        agent,
        channel,
        at: last,
    });
    Ok(Replica { events, given_up })
}

/// The messages that a node kept before all that was seen to be sent, as if their authors had written down that they sent
/// them.
pub(super) fn greetings(kept: &[Event], seen: &[Event]) -> Vec<Event> {
    let acknowledged = seen.iter().filter_map(|event| match event {
        Event::Acknowledged { offset, .. } => Some(*offset),
        _ => None,
    });
    let begins = acknowledged.min().unwrap_or(Offset::ZERO);
    let sent = kept.iter().filter_map(|event| match event {
        Event::Delivered { channel, entry, .. } if entry.kind == EntryKind::Message && entry.offset < begins => {
            Some(Event::Sent {
                agent: entry.author,
                channel: *channel,
                frame: entry.frame,
            })
        }
        _ => None,
    });
    sent.collect()
}
