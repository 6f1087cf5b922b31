//! A channel's policy in its group's context: an extension of ours (RFC 9420 section 8.1), which a
//! GroupContextExtensions proposal changes (section 12.1.7). All members enforce it alike.

use openmls::group::GroupContext;
use openmls::prelude::{
    Extension, ExtensionType, Extensions, MlsGroup, RequiredCapabilitiesExtension, StagedCommit, UnknownExtension,
};
use skytale_proto::Policy;

/// The extension's type, of the range for private use (RFC 9420 section 17.3). Persisted: keep stable.
pub(super) const POLICY_EXTENSION: u16 = 0xF5C2;

/// The version of its content, its first byte.
const VERSION: u8 = 1;

/// The extensions of a group's context with a policy. Every member must know what it means.
pub(super) fn extensions(policy: &Policy) -> Result<Extensions<GroupContext>, String> {
    let kind = ExtensionType::Unknown(POLICY_EXTENSION);
    let bytes = [&[VERSION], policy.to_bytes().as_slice()].concat();
    Extensions::from_vec(vec![
        Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&[kind], &[], &[])),
        Extension::Unknown(POLICY_EXTENSION, UnknownExtension(bytes)),
    ])
    .map_err(|error| error.to_string())
}

/// The policy in a group's context; `None` where all members may do everything.
fn of(extensions: &Extensions<GroupContext>) -> Result<Option<Policy>, String> {
    let Some(UnknownExtension(bytes)) = extensions.unknown(POLICY_EXTENSION) else {
        return Ok(None);
    };
    let content = bytes.strip_prefix(&[VERSION]).ok_or("a policy of another version")?;
    match Policy::take(content).map_err(|error| error.to_string())? {
        (policy, []) => Ok(Some(policy)),
        _ => Err("a policy with bytes behind it".into()),
    }
}

/// A group's policy. One that cannot be read was refused when it was to come into the group.
pub(crate) fn policy(group: &MlsGroup) -> Option<Policy> {
    of(group.extensions()).ok().flatten()
}

/// Refuses a group whose policy cannot be read.
pub(super) fn check(group: &GroupContext) -> Result<(), String> {
    of(group.extensions()).map(drop)
}

/// The policy after a commit. Its extensions are those of a policy, and no others.
pub(super) fn after(staged: &StagedCommit) -> Result<Option<Policy>, String> {
    let found = staged.group_context().extensions();
    let policy = of(found)?;
    let wanted = policy.as_ref().map(extensions).transpose()?.unwrap_or_default();
    match *found == wanted {
        true => Ok(policy),
        false => Err("an extension of the group that channels do not use".into()),
    }
}
