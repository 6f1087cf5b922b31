//! Encoding of a [`LogState`]. All numbers are little-endian:
//!
//! ```text
//!  u8 version  u8 rule  u8 n, n bytes log id  u64 head  u64 first  3 u64 given up  ... by rule ...  u32 crc32c of all before
//!
//!  rule 0, absent    nothing
//!  rule 1, group     u64 handshake head  u32 agents, each (ascending by id):
//!                      32 bytes id  u64 since, 0 if not on the roster  u32 stretches, each: u64 from  u64 to
//!                    u8 roles: bit 0 a policy, bit 1 one that is contested  policy  32 bytes by, u8 policies, each: policy before
//!                    u32 leaving, each (ascending): 32 bytes id
//!  rule 2, raw       16 bytes account
//!  rule 3, mailbox   u64 last resort, 0 if none  u32 live packages, each: u64
//!                    u32 claims, each: u64 claim  u64 package  u8 1 if the last resort
//!                                      32 bytes claimer  u8 1 if it has an account, then 16 bytes account
//!                    u32 welcomes, each (ascending by channel): 16 bytes channel  u64 at  u64 bundle
//!                                      u8 1 if it is known who claimed for it, then as a claim's claimer
//!                    u8 1 if the account is known, then 16 bytes account
//!                    u8 who may claim: 0 account, 1 listed, 2 anyone
//!                      listed: u32 accounts, each (ascending): 16 bytes  u32 agents, each (ascending): 32 bytes
//! ```
//!
//! Given up: the last entry given up that was no Trim, the log's last entry that is no Trim, the one before. Version 1 had
//! neither these nor welcomes. Before version 3 a claim did not say whose it is (no agent has the id of 32 zeros that it is
//! read with), nothing said who may claim, and there were no roles. Before version 4 a Welcome did not say who had claimed
//! for it. A policy is as `Policy::to_bytes` makes it.
//!
//! One state has one encoding, and a decoded state has passed every check that the fold relies on: order, ranges,
//! limits. Persisted: keep stable. A change of this format is a new version, and old ones stay readable.

use super::given_up::GivenUp;
use super::group::Group;
use super::mailbox::{Claim, Claimer, Mailbox, Welcomed};
use super::roles::{BEFORE_MAX, Contested, Roles};
use super::roster::{Membership, Roster, Stretch};
use super::{LogState, Rule};
use crate::store::ClaimedPackage;
use bytes::{BufMut, Bytes, BytesMut};
use skytale_proto::{AccountId, AgentId, Allowed, ChannelId, ClaimRule, Code, LogId, Offset, Policy, limits};

/// The version that this crate writes.
const VERSION: u8 = 4;
/// The oldest version that this crate reads.
const VERSION_OLDEST: u8 = 1;

const RULE_ABSENT: u8 = 0;
const RULE_GROUP: u8 = 1;
const RULE_RAW: u8 = 2;
const RULE_MAILBOX: u8 = 3;

const BY_ACCOUNT: u8 = 0;
const BY_LISTED: u8 = 1;
const BY_ANYONE: u8 = 2;

const CHECKSUM_BYTES: usize = 4;
const STRETCH_BYTES: usize = 16;
/// A claim as versions before 3 kept it.
const CLAIM_BYTES_BEFORE: usize = 17;
/// A claim without an account.
const CLAIM_BYTES: usize = CLAIM_BYTES_BEFORE + CLAIMER_BYTES;
/// A Welcome as versions before 4 kept it.
const WELCOME_BYTES_BEFORE: usize = ChannelId::LENGTH + 16;
/// A Welcome of which nobody knows who claimed for it.
const WELCOME_BYTES: usize = WELCOME_BYTES_BEFORE + 1;
/// A claimer without an account.
const CLAIMER_BYTES: usize = AgentId::LENGTH + 1;
/// An agent of a group without past stretches.
const AGENT_BYTES: usize = AgentId::LENGTH + 8 + 4;

