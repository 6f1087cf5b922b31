//! The tasks of one session: followers, workers and the stock keeper, which all end with it.

use super::config::DriverConfig;
use super::core::Core;
use super::refusals::{Counted, Refusals};
use super::seats::Seats;
use super::watching::Watching;
use super::worker::Worker;
use super::{AgentError, deferred, follow, stock, watching};
use crate::engine::{ChannelInfo, ChannelState, EngineError};
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

/// Resources that the channels of a session share.
#[derive(Clone)]
pub(super) struct Places {
    /// The subscriptions that there are streams for.
    pub(super) seats: Seats,
    /// Watches the channels without one.
    pub(super) watching: Watching,
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
    let (watching, watches) = Watching::new();
    tasks.spawn(watching::run(ground.clone(), watches).in_current_span());
    let places = Places {
        seats: Seats::of(session.info().streams_max),
        watching,
    };
    let mut working = HashSet::new();
    if let Err(error) = start_workers(ground, &places, &mut working, &mut tasks).await {
        return error;
    }
    let reason = 'session: loop {
        tokio::select! {
            () = stop.cancelled() => break RelayError::Closed,
            error = session.ended() => break error,
            () = core.bus.channels_changed.notified() => {
                let new = std::mem::take(&mut *core.bus.new_channels.lock());
                for channel in new {
                    if let Err(error) = start_worker(ground, &places, channel, &mut working, &mut tasks).await {
                        break 'session error;
                    }
                }
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(End::Channel(channel)) => {
                    working.remove(&channel);
                    // The channel may have been joined again while its worker ended.
                    if let Err(error) = start_worker(ground, &places, channel, &mut working, &mut tasks).await {
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

/// Follows all channels.
async fn start_workers(
    ground: &Ground,
    places: &Places,
    working: &mut HashSet<ChannelId>,
    tasks: &mut JoinSet<End>,
) -> Result<(), RelayError> {
    // Later changes are reported.
    ground.core.bus.new_channels.lock().clear();
    let channels = ground.core.try_call(|actor| actor.engine.channels()).await;
    for channel in channels.map_err(|error| failed(ground, &error))? {
        follow_channel(ground, places, channel, working, tasks);
    }
    Ok(())
}

/// Follows one channel, if that is not done yet.
async fn start_worker(
    ground: &Ground,
    places: &Places,
    channel: ChannelId,
    working: &mut HashSet<ChannelId>,
    tasks: &mut JoinSet<End>,
) -> Result<(), RelayError> {
    if working.contains(&channel) {
        return Ok(());
    }
    match ground.core.try_call(move |actor| actor.engine.channel(channel)).await {
        Ok(channel) => follow_channel(ground, places, channel, working, tasks),
        // It was forgotten meanwhile.
        Err(AgentError::Engine(EngineError::ChannelUnknown { .. })) => {}
        Err(error) => return Err(failed(ground, &error)),
    }
    Ok(())
}

fn follow_channel(
    ground: &Ground,
    places: &Places,
    channel: ChannelInfo,
    working: &mut HashSet<ChannelId>,
    tasks: &mut JoinSet<End>,
) {
    if channel.state != ChannelState::Left && working.insert(channel.id) {
        tasks.spawn(
            Worker::new(ground.clone(), places.clone(), channel)
                .run()
                .in_current_span(),
        );
    }
}

fn failed(ground: &Ground, error: &AgentError) -> RelayError {
    ground.core.bus.tell(Event::VaultFailed {
        code: error.code(),
        reason: error.to_string(),
    });
    RelayError::Local {
        code: error.code(),
        reason: error.to_string(),
    }
}
