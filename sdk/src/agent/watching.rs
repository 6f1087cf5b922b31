//! Watches the channels that have no seat: each was read to its head, and waits on the session's one watch stream.
//!
//! A relay node without watch streams, or without room for more channels, is asked for these channels in turns instead.

use super::backoff::Backoff;
use super::running::{End, Ground};
use crate::event::Event;
use crate::net::RelayError;
use crate::net::relay::{Refused, WatchItem, WatchItems, WatchRequests, watch};
use skytale_proto::{ChannelId, Code, Offset, limits};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Delays between attempts to open the watch stream.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Why a channel is no longer watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// There is something to read.
    Ready,
    /// It cannot be watched now: read it in turns.
    Unwatched,
}

/// A channel to watch, or not to watch any longer (`None`).
type Command = (ChannelId, Option<(Offset, oneshot::Sender<Woken>)>);

/// Puts channels on the watch stream.
#[derive(Clone, Debug)]
pub(super) struct Watching(mpsc::UnboundedSender<Command>);

/// A watched channel. Dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Watched {
    channel: ChannelId,
    commands: mpsc::UnboundedSender<Command>,
    woken: oneshot::Receiver<Woken>,
}

impl Watching {
    /// Creates the handle, and the commands that [`run`] carries out.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        // Bounded by the session's channels: each has one command of each kind at most.
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Watches a channel after its cursor.
    pub(super) fn begin(&self, channel: ChannelId, after: Offset) -> Watched {
        let (sender, woken) = oneshot::channel();
        let commands = self.0.clone();
        // If the session is about to end, the channel's worker is, too.
        let _ = commands.send((channel, Some((after, sender))));
        Watched {
            channel,
            commands,
            woken,
        }
    }
}

impl Watched {
    /// Waits until it is no longer watched. Cancel-safe.
    pub(super) async fn woken(&mut self) -> Woken {
        (&mut self.woken).await.unwrap_or(Woken::Unwatched)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // One that was woken is not watched.
        self.woken.close();
        if self.woken.try_recv() == Err(oneshot::error::TryRecvError::Closed) {
            let _ = self.commands.send((self.channel, None));
        }
    }
}

struct Watcher {
    ground: Ground,
    /// The watch stream, as far as there is one.
    stream: Option<(WatchRequests, WatchItems)>,
    watched: HashMap<ChannelId, oneshot::Sender<Woken>>,
    /// Channels that the relay node watches at most.
    most: usize,
    backoff: Backoff,
    open_at: Instant,
    /// Whether it was reported that not all channels can be watched.
    told: bool,
}

/// Keeps the watch stream for the whole session.
pub(super) async fn run(ground: Ground, mut commands: mpsc::UnboundedReceiver<Command>) -> End {
    let most = ground.session.info().watched_max as usize;
    let mut watcher = Watcher {
        ground,
        stream: None,
        watched: HashMap::new(),
        most,
        backoff: Backoff::new(RETRY.0, RETRY.1),
        open_at: Instant::now(),
        told: false,
    };
    let mut taken = Vec::new();
    loop {
        let done = tokio::select! {
            count = commands.recv_many(&mut taken, limits::WATCHED_AT_ONCE_MAX) => match count {
                0 => std::future::pending().await,
                _ => watcher.take(&mut taken).await,
            },
            item = next(&mut watcher.stream) => watcher.on_item(item),
        };
        let done = match done {
            // The stream, not the session: its channels are read in turns.
            Err(error @ (RelayError::Refused(_) | RelayError::Local { .. })) => {
                watcher.lost(&error);
                Ok(())
            }
            done => done,
        };
        if let Err(error) = done {
            return End::Session(error);
        }
    }
}

async fn next(stream: &mut Option<(WatchRequests, WatchItems)>) -> Result<Option<WatchItem>, RelayError> {
    match stream {
        None => std::future::pending().await,
        Some((_, items)) => items.next().await,
    }
}

impl Watcher {
    /// Carries out commands, all at once: of each channel, the last one counts.
    async fn take(&mut self, commands: &mut Vec<Command>) -> Result<(), RelayError> {
        let mut last = HashMap::with_capacity(commands.len());
        for (channel, watch) in commands.drain(..) {
            last.insert(channel, watch);
        }
        let (mut remove, mut add) = (Vec::new(), Vec::new());
        for (channel, watch) in last {
            let was_watched = self.watched.remove(&channel).is_some();
            match watch {
                Some((after, waiter)) if self.has_room() => {
                    self.watched.insert(channel, waiter);
                    add.push((channel, after));
                }
                watch => {
                    if was_watched {
                        remove.push(channel);
                    }
                    if let Some((_, waiter)) = watch {
                        self.full(channel, waiter);
                    }
                }
            }
        }
        if self.stream.is_none() {
            if add.is_empty() {
                return Ok(());
            }
            self.stream = Some(watch(&self.ground.session).await?);
        }
        let Some((requests, _)) = &mut self.stream else {
            return Ok(());
        };
        requests.send(&remove, &add).await
    }

    fn has_room(&self) -> bool {
        self.watched.len() < self.most && Instant::now() >= self.open_at
    }

    /// Handles a channel for which there is no room.
    fn full(&mut self, channel: ChannelId, waiter: oneshot::Sender<Woken>) {
        // Its worker may have ended.
        let _ = waiter.send(Woken::Unwatched);
        if self.watched.len() >= self.most {
            let most = self.most;
            self.tell(
                channel,
                &format!("the relay node watches at most {most} channels of a session"),
            );
        }
    }

    fn tell(&mut self, channel: ChannelId, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(%channel, why, "not all channels can be watched: the rest is read in turns");
            self.ground.core.bus.tell(Event::Refused {
                channel: Some(channel),
                code: Code::TooManyWatched,
                reason: format!("{why}: the rest is read in turns, which takes longer"),
                offset: Offset::ZERO,
            });
        }
    }

    fn on_item(&mut self, item: Result<Option<WatchItem>, RelayError>) -> Result<(), RelayError> {
        match item? {
            Some(WatchItem::Ready(channels)) => {
                self.backoff.reset();
                for channel in channels {
                    if let Some(waiter) = self.watched.remove(&channel) {
                        let _ = waiter.send(Woken::Ready);
                    }
                }
            }
            Some(WatchItem::Full(channels, Refused { message, .. })) => {
                for channel in channels {
                    if let Some(waiter) = self.watched.remove(&channel) {
                        let _ = waiter.send(Woken::Unwatched);
                        self.tell(channel, &message);
                    }
                }
            }
            None => self.lost(&RelayError::Lost {
                code: Code::Offline,
                reason: "the relay ended the watch stream".into(),
            }),
        }
        Ok(())
    }

    /// Handles the end of the stream.
    fn lost(&mut self, error: &RelayError) {
        tracing::debug!(%error, "no watch stream");
        self.stream = None;
        self.open_at = Instant::now() + self.backoff.next(error.retry_after());
        for (_, waiter) in self.watched.drain() {
            let _ = waiter.send(Woken::Unwatched);
        }
    }
}
