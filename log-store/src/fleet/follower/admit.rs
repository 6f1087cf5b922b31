//! Checks that a start without the stream left out: made before the stream is followed, and anything is put into it.

use super::{End, Follower};
use crate::fleet::bootstrap::{self, Lazy};
use crate::fleet::error::OpenError;
use crate::fleet::facts::Facts;
use crate::fleet::follower::judge::Judged;
use crate::fleet::guard::{Contradiction, Look};
use crate::fleet::{mirror, open, streams};

impl Follower<'_> {
    /// Checks the stream as an opening node does, and finds out what to go on from.
    pub(super) async fn admit(&mut self) -> Result<(), End> {
        let (node, id) = (self.node, self.shard.id);
        let config = &node.config;
        let again = |error: OpenError| End::Again(error.to_string());
        node.connected().map_err(End::Again)?;
        let settings = |problem| {
            End::Stop(Contradiction::Settings {
                stream: id.stream(),
                problem,
            })
        };
        if let Some(problem) = open::payload_problem(&node.client) {
            return Err(settings(problem));
        }
        let wanted = streams::wanted(id, &node.shards, config);
        let existed = self.position.sequence > 0;
        let info = match streams::ensure(&node.context, &wanted, existed, config.allow_weaker).await {
            Ok(Some(info)) => info,
            Ok(None) => {
                let missing = Contradiction::Missing {
                    stream: id.stream(),
                    position: self.position.sequence,
                };
                return Err(match self.judge(Look::Contradicts(missing)) {
                    Judged::Stop(contradiction) => End::Stop(contradiction),
                    _ => End::Again("its stream is missing; looking again".into()),
                });
            }
            Err(OpenError::Stream { problem, .. }) => return Err(settings(problem)),
            Err(error) => return Err(again(error)),
        };
        let meaning = node
            .prober
            .meaning(std::slice::from_ref(&info))
            .await
            .map_err(End::Again)?;
        if let (Some(problem), false) = (meaning.problem, config.allow_weaker) {
            return Err(End::Stop(Contradiction::Weaker { problem }));
        }
        let mut facts = node.facts.lock().await;
        if facts.is_none() {
            let found = Facts::of(&node.shards, config);
            found.save(&config.local.dir).map_err(again)?;
            *facts = Some(found);
        }
        let Some(facts) = facts.as_mut() else { return Ok(()) };
        let mut bucket = Lazy::new(&node.context, config);
        let position = Some(self.position.clone());
        let begun = bootstrap::begin(&mut bucket, &node.replica, facts, id, position, &info).await;
        let begun = begun.map_err(again)?;
        if self.position.sequence == 0 {
            self.recheck_to = begun.position.sequence;
            self.shard.followed.send_replace(begun.position.sequence);
            self.position = begun.position;
        }
        self.repeats = begun.repeats;
        self.owes_after = begun.owes_after;
        if let Err(reason) = mirror::ensure(&node.context, id, config).await {
            tracing::warn!(shard = %self.shard.label, %reason, "the stream itself is followed");
        }
        Ok(())
    }

    /// Whether a mirror of the stream may be followed though the stream itself could not be checked: this replica was followed
    /// with the same settings, and lacks no frame ids.
    pub(super) async fn may_follow_unchecked(&self) -> bool {
        let facts = self.node.facts.lock().await;
        let sequence = self.position.sequence;
        let told = |facts: &Facts| facts.must_be_told(self.shard.id, sequence);
        sequence > 0 && facts.as_ref().is_some_and(|facts| !told(facts))
    }
}
