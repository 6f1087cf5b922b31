//! Appends of an agent.

use super::super::flight::{Flight, Meaning, Verdict, build};
use super::super::room::{Change, Made, Never};
use super::super::shared::{Open, add};
use super::{Lane, numbers};
use crate::target::{Session as _, Target};
use skytale_proto::{AccountId, ChannelId, ChannelMode, Code, Detail, LogId, Offset};
use skytale_workload::{Agent, Frame};
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of times that a commit is built again because another one came first.
const TRIES_MAX: u32 = 50;
/// Maximum number of retries of a claim if no KeyPackage was there.
const CLAIMS_MAX: u32 = 20;

impl<T: Target> Lane<T> {
    pub(super) async fn append(
        &mut self,
        planned: Duration,
        body_bytes: u32,
        frame: &Frame,
        open: Arc<Open>,
    ) -> Result<(), Never> {
        match frame {
            Frame::Create { channel, mode } => self.create(planned, body_bytes, channel.0, *mode, open).await,
            Frame::Commit {
                channel,
                adds,
                removes,
                recipients,
            } => {
                let change = Change {
                    adds: numbers(adds),
                    removes: numbers(removes),
                };
                self.commit(planned, body_bytes, channel.0, change, recipients, open)
                    .await
            }
            Frame::Claim(of) => self.claim(planned, of.0, &open).await,
            Frame::KeyPackage { last_resort } => {
                let detail = Detail::KeyPackage {
                    last_resort: *last_resort,
                    account: Some(self.account()?),
                };
                let log = self.shared.target.agent_id(self.agent).log();
                let frame = self.build(planned, log, Offset::ZERO, detail, body_bytes)?;
                self.send(Flight {
                    agent: self.agent,
                    channel: None,
                    planned,
                    frame,
                    meaning: Meaning::Offer,
                    watched: None,
                    verdict: None,
                    was_sent: false,
                    open,
                    stamp: 0,
                })
                .await;
                Ok(())
            }
            Frame::Proposal(channel) => self.entry(planned, body_bytes, channel.0, Detail::Proposal, open).await,
            Frame::Message(channel) => self.entry(planned, body_bytes, channel.0, Detail::Message, open).await,
            Frame::Rejoin(channel) => self.entry(planned, body_bytes, channel.0, Detail::Rejoin, open).await,
            Frame::Raw(channel) => {
                let account = self.account()?;
                self.entry(planned, body_bytes, channel.0, Detail::Raw { account }, open)
                    .await
            }
            Frame::Trim { .. } => Ok(()),
        }
    }

    fn account(&self) -> Result<AccountId, Never> {
        self.shared.target.account().ok_or(Never)
    }

    fn build(
        &self,
        planned: Duration,
        log: LogId,
        parent: Offset,
        detail: Detail,
        body_bytes: u32,
    ) -> Result<skytale_proto::Frame, Never> {
        build(&self.shared, self.agent, planned, log, parent, detail, body_bytes).map_err(|error| {
            tracing::warn!(%error, "a frame of the plan cannot be built");
            Never
        })
    }

    async fn create(
        &mut self,
        planned: Duration,
        body_bytes: u32,
        channel: u32,
        mode: ChannelMode,
        open: Arc<Open>,
    ) -> Result<(), Never> {
        let account = match mode {
            ChannelMode::Raw => Some(self.account()?),
            ChannelMode::Mls => None,
        };
        let id = ChannelId::generate_in(self.shared.target.home(self.agent));
        let watched = self.shared.monitor.channel(id);
        let frame = self.build(
            planned,
            id.log(),
            Offset::ZERO,
            Detail::Create {
                mode,
                account,
                policy: None,
            },
            body_bytes,
        )?;
        let flight = Flight {
            agent: self.agent,
            channel: Some(channel),
            planned,
            frame,
            watched: Some(Arc::clone(&watched)),
            meaning: Meaning::Create(Made { id, mode, watched }),
            verdict: None,
            was_sent: false,
            open,
            stamp: 0,
        };
        match self.send_and_wait(flight).await {
            Verdict::Entry => Ok(()),
            // It was counted as given up, and its channel as broken.
            Verdict::Never | Verdict::Stale(_) => Ok(()),
        }
    }

