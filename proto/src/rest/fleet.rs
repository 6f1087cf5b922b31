//! The relay directory of a fleet: enrolments, the heartbeats of enrolled relay nodes, and what operators see of them.
//!
//! An operator makes an enrolment; its key is shown once and given to one relay node. The node sends a [`Heartbeat`] with it,
//! again and again, and is in the directory for as long as it does. [`Relay`](super::Relay) is what agents get to see.

use crate::{EndpointId, EnrolmentId, InstanceId};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Text before an enrolment's key.
pub const ENROLMENT_KEY_PREFIX: &str = "rk_live_";
/// Prefix of the bytes that a relay node signs to prove that it holds its endpoint's secret key: then follow the
/// enrolment's id (16 bytes) and the endpoint id.
pub const REGISTRATION_CONTEXT: &[u8] = b"skytale relay registration 1";
/// Addresses of one relay node.
pub const RELAY_ADDRESSES_MAX: usize = 16;
/// The longest URL of a relay node for HTTPS, in bytes.
pub const HTTPS_URL_BYTES_MAX: usize = 255;
/// Shards in one heartbeat. A node that follows more of them tells those in which it is behind the most.
pub const HEARTBEAT_SHARDS_MAX: usize = 128;
/// The longest version of a relay node, in bytes.
pub const RELAY_VERSION_BYTES_MAX: usize = 64;

/// `POST /v1/enrolments`: lets one more relay node into the fleet. With the operator's secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateEnrolment {
    /// Name of the node for people, 1 to 64 characters.
    #[cfg_attr(feature = "openapi", schema(value_type = super::schema::Label))]
    pub label: String,
    /// The endpoint that it is for; without, the first that uses the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
}

/// A new enrolment, with its key. The key is shown here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedEnrolment {
    /// `rk_live_...`.
    pub secret: String,
    /// The enrolment.
    pub enrolment: Enrolment,
}

impl std::fmt::Debug for CreatedEnrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedEnrolment")
            .field("secret", &"[redacted]")
            .field("enrolment", &self.enrolment)
            .finish()
    }
}

/// An enrolment, without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolment {
    /// Its id, which is also in its key.
    pub id: EnrolmentId,
    /// Name of the node for people.
    #[cfg_attr(feature = "openapi", schema(value_type = super::schema::Label))]
    pub label: String,
    /// The endpoint that it is bound to, for good: named when it was made, or the first that used the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// Time of creation, unix seconds.
    pub created_s: u64,
    /// Time of revocation, unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_s: Option<u64>,
}

/// `GET /v1/enrolments?after=&limit=`: the enrolments, by id. With the operator's secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolments {
    /// Those after the id asked for.
    pub enrolments: Vec<Enrolment>,
    /// The id to ask after for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<EnrolmentId>,
}

/// `PUT /v1/relays/{endpoint}/heartbeat`: a relay node is there. With its enrolment's key, as `Authorization: Bearer
/// rk_live_...`. The first one registers it; each carries everything, and takes the place of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Ed25519 signature by the endpoint's secret key, 64 bytes, hex; the same each time. It is over 76 bytes:
    /// `skytale relay registration 1` (ASCII), then the enrolment's id (16 bytes) and the endpoint id (32 bytes).
    #[cfg_attr(feature = "openapi", schema(value_type = super::schema::SignatureText))]
    pub proof: String,
    /// Socket addresses (`ip:port`) under which agents reach it, 1 to [`RELAY_ADDRESSES_MAX`]: no port 0, no unspecified
    /// and no multicast address.
    #[cfg_attr(feature = "openapi", schema(value_type = super::schema::RelayAddresses))]
    pub addresses: Vec<String>,
    /// HTTPS address for agents, if it has one: see [`check_https_url`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<super::schema::HttpsUrl>))]
    pub https_url: Option<String>,
    /// Its region; 0 on a single node.
    #[serde(default)]
    pub region: u8,
    /// Its version, visible ASCII, 1 to [`RELAY_VERSION_BYTES_MAX`] bytes.
    #[cfg_attr(feature = "openapi", schema(value_type = super::schema::RelayVersion))]
    pub version: String,
    /// Whether it is about to stop, or cannot do its work now: agents are sent to it last.
    #[serde(default)]
    pub draining: bool,
    /// Its load.
    pub load: RelayLoad,
    /// Id of this process of the relay node: so that another one that shows the same key is found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
}

