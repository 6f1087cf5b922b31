//! Profiles: an API's address with a key for it, stored by `skytale login`, one file each, for their owner alone.

use super::{Layer, Loaded, Sources, load};
use crate::output::{Context as _, Failure, Outcome};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skytale_proto::Code;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::Zeroizing;

/// The profile of `skytale login` where no other was said.
pub(crate) const DEFAULT: &str = "default";
/// The variable that names the profile.
pub(crate) const VARIABLE: &str = "SKYTALE_PROFILE";
/// The largest file that can be a profile, in bytes.
const BYTES_MAX: u64 = 16 * 1024;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
const SUFFIX: &str = ".toml";
/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// A profile's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(String);

impl FromStr for Name {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= NAME_BYTES_MAX && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(
                "a profile's name has letters, digits, `-`, `_` and `.`, begins with one of the first two, and is at most 64 long",
            )
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Contents of a profile. Prints no key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// URL of the API.
    pub api_url: String,
    /// The API key.
    #[serde(serialize_with = "expose", deserialize_with = "guard")]
    pub api_key: Zeroizing<String>,
}

fn expose<S: Serializer>(key: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key)
}

fn guard<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("api_url", &self.api_url)
            .field("api_key", &"[redacted]")
            .finish()
    }
}

/// Returns the folder of profiles: beside the user's own configuration.
pub(crate) fn folder() -> Outcome<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    home.map(|home| home.join("skytale/profiles")).ok_or_else(|| {
        Failure::new(Code::Config, "no place for profiles is known").help("Set HOME, or XDG_CONFIG_HOME to a folder.")
    })
}

fn path(folder: &Path, name: &Name) -> PathBuf {
    folder.join(format!("{name}{SUFFIX}"))
}

/// The names of all profiles, in their order.
pub(crate) fn names(folder: &Path) -> Outcome<Vec<Name>> {
    let reading = || format!("cannot read {}", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.failing(Code::Environment, reading)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.failing(Code::Environment, reading)?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX));
        names.extend(name.and_then(|name| name.parse().ok()));
    }
    names.sort();
    Ok(names)
}

/// Reads a profile. A file that is a link, another user's, or open to others is refused.
pub(crate) fn read(folder: &Path, name: &Name) -> Outcome<Profile> {
    let path = path(folder, name);
    let reading = || format!("cannot read the profile {}", path.display());
    let opened = OpenOptions::new().read(true).custom_flags(careful()).open(&path);
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(
                Failure::new(Code::Config, format!("there is no profile `{name}`")).help(format!(
                    "`skytale profiles` lists what there is; `skytale login --profile {name}` makes it."
                )),
            );
        }
        opened => opened.failing(Code::Environment, reading)?,
    };
    let metadata = file.metadata().failing(Code::Environment, reading)?;
    let problem = if !metadata.is_file() {
        Some("it is no file".to_owned())
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        Some("it belongs to another user".to_owned())
    } else if metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & 0o777;
        Some(format!("others may read or write it (mode {mode:04o}): `chmod 600` it"))
    } else if metadata.len() > BYTES_MAX {
        Some(format!("it has {} bytes", metadata.len()))
    } else {
        None
    };
    if let Some(problem) = problem {
        return Err(Failure::new(Code::Environment, reading())
            .since(problem)
            .help("It holds a key: if others could read it, revoke that (`skytale key revoke`) and log in again."));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(BYTES_MAX)
        .read_to_string(&mut text)
        .failing(Code::Environment, reading)?;
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        // The error's own text shows the line, which may be the key's.
        Failure::new(Code::Config, reading())
            .since(error.message().to_owned())
            .help("Remove the file, and run `skytale login` again.")
    })
}

/// Writes a profile: whole or not at all, durable, for its owner alone. Nothing is written through a link.
pub(crate) fn write(folder: &Path, name: &Name, profile: &Profile) -> Outcome<PathBuf> {
    let path = path(folder, name);
    let writing = || format!("cannot write the profile {}", path.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .failing(Code::Environment, writing)?;
    let text = Zeroizing::new(toml::to_string(profile).failing(Code::Environment, writing)?);
    // Made with a name that nobody can foresee, and mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).failing(Code::Environment, writing)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .failing(Code::Environment, writing)?;
    // A link of this name is replaced, not followed.
    file.persist(&path)
        .map_err(|error| error.error)
        .and_then(|_| File::open(folder)?.sync_all())
        .failing(Code::Environment, writing)?;
    Ok(path)
}

/// Removes a profile. Whether there was one.
pub(crate) fn remove(folder: &Path, name: &Name) -> Outcome<bool> {
    let path = path(folder, name);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => {
            let what = format!("cannot remove the profile {}", path.display());
            Err(Failure::new(Code::Environment, what).because(&error))
        }
    }
}

/// Follows no link, and waits for no writer of a pipe.
fn careful() -> i32 {
    use rustix::fs::OFlags;
    i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default()
}

/// Profile that is asked for: by the option, or else by the variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Flag(Name),
    Variable(Name),
    /// Neither: the one called `default`, or the only one there is, where nothing else says where the API is.
    Nothing,
}

impl Asked {
    /// Returns the profile with which this process was started.
    pub(crate) fn of_process(flag: Option<&Name>) -> Outcome<Self> {
        if let Some(name) = flag {
            return Ok(Self::Flag(name.clone()));
        }
        match std::env::var(VARIABLE) {
            Ok(text) if !text.is_empty() => text.parse().map(Self::Variable).map_err(|problem: &str| {
                Failure::new(Code::Config, format!("{VARIABLE} names no profile")).since(problem)
            }),
            _ => Ok(Self::Nothing),
        }
    }
}

