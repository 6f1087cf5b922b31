//! A task queue: a coordinator distributes tasks and two workers do them. All three stop in between and resume, and
//! each task is answered once.
//!
//! `skytale dev` starts a node and prints the two `export` lines that this needs. Then:
//!
//! ```sh
//! cargo run -p skytale-sdk --example task_queue
//! ```
//!
//! The vaults are in the working directory. Stop the program at any moment and run it again: no task is done twice.

#![allow(clippy::print_stdout)]

use skytale_sdk::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const TASKS: usize = 12;
const WORKERS: [&str; 2] = ["ada", "ben"];
/// Number of tasks after which a worker stops, as if its process had ended, and restarts.
const TASKS_A_RUN: usize = 2;

/// Runs all three agents.
#[tokio::main]
pub async fn main() -> Result<(), Error> {
    let mut ids = Vec::new();
    for name in WORKERS {
        let worker = open(name).await?;
        // Now it can be added, even while it is offline.
        worker.caught_up().await?;
        ids.push(worker.id());
        close(worker).await;
    }
    give_out(&ids).await?;
    let [ada, ben] = WORKERS.map(|name| Box::pin(work(name)));
    let results = tokio::select! {
        results = Box::pin(collect()) => results?,
        Err(error) = ada => return Err(error),
        Err(error) = ben => return Err(error),
    };
    for (task, (_, result)) in &results {
        println!("{task}: {result}");
    }
    println!("{} tasks are done", results.len());
    Ok(())
}

async fn open(name: &str) -> Result<Agent, Error> {
    let agent = Agent::from_env(format!("{name}.vault")).await?;
    agent.connect().await?;
    Ok(agent)
}

async fn close(agent: Agent) {
    agent.close(Duration::from_secs(10)).await;
}

/// Queues every task, and stops. Tasks still in the outbox go out in the next run.
async fn give_out(workers: &[AgentId]) -> Result<(), Error> {
    let agent = open("coordinator").await?;
    // Adding agents needs a session.
    agent.caught_up().await?;
    let channel = agent.ensure_channel("tasks").await?;
    // Before the tasks: a member cannot read messages sent before it was added. Existing members are skipped.
    let added = channel.add_available(workers).await?;
    assert!(added.refused.is_empty(), "{:?}", added.refused);
    for number in 0..TASKS {
        let task = format!("{} {number}", WORKERS[number % WORKERS.len()]);
        // With an idempotency key: sent again after a restart, it is the same message.
        channel.send_once(&format!("task-{number}"), task).await?;
    }
    close(agent).await;
    Ok(())
}

/// The answer to each task: its message, and its text.
type Results = BTreeMap<String, (FrameId, String)>;

/// Waits for the answer of each task.
async fn collect() -> Result<Results, Error> {
    let agent = open("coordinator").await?;
    let channel = agent.ensure_channel("tasks").await?;
    let mut results = Results::new();
    // Answers that arrived before the program was started.
    for message in channel.history(Offset::ZERO, u32::MAX).await? {
        note(&message, &mut results);
    }
    let mut messages = channel.messages();
    while results.len() < TASKS {
        let message = messages.next().await?;
        note(&message, &mut results);
        message.ack().await?;
    }
    close(agent).await;
    Ok(results)
}

fn note(message: &Message, results: &mut Results) {
    if message.properties.reply_to.is_none() {
        return;
    }
    let text = String::from_utf8_lossy(&message.payload);
    if let Some((task, result)) = text.split_once(": ") {
        let answer = results.entry(task.to_owned());
        let (first, _) = answer.or_insert_with(|| (message.frame_id, result.to_owned()));
        assert_eq!(*first, message.frame_id, "{task} was answered twice");
    }
}

/// Does the tasks of one worker, a few in each run.
async fn work(name: &str) -> Result<(), Error> {
    loop {
        let agent = open(name).await?;
        let channel = agent.join("tasks").await?;
        let mut messages = channel.messages();
        let mut done = 0;
        while done <= TASKS_A_RUN {
            let message = messages.next().await?;
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            let number = text
                .strip_prefix(name)
                .and_then(|number| number.trim().parse::<u64>().ok());
            let Some(number) = number else {
                // A task or an answer of another worker.
                message.ack().await?;
                continue;
            };
            if done < TASKS_A_RUN {
                let answer = format!("task {number:02}: {} by {name}", number * number);
                // The answer and the acknowledgement: both, or neither.
                message.reply(answer).await?;
            }
            // The last one was read, but neither answered nor acknowledged: it comes again in the next run.
            done += 1;
        }
        close(agent).await;
    }
}
