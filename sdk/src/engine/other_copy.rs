//! Entries of this agent that another copy of its vault made.

use super::channel::Channel;
use super::lost::LostReason;
use super::outbox::{Intent, OutboxRow};
use super::rejoin::read_bundle;
use super::replay::{Halt, rejected};
use super::standing::Standing;
use super::transact::Tx;
use crate::mls::{self, Rejected};
use openmls::prelude::ProcessedMessageContent;
use skytale_proto::{Detail, Frame, Offset, Record};

impl Tx<'_> {
    /// Handles an entry under this agent's name that this vault does not know, in a group that it follows. `row` is its
    /// intent, if this vault had queued it before it was copied.
    pub(super) fn by_other_copy(
        &mut self,
        channel: &mut Channel,
        record: &Record,
        frame: &Frame,
        row: Option<&OutboxRow>,
    ) -> Result<(), Halt> {
        let offset = record.offset;
        match &frame.header().detail {
            Detail::Message if self.is_own(channel, frame.body())? => {
                self.renew(channel, offset, "another copy of this vault has sent messages")?;
                match row {
                    Some(row) if row.intent == Intent::Message => {
                        let (id, author) = (frame.header().id, frame.header().author);
                        let content = (row.content.as_ref(), &row.properties);
                        self.keep_message(channel, record, id, author, row.sent_ms, content, true)?;
                    }
                    Some(_) => {}
                    // It was read before the log went back, and was not stored.
                    None if self.is_read_again(channel, offset) => {}
                    None => self.lose(channel, offset, offset, LostReason::OtherCopy)?,
                }
            }
            Detail::Proposal if self.is_own(channel, frame.body())? => {
                self.out_of_sync(channel, offset, "another copy of this vault has asked to leave".into())?;
                channel.position.recovery.unsure = true;
            }
            Detail::Commit { .. } => self.commit_of_other_copy(channel, offset, frame)?,
            _ => return Err(rejected("appended as this agent, but not by this vault")),
        }
        // An item that this vault had queued before it was copied is in the log.
        match row {
            Some(row) => Ok(self.delivered(channel, row, offset)?),
            None => Ok(()),
        }
    }

    fn commit_of_other_copy(&mut self, channel: &mut Channel, offset: Offset, frame: &Frame) -> Result<(), Halt> {
        let header = frame.header();
        let bundle = read_bundle(frame).map_err(rejected)?;
        let reason = "another copy of this vault has changed the group";
        if bundle.reboot {
            return Ok(self.out_of_sync(channel, offset, reason.into())?);
        }
        if bundle.external.is_empty() {
            return match self.is_own(channel, &bundle.commit)? {
                true => Ok(self.out_of_sync(channel, offset, reason.into())?),
                false => Err(rejected("appended as this agent, but not by this vault")),
            };
        }
        let group = channel.group.as_mut().ok_or_else(|| rejected("there is no group"))?;
        let message = mls::open_external(group, self.provider, header.id, &bundle.external)?;
        let (author, _) = mls::process(group, self.provider, message)?;
        if author != header.author {
            return Err(rejected("appended as this agent, but not by this vault"));
        }
        // A live copy took new keys while this one followed the group, or was about to take new keys itself. A vault
        // that is being restored passes earlier actions.
        let competes = match channel.position.recovery.standing {
            Standing::Current => true,
            _ => self
                .first_of(channel, Intent::Renew)?
                .is_some_and(|row| row.encrypted_no > 0),
        };
        match competes {
            true => self.superseded(channel, offset)?,
            false => self.out_of_sync(channel, offset, reason.into())?,
        }
        Ok(())
    }

    /// Whether an encrypted message is of this agent's own leaf. Nobody outside the group can forge this.
    pub(super) fn is_own(&mut self, channel: &mut Channel, message: &[u8]) -> Result<bool, Halt> {
        let group = channel.group.as_mut().ok_or_else(|| rejected("there is no group"))?;
        let Ok(message) = mls::read_message(message) else {
            return Ok(false);
        };
        match mls::process(group, self.provider, message) {
            Ok((_, ProcessedMessageContent::OwnPrivateMessage)) => Ok(true),
            Ok(_) => Ok(false),
            Err(Rejected::Storage(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    /// Handles this agent's own request to rejoin while it follows the group: an earlier one, or another copy's.
    pub(super) fn own_request(&mut self, channel: &mut Channel, record: &Record, frame: &Frame) -> Result<(), Halt> {
        match self.row_of(channel, frame.header().id)? {
            Some(row) if row.has_built(frame.encoded()) => Ok(self.delivered(channel, &row, record.offset)?),
            _ => self.request(channel, record.offset, frame),
        }
    }

    pub(super) fn request(&mut self, channel: &mut Channel, offset: Offset, frame: &Frame) -> Result<(), Halt> {
        self.note_request(channel, offset, frame)?.map_err(rejected)
    }
}
