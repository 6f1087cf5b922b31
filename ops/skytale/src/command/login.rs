//! `skytale login`, `logout` and `profiles`: where the API is, and a key for it, stored once.

use super::Session;
use crate::client;
use crate::config::profile::{self, Asked, DEFAULT, Name, Profile};
use crate::output::{Context as _, Failure, Human, Outcome, Output, Style, table};
use serde::Serialize;
use skytale_proto::Code;
use skytale_proto::rest::Relays;
use skytale_sdk::internals::net::Method;
use skytale_sdk::{ApiClient, ApiKey};
use std::fmt;
use std::fs::File;
use std::io::{IsTerminal as _, Read, Write as _, stdin};
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// The longest text that is read for a key, in bytes.
const KEY_BYTES_MAX: u64 = 4_096;

#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The API's URL [key: api_url].
    #[arg(long = "api", alias = "api-url", value_name = "URL")]
    api: Option<String>,
    /// Read the API key from this file [default: from standard input].
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Stores an API's address and a key that it takes.
pub(crate) async fn login(args: Login, name: Option<Name>, session: Session) -> Outcome {
    let name = name.map_or_else(|| DEFAULT.parse().map_err(wrong_name), Ok)?;
    let api_url = args
        .api
        .clone()
        .unwrap_or_else(|| session.loaded.config.api_url.clone());
    let key = key(&args, &session).await?;
    let refused =
        |error: skytale_sdk::ApiError| client::failed_at(&api_url, "flag --api")(error).also("Nothing was stored.");
    let shown = ApiKey::new(key.as_str()).map_err(|error| {
        Failure::new(Code::Usage, "this is no API key")
            .because(&error)
            .help("Give a key as it was shown when it was made: sk_live_...")
    })?;
    let client = ApiClient::new(&api_url, shown).map_err(refused)?;
    // Every key may ask this.
    let asking = client.call::<(), Relays>(Method::Get, "/v1/relays", None);
    session.shutdown.unless(async { asking.await.map_err(refused) }).await?;
    let profile = Profile {
        api_url: api_url.clone(),
        api_key: key,
    };
    let folder = profile::folder()?;
    let file = profile::write(&folder, &name, &profile)?;
    let by_itself = profile::by_itself(&profile::names(&folder)?) == Some(&name);
    session.output.give(&LoggedIn {
        profile: name.to_string(),
        api_url,
        file,
        by_itself,
    })
}

fn wrong_name(problem: &str) -> Failure {
    Failure::new(Code::Usage, problem)
}

/// The key, from a file or from standard input, where a terminal does not show it.
async fn key(args: &Login, session: &Session) -> Outcome<Zeroizing<String>> {
    let text = match &args.key_file {
        Some(file) => {
            let reading = || format!("cannot read {}", file.display());
            read(File::open(file).failing(Code::Environment, reading)?).failing(Code::Environment, reading)?
        }
        None => {
            let hidden = stdin().is_terminal().then(|| {
                session.output.note("Paste the API key, then Enter. It is not shown.");
                Hidden::begin()
            });
            let is_terminal = hidden.is_some();
            let (sender, text) = oneshot::channel();
            // A thread that nobody waits for: Ctrl-C ends the command, and shows typed characters again.
            std::thread::spawn(move || {
                let text = if is_terminal { line() } else { read(stdin().lock()) };
                let _ = sender.send(text);
            });
            let reading = || "cannot read standard input".to_owned();
            let text = session
                .shutdown
                .unless(async { text.await.failing(Code::Environment, reading) });
            text.await?.failing(Code::Environment, reading)?
        }
    };
    let text = Zeroizing::new(text.trim().to_owned());
    if text.is_empty() {
        return Err(Failure::new(Code::Usage, "no API key was given")
            .help("Give it on standard input or by `--key-file`; `skytale key create` makes one."));
    }
    Ok(text)
}

fn read(from: impl Read) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    from.take(KEY_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn line() -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    stdin().read_line(&mut text)?;
    Ok(text)
}

/// A terminal that does not show typed characters, until this is dropped.
struct Hidden(Option<rustix::termios::Termios>);

impl Hidden {
    fn begin() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(stdin()).ok();
        if let Some(before) = &before {
            let mut hidden = before.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            // A terminal that cannot do it shows the key to the person who has it.
            let _ = tcsetattr(stdin(), OptionalActions::Flush, &hidden);
        }
        Self(before)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(stdin(), rustix::termios::OptionalActions::Drain, before);
            // The newline that was typed was not shown either.
            let _ = writeln!(std::io::stderr());
        }
    }
}

