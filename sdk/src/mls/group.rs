//! The rules of a group: what every member requires of a leaf, a KeyPackage and a commit.
//!
//! Each rule is decided by the log and the group's state alone, never by a clock or a setting, so that all members judge
//! an entry alike. Therefore a leaf's lifetime (RFC 9420 section 7.2) must be unlimited: OpenMLS checks it against the
//! clock of the processing agent, and an agent that returns late would judge differently from the others. The agent
//! that uses a KeyPackage decides how old it may be: see [`Life`].

use super::life::LIFE_EXTENSION;
use super::policy::{self, POLICY_EXTENSION};
use super::{Identity, Life, Provider, Seen, StorageError};
use openmls::framing::errors::{MessageDecryptionError, SecretTreeError};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::*;
use openmls::treesync::LeafNode;
use openmls_traits::types::Ciphersuite;
use skytale_proto::{AgentId, ChannelId, Policy, Right};
use std::collections::BTreeSet;

/// The one ciphersuite of channels (RFC 9420 section 17.1).
pub(crate) const CIPHERSUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// Maximum number of a sender's messages that may be skipped in one epoch. Skipped messages were encrypted and then
/// refused permanently, or encrypted again.
const FORWARD_DISTANCE_MAX: u32 = 10_000;

/// Reason why an entry is not applied.
#[derive(Debug)]
pub(crate) enum Rejected {
    /// This member cannot process it, but others may: it lacks something that others have.
    OutOfSync(String),
    /// It is of a later epoch than this agent's group.
    LaterEpoch,
    /// Its key has been used: it was decrypted before, or shares the key of a decrypted message.
    KeyUsed(String),
    /// It cannot be processed, and never will be.
    Unreadable(String),
    /// Its header contradicts its content.
    Lied(String),
    /// The vault failed; the entry is not to blame.
    Storage(StorageError),
}

impl Rejected {
    /// Returns the reason in words, or the storage's failure.
    pub(crate) fn into_reason(self) -> Result<String, StorageError> {
        match self {
            Self::OutOfSync(reason) | Self::KeyUsed(reason) | Self::Unreadable(reason) | Self::Lied(reason) => {
                Ok(reason)
            }
            Self::LaterEpoch => Ok("it is of a later epoch than this agent is in".into()),
            Self::Storage(error) => Err(error),
        }
    }
}

impl From<StorageError> for Rejected {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

pub(crate) fn unreadable(reason: impl Into<String>) -> Rejected {
    Rejected::Unreadable(reason.into())
}

/// Returns the id of a channel's group: the channel's id, and for a recreated group the parent of the bundle that
/// recreated it. So no two groups of a channel share an id.
pub(crate) fn group_id(channel: ChannelId, reboot: u64) -> GroupId {
    match reboot {
        0 => GroupId::from_slice(channel.as_bytes()),
        _ => GroupId::from_slice(&[channel.as_bytes().as_slice(), &reboot.to_be_bytes()].concat()),
    }
}

/// Returns which group of a channel has an id; `None` for a group of another channel.
pub(crate) fn reboot_of(channel: ChannelId, id: &GroupId) -> Option<u64> {
    match id.as_slice().strip_prefix(channel.as_bytes().as_slice())? {
        [] => Some(0),
        reboot => Some(u64::from_be_bytes(reboot.try_into().ok()?)).filter(|reboot| *reboot > 0),
    }
}

/// Number of keys kept for skipped messages of a sender. Senders encrypt overtaken messages again; this covers a crash
/// before they learn of it.
const SKIPPED_KEPT_MAX: u32 = 16;
/// Maximum padding: more would not leave a message the room that its limit promises.
const PADDING_BYTES_MAX: usize = 4_096;

/// Returns the configuration for joining. The log has every entry in order, so keys of past epochs are never needed
/// again.
pub(crate) fn join_config(padding_bytes: usize) -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(padding_bytes.min(PADDING_BYTES_MAX))
        .max_past_epochs(0)
        .number_of_resumption_psks(0)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(SenderRatchetConfiguration::new(SKIPPED_KEPT_MAX, FORWARD_DISTANCE_MAX))
        .build()
}

