//! Keeps the order in which a workload has the entries of a channel, across their authors.

use parking_lot::Mutex;
use skytale_workload::plan::Plan;
use skytale_workload::{Agent, What};
use std::collections::HashMap;
use tokio::sync::watch;

/// The order of a plan's channel frames.
#[derive(Debug)]
pub(super) struct Order {
    /// Place of each event: its frame's number in the channel, and the number of the channel's frames that must be done
    /// before it.
    places: Vec<Option<Place>>,
    channels: Vec<Channel>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    channel: u32,
    index: u32,
    after: u32,
}

#[derive(Debug)]
struct Channel {
    done: Mutex<Vec<bool>>,
    /// Number of the first frames that are done.
    first: watch::Sender<u32>,
}

impl Order {
    pub(super) fn new(plan: &Plan) -> Self {
        // Frames of one author come in its order by themselves.
        let mut seen: HashMap<u32, (u32, Agent, u32)> = HashMap::new();
        let mut places = Vec::with_capacity(plan.events.len());
        for event in &plan.events {
            let What::Append { author, frame, .. } = &event.what else {
                places.push(None);
                continue;
            };
            places.push(frame.channel().map(|channel| {
                let (count, last, after) = seen.entry(channel.0).or_insert((0, *author, 0));
                if last != author {
                    (*last, *after) = (*author, *count);
                }
                let place = Place {
                    channel: channel.0,
                    index: *count,
                    after: *after,
                };
                *count += 1;
                place
            }));
        }
        let counts = (0..plan.channels).map(|channel| seen.get(&channel).map_or(0, |(count, ..)| *count));
        Self {
            places,
            channels: counts
                .map(|count| Channel {
                    done: Mutex::new(vec![false; count as usize]),
                    first: watch::Sender::new(0),
                })
                .collect(),
        }
    }

    fn of(&self, place: usize) -> Option<(Place, &Channel)> {
        let place = self.places.get(place).copied().flatten()?;
        Some((place, self.channels.get(place.channel as usize)?))
    }

    /// Waits until the frames of other authors before an event are done.
    pub(super) async fn turn(&self, place: usize) {
        if let Some((place, channel)) = self.of(place) {
            // The sender lives as long as the run.
            let _ = channel.first.subscribe().wait_for(|first| *first >= place.after).await;
        }
    }

    /// An event is done, or will never be.
    pub(super) fn done(&self, place: usize) {
        let Some((place, channel)) = self.of(place) else { return };
        let mut done = channel.done.lock();
        if let Some(mark) = done.get_mut(place.index as usize) {
            *mark = true;
        }
        channel.first.send_if_modified(|first| {
            let before = *first;
            while done.get(*first as usize) == Some(&true) {
                *first += 1;
            }
            *first != before
        });
    }
}
