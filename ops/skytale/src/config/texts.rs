//! Lists: as a file has them, or as one text, which is what an environment variable and a flag give: `a,b` and `["a", "b"]`
//! are the same.

use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de};
use std::fmt;

/// The entries of a list that is written as one text.
fn split(text: &str) -> Vec<String> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    // `[::1]:7601` begins with a bracket, too, and ends with none.
    let entries = inner.unwrap_or(text).split(',');
    entries
        .map(|entry| entry.trim().trim_matches(['"', '\'']).trim().to_owned())
        .filter(|entry| !entry.is_empty())
        .collect()
}

/// Entries of a list, however it was written.
pub(super) struct Texts(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> de::Visitor<'de> for Written {
            type Value = Texts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(split(text)))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(Written)
    }
}

pub(super) fn serialize<S: Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    list.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Texts::deserialize(deserializer).map(|Texts(texts)| texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_with_commas_or_as_in_a_file() {
        for text in ["a,b", " a , b ,", "[a, b]", "[\"a\", \"b\"]", "['a','b']"] {
            assert_eq!(split(text), ["a", "b"], "{text}");
        }
        assert_eq!(split("1-2=80"), ["1-2=80"]);
        assert_eq!(split("127.0.0.1:1,[::1]:2"), ["127.0.0.1:1", "[::1]:2"]);
        assert_eq!(split("[::1]:2"), ["[::1]:2"]);
        assert_eq!(split("[[::1]:2]"), ["[::1]:2"]);
        assert!(split("").is_empty() && split("[]").is_empty());
    }
}
