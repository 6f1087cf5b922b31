//! Names: `org/namespace/service` and an id of 128 bits.

use super::frame::WireError;
use super::proto;
use super::scan::{Once, fields};
use bytes::Bytes;
use std::fmt;
use xxhash_rust::xxh64::xxh64;

/// The id that stands for "any".
const ANY: u128 = u128::MAX;

/// The three hashes of a name's components.
pub type Prefix = [u64; 3];

/// The hash of one component: XXH64, seed 0, of its bytes and one byte 0xFF.
pub fn component_hash(text: &str) -> u64 {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0xff);
    xxh64(&bytes, 0)
}

/// A name as it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EncodedName {
    /// The hashes of the components.
    pub prefix: Prefix,
    /// The id; `None` is any.
    pub id: Option<u128>,
}

/// A name with an id: of one application, or of one channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FullName {
    /// The hashes of the components.
    pub prefix: Prefix,
    /// The id.
    pub id: u128,
}

impl FullName {
    /// Length of its bytes.
    pub const LENGTH: usize = 40;

    /// Its bytes: three components and the id, big-endian.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let (components, id) = bytes.split_at_mut(24);
        for (place, component) in components.chunks_exact_mut(8).zip(self.prefix) {
            place.copy_from_slice(&component.to_be_bytes());
        }
        id.copy_from_slice(&self.id.to_be_bytes());
        bytes
    }

    /// Makes it from its bytes; `None` if their number is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        let (components, id) = bytes.split_first_chunk::<24>()?;
        let mut prefix = [0; 3];
        for (place, component) in prefix.iter_mut().zip(components.as_chunks::<8>().0) {
            *place = u64::from_be_bytes(*component);
        }
        Some(Self {
            prefix,
            id: u128::from_be_bytes(*id.first_chunk()?),
        })
    }
}

impl fmt::Debug for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.prefix;
        write!(f, "{a:016x}/{b:016x}/{c:016x}/{:032x}", self.id)
    }
}

/// A name as it came: what routes it and what a person reads, each where it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    pub(crate) encoded: Option<Encoded>,
    pub(crate) strings: Option<[Bytes; 3]>,
}

/// The encoded part, with absent fields told from zero ones: the MAC covers the difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) prefix: Prefix,
    pub(crate) id: Option<(u64, u64)>,
}

impl Name {
    pub(super) fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let (mut name, mut once) = (Self::default(), Once::default());
        for field in fields(bytes) {
            let field = field?;
            once.note(field.number)?;
            match field.number {
                1 => name.encoded = Some(Encoded::decode(&field.bytes()?)?),
                2 => name.strings = Some(strings(&field.bytes()?)?),
                _ => {}
            }
        }
        Ok(name)
    }

    /// The same name in memory of its own: as it came it holds on to the message.
    #[must_use]
    pub fn compact(&self) -> Self {
        Self {
            encoded: self.encoded,
            strings: self.strings.as_ref().map(|strings| {
                let whole: Bytes = strings.concat().into();
                let (one, two) = (strings[0].len(), strings[0].len() + strings[1].len());
                [whole.slice(..one), whole.slice(one..two), whole.slice(two..)]
            }),
        }
    }

    /// Returns it as a message of its own.
    pub fn to_proto(&self) -> proto::Name {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        proto::Name {
            name: self.encoded.map(|encoded| proto::EncodedName {
                component_0: encoded.prefix[0],
                component_1: encoded.prefix[1],
                component_2: encoded.prefix[2],
                name_id: encoded.id.map(|(id_0, id_1)| proto::NameId { id_0, id_1 }),
            }),
            str_name: self.strings.as_ref().map(|[one, two, three]| proto::StringName {
                str_component_0: text(one),
                str_component_1: text(two),
                str_component_2: text(three),
            }),
        }
    }

    /// Returns the name by which it is routed; `None` if it cannot be routed.
    pub fn route(&self) -> Option<EncodedName> {
        let encoded = self.encoded?;
        let id = encoded
            .id
            .map(|(high, low)| u128::from(high) << 64 | u128::from(low))
            .filter(|id| *id != ANY);
        Some(EncodedName {
            prefix: encoded.prefix,
            id,
        })
    }

    /// The name with its id, where it has one.
    pub fn full(&self) -> Option<FullName> {
        let route = self.route()?;
        Some(FullName {
            prefix: route.prefix,
            id: route.id?,
        })
    }

    /// The components as text, if they are there and hash to the routed name: text alone proves nothing.
    pub fn components(&self) -> Option<[&str; 3]> {
        let (encoded, strings) = (self.encoded?, self.strings.as_ref()?);
        let mut texts = [""; 3];
        for ((text, bytes), hash) in texts.iter_mut().zip(strings).zip(encoded.prefix) {
            *text = std::str::from_utf8(bytes).ok()?;
            if component_hash(text) != hash {
                return None;
            }
        }
        Some(texts)
    }
}