/// Returns the configuration of a new group, with a policy if it is to have one.
pub(crate) fn create_config(padding_bytes: usize, policy: Option<&Policy>) -> Result<MlsGroupCreateConfig, String> {
    let extensions = policy.map(policy::extensions).transpose()?.unwrap_or_default();
    let config = MlsGroupCreateConfig::builder()
        .with_group_context_extensions(extensions)
        .ciphersuite(CIPHERSUITE)
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(padding_bytes.min(PADDING_BYTES_MAX))
        .max_past_epochs(0)
        .number_of_resumption_psks(0)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(SenderRatchetConfiguration::new(SKIPPED_KEPT_MAX, FORWARD_DISTANCE_MAX))
        .capabilities(capabilities())
        .lifetime(lifetime());
    Ok(config.build())
}

pub(super) fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[CIPHERSUITE]),
        // Everything that a KeyPackage carries must be listed (RFC 9420 section 13.4).
        Some(&[
            ExtensionType::LastResort,
            ExtensionType::Unknown(LIFE_EXTENSION),
            ExtensionType::Unknown(POLICY_EXTENSION),
        ]),
        None,
        Some(&[CredentialType::Basic]),
    )
}

fn lifetime() -> Lifetime {
    Lifetime::init(0, u64::MAX)
}

/// Returns the agent of a leaf: the credential names it, and the signature key is its id.
fn agent_of(credential: &Credential, signature_key: &[u8]) -> Result<AgentId, String> {
    if credential.credential_type() != CredentialType::Basic {
        return Err("a leaf without a basic credential".into());
    }
    let agent = AgentId::try_from(credential.serialized_content())
        .map_err(|_| "a leaf whose credential is no agent id".to_owned())?;
    if signature_key != agent.as_bytes() {
        return Err(format!("a leaf that says {agent} but signs with another key"));
    }
    Ok(agent)
}

pub(crate) fn agent_of_leaf(leaf: &LeafNode) -> Result<AgentId, String> {
    agent_of(leaf.credential(), leaf.signature_key().as_slice())
}

/// Returns the agents of a tree's leaves; refuses a tree with a forged leaf, or with two leaves of one agent.
pub(crate) fn check_members(members: impl Iterator<Item = Member>) -> Result<BTreeSet<AgentId>, String> {
    let mut agents = BTreeSet::new();
    for member in members {
        let agent = agent_of(&member.credential, &member.signature_key)?;
        if !agents.insert(agent) {
            return Err(format!("two leaves of {agent}"));
        }
    }
    Ok(agents)
}

/// Returns the agents of a group, by id.
pub(crate) fn members(group: &MlsGroup) -> BTreeSet<AgentId> {
    group
        .members()
        .filter_map(|member| agent_at(group, member.index))
        .collect()
}

fn agent_at(group: &MlsGroup, index: LeafNodeIndex) -> Option<AgentId> {
    let member = group.member_at(index)?;
    agent_of(&member.credential, &member.signature_key).ok()
}

// ---- KeyPackages

/// Creates a KeyPackage. Returns its encoding, and the reference under which its private keys are stored.
pub(crate) fn key_package(
    provider: &Provider<'_>,
    identity: &Identity,
    life: Life,
    last_resort: bool,
) -> Result<(Vec<u8>, KeyPackageRef), String> {
    let mut builder = KeyPackage::builder()
        .key_package_extensions(life.extensions()?)
        .key_package_lifetime(lifetime())
        .leaf_node_capabilities(capabilities());
    if last_resort {
        builder = builder.mark_as_last_resort();
    }
    let bundle = builder
        .build(CIPHERSUITE, provider, identity, identity.credential())
        .map_err(|error| error.to_string())?;
    let package = bundle.key_package();
    let reference = package.hash_ref(provider.crypto()).map_err(|error| error.to_string())?;
    let bytes = package.tls_serialize_detached().map_err(|error| error.to_string())?;
    Ok((bytes, reference))
}

