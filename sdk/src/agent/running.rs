//! One session at work: followers, workers and the stock keeper, all ended with it.

use super::config::DriverConfig;
use super::core::Core;
use super::worker::Worker;
use super::{follow, stock};
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

/// After so many refusals in a row another relay node may be better.
const REFUSALS_BORNE: u32 = 3;

/// Refusals in a row that another relay node may not have, of one task and kind.
#[derive(Debug, Default)]
pub(super) struct Refusals(u32);

impl Refusals {
    /// It was not refused, or not by the relay node.
    pub(super) const fn reset(&mut self) {
        self.0 = 0;
    }

    pub(super) const fn any(&self) -> bool {
        self.0 > 0
    }

    /// Another relay node may be better.
    pub(super) const fn are_too_many(&self) -> bool {
        self.0 >= REFUSALS_BORNE
    }
}

/// What the tasks of one session share.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) core: Arc<Core>,
    pub(super) session: Session,
    pub(super) appender: Appender,
    pub(super) config: DriverConfig,
    /// The session is about to be left: nothing new is appended.
    pub(super) leaving: watch::Sender<bool>,
    /// Moves with each refusal, after several, that another relay node may not have.
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

    /// Counts a refusal that another relay node may not have; after several another one is looked for. False where it is
    /// none of those.
    pub(super) fn count(&self, refusals: &mut Refusals, refused: &Refused) -> bool {
        let counts = may_be_better_elsewhere(refused.code());
        if counts {
            refusals.0 += 1;
            if refusals.are_too_many() {
                self.trouble.send_replace(Some(refused.clone().into()));
            }
        }
        counts
    }
}

/// Whether a refusal is about the relay node, or what it has and can reach, and not about the agent or the log.
const fn may_be_better_elsewhere(code: Code) -> bool {
    match code {
        Code::RateLimited | Code::Draining | Code::TooManyStreams => false,
        Code::CursorBeyondHead | Code::StoreCorrupt => true,
        code => code.holds_log(),
    }
}

/// How a task of a session ended.
pub(super) enum End {
    /// There is nothing more to do in this channel.
    Channel(ChannelId),
    /// The session is of no more use.
    Session(RelayError),
}

/// Runs until the session ends, must be ended, or is left by `stop`, and gives the reason.
pub(super) async fn run(ground: &Ground, stop: &CancellationToken) -> RelayError {
    let Ground { core, session, .. } = ground;
    let mut tasks = JoinSet::new();
    tasks.spawn(follow::agent_log(ground.clone()));
    tasks.spawn(follow::joins(ground.clone()));
    tasks.spawn(stock::keep(ground.clone()));
    let mut working = HashSet::new();
    // Channels that there are are not announced.
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
                    // It may have come back while its worker ended.
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
            tasks.spawn(Worker::new(ground.clone(), channel).run());
        }
    }
    Ok(())
}
