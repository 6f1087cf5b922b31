//! Frames, as an author appends them: a header in clear, for routing, and an opaque body.
//!
//! A [`Frame`] keeps the bytes it was decoded from: they are stored, digested and sent on as they are, never
//! re-encoded. Decoding checks everything that one frame can show by itself; what depends on the log (membership,
//! parent, duplicates) is the fold's business.

use crate::id::IdError;
use crate::{AccountId, AgentId, Allowed, ChannelId, ClaimRule, Code, FrameId, LogId, Offset, Policy, limits, wire};
use bytes::Bytes;
use prost::Message as _;

/// The version of the frame format that this crate writes and reads.
pub const FRAME_VERSION: u32 = 1;

/// Rules for appends to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelMode {
    /// One MLS group: the handshake rule holds, the roster is folded from commits.
    Mls,
    /// No handshake rule; the roster is every agent of the account that created it.
    Raw,
}

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Create,
    Commit,
    Proposal,
    Message,
    Trim,
    Raw,
    Rejoin,
    KeyPackage,
    KeyPackageClaim,
    Welcome,
    KeyPackagePolicy,
}

impl Kind {
    /// Lower-case name, for metrics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Commit => "commit",
            Self::Proposal => "proposal",
            Self::Message => "message",
            Self::Trim => "trim",
            Self::Raw => "raw",
            Self::Rejoin => "rejoin",
            Self::KeyPackage => "key_package",
            Self::KeyPackageClaim => "key_package_claim",
            Self::Welcome => "welcome",
            Self::KeyPackagePolicy => "key_package_policy",
        }
    }

    /// Whether its parent must be the handshake head.
    pub const fn is_under_handshake_rule(self) -> bool {
        matches!(self, Self::Commit | Self::Proposal | Self::Message | Self::Rejoin)
    }

    const fn fits(self, log: &LogId) -> bool {
        match self {
            Self::Trim => true,
            Self::Create | Self::Commit | Self::Proposal | Self::Message | Self::Raw | Self::Rejoin => {
                matches!(log, LogId::Channel(_))
            }
            Self::KeyPackage | Self::KeyPackageClaim | Self::Welcome | Self::KeyPackagePolicy => {
                matches!(log, LogId::Agent(_))
            }
        }
    }
}

/// Fields of each kind beyond the common ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The first entry of a channel log. The author is the first on its roster.
    Create {
        /// Rules for appends.
        mode: ChannelMode,
        /// The author's account; there exactly for [`ChannelMode::Raw`].
        account: Option<AccountId>,
        /// Rights of the members; `None` if every member may do everything. Of [`ChannelMode::Mls`] alone.
        policy: Option<Policy>,
    },
    /// An MLS commit, with the Welcomes it causes: a bundle. `parent` is the handshake head.
    Commit {
        /// Agents that come on the roster with this entry.
        adds: Vec<AgentId>,
        /// Agents that leave the roster with this entry; they may still read it.
        removes: Vec<AgentId>,
        /// Those among `adds` for whom the body holds a Welcome.
        recipients: Vec<AgentId>,
        /// A correction: the whole roster after this commit, in ascending order. The earlier roster, `adds` and
        /// `removes` do not matter then.
        roster: Option<Vec<AgentId>>,
        /// The policy from this commit on, where it changes.
        policy: Option<Policy>,
    },
    /// An MLS proposal. `parent` is the handshake head; it does not become the head.
    Proposal,
    /// An MLS application message. `parent` is the handshake head.
    Message,
    /// Gives up entries up to and with an offset.
    Trim {
        /// The last offset given up.
        up_to: Offset,
    },
    /// A frame of a raw channel.
    Raw {
        /// The author's account.
        account: AccountId,
    },
    /// A member that cannot follow its group asks to be removed and added again. `parent` is the handshake head; it does
    /// not become the head.
    Rejoin,
    /// A KeyPackage offered (RFC 9420 section 10), on its owner's log.
    KeyPackage {
        /// Handed out only when nothing else is left, and never used up.
        last_resort: bool,
        /// The author's account; a relay node takes none without.
        account: Option<AccountId>,
    },
    /// Takes the oldest live KeyPackage of the log's agent.
    KeyPackageClaim {
        /// The author's account; a relay node takes none without.
        account: Option<AccountId>,
    },
    /// Says who may claim the KeyPackages of the log's agent, from here on.
    KeyPackagePolicy {
        /// The author's account.
        account: AccountId,
        /// Agents that may claim.
        rule: ClaimRule,
    },
    /// Points an agent to the bundle that holds a Welcome for it. Made by a store, never by an author.
    Welcome {
        /// The channel.
        channel: ChannelId,
        /// The bundle's offset in the channel's log.
        offset: Offset,
        /// The recipient was on the channel's roster before: the bundle removes and adds it.
        returns: bool,
    },
}

