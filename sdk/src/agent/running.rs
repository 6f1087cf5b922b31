//! One session at work: followers, workers and the stock keeper, all ended with it.

use super::bus::Followed;
use super::config::DriverConfig;
use super::core::Core;
use super::worker::Worker;
use super::{follow, stock};
use crate::engine::ChannelState;
use crate::event::Event;
use crate::net::relay::Appender;
use crate::net::{RelayError, Session};
use skytale_proto::ChannelId;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long verdicts that are on their way are waited for when the relay drains.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the tasks of one session share.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) core: Arc<Core>,
    pub(super) session: Session,
    pub(super) appender: Appender,
    pub(super) config: DriverConfig,
    /// The relay is about to stop: nothing new is appended.
    pub(super) draining: watch::Receiver<Option<Duration>>,
}

/// How a task of a session ended.
pub(super) enum End {
    /// There is nothing more to do in this channel.
    Channel(ChannelId),
    /// The session is of no more use.
    Session(RelayError),
}

/// Runs until the session ends or must be ended, and gives the reason.
pub(super) async fn run(
    core: &Arc<Core>,
    config: &DriverConfig,
    session: &Session,
    cancel: &CancellationToken,
) -> RelayError {
    let appender = tokio::select! {
        () = cancel.cancelled() => return RelayError::Closed,
        appender = Appender::open(session) => match appender {
            Ok(appender) => appender,
            Err(error) => return error,
        },
    };
    let ground = Ground {
        core: Arc::clone(core),
        session: session.clone(),
        appender,
        config: config.clone(),
        draining: session.draining(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(follow::agent_log(ground.clone()));
    tasks.spawn(follow::joins(ground.clone()));
    tasks.spawn(stock::keep(ground.clone()));
    let mut working = HashSet::new();
    let mut draining = session.draining();
    // Channels that there are are not announced.
    core.bus.channels_changed.notify_one();
    let reason = loop {
        tokio::select! {
            () = cancel.cancelled() => break RelayError::Closed,
            error = session.ended() => break error,
            within = drained(&mut draining) => break drain(within).await,
            () = core.bus.channels_changed.notified() => {
                if let Err(error) = start_workers(&ground, &mut working, &mut tasks).await {
                    break error;
                }
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(End::Channel(channel)) => {
                    working.remove(&channel);
                    // It may have come back while its worker ended.
                    if let Err(error) = start_workers(&ground, &mut working, &mut tasks).await {
                        break error;
                    }
                }
                Ok(End::Session(error)) => break error,
                Err(failed) => break RelayError::Local {
                    code: skytale_proto::Code::RelayInternal,
                    reason: format!("a task of the session ended by itself: {failed}"),
                },
            },
        }
    };
    tasks.shutdown().await;
    for channel in working {
        core.bus.signals(channel).followed.send_replace(Followed::Behind);
    }
    reason
}

async fn start_workers(
    ground: &Ground,
    working: &mut HashSet<ChannelId>,
    tasks: &mut JoinSet<End>,
) -> Result<(), RelayError> {
    let channels = match ground.core.try_call(|actor| actor.engine.channels()).await {
        Ok(channels) => channels,
        Err(error) => {
            ground.core.bus.tell(Event::VaultFailed {
                code: error.code(),
                reason: error.to_string(),
            });
            return Err(RelayError::Local {
                code: error.code(),
                reason: error.to_string(),
            });
        }
    };
    for channel in channels {
        if channel.state != ChannelState::Left && working.insert(channel.id) {
            tasks.spawn(Worker::new(ground.clone(), channel).run());
        }
    }
    Ok(())
}

async fn drained(draining: &mut watch::Receiver<Option<Duration>>) -> Duration {
    let within = draining
        .wait_for(Option::is_some)
        .await
        .map(|within| within.unwrap_or_default());
    match within {
        Ok(within) => within,
        // The control stream has ended: the session's end says why.
        Err(_) => std::future::pending().await,
    }
}

/// Workers append nothing new meanwhile; what they have appended gets its verdict.
async fn drain(within: Duration) -> RelayError {
    sleep((within / 2).min(DRAIN_WAIT_MAX)).await;
    RelayError::Refused(crate::net::relay::Refused {
        number: skytale_proto::Code::Draining.number(),
        message: "the relay node is about to stop".into(),
        retryable: true,
        retry_after: None,
        offset: skytale_proto::Offset::ZERO,
    })
}
