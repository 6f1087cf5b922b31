//! Opening the engine, and reading the state of its channels.

use super::channel::{self, Position};
use super::clock::Clocks;
use super::history::Retained;
use super::{ChannelInfo, ChannelState, Engine, EngineConfig, EngineError, LABEL_BYTES_MAX, agent_log};
use crate::mls::{self, Crypto, Identity, SignatureCounts};
use crate::vault::{Durability, Vault, VaultKey, id, unsigned};
use rusqlite::OptionalExtension as _;
use skytale_proto::{AgentId, ChannelId, Digest, Offset, Policy, Region};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use zeroize::Zeroizing;

impl Engine {
    /// Opens a vault, or creates one with a new identity. Only one process (and one engine) at a time.
    pub fn open(path: &Path, key: VaultKey, config: EngineConfig) -> Result<Self, EngineError> {
        let vault = Vault::open(path, &key)?;
        let identity = Identity::new(&vault.secret("identity")?);
        let endpoint_secret = vault.secret("endpoint")?;
        let agent_cursor = agent_log::agent_cursor(vault.sql())?;
        let clocks = Clocks::new(config.clock.clone());
        let restored = vault.restored()?;
        let mut engine = Self {
            vault,
            crypto: Crypto::default(),
            identity,
            endpoint_secret,
            config,
            clocks,
            agent_cursor,
            loaded: HashMap::new(),
            reached: HashSet::new(),
            retained: Retained::default(),
            restored,
        };
        // On a full disk this is done later, before anything is sent.
        if let Err(error) = engine.renew_restored() {
            tracing::warn!(%error, "a restored vault has not prepared to take new keys yet");
        }
        Ok(engine)
    }

    /// Returns how many signatures of others were verified, and how.
    pub fn signature_counts(&self) -> SignatureCounts {
        self.crypto.signatures().counts()
    }

    /// Returns the agent's identity: its public key.
    pub fn agent_id(&self) -> AgentId {
        self.identity.agent_id()
    }

    /// Signs with the identity key (Ed25519), to prove possession of it. The message is signed as it is: the caller
    /// ensures that it is one of the project's own proofs.
    pub fn sign_proof(&self, message: &[u8]) -> [u8; 64] {
        self.identity.sign_bytes(message)
    }

    /// Returns the secret key of the agent's iroh endpoint, created with the vault. It is not the identity key.
    pub fn endpoint_secret(&self) -> Zeroizing<[u8; 32]> {
        self.endpoint_secret.clone()
    }

    /// Returns the key by which another process proves that it may use this vault.
    pub(crate) fn share_key(&self) -> Zeroizing<[u8; 32]> {
        self.vault.share_key()
    }

    /// Stores a value under a name. For values that can be fetched again.
    pub(crate) fn keep(&self, name: &str, value: &[u8]) -> Result<(), EngineError> {
        Ok(self.vault.keep(name, value)?)
    }