impl Detail {
    /// The kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Create { .. } => Kind::Create,
            Self::Commit { .. } => Kind::Commit,
            Self::Proposal => Kind::Proposal,
            Self::Message => Kind::Message,
            Self::Trim { .. } => Kind::Trim,
            Self::Raw { .. } => Kind::Raw,
            Self::Rejoin => Kind::Rejoin,
            Self::KeyPackage { .. } => Kind::KeyPackage,
            Self::KeyPackageClaim { .. } => Kind::KeyPackageClaim,
            Self::Welcome { .. } => Kind::Welcome,
            Self::KeyPackagePolicy { .. } => Kind::KeyPackagePolicy,
        }
    }
}

/// A frame's header: all that a relay node needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The log it is for.
    pub log: LogId,
    /// Made by the author once, and kept across retries.
    pub id: FrameId,
    /// Author of the frame.
    pub author: AgentId,
    /// The handshake head that the author saw; [`Offset::ZERO`] where no handshake rule holds.
    pub parent: Offset,
    /// Fields of its kind.
    pub detail: Detail,
}

impl Header {
    /// The kind.
    pub const fn kind(&self) -> Kind {
        self.detail.kind()
    }

    /// The header of the Welcome that the accepted bundle at `offset` of `channel` causes for `recipient`, which `returns` if
    /// the bundle removes it, too.
    pub fn welcome(author: AgentId, channel: ChannelId, offset: Offset, recipient: AgentId, returns: bool) -> Self {
        Self {
            log: recipient.log(),
            id: FrameId::of_welcome(&channel, offset, &recipient),
            author,
            parent: Offset::ZERO,
            detail: Detail::Welcome {
                channel,
                offset,
                returns,
            },
        }
    }
}

/// A frame, checked, with the bytes that stand for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Apart: a frame goes through several queues, and each copies it.
    header: Box<Header>,
    body: Bytes,
    encoded: Bytes,
}

/// Bytes, or parts, that are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`limits::FRAME_BYTES_MAX`].
    #[error("frame of {bytes} bytes is over the limit of {} bytes", limits::FRAME_BYTES_MAX)]
    TooLarge {
        /// Its length, in bytes.
        bytes: usize,
    },
    /// Not protobuf.
    #[error("frame is not a valid message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A version that this crate does not read.
    #[error("frame version {found} is not supported (this is version {FRAME_VERSION})")]
    Version {
        /// The version found.
        found: u32,
    },
    /// An id of the wrong length.
    #[error("frame field `{field}`: {source}")]
    Id {
        /// The field.
        field: &'static str,
        /// Reason.
        source: IdError,
    },
    /// A field that is missing, wrong for the kind, or contradicts another.
    #[error("frame field `{field}`: {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// Reason.
        problem: &'static str,
    },
}

impl FrameError {
    /// The code that a refusal for this carries.
    pub const fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::FrameTooLarge,
            Self::Version { .. } => Code::FrameVersion,
            Self::Protobuf(_) | Self::Id { .. } | Self::Field { .. } => Code::FrameMalformed,
        }
    }
}

