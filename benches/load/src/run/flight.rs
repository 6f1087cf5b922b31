//! An append on its way.

use super::room::{Change, Made};
use super::shared::{Open, Shared};
use crate::frames::frame_id;
use crate::target::Target;
use skytale_history::ChannelMonitor;
use skytale_proto::{AgentId, Detail, Frame, FrameError, Header, Kind, LogId, Offset};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Effect of the frame once it is an entry.
pub(super) enum Meaning {
    /// The channel is there.
    Create(Made),
    /// Its roster is another one.
    Commit(Change),
    /// An entry of a channel.
    Entry,
    /// A KeyPackage is there to be claimed.
    Offer,
}

/// Outcome, for an agent that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Entry,
    Never,
    /// Built on a handshake head that has moved, to here.
    Stale(Offset),
}

/// An append on its way.
pub(super) struct Flight {
    pub(super) agent: u32,
    /// Channel of the frame.
    pub(super) channel: Option<u32>,
    pub(super) planned: Duration,
    pub(super) frame: Frame,
    pub(super) meaning: Meaning,
    pub(super) watched: Option<Arc<ChannelMonitor>>,
    /// Its agent waits for the verdict.
    pub(super) verdict: Option<oneshot::Sender<Verdict>>,
    pub(super) was_sent: bool,
    /// Orders the frames of an agent: given when it goes out for the first time.
    pub(super) stamp: u64,
    /// Dropped with the flight: then the event is done.
    pub(super) open: Arc<Open>,
}

impl Flight {
    pub(super) fn is_message(&self) -> bool {
        matches!(self.frame.header().kind(), Kind::Message | Kind::Raw)
    }

    /// The place of its event in the plan.
    pub(super) fn place(&self) -> usize {
        self.open.place()
    }

    fn author(&self) -> AgentId {
        self.frame.header().author
    }

    /// It goes out for the first time, under this id.
    pub(super) fn goes_out(&mut self, stamp: u64) {
        self.stamp = stamp;
        if let Some(watched) = &self.watched {
            watched.sent(self.author(), self.frame.header().id);
        }
    }

    pub(super) fn acknowledged<T: Target>(self, shared: &Shared<T>, offset: Offset) {
        let header = self.frame.header();
        if let Some(watched) = &self.watched {
            watched.acknowledged(header.author, header.id, offset);
        }
        let room = self.channel.and_then(|channel| shared.room(channel));
        match (self.meaning, room) {
            (Meaning::Create(made), Some(room)) => room.created(made, self.agent, offset),
            (Meaning::Commit(change), Some(room)) => room.committed(&change, offset),
            (Meaning::Entry, Some(room)) => room.appended(offset),
            (Meaning::Offer, _) => {
                if let Some(offer) = shared.offers.get(self.agent as usize) {
                    offer.send_replace(true);
                }
            }
            _ => {}
        }
        if let Some(verdict) = self.verdict {
            // A caller that no longer waits needs no answer.
            let _ = verdict.send(Verdict::Entry);
        }
    }

    pub(super) fn refused<T: Target>(self, shared: &Shared<T>) {
        let header = self.frame.header();
        if let Some(watched) = &self.watched {
            watched.refused(header.id);
        }
        if let Some(room) = self.channel.and_then(|channel| shared.room(channel)) {
            match &self.meaning {
                Meaning::Create(_) => room.broken(),
                Meaning::Commit(change) => room.not_committed(change),
                Meaning::Entry | Meaning::Offer => {}
            }
        }
        if let Some(verdict) = self.verdict {
            let _ = verdict.send(Verdict::Never);
        }
    }

    /// The same with another parent, as another frame: the one before will never be an entry.
    pub(super) fn rebuilt<T: Target>(&mut self, shared: &Shared<T>, parent: Offset) -> Result<(), FrameError> {
        let old = self.frame.header().clone();
        if let Some(watched) = &self.watched {
            watched.refused(old.id);
        }
        let id = frame_id(self.planned, shared.part, shared.next_number());
        let header = Header { id, parent, ..old };
        self.frame = Frame::new(header, self.frame.body().clone())?;
        self.was_sent = false;
        Ok(())
    }
}

/// Builds a frame of a run.
pub(super) fn build<T: Target>(
    shared: &Shared<T>,
    agent: u32,
    planned: Duration,
    log: LogId,
    parent: Offset,
    detail: Detail,
    body_bytes: u32,
) -> Result<Frame, FrameError> {
    let number = shared.next_number();
    let header = Header {
        log,
        id: frame_id(planned, shared.part, number),
        author: shared.target.agent_id(agent),
        parent,
        detail,
    };
    let body = |bytes: u32| shared.bodies.cut(bytes as usize, number);
    match Frame::new(header.clone(), body(body_bytes)) {
        // The header may be longer than the captured one was.
        Err(FrameError::TooLarge { bytes }) => {
            let over = u32::try_from(bytes.saturating_sub(skytale_proto::limits::FRAME_BYTES_MAX)).unwrap_or(u32::MAX);
            Frame::new(header, body(body_bytes.saturating_sub(over.saturating_add(16))))
        }
        built => built,
    }
}
