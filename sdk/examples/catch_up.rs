//! Reads and acknowledges messages that an agent missed: `catch_up VAULT CHANNEL-LABEL MESSAGES EVERY`. Every EVERY-th
//! message is acknowledged, which covers the earlier ones. Prints the seconds from opening the vault to the last
//! acknowledgement. sdk/python/benches/figures.py compares Python with it.
#![allow(clippy::print_stdout)]

use skytale_sdk::Agent;
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let vault = arguments.next().ok_or("which vault?")?;
    let label = arguments.next().ok_or("which channel?")?;
    let count: u64 = arguments.next().ok_or("how many messages?")?.parse()?;
    let every: u64 = arguments.next().ok_or("which messages are acknowledged?")?.parse()?;

    let begun = Instant::now();
    let agent = Agent::from_env(&vault).await?;
    agent.connect().await?;
    let mut messages = agent.join(&label).await?.messages();
    let mut bytes = 0;
    for read in 1..=count {
        let message = messages.next().await?;
        bytes += message.payload.len();
        if read % every == 0 || read == count {
            message.ack().await?;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    agent.close(Duration::from_secs(5)).await;
    println!("{{\"seconds\": {seconds}, \"bytes\": {bytes}}}");
    Ok(())
}
