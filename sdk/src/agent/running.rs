//! The tasks of one session: followers, workers and the stock keeper, which all end with it.

use super::config::DriverConfig;
use super::core::Core;
use super::refusals::{Counted, Refusals};
use super::worker::Worker;
use super::{deferred, follow, stock};
use crate::engine::ChannelState;
use crate::event::Event;
use crate::net::relay::{Appender, Refused};
use crate::net::{RelayError, Session};
use skytale_proto::{ChannelId, Code};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// State shared by the tasks of one session.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) core: Arc<Core>,
    pub(super) session: Session,
    pub(super) appender: Appender,
    pub(super) config: DriverConfig,
    /// Whether the session is about to be left: then nothing new is appended.
    pub(super) leaving: watch::Sender<bool>,
    /// Changes after several refusals that another relay node may not give, and with each further one.
    pub(super) trouble: watch::Sender<Option<RelayError>>,
}

impl Ground {
    pub(super) async fn new(core: &Arc<Core>, config: &DriverConfig, session: &Session) -> Result<Self, RelayError> {
        Ok(Self {
            core: Arc::clone(core),
            session: session.clone(),
            appender: Appender::open(session).await?,
            config: config.clone(),
            leaving: watch::Sender::new(false),
            trouble: watch::Sender::new(None),
        })
    }

    pub(super) fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }

    /// Counts a refusal that another relay node may not give; after several, the agent looks for another node.
    pub(super) fn count(&self, refusals: &mut Refusals, refused: &Refused) {
        if refusals.count(refused.code()) == Counted::TooMany {
            self.move_on(refused.clone().into());
        }
    }

    /// Makes the agent look for another relay node.
    pub(super) fn move_on(&self, reason: RelayError) {
        self.trouble.send_replace(Some(reason));
    }
}

/// Result of a session's task.
pub(super) enum End {
    /// Nothing is left to do in this channel.
    Channel(ChannelId),
    /// The session is useless.
    Session(RelayError),
}

/// Runs until the session ends, must be ended, or is left by `stop`. Returns the reason.
pub(super) async fn run(ground: &Ground, stop: &CancellationToken) -> RelayError {
    let Ground { core, session, .. } = ground;
    let mut tasks = JoinSet::new();
    tasks.spawn(follow::agent_log(ground.clone()).in_current_span());
    tasks.spawn(follow::joins(ground.clone()).in_current_span());
    tasks.spawn(stock::keep(ground.clone()).in_current_span());
    tasks.spawn(deferred::keep(ground.clone()).in_current_span());
    let mut working = HashSet::new();
    // Existing channels are not announced.
    core.bus.channels_changed.notify_one();
    let reason = loop {
        tokio::select! {
            () = stop.cancelled() => break RelayError::Closed,
            error = session.ended() => break error,
            () = core.bus.channels_changed.notified() => {
                if let Err(error) = start_workers(ground, &mut working, &mut tasks).await {
                    break error;
                }
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(End::Channel(channel)) => {
                    working.remove(&channel);
                    // The channel may have been joined again while its worker ended.
                    if let Err(error) = start_workers(ground, &mut working, &mut tasks).await {
                        break error;
                    }
                }
                Ok(End::Session(error)) => break error,
                Err(failed) => break RelayError::Local {
                    code: Code::RelayInternal,
                    reason: format!("a task of the session ended by itself: {failed}"),
                },
            },
        }
    };
    tasks.shutdown().await;
    for channel in working {
        core.bus.signals(channel).fall_behind();
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
            tasks.spawn(Worker::new(ground.clone(), channel).run().in_current_span());
        }
    }
    Ok(())
}