/// Reads a KeyPackage and its owner; refuses a package that members would refuse.
pub(crate) fn added_package(provider: &Provider<'_>, bytes: &[u8]) -> Result<(AgentId, KeyPackage), String> {
    let package = KeyPackageIn::tls_deserialize_exact(bytes)
        .map_err(|error| error.to_string())?
        .validate(provider.crypto(), ProtocolVersion::Mls10)
        .map_err(|error| error.to_string())?;
    Ok((check_package(&package)?, package))
}

fn check_package(package: &KeyPackage) -> Result<AgentId, String> {
    if package.ciphersuite() != CIPHERSUITE {
        return Err("a key package of another ciphersuite".into());
    }
    if package.life_time() != &lifetime() {
        return Err("a key package whose lifetime depends on a clock".into());
    }
    agent_of_leaf(package.leaf_node())
}

// ---- commits

/// A commit, built and staged.
pub(crate) struct Committed {
    pub(crate) commit: Vec<u8>,
    pub(crate) welcome: Vec<u8>,
    pub(crate) adds: Vec<AgentId>,
    pub(crate) removes: Vec<AgentId>,
}

/// Returns the agents that have asked to leave in this epoch, except this agent itself.
pub(crate) fn leavers(group: &MlsGroup) -> BTreeSet<AgentId> {
    let own = group.own_leaf_index();
    group
        .pending_proposals()
        .filter_map(leaver)
        .filter(|index| *index != own)
        .filter_map(|index| agent_at(group, index))
        .collect()
}

