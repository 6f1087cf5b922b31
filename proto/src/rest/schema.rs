//! Schemas of texts and numbers in the API's OpenAPI document: with the bounds that the code itself checks.
//!
//! Ids and names have their schema here. A field whose type in Rust says less than the API checks (a label is a
//! `String`) names one of the types below as its schema; they have no values.

use super::{
    ChannelName, HTTPS_URL_BYTES_MAX, KEY_SCOPES_MANAGEMENT, LABEL_CHARS_MAX, OrgName, RELAY_ADDRESSES_MAX,
    RELAY_VERSION_BYTES_MAX,
};
use crate::limits::TOKEN_SCOPES_MAX;
use crate::token::Action;
use crate::{AccountId, AgentId, ChannelId, EndpointId, EnrolmentId, InstanceId, KeyId};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The largest number that the database takes.
pub const NUMBER_MAX: u64 = i64::MAX as u64;

/// One part of a name.
const PART: &str = "[a-z0-9][a-z0-9._-]{0,62}";
const UUID: &str = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$";

macro_rules! schema {
    ($name:ident, $type:expr, $describe:expr) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let describe: fn(ObjectBuilder) -> ObjectBuilder = $describe;
                describe(ObjectBuilder::new().schema_type($type)).into()
            }
        }

        impl ToSchema for $name {}
    };
}

macro_rules! text {
    ($($(#[$doc:meta])* $name:ident, $description:literal, $pattern:expr;)*) => {$(
        schema!($name, Type::String, |text| text.description(Some($description)).pattern(Some($pattern)));
    )*};
}

macro_rules! word {
    ($($name:ident, $type:expr, $describe:expr;)*) => {$(
        /// A schema. It has no values.
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        schema!($name, $type, $describe);
    )*};
}

text! {
    AgentId, "An agent: its Ed25519 public key, 32 bytes, hex (lower case in answers).", hex(32);
    EndpointId, "An iroh endpoint: its Ed25519 public key, 32 bytes, hex (lower case in answers).", hex(32);
    InstanceId, "One process of a relay node, from its start to its end: 16 bytes, hex.", hex(16);
    ChannelId, "A channel: 16 bytes, hex (lower case in answers).", hex(16);
    OrgName, "An account's org: the first part of its channels' names.", format!("^{PART}$");
    ChannelName, "A channel's name: `org/namespace/name`.", format!("^{PART}(/{PART}){{2}}$");
}

macro_rules! uuids {
    ($($name:ident, $description:literal;)*) => {$(
        schema!($name, Type::String, |text| text
            .description(Some($description))
            .format(Some(SchemaFormat::Custom("uuid".to_owned())))
            .pattern(Some(UUID)));
    )*};
}

uuids! {
    AccountId, "An account.";
    KeyId, "An API key's public part.";
    EnrolmentId, "The enrolment of a relay node: its key's public part.";
}

word! {
    NamePart, Type::String, |text| text
        .description(Some("One part of a channel's name."))
        .pattern(Some(format!("^{PART}$")));
    Label, Type::String, |text| text
        .description(Some("What a person knows it by. No control characters."))
        .min_length(Some(1))
        .max_length(Some(LABEL_CHARS_MAX))
        .pattern(Some("^[^\\u0000-\\u001f\\u007f-\\u009f]*$"));
    KeyScopeText, Type::String, |text| text
        .description(Some("A scope of an API key: one of management, or one that it may put into tokens."))
        .pattern(Some(format!("^({}|{})$", KEY_SCOPES_MANAGEMENT.join("|"), token_scope())));
    TokenScopeText, Type::String, |text| text
        .description(Some("A scope of a token: an action, on every channel or on one (`relay:append@<channel id>`)."))
        .pattern(Some(format!("^{}$", token_scope())));
    EventId, Type::String, |text| text
        .description(Some("An event of the audit: a UUIDv7."))
        .format(Some(SchemaFormat::Custom("uuid".to_owned())))
        .pattern(Some(UUID));
    NonceText, Type::String, |text| text
        .description(Some("A nonce: 32 bytes, hex."))
        .pattern(Some(hex(32)));
    SignatureText, Type::String, |text| text
        .description(Some("An Ed25519 signature (RFC 8032): 64 bytes, hex."))
        .pattern(Some(hex(64)));
    SocketAddressText, Type::String, |text| text
        .description(Some("An IP address and a port: `192.0.2.1:7601` or `[2001:db8::1]:7601`."))
        .pattern(Some(format!("^({}|\\[{}\\]):{PORT}$", ipv4(), ipv6())));
    HttpsUrl, Type::String, |text| text
        .description(Some("`https://host[:port]`, without a path; `http://` for `localhost`, 127.0.0.0/8 and `[::1]`."))
        .max_length(Some(HTTPS_URL_BYTES_MAX))
        .pattern(Some(https_url()));
    RelayVersion, Type::String, |text| text
        .description(Some("A version: visible ASCII."))
        .min_length(Some(1))
        .max_length(Some(RELAY_VERSION_BYTES_MAX))
        .pattern(Some("^[!-~]*$"));
    Seconds, Type::Integer, |number| number
        .description(Some("A time: unix seconds."))
        .format(Some(SchemaFormat::Custom("uint64".to_owned())))
        .minimum(Some(0_usize))
        .maximum(Some(NUMBER_MAX as usize));
    Sequence, Type::Integer, |number| number
        .description(Some("A sequence number of a feed; 0 is before the first."))
        .format(Some(SchemaFormat::Custom("uint64".to_owned())))
        .minimum(Some(0_usize))
        .maximum(Some(NUMBER_MAX as usize))
        .default(Some(0.into()));
}

macro_rules! lists {
    ($($name:ident of $item:ident, $min:expr, $max:expr;)*) => {$(
        /// A schema. It has no values.
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let items = Ref::from_schema_name($item::name());
                ArrayBuilder::new().items(items).min_items($min).max_items(Some($max)).into()
            }
        }

        impl ToSchema for $name {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                schemas.push(($item::name().into_owned(), $item::schema()));
            }
        }
    )*};
}