/// Reads the configuration with the profile that is asked for.
pub(crate) fn load_with(mut sources: Sources, asked: &Asked) -> Outcome<Loaded> {
    let (name, is_flag) = match asked {
        Asked::Flag(name) => (name, true),
        Asked::Variable(name) => (name, false),
        Asked::Nothing => return load_by_itself(sources),
    };
    let profile = read(&folder()?, name)?;
    // An address without its key, or a key without its address, is not to be had: both are the profile's.
    sources.environment.retain(|layer| !is_of_profile(layer));
    sources.environment.extend(layers(name, &profile));
    let loaded = load(sources)?;
    refuse_other_address(&loaded, name, &profile, is_flag)?;
    Ok(loaded)
}

/// A key is for one API alone: another one is not to see it.
fn refuse_other_address(loaded: &Loaded, name: &Name, profile: &Profile, is_flag: bool) -> Outcome {
    if loaded.config.api_url == profile.api_url {
        return Ok(());
    }
    let asked = if is_flag { "--profile" } else { VARIABLE };
    Err(Failure::new(
        Code::Config,
        format!(
            "the profile `{name}` ({asked}) is for {}, and `api_url` ({}) is {}",
            profile.api_url,
            loaded.source("api_url"),
            loaded.config.api_url
        ),
    )
    .help("Leave one of the two out: a profile's key goes to its own API alone."))
}

/// The profile that is in force though none is asked for.
fn load_by_itself(mut sources: Sources) -> Outcome<Loaded> {
    let mut loaded = load(sources.clone())?;
    let is_set = |key: &str| loaded.source(key) != "default";
    if loaded.config.api_key.is_some() || is_set("api_url") {
        return Ok(loaded);
    }
    let Ok(folder) = folder() else { return Ok(loaded) };
    let names = names(&folder).unwrap_or_default();
    let Some(name) = by_itself(&names) else {
        return Ok(loaded);
    };
    match read(&folder, name) {
        Ok(profile) => {
            sources.environment.extend(layers(name, &profile));
            load(sources)
        }
        // Most commands need no key.
        Err(failure) => {
            loaded
                .remarks
                .push(format!("the profile `{name}` is not used: {}", failure.reason()));
            Ok(loaded)
        }
    }
}

/// The profile that is in force where none is asked for: the one called `default`, or the only one.
pub(crate) fn by_itself(names: &[Name]) -> Option<&Name> {
    let default = names.iter().find(|name| name.0 == DEFAULT);
    default.or(match names {
        [only] => Some(only),
        _ => None,
    })
}

fn is_of_profile(layer: &Layer) -> bool {
    ["api_url", "api_key"].contains(&layer.key())
}

fn layers(name: &Name, profile: &Profile) -> [Layer; 2] {
    [
        Layer::profile(&name.0, "api_url", &profile.api_url),
        Layer::profile(&name.0, "api_key", profile.api_key.as_str()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn profile(key: &str) -> Profile {
        Profile {
            api_url: "https://api.example.org".into(),
            api_key: Zeroizing::new(key.into()),
        }
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn a_profile_is_written_for_its_owner_alone_and_read_again() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("profiles");
        let path = write(&folder, &name("prod"), &profile("sk_live_marker")).expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder)), (0o600, 0o700));
        let read_again = read(&folder, &name("prod")).expect("read");
        assert_eq!(read_again.api_key.as_str(), "sk_live_marker");
        assert!(!format!("{read_again:?}").contains("marker"));
        assert_eq!(names(&folder).expect("listed"), [name("prod")]);
        assert!(remove(&folder, &name("prod")).expect("removed"));
        assert!(!remove(&folder, &name("prod")).expect("nothing to remove"));
    }

    #[test]
    fn a_profile_that_others_may_read_or_that_is_a_link_is_refused() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path();
        let path = write(folder, &name("one"), &profile("sk_live_marker")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        let failure = read(folder, &name("one")).expect_err("refused").reason();
        assert!(failure.contains("0640") && !failure.contains("marker"), "{failure}");

        // A link to a file that would do is not followed, and writing replaces it instead of its target.
        let target = write(folder, &name("target"), &profile("sk_live_target")).expect("written");
        symlink(&target, folder.join("link.toml")).expect("linked");
        assert!(read(folder, &name("link")).is_err());
        write(folder, &name("link"), &profile("sk_live_new")).expect("written");
        let key = |which: &str| read(folder, &name(which)).expect("read").api_key.to_string();
        assert_eq!(
            (key("link"), key("target")),
            ("sk_live_new".into(), "sk_live_target".into())
        );
    }

    #[test]
    fn a_broken_profile_shows_nothing_of_its_key() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("bad.toml");
        std::fs::write(&path, "api_key = sk_live_marker\n").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        let failure = read(place.path(), &name("bad")).expect_err("refused");
        assert!(!failure.reason().contains("marker"), "{}", failure.reason());
    }

    #[test]
    fn a_name_is_no_path() {
        for wrong in ["", ".", "..", "../x", "a/b", "-a", "a b", &"x".repeat(65)] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
        assert_eq!(by_itself(&[name("a"), name("default")]), Some(&name("default")));
        assert_eq!(by_itself(&[name("a")]), Some(&name("a")));
        assert_eq!(by_itself(&[name("a"), name("b")]), None);
    }
}
