//! A well-behaved agent that appends and follows all the time, to show that it is served whatever others do.

use crate::client::{Agent, Appends, Client, Subscription, soon};
use crate::fixture::{Fixture, message, nothing_panicked};
use skytale_proto::{AgentId, ChannelId, Offset};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) struct Witness {
    rounds: watch::Receiver<u64>,
    stop: Arc<tokio::sync::Notify>,
    task: JoinHandle<()>,
}

impl Witness {
    pub(crate) async fn start(fixture: &Fixture) -> Self {
        let (agent, client) = fixture.agent().await;
        Self::with(fixture, agent, client).await
    }

    /// One that is this agent, in this session of its own.
    pub(crate) async fn with(fixture: &Fixture, agent: Agent, client: Client) -> Self {
        let channel = fixture.channel(&agent, &client).await;
        let appends = client.appends().await;
        let follow = client.subscribe(channel.log(), Offset::FIRST, true).await;
        let (told, rounds) = watch::channel(0);
        let stop = Arc::new(tokio::sync::Notify::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work(&client, agent.id, channel, appends, follow, &told) => {}
                () = stopped.notified() => {}
            }
        });
        Self { rounds, stop, task }
    }

    /// Waits until two more messages went to the log and came back, begun after this was called.
    pub(crate) async fn is_served(&mut self) {
        let wanted = *self.rounds.borrow() + 2;
        soon(self.rounds.wait_for(|rounds| *rounds >= wanted))
            .await
            .expect("the well-behaved agent is served");
    }

    /// Served to the end.
    pub(crate) async fn leave(mut self) {
        self.is_served().await;
        self.stop.notify_one();
        self.task.await.expect("nothing went wrong");
        nothing_panicked();
    }
}

async fn work(
    client: &Client,
    author: AgentId,
    channel: ChannelId,
    mut appends: Appends,
    mut follow: Subscription,
    told: &watch::Sender<u64>,
) {
    for round in 1.. {
        let frame = message(channel, author, 1, format!("round {round}"));
        appends.send(&frame).await.expect("sent");
        let appended = appends.answer().await.expect("answered").expect("appended");
        let entry = follow.entry().await.expect("followed");
        assert_eq!(entry.offset.get(), appended.offset);
        assert_eq!(&entry.payload, frame.encoded());
        assert!(client.connection.close_reason().is_none());
        told.send_replace(round);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
