//! Socket addresses: a list, or one text with commas (as an environment variable has it).

use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error as _};
use std::net::SocketAddr;

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    List(Vec<String>),
}

pub(super) fn serialize<S: Serializer>(list: &[SocketAddr], serializer: S) -> Result<S::Ok, S::Error> {
    list.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let parts = match Form::deserialize(deserializer)? {
        Form::Text(text) => text.split(',').map(str::to_owned).collect(),
        Form::List(list) => list,
    };
    parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse()
                .map_err(|_| D::Error::custom(format!("`{part}` is not an address and port, as in 192.0.2.1:7601")))
        })
        .collect()
}
