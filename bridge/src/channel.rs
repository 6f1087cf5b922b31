//! A channel's log, as this bridge has it open: one writer, one follower, the members' cursors.

use crate::config::BridgeConfig;
use crate::error::Refusal;
use crate::metrics;
use crate::stored::{Cursor, Cursors, IDS_MAX, Log, StoredFrame, decode_frame};
use crate::wire::{FullName, Prefix};
use parking_lot::Mutex;
use skytale_proto::{Code, Offset};
use skytale_sdk::internals::raw::{RawClient, RawEntry, RawItem, RawPending, RawReader, RawWriter};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Entries that a member far behind the head is given from one read.
const CATCH_UP_ENTRIES: u64 = 256;

/// Interval between attempts to follow a log that the relay refuses.
const FOLLOW_AGAIN: Duration = Duration::from_secs(5);

/// An entry of a channel's log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    /// `None` for an entry that is no frame.
    pub(crate) frame: Option<Arc<StoredFrame>>,
    bytes: usize,
}

impl Entry {
    fn of(entry: RawEntry) -> Self {
        let bytes = entry.body.as_ref().map_or(0, bytes::Bytes::len);
        Self {
            offset: entry.offset.get(),
            frame: entry.body.and_then(decode_frame).map(Arc::new),
            bytes,
        }
    }
}

/// Open as long as someone holds it.
#[derive(Debug)]
pub(crate) struct Channel {
    client: RawClient,
    frames: skytale_proto::ChannelId,
    writer: RawWriter,
    recent: Mutex<Recent>,
    head: watch::Sender<u64>,
    cursors: Mutex<Cursors>,
    cursor_log: skytale_proto::ChannelId,
    cursor_writer: RawWriter,
    dirty: Arc<Notify>,
    is_dirty: AtomicBool,
    _tasks: DropGuard,
}

/// The newest entries, contiguous.
#[derive(Debug, Default)]
struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Recent {
    fn push(&mut self, entry: Entry, config: &BridgeConfig) {
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
        while self.entries.len() > config.limits.recent_entries_max || self.bytes > config.limits.recent_bytes_max {
            match self.entries.pop_front() {
                Some(entry) => self.bytes -= entry.bytes,
                None => break,
            }
        }
    }

    /// The entries after a cursor, where the first of them is here.
    fn after(&self, position: u64, limit: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.offset;
        let skip = usize::try_from((position + 1).checked_sub(first)?).ok()?;
        if skip >= self.entries.len() {
            return None;
        }
        Some(self.entries.iter().skip(skip).take(limit).cloned().collect())
    }
}

