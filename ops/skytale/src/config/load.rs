//! Reads the layers and puts them together.

use super::{Config, Layer, Problems, expected, keys};
use crate::output::{Failure, Outcome};
use figment::Figment;
use figment::providers::{Format as _, Serialized, Toml};
use skytale_proto::Code;
use std::path::{Path, PathBuf};

/// The option that sets one key.
pub(crate) const SET_FLAG: &str = "--set";

/// Sources of settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The file that was asked for. It must be there.
    pub file: Option<PathBuf>,
    /// Files to look for otherwise; the first that is there is read.
    pub places: Vec<PathBuf>,
    /// Environment variables.
    pub environment: Vec<Layer>,
    /// Flags.
    pub flags: Vec<Layer>,
}

impl Sources {
    /// Returns the sources with which this process was started.
    pub(crate) fn of_process(file: Option<PathBuf>, flags: Vec<Layer>) -> Self {
        Self {
            file,
            places: places(),
            environment: Layer::environment(std::env::vars()),
            flags,
        }
    }
}

/// `./skytale.toml`, then the user's own.
fn places() -> Vec<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    std::iter::once(PathBuf::from("skytale.toml"))
        .chain(home.map(|home| home.join("skytale/config.toml")))
        .collect()
}

/// The configuration in force.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Remarks that a person should know, and that are no reason to stop.
    pub remarks: Vec<String>,
    /// Problems of single keys, which have their defaults here.
    pub(super) problems: Problems,
    /// Keys that are set.
    set: Vec<String>,
    figment: Figment,
}

impl Loaded {
    /// Returns the source of a key's value.
    pub(crate) fn source(&self, key: &str) -> String {
        self.figment
            .find_metadata(key)
            .map_or_else(|| "default".into(), describe)
    }
}

impl Loaded {
    /// Refuses problems of single keys.
    pub(crate) fn sound(self) -> Outcome<Self> {
        self.problems.clone().outcome("")?;
        Ok(self)
    }

    /// Whether a key that begins so is set, by any layer.
    pub(super) fn sets(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        self.set.iter().any(|key| is_meant(key))
    }

    /// Refuses keys that the command line sets and a command decides itself, or does not look at: a setting without
    /// effect must not look as if it had one.
    pub(crate) fn refuse_unused(&self, command: &str, is_unused: impl Fn(&str) -> bool) -> Outcome {
        let set = |key: &String| is_unused(key) && self.source(key) == format!("flag {SET_FLAG}");
        match keys::known().into_iter().find(set) {
            Some(key) => Err(Failure::new(
                Code::Usage,
                format!("`skytale {command}` does not use the configuration key `{key}`"),
            )
            .help(format!(
                "Leave out `--set {key}=...`. `skytale {command} --help` shows what can be set."
            ))),
            None => Ok(()),
        }
    }
}

/// Keys of servers, for commands that start their own with settings of their own.
pub(crate) fn is_of_servers(key: &str) -> bool {
    ["api.", "relay.", "bridge."]
        .iter()
        .any(|section| key.starts_with(section))
}

/// Reads and merges. Problems of single keys are kept, and the keys have their defaults: [`Loaded::sound`] refuses it,
/// and so do the configurations of servers.
pub(crate) fn read(sources: Sources) -> Outcome<Loaded> {
    let file = match sources.file {
        Some(file) if !file.is_file() => {
            return Err(
                Failure::new(Code::Config, format!("no configuration file {}", file.display())).help(
                    "Give --config (or SKYTALE_CONFIG) a file that is there, or make one: `skytale config init`.",
                ),
            );
        }
        Some(file) => Some(file),
        None => sources.places.into_iter().find(|place| place.is_file()),
    };
    let mut layers = Figment::new();
    if let Some(file) = &file {
        layers = layers.merge(Toml::file_exact(file));
    }
    // A variable may be there for another reason: the environment is not ours alone, as a file and a command line are.
    let known = keys::known();
    let is_known = |layer: &Layer| known.iter().any(|known| known == layer.key());
    let (environment, others): (Vec<_>, Vec<_>) = sources.environment.into_iter().partition(is_known);
    let remarks = others.iter().map(unknown_variable).collect();
    for layer in environment.into_iter().chain(sources.flags) {
        layers = layers.merge(layer);
    }
    let set = layers.find_value("").map_err(|error| wrong(&error))?;
    let mut set = set.into_dict().unwrap_or_default();
    let mut problems = Problems::default();
    for key in keys::set(&set) {
        if !known.contains(&key) {
            problems.add(&key, unknown(&layers, &key));
            keys::remove(&mut set, &key);
        }
    }
    let figment = Figment::from(Serialized::defaults(Config::default())).merge(layers);
    let config = match extract(&set) {
        Ok(config) => config,
        Err(_) => {
            // One key at a time: each that does not fit is named.
            for key in keys::set(&set) {
                if let Err(error) = extract(&keys::only(&set, &key)) {
                    problems.add(&key, misfit(&figment, &key, &error));
                    keys::remove(&mut set, &key);
                }
            }
            extract(&set).map_err(|error| wrong(&error))?
        }
    };
    Ok(Loaded {
        config,
        file,
        remarks,
        problems,
        set: keys::set(&set),
        figment,
    })
}

