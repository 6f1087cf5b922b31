//! The profiles.

use super::Size;
use super::scene::Scene;
use crate::event::{Agent, Channel};
use std::collections::BTreeMap;
use std::time::Duration;

/// The part of a workload in which agents and channels come about.
fn opening(size: Size) -> Duration {
    (size.duration / 10).min(Duration::from_secs(10))
}

/// The mean time between two messages of the whole workload.
fn between(size: Size) -> Duration {
    Duration::from_secs(1) / size.messages_per_second
}

fn agents(scene: &mut Scene, count: u32) -> Vec<Agent> {
    (0..count).map(|_| scene.agent()).collect()
}

/// Does something at the times of a Poisson process, after the opening.
fn poisson(scene: &mut Scene, size: Size, mut each: impl FnMut(&mut Scene)) {
    let mut now = opening(size);
    loop {
        now += scene.chance.wait(between(size));
        if now > size.duration {
            return;
        }
        scene.at(now);
        each(scene);
    }
}

pub(super) fn chatty_pair(scene: &mut Scene, size: Size) {
    let pairs = (size.agents / 2).max(1);
    let step = opening(size) / pairs;
    let mut all: Vec<([Agent; 2], Channel, u32)> = Vec::new();
    for number in 0..pairs {
        scene.at(step * number);
        let pair = [scene.agent(), scene.agent()];
        let channel = scene.channel(pair[0], &pair[1..]);
        all.push((pair, channel, 0));
    }
    poisson(scene, size, |scene| {
        let (pair, channel, turn) = &mut all[scene.chance.below(pairs) as usize];
        let bytes = scene.chance.length(400, 0.8);
        scene.message(pair[*turn as usize % 2], *channel, bytes);
        *turn += 1;
    });
}

pub(super) fn fan_out(scene: &mut Scene, size: Size) {
    let all = agents(scene, size.agents);
    let author = all[0];
    let channel = scene.channel(author, &all[1..]);
    poisson(scene, size, |scene| {
        let bytes = scene.chance.length(1_200, 0.9);
        scene.message(author, channel, bytes);
    });
}

/// Members of one team, with its scheduled agent.
const TEAM: u32 = 8;

pub(super) fn nightly_team(scene: &mut Scene, size: Size) {
    let teams = (size.agents / TEAM).max(1);
    let mut all: Vec<(Agent, Vec<Agent>, Channel)> = Vec::new();
    for number in 0..teams {
        scene.at(opening(size) / teams * number);
        let members = agents(scene, TEAM.min(size.agents));
        let channel = scene.channel(members[0], &members[1..]);
        all.push((members[0], members[1..].to_vec(), channel));
    }
    // One day, whose middle third is the night. People leave and come within a tenth of it.
    let (dusk, dawn) = (size.duration / 3, size.duration * 2 / 3);
    let spread = size.duration / 10;
    let mut turns: Vec<(Duration, usize, Agent, bool)> = Vec::new();
    for (team, (_, members, _)) in all.iter().enumerate() {
        for member in members {
            for (time, comes) in [(dusk, false), (dawn, true)] {
                let late = spread.mul_f64(f64::from(scene.chance.below(1_000)) / 1_000.0);
                turns.push((time + late, team, *member, comes));
            }
        }
    }
    turns.sort();
    let mut turns = turns.into_iter().peekable();
    let mut now = opening(size);
    loop {
        now += scene.chance.wait(between(size));
        while let Some((time, _, member, comes)) = turns.next_if(|(time, ..)| *time <= now.min(size.duration)) {
            scene.at(time);
            if comes {
                scene.connect(member);
            } else {
                scene.disconnect(member);
            }
        }
        if now > size.duration {
            return;
        }
        scene.at(now);
        let (scheduled, members, channel) = &all[scene.chance.below(teams) as usize];
        let author = members[scene.chance.below(members.len() as u32) as usize];
        // At night only one message in four is written: the scheduled agent's.
        let author = if scene.is_online(author) { author } else { *scheduled };
        if author == *scheduled && scene.chance.below(4) > 0 {
            continue;
        }
        let bytes = scene.chance.length(600, 1.0);
        scene.message(author, *channel, bytes);
    }
}