impl Channel {
    /// Opens a channel's logs, and creates them where they do not exist.
    pub(crate) async fn open(
        client: &RawClient,
        config: &Arc<BridgeConfig>,
        domain: &str,
        prefix: Prefix,
        tasks: &TaskTracker,
    ) -> Result<Arc<Self>, Refusal> {
        let frames = Log::Frames(prefix).channel(domain, config.region);
        let cursor_log = Log::Cursors(prefix).channel(domain, config.region);
        client.create(frames).await?;
        client.create(cursor_log).await?;
        let head = head(client, frames).await?;
        let cursors = rebuild(client, cursor_log).await?;
        let (cancel, dirty) = (CancellationToken::new(), Arc::new(Notify::new()));
        let channel = Arc::new(Self {
            client: client.clone(),
            frames,
            writer: client.writer(frames),
            recent: Mutex::default(),
            head: watch::Sender::new(head),
            cursors: Mutex::new(cursors),
            cursor_log,
            cursor_writer: client.writer(cursor_log),
            dirty: Arc::clone(&dirty),
            is_dirty: AtomicBool::new(false),
            _tasks: cancel.clone().drop_guard(),
        });
        // The tasks hold no channel: its last holder ends them.
        let follower = follow(
            Arc::downgrade(&channel),
            client.reader(frames, Offset::new(head)),
            Arc::clone(config),
        );
        let stopped = cancel.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = follower => {}
            }
        });
        let keeper = keep_cursors(Arc::downgrade(&channel), dirty, config.times.cursor());
        tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = keeper => {}
            }
        });
        Ok(channel)
    }

    /// The offset of the newest entry that this bridge has seen.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Whether a member is subscribed to an id of the channel, or was.
    pub(crate) fn has_name(&self, id: u128) -> bool {
        self.cursors.lock().iter().any(|(_, cursor)| cursor.ids.contains(&id))
    }

    /// Whether all that was appended has its verdict. Before that, another writer could overtake it.
    pub(crate) fn is_settled(&self) -> bool {
        self.writer.unsettled() == 0 && self.cursor_writer.unsettled() == 0
    }

    /// Queues the body of an entry.
    pub(crate) async fn append(&self, body: bytes::Bytes) -> Result<RawPending, Refusal> {
        Ok(self.writer.append(body).await?)
    }

    /// Entries after a cursor; waits until there are any. Never empty. `Err` carries the first available offset where
    /// entries after the cursor were given up.
    pub(crate) async fn read(&self, position: u64, limit: usize) -> Result<Result<Vec<Entry>, u64>, Refusal> {
        let mut head = self.head.subscribe();
        let _ = head.wait_for(|head| *head > position).await;
        if let Some(entries) = self.recent.lock().after(position, limit) {
            return Ok(Ok(entries));
        }
        let mut reader = self
            .client
            .reader(self.frames, Offset::new(position))
            .up_to_head(Some(CATCH_UP_ENTRIES));
        loop {
            match reader.next().await? {
                Some(RawItem::Entries(entries)) => return Ok(Ok(entries.into_iter().map(Entry::of).collect())),
                Some(RawItem::Trimmed { first }) => return Ok(Err(first.get())),
                Some(RawItem::CaughtUp { .. }) => {}
                // The relay node is behind the one that told the head.
                None => return Ok(Ok(Vec::new())),
            }
        }
    }

    /// A member subscribes: where it goes on, which ids it had, and whether it was known. A new one begins at the head.
    pub(crate) async fn join(&self, member: FullName, ids: &BTreeSet<u128>) -> Result<(Cursor, bool), Refusal> {
        // Another bridge may have served it until now.
        self.refresh().await?;
        let head = head(&self.client, self.frames).await?;
        let (cursor, known) = {
            let mut cursors = self.cursors.lock();
            let known = cursors.get(&member).cloned();
            let cursor = known.clone().unwrap_or_else(|| Cursor {
                generation: cursors.next_generation(&member),
                offset: head,
                gone: false,
                ids: BTreeSet::new(),
            });
            let had = cursor.clone();
            let mut next = cursor;
            next.ids.extend(ids);
            if next.ids.len() > IDS_MAX {
                // Those that it has now.
                next.ids.clone_from(ids);
            }
            if !cursors.set(member, next) {
                return Err(Refusal::new(
                    Code::SubscriptionsFull,
                    "the channel has as many members as the bridge keeps",
                ));
            }
            (had, known.is_some())
        };
        tracing::debug!(member = ?member, head, offset = cursor.offset, known, "a member joins");
        self.write_cursors().await?;
        Ok((cursor, known))
    }

    /// A member has unsubscribed from all names of the channel.
    pub(crate) async fn leave(&self, member: FullName) -> Result<(), Refusal> {
        {
            let mut cursors = self.cursors.lock();
            let Some(mut cursor) = cursors.get(&member).cloned() else {
                return Ok(());
            };
            cursor.gone = true;
            cursors.set(member, cursor);
        }
        self.write_cursors().await
    }

    /// A member has received everything up to an offset.
    pub(crate) fn received(&self, member: FullName, offset: u64) {
        let mut cursors = self.cursors.lock();
        if let Some(cursor) = cursors.get(&member)
            && cursor.offset < offset
        {
            let cursor = Cursor {
                offset,
                ..cursor.clone()
            };
            cursors.set(member, cursor);
            drop(cursors);
            self.is_dirty.store(true, Ordering::SeqCst);
            self.dirty.notify_one();
        }
    }

    /// Waits until the frames received before this call are written. For an orderly end.
    pub(crate) async fn flush(&self) -> Result<(), Refusal> {
        if self.is_dirty.load(Ordering::SeqCst) {
            self.write_cursors().await?;
        }
        Ok(())
    }

    async fn write_cursors(&self) -> Result<(), Refusal> {
        self.is_dirty.store(false, Ordering::SeqCst);
        let body = self.cursors.lock().encode();
        let receipt = self.cursor_writer.append(body).await?.outcome().await?;
        tracing::trace!(offset = %receipt.offset, "cursors written");
        Ok(())
    }

    /// Takes in what other bridges have written.
    pub(crate) async fn refresh(&self) -> Result<(), Refusal> {
        let after = self.cursors.lock().as_of;
        let mut reader = self.client.reader(self.cursor_log, Offset::new(after)).up_to_head(None);
        while let Some(item) = reader.next().await? {
            if let RawItem::Entries(entries) = item {
                let mut cursors = self.cursors.lock();
                for entry in entries {
                    let _ = cursors.fold(entry.offset.get(), entry.body);
                }
            }
        }
        Ok(())
    }
}

