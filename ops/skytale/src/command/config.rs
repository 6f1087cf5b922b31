//! `skytale config`.

use super::{configuration, read_configuration};
use crate::cli::Global;
use crate::config::{Loaded, Part, TEMPLATE, rows};
use crate::output::{Context as _, Failure, Human, Outcome, Output, Style};
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Map, Value, json};
use skytale_proto::Code;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a configuration file with every key and its default. Never writes over a file.
    Init {
        /// The file to write.
        #[arg(default_value = "skytale.toml")]
        file: PathBuf,
        /// Write it to standard output instead.
        #[arg(long, conflicts_with = "file")]
        stdout: bool,
    },
    /// Say whether a server or an agent can be started with the configuration: all that is missing or wrong, at once.
    Check(Check),
    /// Show every key with its value and where that came from. Secrets are redacted.
    Print,
}

/// Parts to check.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes:\n  0  it can be used\n  3  something is missing or wrong: every problem is listed\n\n\
                        Values are parsed and files read, by the same code that starts a server. Nothing is made or changed."
)]
pub(crate) struct Check {
    /// The parts to check; may be several [default: all of which a key is set].
    #[arg(value_name = "PART", value_enum)]
    parts: Vec<Part>,
    /// Also bind the addresses, and connect to the database, the NATS servers and the API.
    #[arg(long)]
    connect: bool,
}

/// Reads the configuration, and says all that is wrong with it.
pub(crate) fn check(args: &Check, global: &Global, output: &Output) -> Outcome {
    let loaded = read_configuration(global, Vec::new())?;
    loaded.remarks.iter().for_each(|remark| output.note(remark));
    let asked = !args.parts.is_empty();
    let mut parts = args.parts.clone();
    parts.dedup();
    if !asked {
        parts = loaded.parts();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .failing(Code::Environment, || "cannot start the runtime".into())?;
    runtime.block_on(loaded.check(&parts, asked, args.connect))?;
    let unset = Part::ALL.into_iter().filter(|part| !asked && !parts.contains(part));
    output.give(&Checked {
        ok: true,
        file: loaded.file,
        checked: parts.iter().map(|part| part.name()).collect(),
        connected: args.connect,
        unset: unset.map(Part::name).collect(),
    })
}

pub(crate) fn run(command: Command, global: &Global, output: &Output) -> Outcome {
    match command {
        Command::Init { stdout: true, .. } => output.write(TEMPLATE.as_bytes()),
        Command::Init { file, .. } => init(&file).and_then(|()| output.give(&Written { written: file })),
        Command::Check(args) => check(&args, global, output),
        Command::Print => output.give(&Printed::of(&configuration(global, Vec::new())?)),
    }
}

fn init(file: &PathBuf) -> Outcome {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(file)
        .and_then(|mut to| to.write_all(TEMPLATE.as_bytes()))
        .map_err(|error| {
            let failure = Failure::new(Code::Environment, format!("cannot write {}", file.display())).because(&error);
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                failure.help("Name another file, or move that one away: it is not written over.")
            } else {
                failure
            }
        })
}

#[derive(Serialize)]
struct Written {
    written: PathBuf,
}

impl Human for Written {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        writeln!(to, "wrote {}", self.written.display())
    }
}

#[derive(Serialize)]
struct Checked {
    ok: bool,
    file: Option<PathBuf>,
    /// Parts that were checked.
    checked: Vec<&'static str>,
    /// Whether addresses were bound and connections tried.
    connected: bool,
    /// Parts that were not checked: nothing is set for them.
    unset: Vec<&'static str>,
}

impl Human for Checked {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let file = match &self.file {
            Some(file) => file.display().to_string(),
            None => "no file; defaults, environment and flags".into(),
        };
        let checked = match self.checked.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.checked.join(", ")),
        };
        writeln!(to, "{} {file}{checked}", style.good("ok:"))?;
        if let Some(first) = self.unset.first() {
            let unset = self.unset.join(", ");
            writeln!(
                to,
                "  not checked, since nothing is set for it: {unset}. `skytale config check {first}` says what it needs."
            )?;
        }
        Ok(())
    }
}

/// `{"file": ..., "config": {"relay": {"listen": {"value": ..., "source": ...}}}}`
#[derive(Serialize)]
struct Printed {
    file: Option<PathBuf>,
    config: Map<String, Value>,
    #[serde(skip)]
    lines: Vec<(String, String, String)>,
}

impl Printed {
    fn of(loaded: &Loaded) -> Self {
        let mut config = Map::new();
        let mut lines = Vec::new();
        for row in rows(loaded) {
            let shown = if row.value.is_null() {
                "(none)".into()
            } else {
                row.value.to_string()
            };
            lines.push((row.key.clone(), shown, row.source.clone()));
            let value = json!({"value": row.value, "source": row.source});
            match row.key.split_once('.') {
                Some((section, key)) => {
                    let section = config.entry(section).or_insert_with(|| Value::Object(Map::new()));
                    if let Some(section) = section.as_object_mut() {
                        section.insert(key.into(), value);
                    }
                }
                None => {
                    config.insert(row.key, value);
                }
            }
        }
        Self {
            file: loaded.file.clone(),
            config,
            lines,
        }
    }
}

impl Human for Printed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        for (key, value, source) in &self.lines {
            writeln!(to, "{key} = {value}  {}", style.dim(&format!("# {source}")))?;
        }
        Ok(())
    }
}
