//! Rejoining by a member that cannot follow its group: its request, and the Welcome that answers it.

use super::group::{CIPHERSUITE, added_package, agent_of_leaf, check_members, join_config, reboot_of};
use super::{Identity, Provider, Rejected, StorageError, signatures, unreadable};
use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::*;
use prost::Message as _;
use skytale_proto::{AgentId, ChannelId, Digest, Frame, Offset, wire};
use std::collections::BTreeSet;

/// Prefix of the signed data of a request, so that it differs from other signatures of the agent.
const CONTEXT: &[u8] = b"skytale rejoin request 2";

/// A member's request to be removed and added again in one commit.
///
/// The author signs it with its identity key, for one frame and one handshake head: nobody can forge one, and an
/// answered one cannot be replayed.
pub(crate) struct RejoinRequest {
    /// A KeyPackage of its author, for this purpose only.
    pub(crate) key_package: Vec<u8>,
    /// The last handshake head whose epoch its author was in.
    pub(crate) applied: Offset,
    /// Agents from which its author accepts no answer, 32 bytes each.
    pub(crate) refused: Vec<u8>,
}

/// Maximum number of agents from which a request refuses answers.
pub(crate) const REFUSED_MAX: usize = 64;

impl RejoinRequest {
    /// Encodes the body of a request's frame.
    pub(crate) fn body(
        identity: &Identity,
        channel: ChannelId,
        frame: &skytale_proto::Header,
        package: &[u8],
        applied: Offset,
        refused: &BTreeSet<AgentId>,
    ) -> Vec<u8> {
        let refused = refused.iter().take(REFUSED_MAX).flat_map(AgentId::as_bytes);
        let refused: Vec<u8> = refused.copied().collect();
        let signature = identity.sign_bytes(&signed(channel, frame, package, applied, &refused));
        wire::RejoinRequest {
            key_package: package.to_vec().into(),
            signature: signature.to_vec().into(),
            applied: applied.get(),
            refused: refused.into(),
        }
        .encode_to_vec()
    }

    /// Reads a request; fails if it is not its author's.
    pub(crate) fn read(crypto: &Provider<'_>, channel: ChannelId, frame: &Frame) -> Result<Self, String> {
        let header = frame.header();
        let request = wire::RejoinRequest::decode(frame.body().clone()).map_err(|error| error.to_string())?;
        let applied = Offset::new(request.applied);
        if request.refused.len() > REFUSED_MAX * AgentId::LENGTH {
            return Err(format!("it refuses more than {REFUSED_MAX} agents"));
        }
        let signed = signed(channel, header, &request.key_package, applied, &request.refused);
        signatures::verify(header.author.as_bytes(), &signed, &request.signature)
            .map_err(|_| "not signed by its author")?;
        let (agent, _) = added_package(crypto, &request.key_package)?;
        if agent != header.author {
            return Err("the key package of another agent".into());
        }
        if applied > header.parent {
            return Err("it speaks of an epoch that is not yet".into());
        }
        Ok(Self {
            key_package: request.key_package.to_vec(),
            applied,
            refused: request.refused.to_vec(),
        })
    }
}

fn signed(
    channel: ChannelId,
    header: &skytale_proto::Header,
    package: &[u8],
    applied: Offset,
    refused: &[u8],
) -> Vec<u8> {
    [
        CONTEXT,
        channel.as_bytes().as_slice(),
        header.id.as_bytes(),
        &header.parent.get().to_le_bytes(),
        &applied.get().to_le_bytes(),
        &Digest::hash_frame(package),
        &Digest::hash_frame(refused),
    ]
    .concat()
}

/// A group that a Welcome leads into.
pub(crate) struct Welcomed {
    pub(crate) group: MlsGroup,
    /// Number of the group in the channel: see [`super::group_id`].
    pub(crate) reboot: u64,
    pub(crate) members: BTreeSet<AgentId>,
}

/// Returns the group of a bundle's Welcome, if a member may be in it. It writes only to `scratch`.
pub(crate) fn welcomed(
    scratch: &Provider<'_>,
    channel: ChannelId,
    frame: &Frame,
    welcome: &[u8],
    padding_bytes: usize,
) -> Result<Welcomed, Rejected> {
    let refuse = |error: WelcomeError<StorageError>| match error {
        WelcomeError::StorageError(error) => Rejected::Storage(error),
        error => unreadable(error.to_string()),
    };
    let message = MlsMessageIn::tls_deserialize_exact(welcome).map_err(|error| unreadable(error.to_string()))?;
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
        return Err(unreadable("not a Welcome"));
    };
    let config = join_config(padding_bytes);
    let staged = StagedWelcome::build_from_welcome(scratch, &config, welcome)
        .map_err(refuse)?
        .skip_lifetime_validation()
        .replace_old_group()
        .build()
        .map_err(refuse)?;
    let reboot = reboot_of(channel, staged.group_context().group_id())
        .ok_or_else(|| unreadable("the Welcome is to another channel"))?;
    if staged.group_context().ciphersuite() != CIPHERSUITE {
        return Err(unreadable("the group uses another ciphersuite"));
    }
    super::policy::check(staged.group_context()).map_err(unreadable)?;
    let members = check_members(staged.members()).map_err(unreadable)?;
    let sender = staged
        .welcome_sender()
        .map_err(|error| unreadable(error.to_string()))
        .and_then(|leaf| agent_of_leaf(leaf).map_err(unreadable))?;
    let author = frame.header().author;
    if sender != author {
        return Err(unreadable(format!("the Welcome is from {sender}, not from {author}")));
    }
    let group = staged.into_group(scratch).map_err(refuse)?;
    Ok(Welcomed { group, reboot, members })
}