/// Reads, merges and checks.
pub(crate) fn load(sources: Sources) -> Outcome<Loaded> {
    read(sources)?.sound()
}

fn extract(set: &figment::value::Dict) -> Result<Config, Box<figment::Error>> {
    let defaults = Figment::from(Serialized::defaults(Config::default()));
    let extracted = defaults.merge(Serialized::globals(set)).extract_lossy();
    extracted.map_err(Box::new)
}

fn unknown_variable(layer: &Layer) -> String {
    let meant = match keys::nearest(layer.key()) {
        Some(nearest) => format!("did you mean {}?", Layer::variable(&nearest)),
        None => "`skytale config print` lists the keys".into(),
    };
    format!(
        "{} is ignored: there is no configuration key `{}`; {meant}",
        layer.source(),
        layer.key()
    )
}

fn unknown(figment: &Figment, key: &str) -> Failure {
    let known = keys::known();
    let source = figment
        .find_metadata(key)
        .map_or_else(String::new, |metadata| format!(" ({})", describe(metadata)));
    let is_section = known.iter().any(|known| known.starts_with(&format!("{key}.")));
    let help = match keys::nearest(key) {
        _ if is_section => format!("`{key}` is a section: set the keys in it."),
        Some(nearest) => format!("Did you mean `{nearest}` ({})?", Layer::variable(&nearest)),
        None => "`skytale config print` lists the keys.".into(),
    };
    Failure::new(Code::Config, format!("unknown configuration key `{key}`{source}")).help(help)
}

/// A value that does not fit its key. It may be a secret under the wrong key: it is not shown.
fn misfit(figment: &Figment, key: &str, error: &figment::Error) -> Failure {
    let source = figment.find_metadata(key).map_or_else(String::new, describe);
    let failure = Failure::new(Code::Config, format!("configuration key `{key}` is wrong ({source})"))
        .since(expected::words(key, &error.kind));
    match expected::how(key, &source) {
        Some(how) => failure.help(format!("{how}.")),
        None => failure,
    }
}

/// Returns the failure for a file that cannot be read at all: one that is no TOML.
fn wrong(error: &figment::Error) -> Failure {
    let source = error
        .metadata
        .as_ref()
        .map_or_else(String::new, |metadata| format!(" ({})", describe(metadata)));
    Failure::new(Code::Config, format!("cannot read the configuration{source}"))
        .since(error.kind.to_string().trim_end().to_owned())
}