/// Load of a relay node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RelayLoad {
    /// Agents that are connected.
    pub agents: u32,
    /// Agents that it takes, at most.
    pub agents_max: u32,
    /// Appends acknowledged a second, since the heartbeat before.
    pub appends_per_second: u32,
    /// Entries sent to readers a second, since the heartbeat before.
    #[serde(default)]
    pub reads_per_second: u32,
    /// Lag of its replica, by shard, [`HEARTBEAT_SHARDS_MAX`] at most; empty on a single node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 128))]
    pub lag: Vec<ShardLag>,
}

/// Lag of a relay node's replica behind one shard's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ShardLag {
    /// The shard's region.
    pub region: u8,
    /// The shard.
    pub shard: u16,
    /// Messages of the stream that it has not folded yet.
    pub messages: u64,
}

/// Another process that shows a relay node's key. The directory refuses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Twin {
    /// Socket addresses under which it says that agents reach it.
    #[cfg_attr(feature = "openapi", schema(value_type = super::schema::RelayAddresses))]
    pub addresses: Vec<String>,
    /// Time of its last heartbeat, unix seconds by the API's clock.
    pub seen_s: u64,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatTaken {
    /// Time until the next heartbeat is due, milliseconds.
    pub next_ms: u64,
    /// Time without a heartbeat after which it leaves the directory, milliseconds.
    pub expires_ms: u64,
    /// Another process that shows the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<Twin>,
}

/// `GET /v1/fleet?after=&limit=`: every relay node that the directory knows, by endpoint. With the operator's secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fleet {
    /// Those after the endpoint asked for.
    pub relays: Vec<FleetRelay>,
    /// The endpoint to ask after for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<EndpointId>,
}

/// A relay node, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FleetRelay {
    /// Its iroh endpoint.
    pub endpoint: EndpointId,
    /// Its enrolment.
    pub enrolment: EnrolmentId,
    /// Name for people: the enrolment's label.
    #[cfg_attr(feature = "openapi", schema(value_type = super::schema::Label))]
    pub label: String,
    /// Its state.
    pub state: RelayState,
    /// Time of its last heartbeat, unix seconds by the API's clock.
    pub seen_s: u64,
    /// Socket addresses under which agents reach it.
    #[cfg_attr(feature = "openapi", schema(value_type = super::schema::RelayAddresses))]
    pub addresses: Vec<String>,
    /// HTTPS address for agents, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<super::schema::HttpsUrl>))]
    pub https_url: Option<String>,
    /// Its region.
    pub region: u8,
    /// Its version.
    #[cfg_attr(feature = "openapi", schema(value_type = super::schema::RelayVersion))]
    pub version: String,
    /// Its load at its last heartbeat.
    pub load: RelayLoad,
    /// Another process that shows its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<Twin>,
}

/// The state of a relay node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// Agents are sent to it.
    Live,
    /// It is far behind a shard's stream: agents are sent to it after all that are not.
    Behind,
    /// It is about to stop, or cannot do its work now: agents are sent to it last.
    Draining,
    /// It missed too many heartbeats: agents are not sent to it.
    Missing,
}

/// The enrolment that a key is of, where the text has a key's form.
pub fn enrolment_of(key: &str) -> Option<EnrolmentId> {
    let (id, _) = key.strip_prefix(ENROLMENT_KEY_PREFIX)?.split_once('_')?;
    let bytes = HEXLOWER.decode(id.as_bytes()).ok()?;
    EnrolmentId::try_from(bytes.as_slice()).ok()
}

/// Returns the bytes that a relay node signs with its endpoint's secret key to prove that it holds it.
pub fn registration_message(enrolment: &EnrolmentId, endpoint: &EndpointId) -> Vec<u8> {
    [REGISTRATION_CONTEXT, enrolment.as_bytes(), endpoint.as_bytes()].concat()
}

