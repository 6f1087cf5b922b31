//! Two agents in one program, and a first message between them.
//!
//! `skytale dev` starts a node and prints the two `export` lines that this needs. Then:
//!
//! ```sh
//! cargo run -p skytale-sdk --example first_message
//! ```
//!
//! The two vaults are in the working directory.

#![allow(clippy::print_stdout)]

use skytale_sdk::prelude::*;
use std::time::Duration;

/// Runs both agents.
#[tokio::main]
pub async fn main() -> Result<(), Error> {
    let alice = Agent::from_env("alice.vault").await?;
    let bob = Agent::from_env("bob.vault").await?;
    alice.connect().await?;
    bob.connect().await?;

    // The same channel after a restart. Bob is added as soon as he has been online once.
    let hers = alice.ensure_channel("hello").await?;
    hers.ensure_members(&[bob.id()]).await?;
    let his = bob.join("hello").await?;

    hers.send("are you there?").await?;
    let question = his.messages().next().await?;
    println!("bob: {}", String::from_utf8_lossy(&question.payload));
    // The answer and the acknowledgement: both, or neither.
    question.reply("yes").await?;

    let answer = hers.messages().next().await?;
    println!("alice: {}", String::from_utf8_lossy(&answer.payload));
    answer.ack().await?;

    for agent in [alice, bob] {
        agent.close(Duration::from_secs(10)).await;
    }
    Ok(())
}