impl Frame {
    /// Makes a frame and its encoding; refuses what [`Frame::decode`] would refuse.
    pub fn new(header: Header, body: impl Into<Bytes>) -> Result<Self, FrameError> {
        let body = body.into();
        let message = wire::Frame {
            header: Some(to_wire(&header)),
            body,
        };
        let length = message.encoded_len();
        if length > limits::FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: length });
        }
        Self::decode(message.encode_to_vec().into())
    }

    /// Reads a frame. The body is a slice of `encoded`, not a copy.
    pub fn decode(encoded: Bytes) -> Result<Self, FrameError> {
        if encoded.len() > limits::FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: encoded.len() });
        }
        let message = wire::Frame::decode(encoded.clone())?;
        let header = from_wire(message.header.ok_or(missing("header"))?)?;
        Ok(Self {
            header: Box::new(header),
            body: message.body,
            encoded,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The opaque body.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The bytes that are stored, digested and sent on.
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }
}

fn to_wire(header: &Header) -> wire::FrameHeader {
    let mut message = wire::FrameHeader {
        version: FRAME_VERSION,
        log: header.log.to_bytes().into(),
        kind: wire_kind(header.kind()).into(),
        frame_id: Bytes::copy_from_slice(header.id.as_bytes()),
        author: Bytes::copy_from_slice(header.author.as_bytes()),
        parent: header.parent.get(),
        ..wire::FrameHeader::default()
    };
    let account_bytes = |account: &AccountId| Bytes::copy_from_slice(account.as_bytes());
    match &header.detail {
        Detail::Create { mode, account, policy } => {
            put_policy(policy.as_ref(), &mut message);
            message.mode = match mode {
                ChannelMode::Mls => wire::ChannelMode::Mls,
                ChannelMode::Raw => wire::ChannelMode::Raw,
            }
            .into();
            message.account = account.as_ref().map(account_bytes).unwrap_or_default();
        }
        Detail::Commit {
            adds,
            removes,
            recipients,
            roster,
            policy,
        } => {
            put_policy(policy.as_ref(), &mut message);
            message.roster = roster.as_deref().map(concatenated).unwrap_or_default();
            message.adds = concatenated(adds);
            message.removes = concatenated(removes);
            message.recipients = concatenated(recipients);
        }
        Detail::Trim { up_to } => message.trim_up_to = up_to.get(),
        Detail::Raw { account } => message.account = account_bytes(account),
        Detail::KeyPackage { last_resort, account } => {
            message.last_resort = *last_resort;
            message.account = account.as_ref().map(account_bytes).unwrap_or_default();
        }
        Detail::KeyPackageClaim { account } => {
            message.account = account.as_ref().map(account_bytes).unwrap_or_default();
        }
        Detail::KeyPackagePolicy { account, rule } => {
            message.account = account_bytes(account);
            message.claim_by = match rule {
                ClaimRule::Account => wire::ClaimBy::Account,
                ClaimRule::Listed(_) => wire::ClaimBy::Listed,
                ClaimRule::Anyone => wire::ClaimBy::Anyone,
            }
            .into();
            if let ClaimRule::Listed(allowed) = rule {
                message.claim_accounts = allowed.accounts().iter().flat_map(|id| *id.as_bytes()).collect();
                message.claim_agents = concatenated(allowed.agents());
            }
        }
        Detail::Welcome {
            channel,
            offset,
            returns,
        } => {
            message.welcome_channel = Bytes::copy_from_slice(channel.as_bytes());
            message.welcome_offset = offset.get();
            message.welcome_returns = *returns;
        }
        Detail::Proposal | Detail::Message | Detail::Rejoin => {}
    }
    message
}