impl Encoded {
    fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let (mut encoded, mut once) = (Self::default(), Once::default());
        for field in fields(bytes) {
            let field = field?;
            once.note(field.number)?;
            match field.number {
                1 => encoded.prefix[0] = field.varint()?,
                2 => encoded.prefix[1] = field.varint()?,
                3 => encoded.prefix[2] = field.varint()?,
                4 => encoded.id = Some(id(&field.bytes()?)?),
                _ => {}
            }
        }
        Ok(encoded)
    }
}

fn id(bytes: &Bytes) -> Result<(u64, u64), WireError> {
    let (mut id, mut once) = ((0, 0), Once::default());
    for field in fields(bytes) {
        let field = field?;
        once.note(field.number)?;
        match field.number {
            1 => id.0 = field.varint()?,
            2 => id.1 = field.varint()?,
            _ => {}
        }
    }
    Ok(id)
}

/// Maximum bytes of one component's text. A longer text is no name.
const COMPONENT_BYTES_MAX: usize = 512;

fn strings(bytes: &Bytes) -> Result<[Bytes; 3], WireError> {
    let (mut strings, mut once) = ([Bytes::new(), Bytes::new(), Bytes::new()], Once::default());
    for field in fields(bytes) {
        let field = field?;
        once.note(field.number)?;
        match field.number {
            1 => strings[0] = field.text()?,
            2 => strings[1] = field.text()?,
            3 => strings[2] = field.text()?,
            _ => {}
        }
    }
    if strings.iter().any(|text| text.len() > COMPONENT_BYTES_MAX) {
        return Err(WireError::Malformed("a component of a name is over 512 bytes"));
    }
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn a_name_is_the_same_in_its_own_memory_and_as_a_message() {
        let name = Name {
            encoded: Some(Encoded {
                prefix: ["org", "ns", "agent"].map(component_hash),
                id: Some((1, 2)),
            }),
            strings: Some(["org", "ns", "agent"].map(|text| Bytes::from_static(text.as_bytes()))),
        };
        assert_eq!(name.compact(), name);
        let bytes: Bytes = name.to_proto().encode_to_vec().into();
        assert_eq!(Name::decode(&bytes), Ok(name));
    }

    #[test]
    fn a_component_is_bounded() {
        let named = |length: usize| {
            let text = "x".repeat(length);
            let name = Name {
                encoded: None,
                strings: Some([Bytes::from(text), Bytes::new(), Bytes::new()]),
            };
            Name::decode(&name.to_proto().encode_to_vec().into())
        };
        named(COMPONENT_BYTES_MAX).expect("a name");
        named(COMPONENT_BYTES_MAX + 1).expect_err("too long");
    }

    #[test]
    fn a_full_name_is_its_bytes() {
        let name = FullName {
            prefix: [1, u64::MAX, 3],
            id: 7 << 64 | 9,
        };
        assert_eq!(FullName::from_bytes(&name.to_bytes()), Some(name));
        assert_eq!(FullName::from_bytes(&[0; 39]), None);
    }
}