/// No log gets so far; what says so is damaged. Keeps offsets clear of where they would stop counting.
const HEAD_MAX: Offset = Offset::new(1 << 63);

/// Bytes that are not an encoded [`LogState`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The bytes end too early.
    #[error("log state cut short in `{field}`")]
    Short {
        /// Field in which they end.
        field: &'static str,
    },
    /// The checksum does not fit the bytes.
    #[error("log state checksum wrong: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// The stored checksum.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A format that this crate does not read.
    #[error("log state version {found} is not supported (this is version {VERSION})")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A field that no state has.
    #[error("log state field `{field}`: {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// The problem.
        problem: &'static str,
    },
}

impl StateError {
    /// The code that an error for this carries.
    pub const fn code(&self) -> Code {
        match self {
            Self::Short { .. } | Self::Checksum { .. } | Self::Version { .. } | Self::Field { .. } => {
                Code::StoreCorrupt
            }
        }
    }
}

pub(super) fn encode(state: &LogState) -> Bytes {
    let mut out = BytesMut::with_capacity(88 + rule_bytes(&state.rule));
    out.put_u8(VERSION);
    out.put_u8(match &state.rule {
        Rule::Absent => RULE_ABSENT,
        Rule::Group(_) => RULE_GROUP,
        Rule::Raw(_) => RULE_RAW,
        Rule::Mailbox(_) => RULE_MAILBOX,
    });
    let log = state.log.to_bytes();
    // A log id is at most LogId::LENGTH_MAX bytes.
    out.put_u8(log.len() as u8);
    out.put_slice(&log);
    put_offset(state.head, &mut out);
    put_offset(state.first, &mut out);
    put_offset(state.given_up.last, &mut out);
    put_offset(state.given_up.content, &mut out);
    put_offset(state.given_up.content_before, &mut out);
    match &state.rule {
        Rule::Absent => {}
        Rule::Group(group) => put_group(group, &mut out),
        Rule::Raw(account) => out.put_slice(account.as_bytes()),
        Rule::Mailbox(mailbox) => put_mailbox(mailbox, &mut out),
    }
    let checksum = crc32c::crc32c(&out);
    out.put_u32_le(checksum);
    out.freeze()
}

fn rule_bytes(rule: &Rule) -> usize {
    match rule {
        Rule::Absent => 0,
        Rule::Group(group) => {
            32 + group.roles.weight_bytes()
                + group.roster.len() * AGENT_BYTES
                + group.roster.stretches() * STRETCH_BYTES
        }
        Rule::Raw(_) => 16,
        Rule::Mailbox(mailbox) => {
            48 + mailbox.live.len() * 8
                + mailbox.claims.len() * (CLAIM_BYTES + AccountId::LENGTH)
                + mailbox.welcomes.len() * (WELCOME_BYTES + CLAIMER_BYTES + AccountId::LENGTH)
        }
    }
}

fn put_offset(offset: Offset, out: &mut BytesMut) {
    out.put_u64_le(offset.get());
}

/// A number of things that the fold bounds far below 2^32.
fn put_count(count: usize, out: &mut BytesMut) {
    out.put_u32_le(count as u32);
}

fn put_group(group: &Group, out: &mut BytesMut) {
    put_offset(group.handshake_head, out);
    put_count(group.roster.len(), out);
    for (agent, membership) in group.roster.memberships() {
        out.put_slice(agent.as_bytes());
        put_offset(membership.since.unwrap_or(Offset::ZERO), out);
        put_count(membership.past.len(), out);
        for stretch in &membership.past {
            put_offset(stretch.from, out);
            put_offset(stretch.to, out);
        }
    }
    put_roles(&group.roles, out);
}

const HAS_POLICY: u8 = 1;
const IS_CONTESTED: u8 = 2;