fn from_wire(message: wire::FrameHeader) -> Result<Header, FrameError> {
    if message.version != FRAME_VERSION {
        return Err(FrameError::Version { found: message.version });
    }
    let kind = kind(message.kind())?;
    let log: LogId = id("log", &message.log)?;
    let frame_id: FrameId = id("frame_id", &message.frame_id)?;
    let author: AgentId = id("author", &message.author)?;
    if !kind.fits(&log) {
        return Err(wrong("kind", "not a kind of this log"));
    }
    refuse_fields_of_other_kinds(kind, &message)?;
    let detail = match kind {
        Kind::Create => create(&message)?,
        Kind::Commit => commit(&message, &author)?,
        Kind::Proposal => Detail::Proposal,
        Kind::Message => Detail::Message,
        Kind::Rejoin => Detail::Rejoin,
        Kind::Trim if message.trim_up_to == 0 => return Err(missing("trim_up_to")),
        Kind::Trim => Detail::Trim {
            up_to: Offset::new(message.trim_up_to),
        },
        Kind::Raw => Detail::Raw {
            account: id("account", &message.account)?,
        },
        Kind::KeyPackage => Detail::KeyPackage {
            last_resort: message.last_resort,
            account: optional_account(&message.account)?,
        },
        Kind::KeyPackageClaim => Detail::KeyPackageClaim {
            account: optional_account(&message.account)?,
        },
        Kind::KeyPackagePolicy => Detail::KeyPackagePolicy {
            account: id("account", &message.account)?,
            rule: claim_rule(&message)?,
        },
        Kind::Welcome if message.welcome_offset == 0 => return Err(missing("welcome_offset")),
        Kind::Welcome => Detail::Welcome {
            channel: id("welcome_channel", &message.welcome_channel)?,
            offset: Offset::new(message.welcome_offset),
            returns: message.welcome_returns,
        },
    };
    let parent = Offset::new(message.parent);
    let under_handshake_rule = kind.is_under_handshake_rule();
    match (under_handshake_rule, parent) {
        (true, Offset::ZERO) => return Err(missing("parent")),
        (false, parent) if parent != Offset::ZERO => return Err(wrong("parent", "must be 0 for this kind")),
        _ => {}
    }
    Ok(Header {
        log,
        id: frame_id,
        author,
        parent,
        detail,
    })
}

fn create(message: &wire::FrameHeader) -> Result<Detail, FrameError> {
    let (mode, account) = match message.mode() {
        wire::ChannelMode::Mls if message.account.is_empty() => (ChannelMode::Mls, None),
        wire::ChannelMode::Mls => return Err(wrong("account", "must be empty for an MLS channel")),
        wire::ChannelMode::Raw => (ChannelMode::Raw, Some(id("account", &message.account)?)),
        wire::ChannelMode::Unspecified => return Err(missing("mode")),
    };
    let policy = policy(message)?;
    if policy.is_some() && mode != ChannelMode::Mls {
        return Err(wrong("policy", "must be empty for a raw channel"));
    }
    Ok(Detail::Create { mode, account, policy })
}

fn optional_account(bytes: &[u8]) -> Result<Option<AccountId>, FrameError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    id("account", bytes).map(Some)
}

fn claim_rule(message: &wire::FrameHeader) -> Result<ClaimRule, FrameError> {
    let listed = !message.claim_accounts.is_empty() || !message.claim_agents.is_empty();
    match message.claim_by() {
        wire::ClaimBy::Account if !listed => Ok(ClaimRule::Account),
        wire::ClaimBy::Anyone if !listed => Ok(ClaimRule::Anyone),
        wire::ClaimBy::Account | wire::ClaimBy::Anyone => {
            Err(wrong("claim_by", "a list goes with the rule that names one alone"))
        }
        wire::ClaimBy::Listed => {
            let (accounts, rest) = message.claim_accounts.as_chunks::<{ AccountId::LENGTH }>();
            if !rest.is_empty() {
                return Err(wrong("claim_accounts", "length is not a multiple of 16 bytes"));
            }
            if accounts.len() > limits::CLAIM_RULE_MAX {
                return Err(wrong("claim_accounts", "names more accounts than a rule may"));
            }
            let accounts = accounts.iter().copied().map(AccountId::from_bytes).collect();
            let agents = agents("claim_agents", &message.claim_agents)?;
            Allowed::ascending(accounts, agents)
                .map(ClaimRule::Listed)
                .map_err(|error| wrong("claim_accounts", error.problem()))
        }
        wire::ClaimBy::Unspecified => Err(missing("claim_by")),
    }
}

/// The bit that says that there is a policy.
const POLICY_THERE: u32 = 1;

fn put_policy(policy: Option<&Policy>, message: &mut wire::FrameHeader) {
    if let Some(policy) = policy {
        message.policy = (u32::from(policy.bits()) << 1) | POLICY_THERE;
        message.admins = policy.admins().iter().flat_map(|agent| *agent.as_bytes()).collect();
    }
}

