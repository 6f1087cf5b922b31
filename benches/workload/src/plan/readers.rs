//! Readers that the workload does not have.

use super::footprint::Footprint;
use super::{Layer, PlanError};
use crate::event::{Agent, Event, Frame, Log, What};
use skytale_proto::ChannelMode;

/// Bodies of commits that add readers, in bytes.
const COMMIT_BYTES: u32 = 600;
const COMMIT_BYTES_PER_ADD: u32 = 700;
/// Readers that one commit adds.
pub(super) const ADDS_MAX: u32 = 512;

/// Adds readers to each channel, who follow it from the beginning; nothing, if so many copies of the layer with them are too much.
pub(super) fn add(layer: &mut Layer, count: u32, copies: u32, events_max: u64) -> Result<(), PlanError> {
    let footprint = Footprint::of(&layer.events).and(Footprint::of_readers(layer, count));
    footprint.must_fit(copies, events_max)?;
    let mut events = Vec::with_capacity(layer.events.len());
    for event in std::mem::take(&mut layer.events) {
        let at = event.at;
        let created = match &event.what {
            What::Append {
                author,
                frame: Frame::Create { channel, mode },
                ..
            } => Some((*author, *channel, *mode)),
            _ => None,
        };
        events.push(event);
        let Some((owner, channel, mode)) = created else {
            continue;
        };
        let readers: Vec<Agent> = (layer.agents..layer.agents + count).map(Agent).collect();
        layer.agents += count;
        for agent in &readers {
            events.extend([What::Token(*agent), What::Connect(*agent)].map(|what| Event { at, what }));
        }
        if mode == ChannelMode::Mls {
            for adds in readers.chunks(ADDS_MAX as usize) {
                let frame = Frame::Commit {
                    channel,
                    adds: adds.to_vec(),
                    removes: Vec::new(),
                    recipients: adds.to_vec(),
                };
                let what = What::Append {
                    author: owner,
                    body_bytes: COMMIT_BYTES + COMMIT_BYTES_PER_ADD * adds.len() as u32,
                    frame,
                };
                events.push(Event { at, what });
            }
        }
        for agent in readers {
            let what = What::Subscribe {
                agent,
                log: Log::Channel(channel),
                behind: 0,
                follow: true,
            };
            events.push(Event { at, what });
        }
    }
    layer.events = events;
    Ok(())
}
