//! Readers that stay away until the end.

use super::{Layer, PlanError};
use crate::event::{Agent, Event, Frame, Log, What};
use crate::synth::Chance;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// A share of those who only read goes offline after a fifth of the time, and comes back at its end, all at once.
///
/// Between, they do nothing: their sessions, reads, KeyPackages and claims are dropped. Actions of others on them go
/// on: they are added, removed, and the KeyPackages that they offered before are claimed.
pub(super) fn stay(layer: &mut Layer, share: f64, chance: &mut Chance) -> Result<(), PlanError> {
    let away = draw(layer, share, chance)?;
    let end = layer.events.last().map_or(Duration::ZERO, |event| event.at);
    let leaves = end / 5;
    // Logs that each of them follows when it is back.
    let mut logs: BTreeMap<Agent, BTreeSet<Log>> = BTreeMap::new();
    let mut online: BTreeSet<Agent> = BTreeSet::new();
    // Those who have offered a KeyPackage.
    let mut offered: HashSet<Agent> = HashSet::new();
    let mut left = false;
    let mut events = Vec::with_capacity(layer.events.len());
    for event in std::mem::take(&mut layer.events) {
        if event.at >= leaves && !std::mem::replace(&mut left, true) {
            let disconnects = std::mem::take(&mut online).into_iter().map(What::Disconnect);
            events.extend(disconnects.map(|what| Event { at: leaves, what }));
        }
        match &event.what {
            What::Append { author, frame, .. } => {
                if left && away.contains(author) {
                    continue;
                }
                match frame {
                    Frame::Commit { channel, removes, .. } => {
                        for agent in removes {
                            if let Some(logs) = logs.get_mut(agent) {
                                logs.remove(&Log::Channel(*channel));
                            }
                        }
                    }
                    Frame::KeyPackage { .. } => {
                        offered.insert(*author);
                    }
                    // There is nothing to claim of who was to offer its first KeyPackage while away.
                    Frame::Claim(of) if left && away.contains(of) && !offered.contains(of) => continue,
                    _ => {}
                }
            }
            What::Connect(agent) | What::Disconnect(agent) | What::Token(agent) if away.contains(agent) => {
                if left {
                    continue;
                }
                match &event.what {
                    What::Connect(_) => {
                        online.insert(*agent);
                    }
                    What::Disconnect(_) => {
                        online.remove(agent);
                    }
                    _ => {}
                }
            }
            What::Subscribe { agent, log, .. } if away.contains(agent) => {
                logs.entry(*agent).or_default().insert(*log);
                if left {
                    continue;
                }
            }
            _ => {}
        }
        events.push(event);
    }
    for (agent, logs) in logs {
        let back = [What::Token(agent), What::Connect(agent)].into_iter();
        let reads = logs.into_iter().map(|log| What::Subscribe {
            agent,
            log,
            behind: 0,
            follow: true,
        });
        events.extend(back.chain(reads).map(|what| Event { at: end, what }));
    }
    layer.events = events;
    Ok(())
}

/// Draws a share of those who read channels and write to none.
fn draw(layer: &Layer, share: f64, chance: &mut Chance) -> Result<HashSet<Agent>, PlanError> {
    let mut readers = BTreeSet::new();
    let mut writers = HashSet::new();
    for event in &layer.events {
        match &event.what {
            What::Append { author, frame, .. } if frame.channel().is_some() => {
                writers.insert(*author);
            }
            What::Subscribe {
                agent,
                log: Log::Channel(_),
                ..
            } => {
                readers.insert(*agent);
            }
            _ => {}
        }
    }
    let mut readers: Vec<Agent> = readers.into_iter().filter(|agent| !writers.contains(agent)).collect();
    if readers.is_empty() {
        return Err(PlanError::NoReaders);
    }
    let count = ((readers.len() as f64 * share).round() as usize).clamp(1, readers.len());
    // The first so many of a shuffle (Fisher and Yates).
    for index in 0..count {
        let other = index + chance.below((readers.len() - index) as u32) as usize;
        readers.swap(index, other);
    }
    readers.truncate(count);
    Ok(readers.into_iter().collect())
}
