//! Names that a person would take for one another.

use unicode_normalization::UnicodeNormalization as _;
use unicode_security::skeleton;

/// Text in the form in which names are kept and compared (NFC): the same letters are the same bytes.
pub(crate) fn normal(text: &str) -> String {
    text.nfc().collect()
}

/// Whether two names that differ look the same, or nearly (UTS #39), case aside.
pub(crate) fn looks_like(one: &str, other: &str) -> bool {
    let seen = |text: &str| -> String {
        let lower: String = normal(text).to_lowercase();
        skeleton(&lower).collect()
    };
    normal(one) != normal(other) && seen(one) == seen(other)
}

/// The name among several that is most like one that is not among them, if one is like it.
pub(crate) fn nearest<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = text.to_lowercase();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        match strsim::damerau_levenshtein(&lower, &name) {
            // One slip, which counts for much in a short name.
            0 | 1 if name.chars().count() >= SLIP_CHARS_MIN => 1.0,
            _ => strsim::jaro_winkler(&lower, &name),
        }
    };
    names
        .into_iter()
        // Of two that differ in capitals alone, the one that was written so.
        .map(|name| (likeness(name) + strsim::jaro_winkler(text, name) / 1_000.0, name))
        .filter(|(likeness, name)| *likeness > LIKENESS_MIN && !name.is_empty())
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The shortest name that is known again with one letter wrong, in characters.
const SLIP_CHARS_MIN: usize = 3;

/// Likeness of a slip of the finger in a configuration key.
const LIKENESS_MIN: f64 = 0.82;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_in_two_forms_is_one_name() {
        assert_ne!("Zoe\u{308}", "Zo\u{eb}");
        assert_eq!(normal("Zoe\u{308}"), "Zo\u{eb}");
        assert!(!looks_like("Zoe\u{308}", "Zo\u{eb}"), "they are the same");
    }

    #[test]
    fn names_that_look_the_same_are_known() {
        // Cyrillic for Latin, a digit for a letter, capitals.
        for (one, other) in [("alice", "\u{430}lice"), ("plans", "p1ans"), ("Plans", "plans")] {
            assert!(looks_like(one, other), "{one} {other}");
        }
        for (one, other) in [("alice", "bob"), ("plans", "plan"), ("plans", "plans")] {
            assert!(!looks_like(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_finds_the_name_that_was_meant() {
        assert_eq!(nearest("plnas", ["plans", "other"]), Some("plans"));
        assert_eq!(nearest("Plans", ["plans", ""]), Some("plans"));
        assert_eq!(nearest("plnas", ["Plans", "plans", "PLANS"]), Some("plans"));
        assert_eq!(nearest("bbo", ["alice", "bob"]), Some("bob"));
        assert_eq!(nearest("zzz", ["plans"]), None);
    }
}