/// Tools that one task asks, and how often each.
const TOOLS: u32 = 3;
const CALLS: u32 = 4;

/// A task that is under way: its channel, and how many of its messages were written.
struct Task {
    members: Vec<Agent>,
    channel: Channel,
    written: u32,
}

pub(super) fn tool_swarm(scene: &mut Scene, size: Size) {
    let all = agents(scene, size.agents.max(TOOLS + 1));
    let count = all.len() as u32;
    // A task is a channel, and for each call of each tool a question and an answer.
    let messages = TOOLS * CALLS * 2;
    let thinking = Duration::from_millis(150);
    let mut under_way: BTreeMap<(Duration, u64), Task> = BTreeMap::new();
    let mut began = 0;
    let mut next = opening(size) + scene.chance.wait(between(size) * messages);
    loop {
        let due = under_way.first_key_value().map(|((time, _), _)| *time);
        if due.is_none_or(|due| next < due) {
            if next > size.duration {
                return;
            }
            scene.at(next);
            let first = scene.chance.below(count);
            let members: Vec<Agent> = (0..=TOOLS)
                .map(|number| all[((first + number) % count) as usize])
                .collect();
            let task = Task {
                channel: scene.channel(members[0], &members[1..]),
                members,
                written: 0,
            };
            began += 1;
            under_way.insert((next + scene.chance.wait(thinking), began), task);
            next += scene.chance.wait(between(size) * messages);
            continue;
        }
        let Some(((time, number), mut task)) = under_way.pop_first() else {
            return;
        };
        if time > size.duration {
            return;
        }
        scene.at(time);
        let tool = task.members[(task.written / 2 % TOOLS + 1) as usize];
        if task.written.is_multiple_of(2) {
            let asked = scene.chance.length(800, 0.7);
            scene.message(task.members[0], task.channel, asked);
        } else {
            let answered = scene.chance.length(6_000, 1.2);
            scene.message(tool, task.channel, answered);
        }
        task.written += 1;
        if task.written < messages {
            under_way.insert((time + scene.chance.wait(thinking), number), task);
        }
    }
}

pub(super) fn reconnect_storm(scene: &mut Scene, size: Size) {
    // Channels of ten readers, each with an author that stays.
    let readers = size.agents.saturating_sub(1).max(1);
    let channels = readers.div_ceil(10);
    let mut all: Vec<(Agent, Vec<Agent>, Channel)> = Vec::new();
    let mut left = readers;
    for number in 0..channels {
        scene.at(opening(size) / channels * number);
        let author = scene.agent();
        let members = agents(scene, left.min(10));
        left -= members.len() as u32;
        let channel = scene.channel(author, &members);
        all.push((author, members, channel));
    }
    let (gone, back) = (size.duration / 5, size.duration * 4 / 5);
    let mut phase = 0;
    let mut now = opening(size);
    loop {
        now += scene.chance.wait(between(size));
        for (number, time) in [(0, gone), (1, back)] {
            if phase == number && now >= time {
                scene.at(time);
                let everyone: Vec<Agent> = all.iter().flat_map(|(_, members, _)| members).copied().collect();
                for reader in everyone {
                    if number == 0 {
                        scene.disconnect(reader);
                    } else {
                        scene.connect(reader);
                    }
                }
                phase += 1;
            }
        }
        if now > size.duration {
            return;
        }
        scene.at(now);
        let (author, _, channel) = &all[scene.chance.below(channels) as usize];
        let bytes = scene.chance.length(1_000, 0.6);
        scene.message(*author, *channel, bytes);
    }
}
