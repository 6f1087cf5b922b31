//! How ids and names appear in the API's OpenAPI document: as strings, with a pattern where they have one.

use super::{ChannelName, OrgName};
use crate::{AccountId, AgentId, ChannelId, EndpointId, EnrolmentId, InstanceId, KeyId};
use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

macro_rules! text_schema {
    ($name:ident, $describe:expr) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let describe: fn(ObjectBuilder) -> ObjectBuilder = $describe;
                describe(ObjectBuilder::new().schema_type(Type::String)).into()
            }
        }

        impl ToSchema for $name {}
    };
}

text_schema!(AgentId, |text| text
    .description(Some("An agent: its Ed25519 public key."))
    .pattern(Some("^[0-9a-f]{64}$")));
text_schema!(EndpointId, |text| text
    .description(Some("An iroh endpoint: its Ed25519 public key."))
    .pattern(Some("^[0-9a-f]{64}$")));
text_schema!(InstanceId, |text| text
    .description(Some("One process of a relay node, from its start to its end."))
    .pattern(Some("^[0-9a-f]{32}$")));
text_schema!(ChannelId, |text| text
    .description(Some("A channel."))
    .pattern(Some("^[0-9a-f]{32}$")));
text_schema!(AccountId, |text| text
    .description(Some("An account."))
    .format(Some(SchemaFormat::Custom("uuid".to_owned()))));
text_schema!(KeyId, |text| text
    .description(Some("An API key's public part."))
    .format(Some(SchemaFormat::Custom("uuid".to_owned()))));
text_schema!(EnrolmentId, |text| text
    .description(Some("The enrolment of a relay node: its key's public part."))
    .format(Some(SchemaFormat::Custom("uuid".to_owned()))));
text_schema!(OrgName, |text| text
    .description(Some("An account's org: the first part of its channels' names."))
    .pattern(Some("^[a-z0-9][a-z0-9._-]{0,62}$")));
text_schema!(ChannelName, |text| text
    .description(Some("A channel's name: `org/namespace/name`."))
    .pattern(Some("^[a-z0-9][a-z0-9._-]{0,62}(/[a-z0-9][a-z0-9._-]{0,62}){2}$")));