/// Forgets an API's address and the key for it.
pub(crate) fn logout(name: Option<Name>, output: &Output) -> Outcome {
    let folder = profile::folder()?;
    let names = profile::names(&folder)?;
    let name = match (name, profile::by_itself(&names)) {
        (Some(name), _) => name,
        (None, Some(name)) => name.clone(),
        (None, None) => {
            let failure = Failure::new(Code::Usage, "which profile?");
            return Err(failure.help("Give `--profile NAME`; `skytale profiles` lists them."));
        }
    };
    if !profile::remove(&folder, &name)? {
        return Err(Failure::new(Code::NotFound, format!("there is no profile `{name}`"))
            .help("`skytale profiles` lists what there is."));
    }
    output.give(&LoggedOut {
        profile: name.to_string(),
    })
}

/// Lists stored profiles.
pub(crate) fn profiles(asked: Asked, output: &Output) -> Outcome {
    let folder = profile::folder()?;
    let names = profile::names(&folder)?;
    let in_force = match &asked {
        Asked::Flag(name) | Asked::Variable(name) => Some(name),
        Asked::Nothing => profile::by_itself(&names),
    };
    let row = |name: &Name| {
        let read = profile::read(&folder, name);
        Row {
            profile: name.to_string(),
            problem: read.as_ref().err().map(Failure::reason),
            api_url: read.ok().map(|profile| profile.api_url),
            in_force: in_force == Some(name),
        }
    };
    output.give(&Listed {
        profiles: names.iter().map(row).collect(),
    })
}

/// Stores how a node on this machine is reached, and gives the line that uses it.
pub(crate) fn offer(name: &str, api_url: &str, api_key: &str) -> Outcome<String> {
    let name: Name = name.parse().map_err(wrong_name)?;
    let profile = Profile {
        api_url: api_url.to_owned(),
        api_key: Zeroizing::new(api_key.to_owned()),
    };
    let folder = profile::folder()?;
    refuse_missing_home(&folder)?;
    profile::write(&folder, &name, &profile)?;
    Ok(match profile::by_itself(&profile::names(&folder)?) == Some(&name) {
        true => "skytale init".to_owned(),
        false => format!("skytale --profile {name} init"),
    })
}

/// A home that is not there is not made for the sake of a convenience.
fn refuse_missing_home(folder: &Path) -> Outcome {
    let home = folder.ancestors().nth(3).unwrap_or(folder);
    match home.is_dir() {
        true => Ok(()),
        false => Err(Failure::new(
            Code::Environment,
            format!("{} is no folder", home.display()),
        )),
    }
}

#[derive(Serialize)]
struct LoggedIn {
    profile: String,
    api_url: String,
    file: PathBuf,
    /// Commands use it by themselves.
    by_itself: bool,
}

impl Human for LoggedIn {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let (profile, url) = (&self.profile, &self.api_url);
        writeln!(to, "{} {url}, as profile `{profile}`", style.good("logged in:"))?;
        match self.by_itself {
            true => writeln!(to, "next   skytale init"),
            false => writeln!(to, "next   skytale --profile {profile} init"),
        }
    }
}

#[derive(Serialize)]
struct LoggedOut {
    profile: String,
}

impl Human for LoggedOut {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(
            to,
            "{} profile `{}` is removed; its key works until `skytale key revoke` ends it",
            style.good("logged out:"),
            self.profile
        )
    }
}

#[derive(Serialize)]
struct Listed {
    profiles: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    profile: String,
    /// Null where the file cannot be used.
    api_url: Option<String>,
    /// Commands use it, as things are.
    in_force: bool,
    /// Reason why it cannot be used.
    problem: Option<String>,
}

impl Human for Listed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.profiles.is_empty() {
            return writeln!(to, "no profiles: `skytale login --api URL` makes one");
        }
        let rows = self.profiles.iter().map(|row| {
            vec![
                row.profile.clone(),
                row.api_url.clone().unwrap_or_else(|| "cannot be used".into()),
                if row.in_force { "in force" } else { "" }.to_owned(),
            ]
        });
        table(to, style, &["profile", "api", ""], rows)?;
        for row in &self.profiles {
            if let Some(problem) = &row.problem {
                writeln!(to, "{} {problem}", style.bad(&format!("{}:", row.profile)))?;
            }
        }
        Ok(())
    }
}