    async fn commit(
        &mut self,
        planned: Duration,
        body_bytes: u32,
        channel: u32,
        change: Change,
        recipients: &[Agent],
        open: Arc<Open>,
    ) -> Result<(), Never> {
        let shared = Arc::clone(&self.shared);
        let agent = self.agent;
        let room = shared.room(channel).ok_or(Never)?;
        let ids = |agents: &mut dyn Iterator<Item = u32>| agents.map(|agent| shared.target.agent_id(agent)).collect();
        let detail = Detail::Commit {
            adds: ids(&mut change.adds.iter().copied()),
            removes: ids(&mut change.removes.iter().copied()),
            recipients: ids(&mut recipients.iter().map(|agent| agent.0)),
            roster: None,
            policy: None,
        };
        let place = open.place();
        self.meanwhile(room.have_joined(shared.needs.removed(place))).await?;
        for _ in 0..TRIES_MAX {
            let made = self
                .meanwhile(room.for_author(agent, shared.needs.joins(place)))
                .await?;
            let frame = self.build(planned, made.id.log(), room.head(), detail.clone(), body_bytes)?;
            let flight = Flight {
                agent,
                channel: Some(channel),
                planned,
                frame,
                meaning: Meaning::Commit(change.clone()),
                watched: Some(made.watched),
                verdict: None,
                was_sent: false,
                open: Arc::clone(&open),
                stamp: 0,
            };
            match self.send_and_wait(flight).await {
                Verdict::Entry | Verdict::Never => return Ok(()),
                Verdict::Stale(head) => {
                    add(&shared.tallies.commits_lost, 1);
                    room.moved(head);
                }
            }
        }
        Err(Never)
    }

    /// Any other frame of a channel.
    async fn entry(
        &mut self,
        planned: Duration,
        body_bytes: u32,
        channel: u32,
        detail: Detail,
        open: Arc<Open>,
    ) -> Result<(), Never> {
        let shared = Arc::clone(&self.shared);
        let agent = self.agent;
        let room = shared.room(channel).ok_or(Never)?;
        let ready = room.for_author(agent, shared.needs.joins(open.place()));
        let made = self.meanwhile(ready).await?;
        let parent = match made.mode {
            ChannelMode::Mls => room.head(),
            ChannelMode::Raw => Offset::ZERO,
        };
        let frame = self.build(planned, made.id.log(), parent, detail, body_bytes)?;
        self.send(Flight {
            agent,
            channel: Some(channel),
            planned,
            frame,
            meaning: Meaning::Entry,
            watched: Some(made.watched),
            verdict: None,
            was_sent: false,
            open,
            stamp: 0,
        })
        .await;
        Ok(())
    }

    async fn claim(&mut self, planned: Duration, of: u32, open: &Arc<Open>) -> Result<(), Never> {
        let shared = Arc::clone(&self.shared);
        let mut offered = shared.offers.get(of as usize).ok_or(Never)?.subscribe();
        // The sender lives as long as the run.
        self.meanwhile(async { offered.wait_for(|offered| *offered).await.is_ok() })
            .await;
        let log = shared.target.agent_id(of).log();
        let detail = Detail::KeyPackageClaim {
            account: Some(self.account()?),
        };
        let frame = self.build(planned, log, Offset::ZERO, detail, 0)?;
        shared.was_sent(open.place(), self.agent, planned);
        for _ in 0..CLAIMS_MAX {
            if self.link.is_none() {
                self.come_online().await;
                self.go_on().await;
            }
            let Some(link) = &self.link else { continue };
            let session = link.session.clone();
            match session.claim(&frame).await {
                Ok(()) => {
                    shared.is_entry(open.place(), self.agent, planned, 0, false);
                    return Ok(());
                }
                Err(failed) if failed.is_refusal => {
                    shared.refused(self.agent, failed.code);
                    if matches!(failed.code, Code::KeyPackagesExhausted | Code::ClaimsUnspent) {
                        break;
                    }
                    // What ended the session is the answer to all requests on it.
                    let pause = failed.retry_after.unwrap_or(Duration::from_millis(50));
                    if let Ok(failed) = tokio::time::timeout(pause, link.lost()).await {
                        self.recover(&failed).await;
                    }
                }
                Err(_) => {
                    let failed = link.lost().await;
                    self.recover(&failed).await;
                }
            }
        }
        add(&shared.tallies.claims_without_package, 1);
        shared.was_given_up(open.place(), self.agent, planned);
        Ok(())
    }
}
