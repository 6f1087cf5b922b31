//! Output of `skytale config print` and `skytale config init`.

use super::{Loaded, keys};
use serde::Serialize;

/// One key as it is in force.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The key, with dots.
    pub key: String,
    /// Its value; null where it has none; `[redacted]` for a secret.
    pub value: serde_json::Value,
    /// Source of the value.
    pub source: String,
}

/// Every key with its value and source, sorted by key.
pub(crate) fn rows(loaded: &Loaded) -> Vec<Row> {
    let values = serde_json::to_value(&loaded.config).unwrap_or_default();
    keys::known()
        .into_iter()
        .map(|key| {
            let value = key.split('.').fold(&values, |value, part| &value[part]).clone();
            let source = if value.is_null() {
                "default".into()
            } else {
                loaded.source(&key)
            };
            Row { key, value, source }
        })
        .collect()
}

/// A configuration file with every key, its default and its purpose.
pub(crate) const TEMPLATE: &str = include_str!("template.toml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, Sources, load};

    #[test]
    fn secrets_are_not_shown() {
        let variables = [("SKYTALE_API_KEY".to_owned(), "sk_live_marker".to_owned())];
        let environment = Layer::environment(variables.into_iter());
        let loaded = load(Sources {
            environment,
            ..Sources::default()
        })
        .expect("loads");
        let shown = serde_json::to_string(&rows(&loaded)).expect("JSON");
        assert!(
            shown.contains("[redacted]") && shown.contains("SKYTALE_API_KEY"),
            "{shown}"
        );
        assert!(!shown.contains("marker"));
        assert!(!format!("{:?}", loaded.config).contains("marker"));
    }

    #[test]
    fn the_template_names_every_key_with_its_default() {
        // Keys are commented out: with the marks taken away it must load, and set nothing new.
        let text: String = TEMPLATE
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n")
            .collect();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("skytale.toml");
        std::fs::write(&path, text).expect("written");
        let all = load(Sources {
            file: Some(path),
            ..Sources::default()
        })
        .expect("loads");
        let defaults = load(Sources::default()).expect("loads");
        for (row, default) in rows(&all).into_iter().zip(rows(&defaults)) {
            assert_eq!(row.key, default.key);
            assert!(
                row.source.starts_with("file "),
                "the template does not name {}",
                row.key
            );
            if !default.value.is_null() {
                assert_eq!(row.value, default.value, "{}", row.key);
            }
        }
    }
}
