//! The keys that there are.

use super::Config;
use figment::value::{Dict, Value};

/// Every key, with dots, sorted.
pub(crate) fn known() -> Vec<String> {
    let mut keys = Vec::new();
    let value = Value::serialize(Config::default()).ok().and_then(Value::into_dict);
    flatten(&value.unwrap_or_default(), "", &mut keys);
    keys
}

/// The keys that a dictionary sets.
pub(super) fn set(dict: &Dict) -> Vec<String> {
    let mut keys = Vec::new();
    flatten(dict, "", &mut keys);
    keys
}

/// A dictionary with one key of another.
pub(super) fn only(dict: &Dict, key: &str) -> Dict {
    match key.split_once('.') {
        Some((section, rest)) => match dict.get(section) {
            Some(Value::Dict(tag, inner)) => {
                let inner = Value::Dict(*tag, only(inner, rest));
                Dict::from([(section.to_owned(), inner)])
            }
            _ => Dict::new(),
        },
        None => dict
            .get(key)
            .map(|value| Dict::from([(key.to_owned(), value.clone())]))
            .unwrap_or_default(),
    }
}

/// Takes a key out of a dictionary.
pub(super) fn remove(dict: &mut Dict, key: &str) {
    match key.split_once('.') {
        Some((section, rest)) => {
            if let Some(Value::Dict(_, inner)) = dict.get_mut(section) {
                remove(inner, rest);
            }
        }
        None => {
            dict.remove(key);
        }
    }
}

fn flatten(dict: &Dict, prefix: &str, into: &mut Vec<String>) {
    for (name, value) in dict {
        let key = format!("{prefix}{name}");
        match value {
            Value::Dict(_, inner) => flatten(inner, &format!("{key}."), into),
            _ => into.push(key),
        }
    }
}

/// The known key that looks most like this one, if one does.
pub(super) fn nearest(key: &str) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    known()
        .into_iter()
        .map(|known| {
            let whole = strsim::jaro_winkler(key, &known);
            // The right name in the wrong section, or without one.
            let name = strsim::jaro_winkler(&last(key), &last(&known)) * 0.95;
            (whole.max(name), known)
        })
        .filter(|(likeness, _)| *likeness > 0.82)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_key_that_was_meant() {
        assert_eq!(nearest("relay.lisen").as_deref(), Some("relay.listen"));
        assert_eq!(nearest("api_ulr").as_deref(), Some("api_url"));
        assert_eq!(nearest("data_dir").as_deref(), Some("relay.data_dir"));
        assert_eq!(nearest("zzz"), None);
    }

    #[test]
    fn options_without_a_value_are_keys_too() {
        assert!(known().contains(&"relay.data_dir".to_owned()));
    }
}
