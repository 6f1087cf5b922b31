//! Socket addresses: a list, or one text (as an environment variable has it).

use super::texts::Texts;
use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};
use std::net::SocketAddr;

pub(super) fn serialize<S: Serializer>(list: &[SocketAddr], serializer: S) -> Result<S::Ok, S::Error> {
    list.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let Texts(parts) = Texts::deserialize(deserializer)?;
    parts
        .iter()
        .map(|part| {
            part.parse()
                .map_err(|_| D::Error::custom(format!("`{part}` is not an address and port, as in 192.0.2.1:7601")))
        })
        .collect()
}
