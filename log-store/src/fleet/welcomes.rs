//! Puts the Welcomes that bundles owe into their recipients' streams.
//!
//! A recipient need not know a bundle's author, nor even exist: such a Welcome is no entry, and is not published at all, or
//! one bundle would cost its author one message and the streams thousands. A replica that is behind does not know the claim
//! yet: so before a Welcome is given up, this node follows the recipient's shard to where it is now. The claim was
//! acknowledged before the bundle was made.

use super::node::Node;
use super::shards::ShardId;
use crate::{PendingAppend, StoreError};
use bytes::Bytes;
use skytale_proto::{Frame, FrameId, Header, LogId, Offset};
use std::collections::BTreeMap;

/// A Welcome that was put into a stream.
pub(super) struct Published {
    pub(super) log: LogId,
    pub(super) id: FrameId,
    pub(super) append: PendingAppend,
}

impl Node {
    /// Publishes the Welcomes that a bundle owes, and waits until all of them are on their logs, or not to be there.
    pub(super) async fn deliver(&self, log: LogId, offset: Offset) -> Result<(), StoreError> {
        // Those that are published are folded, or the sweeper tries again.
        drop(self.publish_welcomes(self.owed.left(log, offset)).await?);
        let done = tokio::time::timeout(self.config.append_timeout, self.owed.wait(log, offset));
        tokio::select! {
            done = done => done.map_err(|_| StoreError::HomeUnreachable {
                home: "of a recipient".into(),
                reason: "the bundle is an entry, and not all of its Welcomes are on their logs yet".into(),
            }),
            () = self.ended.cancelled() => Err(self.why_ended()),
        }
    }

    /// Publishes those Welcomes that would be entries, and strikes out those that would not.
    pub(super) async fn publish_welcomes(&self, welcomes: Vec<Header>) -> Result<Vec<Published>, StoreError> {
        let mut published = Vec::new();
        let mut doubtful: BTreeMap<ShardId, Vec<Header>> = BTreeMap::new();
        for header in welcomes {
            if self.is_expected(&header).await? {
                published.push(self.publish_welcome(header)?);
            } else if let Some(shard) = self.shard_of(&header.log) {
                doubtful.entry(shard.id).or_default().push(header);
            } else {
                // No region of this fleet has the log.
                self.owed.settle(&header.id);
            }
        }
        for (shard, headers) in doubtful {
            let Some(shard) = self.handles.get(&shard) else {
                continue;
            };
            if let Err(error) = self.barrier(shard).await {
                tracing::debug!(%error, "Welcomes stay owed: whether they are expected is not known");
                continue;
            }
            for header in headers {
                if self.is_expected(&header).await? {
                    published.push(self.publish_welcome(header)?);
                } else {
                    tracing::debug!(log = %header.log, id = %header.id, "a Welcome is not an entry");
                    self.owed.settle(&header.id);
                }
            }
        }
        Ok(published)
    }

    async fn is_expected(&self, header: &Header) -> Result<bool, StoreError> {
        Ok(self.replica.state(header.log).await?.expects_welcome(header))
    }

    /// Queues a Welcome for its recipient's log.
    fn publish_welcome(&self, header: Header) -> Result<Published, StoreError> {
        let (log, id): (LogId, FrameId) = (header.log, header.id);
        let frame = Frame::new(header, Bytes::new()).map_err(|error| StoreError::Io {
            doing: format!("make the Welcome {id} on {log}"),
            error: error.to_string(),
        })?;
        let Some(shard) = self.shard_of(&log) else {
            return Err(StoreError::Io {
                doing: format!("publish the Welcome {id}"),
                error: format!("{log} has no shard"),
            });
        };
        let append = self.enqueue(shard, frame, None)?;
        Ok(Published { log, id, append })
    }
}