fn describe(metadata: &figment::Metadata) -> String {
    match metadata.source.as_ref().and_then(figment::Source::file_path) {
        Some(path) => format!("file {}", path.display()),
        None if metadata.name.contains("Config") => "default".into(),
        None => metadata.name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Style;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("skytale.toml");
        std::fs::write(&path, text).expect("written");
        (folder, path)
    }

    fn variable(name: &str, value: &str) -> Vec<Layer> {
        Layer::environment([(name.to_owned(), value.to_owned())].into_iter())
    }

    #[test]
    fn flags_win_over_variables_over_the_file_over_defaults() {
        let (_folder, path) = file("api_url = 'http://file'\n[relay]\nretention_s = 5\nlisten = '127.0.0.1:1'\n");
        let mut sources = Sources {
            file: Some(path),
            ..Sources::default()
        };
        let loaded = load(sources.clone()).expect("loads");
        assert_eq!(loaded.config.api_url, "http://file");
        assert_eq!(loaded.config.relay.retention_s, 5);
        assert_eq!(loaded.config.api.audience, "skytale");
        assert_eq!(loaded.source("api.audience"), "default");
        assert!(loaded.source("api_url").starts_with("file "));

        sources.environment = variable("SKYTALE_RELAY__RETENTION_S", "6");
        let loaded = load(sources.clone()).expect("loads");
        assert_eq!(loaded.config.relay.retention_s, 6);
        assert_eq!(loaded.config.relay.listen[0].port(), 1);
        assert_eq!(
            loaded.source("relay.retention_s"),
            "environment variable SKYTALE_RELAY__RETENTION_S"
        );

        sources.flags = vec![Layer::flag("--retention-s", "relay.retention_s", 7)];
        let loaded = load(sources).expect("loads");
        assert_eq!(loaded.config.relay.retention_s, 7);
        assert_eq!(loaded.source("relay.retention_s"), "flag --retention-s");
    }

    #[test]
    fn an_unknown_key_is_refused_and_an_unknown_variable_remarked_and_the_nearest_is_named() {
        let (_folder, path) = file("[relay]\nlisen = '127.0.0.1:1'\n");
        let from_file = load(Sources {
            file: Some(path.clone()),
            ..Sources::default()
        })
        .expect_err("refused");
        let text = from_file.text(&Style::PLAIN);
        assert!(
            text.contains("`relay.lisen`") && text.contains(&*path.to_string_lossy()),
            "{text}"
        );
        assert!(text.contains("Did you mean `relay.listen`"), "{text}");

        let from_variable = load(Sources {
            environment: variable("SKYTALE_APY_KEY", "sk_live_marker"),
            ..Sources::default()
        })
        .expect("the environment is not ours alone");
        let [text] = &from_variable.remarks[..] else {
            panic!("{:?}", from_variable.remarks)
        };
        assert!(
            text.contains("SKYTALE_APY_KEY") && text.contains("SKYTALE_API_KEY"),
            "{text}"
        );
        assert!(!text.contains("marker"), "{text}");
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_key_and_source() {
        let environment = variable("SKYTALE_RELAY__RETENTION_S", "soon");
        let text = load(Sources {
            environment,
            ..Sources::default()
        })
        .expect_err("refused")
        .text(&Style::PLAIN);
        assert!(
            text.contains("`relay.retention_s`") && text.contains("SKYTALE_RELAY__RETENTION_S"),
            "{text}"
        );
        assert!(text.contains("expected"), "{text}");

        let environment = variable("SKYTALE_RELAY__ADVERTISE", "127.0.0.1:1, here");
        let text = load(Sources {
            environment,
            ..Sources::default()
        })
        .expect_err("refused")
        .text(&Style::PLAIN);
        assert!(text.contains("`here` is not an address"), "{text}");
    }

    #[test]
    fn text_with_digits_alone_stays_text_where_text_is_meant() {
        let mut environment = variable("SKYTALE_VAULT_PASSPHRASE", "12345");
        environment.extend(variable("SKYTALE_RELAY__ADVERTISE", "127.0.0.1:1,[::1]:2"));
        let config = load(Sources {
            environment,
            ..Sources::default()
        })
        .expect("loads")
        .config;
        let passphrase = config
            .vault_passphrase
            .expect("set")
            .reveal("vault_passphrase")
            .expect("text");
        assert_eq!(passphrase.as_str(), "12345");
        assert_eq!(config.relay.advertise.len(), 2);
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_its_line() {
        let (_folder, path) = file("[relay\n");
        let text = load(Sources {
            file: Some(path.clone()),
            ..Sources::default()
        })
        .expect_err("refused")
        .text(&Style::PLAIN);
        assert!(
            text.contains(&*path.to_string_lossy()) && text.contains("line 1"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_was_asked_for_must_be_there() {
        let failure = load(Sources {
            file: Some("/nowhere/skytale.toml".into()),
            ..Sources::default()
        });
        assert_eq!(failure.expect_err("refused").code(), Code::Config);
    }
}