fn policy(message: &wire::FrameHeader) -> Result<Option<Policy>, FrameError> {
    if message.policy & POLICY_THERE == 0 {
        return match (message.policy, message.admins.is_empty()) {
            (0, true) => Ok(None),
            (0, false) => Err(wrong("admins", "there without a policy")),
            _ => Err(wrong("policy", "it has rights and is not there")),
        };
    }
    let bits = u8::try_from(message.policy >> 1).map_err(|_| wrong("policy", "it has rights that are not known"))?;
    let admins = agents("admins", &message.admins)?;
    ascending("admins", &admins)?;
    let policy = Policy::from_parts(bits, admins.into_iter().collect());
    policy
        .map(Some)
        .map_err(|_| wrong("policy", "it has rights that are not known, or too many admins"))
}

/// A roster as it is after a commit: it fits what the commit adds and removes.
fn roster(
    message: &wire::FrameHeader,
    author: &AgentId,
    adds: &[AgentId],
    removes: &[AgentId],
) -> Result<Option<Vec<AgentId>>, FrameError> {
    if message.roster.is_empty() {
        return Ok(None);
    }
    let roster = agents_up_to("roster", &message.roster, limits::ROSTER_MAX)?;
    ascending("roster", &roster)?;
    let has = |agent: &AgentId| roster.binary_search(agent).is_ok();
    if !has(author) || !adds.iter().all(has) {
        return Err(wrong("roster", "leaves out the author, or an agent in `adds`"));
    }
    let mut added = adds.to_vec();
    added.sort_unstable();
    if removes
        .iter()
        .any(|agent| has(agent) && added.binary_search(agent).is_err())
    {
        return Err(wrong("roster", "has an agent that is in `removes`"));
    }
    Ok(Some(roster))
}

fn ascending(field: &'static str, agents: &[AgentId]) -> Result<(), FrameError> {
    match agents.windows(2).all(|pair| pair[0] < pair[1]) {
        true => Ok(()),
        false => Err(wrong(field, "its agents are not in ascending order")),
    }
}

fn commit(message: &wire::FrameHeader, author: &AgentId) -> Result<Detail, FrameError> {
    let adds = agents("adds", &message.adds)?;
    let removes = agents("removes", &message.removes)?;
    let recipients = agents("recipients", &message.recipients)?;
    let sorted = |agents: &[AgentId]| {
        let mut sorted = agents.to_vec();
        sorted.sort_unstable();
        sorted
    };
    let added = sorted(&adds);
    if recipients.iter().any(|agent| added.binary_search(agent).is_err()) {
        return Err(wrong("recipients", "names an agent that is not in `adds`"));
    }
    for (field, list) in [
        ("adds", &added),
        ("removes", &sorted(&removes)),
        ("recipients", &sorted(&recipients)),
    ] {
        if list.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(wrong(field, "names an agent twice"));
        }
    }
    let roster = roster(message, author, &adds, &removes)?;
    Ok(Detail::Commit {
        adds,
        removes,
        recipients,
        roster,
        policy: policy(message)?,
    })
}

/// A field that the kind does not use must be empty, so that one meaning has one encoding.
fn refuse_fields_of_other_kinds(kind: Kind, message: &wire::FrameHeader) -> Result<(), FrameError> {
    let uses = |kinds: &[Kind]| kinds.contains(&kind);
    let unused = [
        ("adds", !uses(&[Kind::Commit]) && !message.adds.is_empty()),
        ("removes", !uses(&[Kind::Commit]) && !message.removes.is_empty()),
        ("recipients", !uses(&[Kind::Commit]) && !message.recipients.is_empty()),
        ("roster", !uses(&[Kind::Commit]) && !message.roster.is_empty()),
        ("policy", !uses(&[Kind::Create, Kind::Commit]) && message.policy != 0),
        (
            "admins",
            !uses(&[Kind::Create, Kind::Commit]) && !message.admins.is_empty(),
        ),
        ("mode", !uses(&[Kind::Create]) && message.mode != 0),
        (
            "account",
            !uses(&[
                Kind::Create,
                Kind::Raw,
                Kind::KeyPackage,
                Kind::KeyPackageClaim,
                Kind::KeyPackagePolicy,
            ]) && !message.account.is_empty(),
        ),
        ("trim_up_to", !uses(&[Kind::Trim]) && message.trim_up_to != 0),
        ("last_resort", !uses(&[Kind::KeyPackage]) && message.last_resort),
        (
            "welcome_channel",
            !uses(&[Kind::Welcome]) && !message.welcome_channel.is_empty(),
        ),
        ("welcome_offset", !uses(&[Kind::Welcome]) && message.welcome_offset != 0),
        ("welcome_returns", !uses(&[Kind::Welcome]) && message.welcome_returns),
        ("claim_by", !uses(&[Kind::KeyPackagePolicy]) && message.claim_by != 0),
        (
            "claim_accounts",
            !uses(&[Kind::KeyPackagePolicy]) && !message.claim_accounts.is_empty(),
        ),
        (
            "claim_agents",
            !uses(&[Kind::KeyPackagePolicy]) && !message.claim_agents.is_empty(),
        ),
    ];
    match unused.into_iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(wrong(field, "not a field of this kind")),
        None => Ok(()),
    }
}

