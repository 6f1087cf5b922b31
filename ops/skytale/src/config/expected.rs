//! Values that a key takes, in words, with an example.

use super::{Layer, TEMPLATE};
use figment::error::Kind;

/// A value of a key, as a file has it: its default, or an example where it has none.
pub(crate) fn example(key: &str) -> Option<String> {
    examples().find(|(known, _)| known == key).map(|(_, value)| value)
}

/// Every key with a value, in the order of the file that `skytale config init` writes.
fn examples() -> impl Iterator<Item = (String, String)> {
    let mut section = String::new();
    TEMPLATE.lines().filter_map(move |line| {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned() + ".";
            return None;
        }
        let (name, value) = line.strip_prefix("#: ")?.split_once(" = ")?;
        Some((format!("{section}{name}"), value.to_owned()))
    })
}

/// Returns the way to set a key, at the place where it is set now.
pub(super) fn how(key: &str, source: &str) -> Option<String> {
    let value = example(key)?;
    // As a shell takes it: without the quotes of a file, and a list with commas.
    let plain = value.trim_matches('"').to_owned();
    let plain = match value.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
        Some(list) => list.replace(['"', ' '], ""),
        None => plain,
    };
    Some(if source.starts_with("environment") {
        format!("For example: {}={plain}", Layer::variable(key))
    } else if source.starts_with("flag") {
        format!("For example: --set {key}={plain}")
    } else {
        match key.rsplit_once('.') {
            Some((section, name)) => format!("For example, in [{section}]: {name} = {value}"),
            None => format!("For example, above all sections: {key} = {value}"),
        }
    })
}

/// Returns the expectation that a value does not meet, in words.
pub(super) fn words(key: &str, kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => of_type(key, expected),
        Kind::InvalidLength(_, expected) => of_type(key, expected),
        Kind::UnknownVariant(_, expected) => format!("expected one of {}", expected.join(", ")),
        Kind::Message(text) if text.contains("socket address") => of_type(key, "socket address"),
        Kind::USizeOutOfRange(_) | Kind::ISizeOutOfRange(_) => of_type(key, "u32"),
        other => other.to_string(),
    }
}

fn of_type(key: &str, expected: &str) -> String {
    let unit = unit(key);
    let number = |most: &str| format!("expected a whole number{unit}, 0 to {most}");
    match expected {
        "u8" => number(&u8::MAX.to_string()),
        "u16" => number(&u16::MAX.to_string()),
        "u32" | "i32" => number(&u32::MAX.to_string()),
        "u64" | "usize" | "i64" => format!("expected a whole number{unit}, 0 or more"),
        "bool" | "boolean" | "a boolean" | "a bool" => "expected true or false".into(),
        "a string" | "string" | "str" | "path string" | "a borrowed string" | "char" => "expected a text".into(),
        "a sequence" | "sequence" => "expected a list".into(),
        text if text.contains("socket address") => "expected an address and port, such as 127.0.0.1:7600".into(),
        text if text.starts_with("struct ") || text == "map" || text == "a map" => {
            format!("expected a section, as in [{key}]")
        }
        text => format!("expected {text}"),
    }
}

/// Returns the unit of a number, by its key.
fn unit(key: &str) -> &'static str {
    let name = key.rsplit('.').next().unwrap_or_default();
    if name.ends_with("_ms") {
        " of milliseconds"
    } else if name.contains("bytes") {
        " of bytes"
    } else if name.ends_with("_s") {
        " of seconds"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, keys, load};
    use crate::output::Style;

    fn set(key: &str, value: &str) -> Sources {
        Sources {
            flags: vec![Layer::flag("--set", key, value)],
            ..Sources::default()
        }
    }

    #[test]
    fn every_key_has_an_example_that_can_be_given_in_each_way() {
        for key in keys::known() {
            for source in ["flag --set", "environment variable"] {
                let how = how(&key, source).unwrap_or_else(|| panic!("no example for {key}"));
                let (_, value) = how.split_once('=').expect("a value");
                load(set(&key, value)).unwrap_or_else(|failure| panic!("{how}: {}", failure.text(&Style::PLAIN)));
            }
        }
    }

    /// Text that is no number, list, address, word or flag. Keys that take any text are looked at elsewhere.
    const ODD: &str = "@!";

    #[test]
    fn what_a_key_expects_is_said_in_words_with_an_example() {
        let mut refused = 0;
        for key in keys::known() {
            let Err(failure) = load(set(&key, ODD)) else { continue };
            refused += 1;
            let text = failure.text(&Style::PLAIN);
            assert!(text.contains(&format!("`{key}`")), "{text}");
            assert!(text.contains(&format!("For example: --set {key}=")), "{text}");
            for word in [
                "u8", "u16", "u32", "u64", "usize", "i64", "bool", "struct", "enum", "variant", "untagged", "sequence",
                "string",
            ] {
                let mut words = text.split(|c: char| !c.is_alphanumeric());
                assert!(!words.any(|said| said == word), "{word}: {text}");
            }
        }
        assert!(refused > 90, "{refused}");
    }

    #[test]
    fn numbers_are_of_something() {
        let text = |key: &str| of_type(key, "u64");
        assert!(text("relay.retention_s").contains("of seconds"));
        assert!(text("relay.trust.keys_every_ms").contains("of milliseconds"));
        assert!(text("relay.limits.bytes_per_second").contains("of bytes"));
        assert!(text("relay.limits.frames_per_second").starts_with("expected a whole number, 0 or more"));
        assert_eq!(of_type("relay.region", "u8"), "expected a whole number, 0 to 255");
    }
}
