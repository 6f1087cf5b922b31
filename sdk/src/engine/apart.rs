//! Following a log without keys of its group: by the frames' headers.

use super::channel::Channel;
use super::drift::takes_off;
use super::lost::LostReason;
use super::outbox::Intent;
use super::rejoin::read_bundle;
use super::replay::{Halt, rejected};
use super::standing::Standing;
use super::transact::{Tx, storage_failed};
use super::{EngineError, Event};
use crate::mls;
use openmls::group::MlsGroup;
use skytale_proto::{Code, Detail, Frame, Offset, Record};

impl Tx<'_> {
    /// Handles an entry while this agent is out of sync, or superseded.
    pub(super) fn pass_over(
        &mut self,
        channel: &mut Channel,
        record: &Record,
        frame: &Frame,
        culprit: &mut Option<(Offset, String)>,
    ) -> Result<(), Halt> {
        let header = frame.header();
        let own = header.author == self.identity.agent_id();
        let superseded = channel.position.recovery.standing == Standing::Superseded;
        if self.is_resumed_by(channel, record) {
            return Ok(self.resume(channel, record.offset, header.author)?);
        }
        if own && header.detail == Detail::Message && self.send_as_another(channel, header)? {
            return Ok(());
        }
        if header.detail == Detail::Message
            && self.row_of(channel, header.id)?.is_none()
            && self.put_back(channel, record, header, None)?
        {
            return Ok(());
        }
        match &header.detail {
            Detail::Commit { .. } | Detail::Message if superseded && own => {
                self.own_while_apart(channel, record, frame)?;
            }
            Detail::Message if superseded => channel.position.recovery.missed += 1,
            _ if superseded => self.removed_by_header(channel, record.offset, frame)?,
            Detail::Commit { .. } if own => self.own_while_apart(channel, record, frame)?,
            Detail::Commit {
                adds,
                removes,
                recipients,
                ..
            } => {
                let answered = adds.iter().chain(removes).copied().chain([header.author]);
                self.forget_requests(channel, &answered.collect())?;
                if recipients.contains(&self.identity.agent_id()) {
                    self.welcome_back(channel, record.offset, frame)?;
                } else {
                    self.removed_by_header(channel, record.offset, frame)?;
                    self.unanswered(channel)?;
                }
            }
            Detail::Rejoin if own => {
                if let Some(row) = self.row_of(channel, header.id)?
                    && row.has_built(frame.encoded())
                {
                    channel.position.recovery.asked = record.offset;
                    self.delivered(channel, &row, record.offset)?;
                }
            }
            Detail::Rejoin => {
                // It counts if the group is rebooted. This agent may not know its author: members that answer do.
                if let Err(problem) = self.note_request(channel, record.offset, frame)? {
                    tracing::debug!(channel = %channel.id, offset = %record.offset, problem, "a request passed over");
                }
            }
            Detail::Message if own => self.own_while_apart(channel, record, frame)?,
            Detail::Message => return self.message_while_apart(channel, record, frame),
            _ => {}
        }
        // Only a processed entry can be the cause.
        *culprit = None;
        Ok(())
    }

    /// Handles a commit that adds this agent: if its Welcome works, the agent is in sync again.
    fn welcome_back(&mut self, channel: &mut Channel, offset: Offset, frame: &Frame) -> Result<(), Halt> {
        let bundle = read_bundle(frame).map_err(rejected)?;
        if let Err(not_back) = self.try_rejoin(channel, offset, frame, &bundle)? {
            // It was meant for another copy of this vault, or is broken: this one repeats its request.
            channel.position.recovery.asked = Offset::ZERO;
            if not_back.by_stranger {
                channel.offered.strangers.insert(frame.header().author);
            }
            self.go_without_reboot(channel)?;
            self.ask_to_rejoin(channel)?;
            return Err(rejected(format!("its Welcome cannot be used: {}", not_back.reason)));
        }
        if bundle.reboot {
            self.events.push(Event::Rebooted {
                channel: channel.id,
                offset,
                by: frame.header().author,
            });
        }
        Ok(())
    }

    /// Handles a header that removes this agent. Headers determine the roster: an agent that cannot read a commit
    /// believes its header.
    fn removed_by_header(&mut self, channel: &mut Channel, offset: Offset, frame: &Frame) -> Result<(), EngineError> {
        let own = self.identity.agent_id();
        match &frame.header().detail {
            Detail::Commit {
                adds, removes, roster, ..
            } if takes_off(&own, adds, removes, roster.as_deref()) => {
                self.note_missed(channel, offset)?;
                self.left(channel, offset, frame.header().author)
            }
            _ => Ok(()),
        }
    }

    /// Handles a commit that did not answer this agent's request: its author may not know the request.
    fn unanswered(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        self.go_without_reboot(channel)?;
        if channel.position.recovery.standing != Standing::OutOfSync
            || std::mem::take(&mut channel.position.recovery.asked) == Offset::ZERO
        {
            return Ok(());
        }
        self.ask_to_rejoin(channel)
    }

    /// Cancels a queued reboot: a member continues the group.
    pub(super) fn go_without_reboot(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        while let Some(row) = self.first_of(channel, Intent::Reboot)? {
            self.unneeded(channel, &row)?;
        }
        Ok(())
    }

    /// Handles an entry that this agent sent before it knew that it is out of sync, or that another copy of its vault
    /// sent.
    fn own_while_apart(&mut self, channel: &mut Channel, record: &Record, frame: &Frame) -> Result<(), EngineError> {
        let header = frame.header();
        let is_message = header.detail == Detail::Message;
        match self.row_of(channel, header.id)? {
            // It was encrypted for an epoch that was undone: nobody can read it.
            Some(row)
                if row.intent.is_message() && channel.settled.is_some_and(|settled| header.parent > settled.kept) =>
            {
                self.fail(channel, &row, Code::DeliveryUnknown)
            }
            Some(row) if row.intent.is_message() && row.has_built(frame.encoded()) => {
                let (sent_ms, content) = (row.sent_ms, (row.content.as_ref(), &row.properties));
                if row.intent == Intent::Message {
                    self.keep_message(channel, record, header.id, header.author, sent_ms, content, true)?;
                }
                self.delivered(channel, &row, record.offset)
            }
            Some(row) if row.intent == Intent::Reboot && row.has_built(frame.encoded()) => {
                self.own_reboot(channel, record.offset, header)?;
                self.delivered(channel, &row, record.offset)
            }
            // Another copy sent a message that this one had queued before the copy, or somebody else sent one in its
            // name. It cannot tell which, and it cannot send it again under this id.
            Some(row) if !row.intent.is_way_back() => {
                channel.position.recovery.missed += u64::from(is_message);
                self.fail(channel, &row, Code::DeliveryUnknown)
            }
            _ => {
                channel.position.recovery.missed += u64::from(is_message);
                Ok(())
            }
        }
    }

    /// Handles a message of another member. If this agent can read it, the others did not apply the commit either that
    /// it could not apply: it is not out of sync.
    fn message_while_apart(&mut self, channel: &mut Channel, record: &Record, frame: &Frame) -> Result<(), Halt> {
        let of_this_epoch =
            |group: &MlsGroup| mls::read_message(frame.body()).is_ok_and(|message| message.epoch() == group.epoch());
        if channel.position.recovery.unsure || !channel.group.as_ref().is_some_and(of_this_epoch) {
            channel.position.recovery.missed += 1;
            return Ok(());
        }
        match self.message(channel, record, frame) {
            Ok(()) => {
                self.note_missed(channel, record.offset)?;
                let recovery = std::mem::take(&mut channel.position.recovery);
                self.unqueue_all(channel, Intent::Rejoin)?;
                self.events.push(Event::Rejoined {
                    channel: channel.id,
                    offset: record.offset,
                    by: frame.header().author,
                    missed: recovery.missed,
                });
                Ok(())
            }
            Err(Halt::Failed(error)) => Err(Halt::Failed(error)),
            Err(Halt::Rejected(mls::Rejected::Storage(error))) => Err(error.into()),
            Err(Halt::Rejected(_) | Halt::Void(_)) => match self.provider.failure() {
                Some(failure) => Err(storage_failed(failure).into()),
                None => {
                    channel.position.recovery.missed += 1;
                    Ok(())
                }
            },
        }
    }

    /// Records the messages skipped up to an entry.
    pub(super) fn note_missed(&mut self, channel: &mut Channel, offset: Offset) -> Result<(), EngineError> {
        let recovery = &channel.position.recovery;
        if recovery.missed == 0 {
            return Ok(());
        }
        let since = recovery.since;
        self.lose(channel, since, offset.previous(), LostReason::OutOfSync)
    }
}