    /// Returns the value stored under a name.
    pub(crate) fn kept(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, EngineError> {
        Ok(self.vault.kept(name)?)
    }

    /// Returns the offset of the last processed entry of the agent's own log.
    pub fn agent_cursor(&self) -> Offset {
        self.agent_cursor
    }

    /// Creates a channel with this agent as its only member and admin ([`Policy::new`]), on a single node. Its Create
    /// goes out with the channel's outbox. For the label see [`Engine::relabel`].
    pub fn create_channel(&mut self, label: &str) -> Result<ChannelId, EngineError> {
        self.create_channel_in(label, Region::default())
    }

    /// Like [`Engine::create_channel`], with a home region for its log: the id's first byte, which never changes.
    pub fn create_channel_in(&mut self, label: &str, home: Region) -> Result<ChannelId, EngineError> {
        let policy = Policy::new(self.agent_id());
        self.create_channel_with(label, home, &policy)
    }

    /// Like [`Engine::create_channel_in`], with a policy other than [`Policy::new`].
    pub fn create_channel_with(
        &mut self,
        label: &str,
        home: Region,
        policy: &Policy,
    ) -> Result<ChannelId, EngineError> {
        check_label(label)?;
        let own = self.agent_id();
        // Nobody else is a member yet.
        let mut policy = policy.with_admins(|agent| *agent == own);
        policy.promote(own);
        let id = ChannelId::generate_in(home);
        let (channel, _) = self.transact(Durability::Now, |tx| agent_log::create(tx, id, label, &policy))?;
        self.put_back(channel);
        Ok(id)
    }

    /// Lists all channels of the vault, including those that were left, in the order in which they were added.
    pub fn channels(&self) -> Result<Vec<ChannelInfo>, EngineError> {
        channel::all(self.vault.sql())?
            .into_iter()
            .map(|(position, no, id)| self.info(position, no, id))
            .collect()
    }

    /// Lists the channels whose outbox is not empty. No other channel is read.
    pub(crate) fn unsent(&self) -> Result<Vec<ChannelInfo>, EngineError> {
        let sql = self.vault.sql();
        let mut next = sql.prepare_cached("SELECT min(channel) FROM outbox WHERE channel > ?1")?;
        let (mut unsent, mut last) = (Vec::new(), i64::MIN);
        while let Some(no) = next.query_row([last], |row| row.get::<_, Option<i64>>(0))? {
            last = no;
            if let Some((position, id)) = channel::numbered(sql, no)? {
                unsent.push(self.info(position, no, id)?);
            }
        }
        Ok(unsent)
    }

    /// Returns the ids of the channels that this agent is in or about to leave, in the order in which they were added.
    pub(crate) fn followed(&self) -> Result<Vec<ChannelId>, EngineError> {
        let states = [ChannelState::Active, ChannelState::Leaving].map(channel::state_number);
        self.vault
            .sql()
            .prepare_cached("SELECT id FROM channel WHERE state IN (?1, ?2) ORDER BY no")?
            .query_map(states, |row| row.get::<_, Vec<u8>>(0))?
            .map(|bytes| Ok(id(&bytes?)?))
            .collect()
    }

    /// Returns the oldest channel with a label that this agent has not left.
    pub(crate) fn of_label(&self, label: &str) -> Result<Option<ChannelId>, EngineError> {
        let found: Option<Vec<u8>> = self
            .vault
            .sql()
            .prepare_cached("SELECT id FROM channel WHERE label = ?1 AND state <> ?2 ORDER BY no LIMIT 1")?
            .query_row((label, channel::state_number(ChannelState::Left)), |row| row.get(0))
            .optional()?;
        Ok(found.map(|bytes| id(&bytes)).transpose()?)
    }

    /// Returns the state of a channel.
    pub fn channel(&self, channel: ChannelId) -> Result<ChannelInfo, EngineError> {
        let (position, no) = channel::one(self.vault.sql(), channel)?;
        self.info(position, no, channel)
    }

    fn info(&self, position: Position, no: i64, id: ChannelId) -> Result<ChannelInfo, EngineError> {
        let count = |query| {
            self.vault
                .sql()
                .prepare_cached(query)?
                .query_row([no], |row| row.get(0))
        };
        // A channel that works knows its counts: its outbox may be very long, and this is asked for at each step.
        let (outbox, failed) = match self.loaded.get(&id) {
            Some(channel) => (channel.waiting.rows, channel.failed),
            None => (
                unsigned(count("SELECT count(*) FROM outbox WHERE channel = ?1")?)?,
                unsigned(count("SELECT count(*) FROM failed WHERE channel = ?1")?)?,
            ),
        };
        let settlements = count("SELECT count(*) FROM settled WHERE channel = ?1 AND kept < cursor")?;
        Ok(ChannelInfo {
            id,
            label: position.label,
            state: position.state,
            standing: position.recovery.standing,
            cursor: position.cursor,
            handshake_head: position.head,
            epoch: position.epoch,
            unacked: position.received.saturating_sub(position.received_acked),
            outbox,
            failed,
            settlements: unsigned(settlements)?,
        })
    }

    /// Changes a channel's label. A label has at most [`LABEL_BYTES_MAX`] bytes, no control characters, and must not
    /// read as a channel id. An empty one removes the label. Several channels may have the same label.
    pub fn relabel(&mut self, channel: ChannelId, label: &str) -> Result<(), EngineError> {
        check_label(label)?;
        self.transact_on(channel, Durability::Now, |tx, channel| {
            label.clone_into(&mut channel.position.label);
            if !label.is_empty() {
                tx.end_invitation(channel.no)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Lists the agents in a channel's group, by id. Empty for a channel that was left.
    pub fn members(&mut self, channel: ChannelId) -> Result<Vec<AgentId>, EngineError> {
        let group = self.loaded(channel)?.group.as_ref();
        Ok(group
            .map(|group| mls::members(group).into_iter().collect())
            .unwrap_or_default())
    }

    /// Returns the offset of a channel's last processed entry.
    pub fn cursor(&self, channel: ChannelId) -> Result<Offset, EngineError> {
        Ok(self.position(channel)?.cursor)
    }

    /// Returns the channel digest at the cursor; `None` until a member has sent this agent a digest after it joined.
    pub fn digest(&self, channel: ChannelId) -> Result<Option<Digest>, EngineError> {
        Ok(self.position(channel)?.digest)
    }

    /// Returns the offset of the last processed commit (or Create); [`Offset::ZERO`] before the Create.
    pub fn handshake_head(&self, channel: ChannelId) -> Result<Offset, EngineError> {
        Ok(self.position(channel)?.head)
    }

    /// Returns the group's epoch.
    pub fn epoch(&self, channel: ChannelId) -> Result<u64, EngineError> {
        Ok(self.position(channel)?.epoch)
    }

    fn position(&self, channel: ChannelId) -> Result<Position, EngineError> {
        Ok(self.row(channel)?.0)
    }

    /// Returns a channel's position and number, without loading its group.
    pub(super) fn row(&self, channel: ChannelId) -> Result<(Position, i64), EngineError> {
        match self.loaded.get(&channel) {
            Some(channel) => Ok((channel.position.clone(), channel.no)),
            None => channel::one(self.vault.sql(), channel),
        }
    }
}

/// Checks a label. Labels are for people, and for commands that accept them instead of ids.
fn check_label(label: &str) -> Result<(), EngineError> {
    let problem = if label.len() > LABEL_BYTES_MAX {
        "it is longer than 256 bytes"
    } else if label.chars().any(char::is_control) {
        "it has control characters"
    } else if label.parse::<ChannelId>().is_ok() {
        "it reads as a channel's id"
    } else {
        return Ok(());
    };
    Err(EngineError::Label { problem })
}