/// Removes the leave proposals of these agents from the group.
pub(crate) fn take_back_leaves(
    group: &mut MlsGroup,
    provider: &Provider<'_>,
    agents: &BTreeSet<AgentId>,
) -> Result<(), String> {
    let is_of = |proposal: &&QueuedProposal| {
        let agent = leaver(proposal).and_then(|index| agent_at(group, index));
        agent.is_some_and(|agent| agents.contains(&agent))
    };
    let references: Vec<_> = group
        .pending_proposals()
        .filter(is_of)
        .map(|proposal| proposal.proposal_reference_ref().clone())
        .collect();
    for reference in references {
        group
            .remove_pending_proposal(provider.storage(), &reference)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Returns the number of members before this agent in the turn to commit for members that asked to leave or to rejoin.
/// The order is that of the leaves; members that cannot commit or will not stay come last. All members count alike, so
/// each gets a different number.
pub(crate) fn turn(group: &MlsGroup, rejoining: &BTreeSet<AgentId>) -> u32 {
    let leaving: BTreeSet<LeafNodeIndex> = group.pending_proposals().filter_map(leaver).collect();
    let waits = |index| agent_at(group, index).is_some_and(|agent| rejoining.contains(&agent));
    let place = |index: LeafNodeIndex| (leaving.contains(&index) || waits(index), index);
    let own = place(group.own_leaf_index());
    let before = group.members().filter(|member| place(member.index) < own).count();
    u32::try_from(before).unwrap_or(u32::MAX)
}

/// Returns the leaf that a proposal removes, if it is the sender's own.
pub(crate) fn leaver(proposal: &QueuedProposal) -> Option<LeafNodeIndex> {
    match (proposal.proposal(), proposal.sender()) {
        (Proposal::Remove(remove), Sender::Member(sender)) if remove.removed() == *sender => Some(*sender),
        _ => None,
    }
}

/// Builds a commit over all pending proposals of others, with additions, removals and optionally a new policy, and
/// stages it in the group. It always has new keys for this agent's own leaf, and carries what this agent has seen of
/// the log.
pub(crate) fn build_commit(
    group: &mut MlsGroup,
    provider: &Provider<'_>,
    identity: &Identity,
    packages: Vec<KeyPackage>,
    removed: &BTreeSet<AgentId>,
    policy: Option<&Policy>,
    seen: Option<Seen>,
) -> Result<Committed, String> {
    group.set_aad(seen.map(Seen::to_aad).unwrap_or_default());
    let committed = stage(group, provider, identity, packages, removed, policy);
    // A commit that cannot be built would leave it for the next message.
    group.set_aad(Vec::new());
    committed
}

fn stage(
    group: &mut MlsGroup,
    provider: &Provider<'_>,
    identity: &Identity,
    packages: Vec<KeyPackage>,
    removed: &BTreeSet<AgentId>,
    policy: Option<&Policy>,
) -> Result<Committed, String> {
    let own = group.own_leaf_index();
    let leaving = leavers(group);
    let adds: Vec<AgentId> = packages.iter().map(check_package).collect::<Result<_, _>>()?;
    let removals: Vec<LeafNodeIndex> = group
        .members()
        .filter(|member| member.index != own)
        .filter(|member| {
            agent_at(group, member.index).is_some_and(|agent| removed.contains(&agent) && !leaving.contains(&agent))
        })
        .map(|member| member.index)
        .collect();
    let mut removes: Vec<AgentId> = removals.iter().filter_map(|index| agent_at(group, *index)).collect();
    removes.extend(leaving);
    let mut builder = group.commit_builder().propose_adds(packages).propose_removals(removals);
    if let Some(policy) = policy {
        builder = builder
            .propose_group_context_extensions(policy::extensions(policy)?)
            .map_err(|error| error.to_string())?;
    }
    let bundle = builder
        .force_self_update(true)
        .load_psks(provider.storage())
        .map_err(|error| error.to_string())?
        .build(provider.rand(), provider.crypto(), identity, |proposal| {
            leaver(proposal) != Some(own)
        })
        .map_err(|error| error.to_string())?
        .stage_commit(provider)
        .map_err(|error| error.to_string())?;
    let welcome = match bundle.to_welcome_msg() {
        Some(welcome) => welcome.to_bytes().map_err(|error| error.to_string())?,
        None => Vec::new(),
    };
    let (commit, _, _) = bundle.into_contents();
    Ok(Committed {
        commit: commit.to_bytes().map_err(|error| error.to_string())?,
        welcome,
        adds,
        removes,
    })
}

/// Changes that a commit makes to a group's membership.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) adds: BTreeSet<AgentId>,
    pub(crate) removes: BTreeSet<AgentId>,
    /// Agents among `removes` that had asked to leave.
    pub(crate) left: BTreeSet<AgentId>,
    /// The member that took a new leaf.
    pub(crate) renewed: Option<AgentId>,
    /// The policy before and after, if it changes.
    pub(crate) policy: Option<(Option<Policy>, Policy)>,
}

/// Knowledge by which a commit is judged besides the group's state: what its members saw in this epoch.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// Members whose headers lied in this epoch. Every member may remove them.
    pub(crate) liars: &'a BTreeSet<AgentId>,
}

impl Change {
    /// Creates the change for a member that takes a new leaf.
    pub(crate) fn renewal(member: AgentId) -> Self {
        Self {
            renewed: Some(member),
            ..Self::default()
        }
    }
}