lists! {
    KeyScopes of KeyScopeText, Some(1), TOKEN_SCOPES_MAX;
    TokenScopes of TokenScopeText, None, TOKEN_SCOPES_MAX;
    RelayAddresses of SocketAddressText, Some(1), RELAY_ADDRESSES_MAX;
}

fn hex(bytes: usize) -> String {
    format!("^[0-9A-Fa-f]{{{}}}$", bytes * 2)
}

fn token_scope() -> String {
    let actions: Vec<_> = Action::ALL.into_iter().map(Action::as_str).collect();
    format!("({})(@[0-9A-Fa-f]{{{}}})?", actions.join("|"), ChannelId::LENGTH * 2)
}

/// A port; leading zeroes do no harm.
const PORT: &str = "0*([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
/// A port that is not 0.
const PORT_NOT_0: &str = "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

fn ipv4() -> String {
    format!("{OCTET}(\\.{OCTET}){{3}}")
}

/// RFC 4291 section 2.2, as RFC 3986 section 3.2.2 writes it down.
fn ipv6() -> String {
    let group = "[0-9A-Fa-f]{1,4}";
    let last = format!("({group}:{group}|{})", ipv4());
    let mut forms = vec![format!("({group}:){{6}}{last}"), format!("::({group}:){{5}}{last}")];
    for before in 0..5 {
        let after = match 4 - before {
            0 => String::new(),
            groups => format!("({group}:){{{groups}}}"),
        };
        forms.push(format!("(({group}:){{0,{before}}}{group})?::{after}{last}"));
    }
    forms.push(format!("(({group}:){{0,5}}{group})?::{group}"));
    forms.push(format!("(({group}:){{0,6}}{group})?::"));
    format!("({})", forms.join("|"))
}

fn https_url() -> String {
    let host = "[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*";
    let loopback = format!("localhost|127(\\.{OCTET}){{3}}|\\[::1\\]");
    format!(
        "^(https://({host}|\\[{}\\])|http://({loopback}))(:{PORT_NOT_0})?/?$",
        ipv6()
    )
}
