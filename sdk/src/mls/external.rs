//! External commits (RFC 9420 section 12.4.3.2): a member takes a new leaf without using its ratchets.
//!
//! A vault that turns out to be an older copy must not encrypt anything in an epoch in which another copy may have
//! encrypted: its ratchet keys may have been used. An ordinary commit is itself encrypted under such a key. An external
//! commit is not: it is a PublicMessage, signed and not encrypted, so that it takes no key of a ratchet. It removes the
//! member's old leaf and adds a new one.
//!
//! A relay node must not read it: it names the members' public keys. So it is sealed under a key that every member exports
//! from the epoch (RFC 9420 section 8.5), with the frame's id and a random nonce; nothing of it depends on a ratchet.
//!
//! No pre-shared key goes into an external commit: every member must be able to process it.

use super::group::{CIPHERSUITE, capabilities, join_config};
use super::{Identity, Provider, Rejected, unreadable};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::*;
use openmls::treesync::LeafNodeParameters;
use skytale_proto::FrameId;
use zeroize::Zeroizing;

/// The label of the exported key.
const SEAL_LABEL: &str = "skytale external commit";
const KEY_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;

/// Builds an external commit by which this member takes a new leaf, from the group that it is in. The new group, with
/// the commit merged, is stored only in `aside`: it replaces this one when the log has the commit.
pub(crate) fn build_external(
    group: &MlsGroup,
    provider: &Provider<'_>,
    aside: &Provider<'_>,
    identity: &Identity,
    padding_bytes: usize,
) -> Result<Vec<u8>, String> {
    let info = group
        .export_group_info(provider.crypto(), identity, true)
        .map_err(|error| error.to_string())?
        .tls_serialize_detached()
        .map_err(|error| error.to_string())?;
    let info = MlsMessageIn::tls_deserialize_exact(&info).map_err(|error| error.to_string())?;
    let MlsMessageBodyIn::GroupInfo(info) = info.extract() else {
        return Err("not a GroupInfo".into());
    };
    let (_, bundle) = MlsGroup::external_commit_builder()
        .with_config(join_config(padding_bytes))
        .skip_lifetime_validation()
        .build_group(aside, info, identity.credential())
        .map_err(|error| error.to_string())?
        .leaf_node_parameters(LeafNodeParameters::builder().with_capabilities(capabilities()).build())
        .load_psks(aside.storage())
        .map_err(|error| error.to_string())?
        .build(aside.rand(), aside.crypto(), identity, |_| true)
        .map_err(|error| error.to_string())?
        .finalize(aside)
        .map_err(|error| error.to_string())?;
    let (commit, _, _) = bundle.into_contents();
    commit.to_bytes().map_err(|error| error.to_string())
}

/// Seals an external commit for the members of the epoch that it ends.
pub(crate) fn seal_external(
    group: &MlsGroup,
    provider: &Provider<'_>,
    frame: FrameId,
    commit: &[u8],
) -> Result<Vec<u8>, String> {
    let nonce: [u8; NONCE_BYTES] = provider.rand().random_array().map_err(|error| error.to_string())?;
    let key = key(group, provider, frame)?;
    let sealed = provider
        .crypto()
        .aead_encrypt(CIPHERSUITE.aead_algorithm(), &key, commit, &nonce, frame.as_bytes())
        .map_err(|error| error.to_string())?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens a sealed external commit of the group's epoch.
pub(crate) fn open_external(
    group: &MlsGroup,
    provider: &Provider<'_>,
    frame: FrameId,
    sealed: &[u8],
) -> Result<ProtocolMessage, Rejected> {
    let (nonce, sealed) = sealed
        .split_first_chunk::<NONCE_BYTES>()
        .ok_or_else(|| unreadable("a sealed commit that is too short"))?;
    let key = key(group, provider, frame).map_err(unreadable)?;
    let commit = provider
        .crypto()
        .aead_decrypt(CIPHERSUITE.aead_algorithm(), &key, sealed, nonce, frame.as_bytes())
        .map_err(|_| unreadable("a commit that was not sealed by a member of this epoch"))?;
    MlsMessageIn::tls_deserialize_exact(&commit)
        .map_err(|error| unreadable(error.to_string()))?
        .try_into_protocol_message()
        .ok()
        .filter(|message| message.wire_format() == WireFormat::PublicMessage && message.is_external())
        .ok_or_else(|| unreadable("not an external commit"))
}

fn key(group: &MlsGroup, provider: &Provider<'_>, frame: FrameId) -> Result<Zeroizing<Vec<u8>>, String> {
    group
        .export_secret(provider.crypto(), SEAL_LABEL, frame.as_bytes(), KEY_BYTES)
        .map(Zeroizing::new)
        .map_err(|error| error.to_string())
}