/// Checks a staged commit, before it is merged, against the rules that every member enforces.
pub(crate) fn check_commit(
    group: &MlsGroup,
    staged: &StagedCommit,
    committer: AgentId,
    ground: Ground<'_>,
) -> Result<Change, String> {
    let mut change = Change::default();
    for queued in staged.queued_proposals() {
        match queued.proposal() {
            Proposal::Add(add) => {
                let agent = check_package(add.key_package())?;
                if !change.adds.insert(agent) {
                    return Err(format!("{agent} is added twice"));
                }
            }
            Proposal::Remove(remove) => {
                let agent = agent_at(group, remove.removed()).ok_or("a leaf that is not there is removed")?;
                if !change.removes.insert(agent) {
                    return Err(format!("{agent} is removed twice"));
                }
                if leaver(queued).is_some() {
                    change.left.insert(agent);
                }
            }
            // Its changes are checked below. RFC 9420 section 12.2 allows no second one.
            Proposal::GroupContextExtensions(_) => {}
            _ => return Err("a proposal of a kind that channels do not use".into()),
        }
    }
    if let Some(leaf) = staged.update_path_leaf_node()
        && agent_of_leaf(leaf)? != committer
    {
        return Err("the committer's leaf became another agent's".into());
    }
    let present = members(group);
    let is_there = |agent: &&AgentId| present.contains(*agent) && !change.removes.contains(*agent);
    if let Some(agent) = change.adds.iter().find(is_there) {
        return Err(format!("{agent} is added, but is a member"));
    }
    let (before, after) = (policy::policy(group), policy::after(staged)?);
    check_rights(before.as_ref(), after.as_ref(), &change, &present, committer, ground)?;
    if before != after
        && let Some(after) = after
    {
        change.policy = Some((before, after));
    }
    Ok(change)
}

/// Checks a member's rights, by the policy before its commit.
fn check_rights(
    before: Option<&Policy>,
    after: Option<&Policy>,
    change: &Change,
    members: &BTreeSet<AgentId>,
    committer: AgentId,
    ground: Ground<'_>,
) -> Result<(), String> {
    if after.is_none() && before.is_some() {
        return Err("it takes the channel's policy away".into());
    }
    let is_gone = |agent: &AgentId| change.removes.contains(agent) && !change.adds.contains(agent);
    if let Some(after) = after {
        let stays = |agent: &&AgentId| {
            let is_there = members.contains(*agent) || change.adds.contains(*agent);
            is_there && !is_gone(agent)
        };
        if let Some(agent) = after.admins().iter().find(|agent| !stays(agent)) {
            return Err(format!("{agent} is an admin after it, and no member"));
        }
    }
    let Some(policy) = before else { return Ok(()) };
    let is_admin = policy.is_admin(&committer, |agent| members.contains(agent));
    let may = |right| policy.allows(right, &committer, |agent| members.contains(agent));
    if let Some(agent) = change.adds.difference(&change.removes).next()
        && !may(Right::Add)
    {
        return Err(format!("it adds {agent}, which its author may not"));
    }
    // Members that rejoin are removed and added at once. Anybody may remove members that asked to leave or lied, but
    // only an admin may remove a lying admin.
    let is_admins_lie = |agent: &AgentId| !is_admin && policy.admins().contains(agent);
    let is_free = |agent: &AgentId| {
        change.left.contains(agent) || (ground.liars.contains(agent) && !is_admins_lie(agent)) || !is_gone(agent)
    };
    if let Some(agent) = change.removes.iter().find(|agent| !is_free(agent))
        && !may(Right::Remove)
    {
        return Err(format!("it removes {agent}, which its author may not"));
    }
    let lets_go = policy.with_admins(|agent| !is_gone(agent));
    match after {
        Some(after) if after != policy && *after != lets_go && !may(Right::Policy) => {
            Err("it changes the policy, which its author may not".into())
        }
        _ => Ok(()),
    }
}

// ---- messages

/// Reads a message of a group's members. Only encrypted ones are accepted.
pub(crate) fn read_message(bytes: &[u8]) -> Result<ProtocolMessage, Rejected> {
    MlsMessageIn::tls_deserialize_exact(bytes)
        .map_err(|error| unreadable(error.to_string()))?
        .try_into_protocol_message()
        .ok()
        .filter(|message| message.wire_format() == WireFormat::PrivateMessage)
        .ok_or_else(|| unreadable("not an encrypted message of a group"))
}