async fn head(client: &RawClient, log: skytale_proto::ChannelId) -> Result<u64, Refusal> {
    Ok(client.status(log).await?.map_or(0, |status| status.head.get()))
}

/// The cursors of a channel: from the newest record, and the records that its writer had not seen.
async fn rebuild(client: &RawClient, log: skytale_proto::ChannelId) -> Result<Cursors, Refusal> {
    let mut cursors = Cursors::default();
    let head = head(client, log).await?;
    let before = head.saturating_sub(1);
    let seen = fold(client, log, &mut cursors, before, None).await?.unwrap_or(0);
    if seen < before {
        fold(client, log, &mut cursors, seen, Some(before - seen)).await?;
    }
    cursors.as_of = head;
    Ok(cursors)
}

/// Takes in the entries after an offset; gives what the last record among them had seen.
async fn fold(
    client: &RawClient,
    log: skytale_proto::ChannelId,
    cursors: &mut Cursors,
    after: u64,
    limit: Option<u64>,
) -> Result<Option<u64>, Refusal> {
    let mut reader = client.reader(log, Offset::new(after)).up_to_head(limit);
    let mut seen = None;
    while let Some(item) = reader.next().await? {
        if let RawItem::Entries(entries) = item {
            for entry in entries {
                seen = cursors.fold(entry.offset.get(), entry.body).or(seen);
            }
        }
    }
    Ok(seen)
}

/// Reads the log as it grows.
async fn follow(channel: std::sync::Weak<Channel>, mut reader: RawReader, config: Arc<BridgeConfig>) {
    loop {
        let item = reader.next().await;
        let Some(channel) = channel.upgrade() else {
            return;
        };
        match item {
            Ok(Some(RawItem::Entries(entries))) => {
                let mut recent = channel.recent.lock();
                let mut last = 0;
                for entry in entries {
                    last = entry.offset.get();
                    recent.push(Entry::of(entry), &config);
                }
                drop(recent);
                channel.head.send_modify(|head| *head = (*head).max(last));
            }
            Ok(Some(RawItem::Trimmed { .. })) => *channel.recent.lock() = Recent::default(),
            Ok(Some(RawItem::CaughtUp { .. })) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::error!(code = %error.code(), %error, "a channel's log cannot be followed");
                metrics::refused(error.code());
                drop(channel);
                tokio::time::sleep(FOLLOW_AGAIN).await;
            }
        }
    }
}

/// Writes cursors as they move, not too often.
async fn keep_cursors(channel: std::sync::Weak<Channel>, dirty: Arc<Notify>, every: Duration) {
    loop {
        dirty.notified().await;
        let Some(channel) = channel.upgrade() else {
            return;
        };
        if let Err(error) = channel.flush().await {
            tracing::warn!(code = %error.code(), %error, "cursors not written");
        }
        drop(channel);
        tokio::time::sleep(every).await;
    }
}
