//! The search for reused ratchet keys finds a key that was used twice.

use super::relay::{Agent, Relay, channel_of, settle};
use crate::ratchets::Ratchets;

/// The vault key of the agents of these tests.
const KEY: [u8; 32] = [7; 32];

#[test]
fn a_ratchet_key_that_is_used_twice_is_found_whoever_reads_it() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "before");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let copy = a.vault_files();
    a.send(channel, "one");
    a.send(channel, "two");
    let one = a.next_frames(channel, usize::MAX).expect("frames").frames;
    assert_eq!(one.len(), 2);
    // A snapshot of its disk was put back, and a relay node lies: it has never seen anything. The agent believes it.
    a.roll_back(&copy);
    a.send(channel, "three");
    let other = a.next_frames(channel, usize::MAX).expect("frames").frames;
    assert_eq!(other.len(), 1);

    let mut ratchets = Ratchets::default();
    let vault = b.folder().join("vault.db");
    drop(b.vault_files());
    ratchets.learn(&vault, &KEY);
    let one: Vec<_> = one.into_iter().map(|offered| offered.frame).collect();
    let other: Vec<_> = other.into_iter().map(|offered| offered.frame).collect();
    assert_eq!(ratchets.search(&one), Ok(2));
    assert_eq!(ratchets.search(&other), Ok(1));
    // The same frame, offered again, is no second use.
    assert_eq!(ratchets.search(one.iter().chain(&one)), Ok(2));
    let problem = ratchets.search(one.iter().chain(&other)).expect_err("found");
    assert!(problem.contains("used twice"), "{problem}");
}