/// Checks a staged external commit: a member takes a new leaf, and nothing else changes.
pub(crate) fn check_external(group: &MlsGroup, staged: &StagedCommit) -> Result<AgentId, String> {
    let leaf = staged
        .update_path_leaf_node()
        .ok_or("an external commit without a leaf")?;
    let committer = agent_of_leaf(leaf)?;
    let mut removed = None;
    for queued in staged.queued_proposals() {
        match queued.proposal() {
            Proposal::ExternalInit(_) => {}
            Proposal::Remove(remove) if removed.is_none() => removed = agent_at(group, remove.removed()),
            _ => return Err("an external commit that changes more than its author's leaf".into()),
        }
    }
    if removed != Some(committer) {
        return Err("an external commit that does not replace its author's own leaf".into());
    }
    Ok(committer)
}

/// Whether a commit failed because of something that only this member lacks, so others may have applied it. All other
/// errors are the same for every member.
fn is_own_trouble(error: &StageCommitError) -> bool {
    use openmls::treesync::errors::ApplyUpdatePathError as Path;
    matches!(
        error,
        StageCommitError::UpdatePathError(
            // `MissingSender` means that the path was not encrypted to any of this member's keys.
            Path::PathMismatch
                | Path::UnableToDecrypt
                | Path::MissingCiphertext
                | Path::MissingOwnLeaf
                | Path::MissingSender
        ) | StageCommitError::OwnKeyNotFound
            | StageCommitError::MissingDecryptionKey
    )
}

/// Processes a message of another member, and returns it with the agent that signed it.
pub(crate) fn process(
    group: &mut MlsGroup,
    provider: &Provider<'_>,
    message: ProtocolMessage,
) -> Result<(AgentId, ProcessedMessageContent), Rejected> {
    let later = message.epoch() > group.epoch();
    let processed = group.process_message(provider, message).map_err(|error| match error {
        ProcessMessageError::StorageError(error) => Rejected::Storage(error),
        ProcessMessageError::InvalidCommit(error) if is_own_trouble(&error) => Rejected::OutOfSync(error.to_string()),
        ProcessMessageError::ValidationError(ValidationError::WrongEpoch) if later => Rejected::LaterEpoch,
        ProcessMessageError::ValidationError(ValidationError::UnableToDecrypt(
            ref error @ MessageDecryptionError::SecretTreeError(
                SecretTreeError::TooDistantInThePast | SecretTreeError::SecretReuseError,
            ),
        )) => Rejected::KeyUsed(error.to_string()),
        error => unreadable(error.to_string()),
    })?;
    let Sender::Member(index) = *processed.sender() else {
        let is_external = matches!(processed.sender(), Sender::NewMemberCommit);
        return match processed.into_content() {
            ProcessedMessageContent::StagedCommitMessage(staged) if is_external => {
                let author = check_external(group, &staged).map_err(unreadable)?;
                Ok((author, ProcessedMessageContent::StagedCommitMessage(staged)))
            }
            _ => Err(unreadable("not from a member")),
        };
    };
    let author = agent_at(group, index).ok_or_else(|| unreadable("from a leaf that is not there"))?;
    Ok((author, processed.into_content()))
}

/// Writes a group's deferred message secrets.
pub(crate) fn settle_secrets(group: &mut MlsGroup, provider: &Provider<'_>) -> Result<(), StorageError> {
    let storage = provider.storage();
    if !storage.is_unsettled(group.group_id())? {
        return Ok(());
    }
    // The policy is already in force: this call only writes the secrets.
    let policy = group.past_epoch_deletion_policy().clone();
    storage
        .settle(|| group.set_past_epoch_deletion_policy(provider, policy))
        .map_err(|error| StorageError::Encode(error.to_string()))
}