fn agents(field: &'static str, bytes: &[u8]) -> Result<Vec<AgentId>, FrameError> {
    agents_up_to(field, bytes, limits::ROSTER_CHANGE_MAX)
}

fn agents_up_to(field: &'static str, bytes: &[u8], max: usize) -> Result<Vec<AgentId>, FrameError> {
    let (ids, rest) = bytes.as_chunks::<{ AgentId::LENGTH }>();
    if !rest.is_empty() {
        return Err(wrong(field, "length is not a multiple of 32 bytes"));
    }
    if ids.len() > max {
        return Err(wrong(field, "names more agents than one commit may"));
    }
    Ok(ids.iter().copied().map(AgentId::from_bytes).collect())
}

fn concatenated(agents: &[AgentId]) -> Bytes {
    agents.iter().flat_map(|agent| *agent.as_bytes()).collect()
}

fn id<'a, T: TryFrom<&'a [u8], Error = IdError>>(field: &'static str, bytes: &'a [u8]) -> Result<T, FrameError> {
    T::try_from(bytes).map_err(|source| FrameError::Id { field, source })
}

const fn missing(field: &'static str) -> FrameError {
    wrong(field, "missing")
}

const fn wrong(field: &'static str, problem: &'static str) -> FrameError {
    FrameError::Field { field, problem }
}

const fn wire_kind(kind: Kind) -> wire::FrameKind {
    match kind {
        Kind::Create => wire::FrameKind::Create,
        Kind::Commit => wire::FrameKind::Commit,
        Kind::Proposal => wire::FrameKind::Proposal,
        Kind::Message => wire::FrameKind::Message,
        Kind::Trim => wire::FrameKind::Trim,
        Kind::Raw => wire::FrameKind::Raw,
        Kind::Rejoin => wire::FrameKind::Rejoin,
        Kind::KeyPackage => wire::FrameKind::KeyPackage,
        Kind::KeyPackageClaim => wire::FrameKind::KeyPackageClaim,
        Kind::Welcome => wire::FrameKind::Welcome,
        Kind::KeyPackagePolicy => wire::FrameKind::KeyPackagePolicy,
    }
}

const fn kind(kind: wire::FrameKind) -> Result<Kind, FrameError> {
    Ok(match kind {
        wire::FrameKind::Create => Kind::Create,
        wire::FrameKind::Commit => Kind::Commit,
        wire::FrameKind::Proposal => Kind::Proposal,
        wire::FrameKind::Message => Kind::Message,
        wire::FrameKind::Trim => Kind::Trim,
        wire::FrameKind::Raw => Kind::Raw,
        wire::FrameKind::Rejoin => Kind::Rejoin,
        wire::FrameKind::KeyPackage => Kind::KeyPackage,
        wire::FrameKind::KeyPackageClaim => Kind::KeyPackageClaim,
        wire::FrameKind::Welcome => Kind::Welcome,
        wire::FrameKind::KeyPackagePolicy => Kind::KeyPackagePolicy,
        wire::FrameKind::Unspecified => return Err(wrong("kind", "missing or unknown")),
    })
}

#[cfg(test)]
mod tests;