fn put_roles(roles: &Roles, out: &mut BytesMut) {
    let has_policy = roles.policy.as_ref().map_or(0, |_| HAS_POLICY);
    out.put_u8(has_policy | roles.contested.as_ref().map_or(0, |_| IS_CONTESTED));
    if let Some(policy) = &roles.policy {
        out.put_slice(&policy.to_bytes());
    }
    if let Some(contested) = &roles.contested {
        out.put_slice(contested.by.as_bytes());
        // At most `BEFORE_MAX`.
        out.put_u8(contested.before.len() as u8);
        for before in &contested.before {
            out.put_slice(&before.to_bytes());
        }
    }
    put_count(roles.leaving.len(), out);
    for agent in &roles.leaving {
        out.put_slice(agent.as_bytes());
    }
}

fn put_claimer(by: &Claimer, out: &mut BytesMut) {
    out.put_slice(by.agent.as_bytes());
    put_account(by.account.as_ref(), out);
}

fn put_mailbox(mailbox: &Mailbox, out: &mut BytesMut) {
    put_offset(mailbox.last_resort.unwrap_or(Offset::ZERO), out);
    put_count(mailbox.live.len(), out);
    for package in &mailbox.live {
        put_offset(*package, out);
    }
    put_count(mailbox.claims.len(), out);
    for Claim { at, package, by } in &mailbox.claims {
        put_offset(*at, out);
        put_offset(package.offset, out);
        out.put_u8(u8::from(package.last_resort));
        put_claimer(by, out);
    }
    put_count(mailbox.welcomes.len(), out);
    for (channel, welcomed) in &mailbox.welcomes {
        out.put_slice(channel.as_bytes());
        put_offset(welcomed.at, out);
        put_offset(welcomed.bundle, out);
        out.put_u8(u8::from(welcomed.by.is_some()));
        if let Some(by) = &welcomed.by {
            put_claimer(by, out);
        }
    }
    put_account(mailbox.account.as_ref(), out);
    match &mailbox.rule {
        ClaimRule::Account => out.put_u8(BY_ACCOUNT),
        ClaimRule::Listed(allowed) => {
            out.put_u8(BY_LISTED);
            put_count(allowed.accounts().len(), out);
            allowed
                .accounts()
                .iter()
                .for_each(|account| out.put_slice(account.as_bytes()));
            put_count(allowed.agents().len(), out);
            allowed
                .agents()
                .iter()
                .for_each(|agent| out.put_slice(agent.as_bytes()));
        }
        ClaimRule::Anyone => out.put_u8(BY_ANYONE),
    }
}