/// Whether a relay node's URL for HTTPS is one: `https://host[:port]`, or `http://` on loopback; no path, no query, no
/// user, at most [`HTTPS_URL_BYTES_MAX`]. The error names the requirement.
pub fn check_https_url(url: &str) -> Result<(), &'static str> {
    const FORM: &str = "must be of the form `https://host[:port]`";
    if url.len() > HTTPS_URL_BYTES_MAX {
        return Err("must have at most 255 bytes");
    }
    let (is_plain, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Err(FORM),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(FORM)?;
            host.parse::<Ipv6Addr>().map_err(|_| FORM)?;
            let port = if port.is_empty() {
                None
            } else {
                Some(port.strip_prefix(':').ok_or(FORM)?)
            };
            (host, port)
        }
        None => {
            let (host, port) = authority
                .split_once(':')
                .map_or((authority, None), |(host, port)| (host, Some(port)));
            let is_label = |label: &str| {
                !label.is_empty()
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            };
            if !host.split('.').all(is_label) {
                return Err(FORM);
            }
            (host, port)
        }
    };
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|number| number != 0)
    };
    if port.is_some_and(|port| !is_port(port)) {
        return Err(FORM);
    }
    let is_loopback =
        ["localhost", "::1"].contains(&host) || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    if is_plain && !is_loopback {
        return Err("must be https (http is for loopback addresses alone)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_for_https_is_a_host_and_a_port() {
        for good in [
            "https://relay.example.org",
            "https://relay.example.org/",
            "https://relay.example.org:8443",
            "https://192.0.2.1:443",
            "https://[2001:db8::1]:443",
            "http://127.0.0.1:7605",
            "http://localhost:7605",
            "http://[::1]:7605",
        ] {
            assert_eq!(check_https_url(good), Ok(()), "{good}");
        }
        let long = format!("https://{}", "a".repeat(HTTPS_URL_BYTES_MAX));
        for wrong in [
            "",
            "relay.example.org",
            "ftp://relay.example.org",
            "http://relay.example.org",
            "http://192.0.2.1:80",
            "https://",
            "https://relay.example.org:0",
            "https://relay.example.org:65536",
            "https://relay.example.org:+80",
            "http://[0::1]:80",
            "https://relay.example.org:",
            "https://user@relay.example.org",
            "https://relay.example.org/path",
            "https://relay.example.org?query",
            "https://relay.example.org#part",
            "https://relay..example.org",
            "https://[::1",
            "https://[::1]443",
            "https://[relay]:443",
            "https://relay example.org",
            &long,
        ] {
            assert!(check_https_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_names_its_enrolment() {
        let id = EnrolmentId::from_bytes([7; 16]);
        let key = format!("{ENROLMENT_KEY_PREFIX}{}_SECRET", "07".repeat(16));
        assert_eq!(enrolment_of(&key), Some(id));
        for wrong in [
            "",
            "rk_live_",
            "rk_live_07_X",
            "sk_live_07",
            &key.to_uppercase(),
            &key[1..],
        ] {
            assert_eq!(enrolment_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_heartbeat_is_read_as_it_was_written_and_has_no_other_fields() {
        let lag = ShardLag {
            region: 1,
            shard: 2,
            messages: u64::MAX,
        };
        let heartbeat = Heartbeat {
            proof: "00".repeat(64),
            addresses: vec!["192.0.2.1:7601".to_owned()],
            https_url: Some("https://relay.example.org".to_owned()),
            region: 1,
            version: "0.1.0".to_owned(),
            draining: true,
            load: RelayLoad {
                agents: 1,
                agents_max: 2,
                appends_per_second: 3,
                reads_per_second: 4,
                lag: vec![lag],
            },
            instance: Some(InstanceId::from_bytes([7; 16])),
        };
        let mut json = serde_json::to_value(&heartbeat).expect("JSON");
        assert_eq!(
            serde_json::from_value::<Heartbeat>(json.clone()).expect("one"),
            heartbeat
        );
        json["load"]["agents"] = (-1).into();
        assert!(serde_json::from_value::<Heartbeat>(json.clone()).is_err());
        json["load"]["agents"] = 1.into();
        json["admin"] = true.into();
        assert!(serde_json::from_value::<Heartbeat>(json).is_err());
    }

    #[test]
    fn a_new_enrolment_prints_no_key() {
        let made = CreatedEnrolment {
            secret: "rk_live_marker".to_owned(),
            enrolment: Enrolment {
                id: EnrolmentId::from_bytes([0; 16]),
                label: "eu-1".to_owned(),
                endpoint: None,
                created_s: 1,
                revoked_s: None,
            },
        };
        assert!(!format!("{made:?}").contains("marker"));
    }
}
