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
    names
        .into_iter()
        .filter(|name| !name.is_empty())
        .map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness > LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// As for a slip of the finger in a configuration key.
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
        assert_eq!(nearest("zzz", ["plans"]), None);
    }
}