fn put_account(account: Option<&AccountId>, out: &mut BytesMut) {
    out.put_u8(u8::from(account.is_some()));
    if let Some(account) = account {
        out.put_slice(account.as_bytes());
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<LogState, StateError> {
    let (content, checksum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(StateError::Short { field: "checksum" })?;
    let mut fields = Fields { rest: content };
    // The version comes before the checksum, which another version may keep elsewhere.
    let version = fields.u8("version")?;
    if !(VERSION_OLDEST..=VERSION).contains(&version) {
        return Err(StateError::Version { found: version });
    }
    let (stored, computed) = (u32::from_le_bytes(*checksum), crc32c::crc32c(content));
    if stored != computed {
        return Err(StateError::Checksum { stored, computed });
    }

    let rule = fields.u8("rule")?;
    let log_bytes = usize::from(fields.u8("log")?);
    let log = LogId::try_from(fields.slice("log", log_bytes)?).map_err(|_| wrong("log", "not a log id"))?;
    let head = fields.offset("head")?;
    let first = fields.offset("first")?;
    if head > HEAD_MAX {
        return Err(wrong("head", "further than any log gets"));
    }
    // A Trim gives up the entries before it, so it is itself still there.
    if first == Offset::ZERO || (first > head && first != Offset::FIRST) {
        return Err(wrong("first", "past the head"));
    }
    let given_up = match version {
        1 => GivenUp::unknown(head, first),
        _ => given_up(&mut fields, head, first)?,
    };
    let rule = match (rule, log) {
        (RULE_ABSENT, LogId::Channel(_)) if head == Offset::ZERO => Rule::Absent,
        (RULE_GROUP, LogId::Channel(_)) if head != Offset::ZERO => {
            Rule::Group(group(&mut fields, version, head, first)?)
        }
        (RULE_RAW, LogId::Channel(_)) if head != Offset::ZERO => {
            Rule::Raw(AccountId::from_bytes(fields.array("account")?))
        }
        (RULE_MAILBOX, LogId::Agent(_)) => Rule::Mailbox(mailbox(&mut fields, version, head, first)?),
        _ => return Err(wrong("rule", "not the rule of such a log")),
    };
    if !fields.rest.is_empty() {
        return Err(wrong("end", "bytes left over"));
    }
    Ok(LogState {
        log,
        head,
        first,
        given_up,
        rule,
    })
}

fn given_up(fields: &mut Fields<'_>, head: Offset, first: Offset) -> Result<GivenUp, StateError> {
    let given_up = GivenUp {
        last: fields.offset("given_up")?,
        content: fields.offset("content")?,
        content_before: fields.offset("content_before")?,
    };
    if given_up.last >= first || given_up.content > head {
        return Err(wrong("given_up", "not an entry that was given up"));
    }
    if given_up.content_before >= given_up.content && given_up.content != Offset::ZERO
        || given_up.content_before > given_up.content
    {
        return Err(wrong("content_before", "not before the last entry"));
    }
    Ok(given_up)
}

fn group(fields: &mut Fields<'_>, version: u8, head: Offset, first: Offset) -> Result<Group, StateError> {
    let handshake_head = fields.offset("handshake_head")?;
    if handshake_head == Offset::ZERO || handshake_head > head {
        return Err(wrong("handshake_head", "not an entry"));
    }
    let count = fields.count("agents", AGENT_BYTES, limits::ROSTER_HISTORY_MAX)?;
    let mut roster = Roster::default();
    let mut last = None;
    for _ in 0..count {
        let agent = AgentId::from_bytes(fields.array("agent")?);
        if last.is_some_and(|last| last >= agent) {
            return Err(wrong("agent", "out of order"));
        }
        last = Some(agent);
        roster.insert(agent, membership(fields, head, first)?);
        if roster.present() > limits::ROSTER_MAX || roster.stretches() > limits::ROSTER_HISTORY_MAX {
            return Err(wrong("agents", "over the limit"));
        }
    }
    let roles = match version {
        1 | 2 => Roles::default(),
        _ => roles(fields, &roster)?,
    };
    Ok(Group {
        handshake_head,
        roster,
        roles,
    })
}

fn roles(fields: &mut Fields<'_>, roster: &Roster) -> Result<Roles, StateError> {
    let there = fields.u8("roles")?;
    if there & !(HAS_POLICY | IS_CONTESTED) != 0 || there == IS_CONTESTED {
        return Err(wrong("roles", "not the flags of roles"));
    }
    let mut found = Roles::default();
    if there & HAS_POLICY != 0 {
        found.policy = Some(fields.policy("policy")?);
    }
    if there & IS_CONTESTED != 0 {
        let by = AgentId::from_bytes(fields.array("contested")?);
        let mut before: Vec<Policy> = Vec::new();
        for _ in 0..fields.u8("contested")? {
            let policy = fields.policy("contested")?;
            if before.contains(&policy) || before.len() == BEFORE_MAX {
                return Err(wrong("contested", "a policy twice, or too many"));
            }
            before.push(policy);
        }
        if before.is_empty() {
            return Err(wrong("contested", "no policy before"));
        }
        found.contested = Some(Contested { by, before });
    }
    for _ in 0..fields.count("leaving", AgentId::LENGTH, limits::ROSTER_MAX)? {
        let agent = AgentId::from_bytes(fields.array("leaving")?);
        if !roster.contains(&agent) {
            return Err(wrong("leaving", "not an agent on the roster"));
        }
        if found.leaving.last().is_some_and(|last| *last >= agent) {
            return Err(wrong("leaving", "out of order"));
        }
        found.leaving.insert(agent);
    }
    Ok(found)
}

fn membership(fields: &mut Fields<'_>, head: Offset, first: Offset) -> Result<Membership, StateError> {
    let since = Some(fields.offset("since")?).filter(|since| *since != Offset::ZERO);
    let count = fields.count("stretches", STRETCH_BYTES, limits::ROSTER_HISTORY_MAX)?;
    let mut past: Vec<Stretch> = Vec::with_capacity(count);
    for _ in 0..count {
        let (from, to) = (fields.offset("from")?, fields.offset("to")?);
        let apart = match past.last() {
            Some(before) => from > before.to.next(),
            None => from > Offset::ZERO,
        };
        if !apart || from >= to || to < first || to > head {
            return Err(wrong("stretches", "not ascending stretches of the log"));
        }
        past.push(Stretch { from, to });
    }
    match (since, past.last()) {
        (None, None) => Err(wrong("stretches", "an agent without any")),
        (Some(since), Some(last)) if since <= last.to.next() => Err(wrong("since", "not after the past stretches")),
        (Some(since), _) if since > head => Err(wrong("since", "past the head")),
        _ => Ok(Membership { past, since }),
    }
}

fn mailbox(fields: &mut Fields<'_>, version: u8, head: Offset, first: Offset) -> Result<Mailbox, StateError> {
    let kept = |offset: Offset| offset >= first && offset <= head;
    let last_resort = Some(fields.offset("last_resort")?).filter(|offset| *offset != Offset::ZERO);
    if last_resort.is_some_and(|offset| !kept(offset)) {
        return Err(wrong("last_resort", "not an entry"));
    }
    let count = fields.count("live", 8, limits::KEY_PACKAGES_MAX)?;
    if count + usize::from(last_resort.is_some()) > limits::KEY_PACKAGES_MAX {
        return Err(wrong("live", "over the limit"));
    }
    let mut mailbox = Mailbox {
        last_resort,
        ..Mailbox::default()
    };
    for _ in 0..count {
        let package = fields.offset("live")?;
        if Some(package) == last_resort {
            return Err(wrong("live", "the last resort"));
        }
        if !kept(package) || mailbox.live.back().is_some_and(|last| *last >= package) {
            return Err(wrong("live", "not ascending entries"));
        }
        mailbox.live.push_back(package);
    }
    let claim_bytes = if version < 3 { CLAIM_BYTES_BEFORE } else { CLAIM_BYTES };
    for _ in 0..fields.count("claims", claim_bytes, limits::CLAIMS_REMEMBERED_MAX)? {
        let claim = claim(fields, version)?;
        if !kept(claim.at) || mailbox.claims.back().is_some_and(|last| last.at >= claim.at) {
            return Err(wrong("claims", "not ascending entries"));
        }
        mailbox.claims.push_back(claim);
    }
    let welcomes = match version {
        1 => 0,
        2 | 3 => fields.count("welcomes", WELCOME_BYTES_BEFORE, limits::WELCOMES_REMEMBERED_MAX)?,
        _ => fields.count("welcomes", WELCOME_BYTES, limits::WELCOMES_REMEMBERED_MAX)?,
    };
    for _ in 0..welcomes {
        let channel = ChannelId::from_bytes(fields.array("welcomes")?);
        let (at, bundle) = (fields.offset("welcomes")?, fields.offset("bundle")?);
        if mailbox
            .welcomes
            .last_key_value()
            .is_some_and(|(last, _)| *last >= channel)
        {
            return Err(wrong("welcomes", "out of order"));
        }
        if at == Offset::ZERO || at > head || bundle == Offset::ZERO {
            return Err(wrong("welcomes", "not an entry"));
        }
        let by = match version >= 4 && fields.bool("welcomes")? {
            true => Some(claimer(fields)?),
            false => None,
        };
        mailbox.welcomes.insert(channel, Welcomed { at, bundle, by });
    }
    if version >= 3 {
        mailbox.account = account(fields)?;
        mailbox.rule = claim_rule(fields)?;
    }
    Ok(mailbox)
}

fn claim(fields: &mut Fields<'_>, version: u8) -> Result<Claim, StateError> {
    let (at, package) = (fields.offset("claim")?, fields.offset("package")?);
    if package == Offset::ZERO || package >= at {
        return Err(wrong("package", "not before its claim"));
    }
    let package = ClaimedPackage {
        offset: package,
        last_resort: fields.bool("claims")?,
    };
    let by = match version {
        1 | 2 => Claimer {
            agent: AgentId::from_bytes([0; AgentId::LENGTH]),
            account: None,
        },
        _ => claimer(fields)?,
    };
    Ok(Claim { at, package, by })
}

fn claimer(fields: &mut Fields<'_>) -> Result<Claimer, StateError> {
    Ok(Claimer {
        agent: AgentId::from_bytes(fields.array("claimer")?),
        account: account(fields)?,
    })
}

fn account(fields: &mut Fields<'_>) -> Result<Option<AccountId>, StateError> {
    match fields.bool("account")? {
        true => Ok(Some(AccountId::from_bytes(fields.array("account")?))),
        false => Ok(None),
    }
}

fn claim_rule(fields: &mut Fields<'_>) -> Result<ClaimRule, StateError> {
    match fields.u8("who may claim")? {
        BY_ACCOUNT => Ok(ClaimRule::Account),
        BY_LISTED => {
            let mut accounts = Vec::new();
            for _ in 0..fields.count("accounts", AccountId::LENGTH, limits::CLAIM_RULE_MAX)? {
                accounts.push(AccountId::from_bytes(fields.array("accounts")?));
            }
            let mut agents = Vec::new();
            for _ in 0..fields.count("agents", AgentId::LENGTH, limits::CLAIM_RULE_MAX)? {
                agents.push(AgentId::from_bytes(fields.array("agents")?));
            }
            let allowed = Allowed::ascending(accounts, agents);
            allowed
                .map(ClaimRule::Listed)
                .map_err(|_| wrong("who may claim", "a list that no rule has"))
        }
        BY_ANYONE => Ok(ClaimRule::Anyone),
        _ => Err(wrong("who may claim", "no known rule")),
    }
}

const fn wrong(field: &'static str, problem: &'static str) -> StateError {
    StateError::Field { field, problem }
}

/// Bytes that are taken from the front, never past their end.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn slice(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(StateError::Short { field })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], StateError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(StateError::Short { field })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, StateError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn bool(&mut self, field: &'static str) -> Result<bool, StateError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(wrong(field, "neither 0 nor 1")),
        }
    }

    fn policy(&mut self, field: &'static str) -> Result<Policy, StateError> {
        let (policy, rest) = Policy::take(self.rest).map_err(|_| wrong(field, "not a policy"))?;
        self.rest = rest;
        Ok(policy)
    }

    fn offset(&mut self, field: &'static str) -> Result<Offset, StateError> {
        self.array(field).map(u64::from_le_bytes).map(Offset::new)
    }

    /// Reads the number of items, of at least `bytes_each`, that follow. Their bytes must be there, so the items take
    /// no more memory than a small multiple of the input.
    fn count(&mut self, field: &'static str, bytes_each: usize, max: usize) -> Result<usize, StateError> {
        let count = u32::from_le_bytes(self.array(field)?) as usize;
        if count > max {
            return Err(wrong(field, "over the limit"));
        }
        if count * bytes_each > self.rest.len() {
            return Err(StateError::Short { field });
        }
        Ok(count)
    }
}
