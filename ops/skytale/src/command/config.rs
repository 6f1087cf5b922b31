//! `skytale config`.

use super::configuration;
use crate::cli::Global;
use crate::config::{Loaded, TEMPLATE, rows};
use crate::output::{Failure, Human, Outcome, Output, Style};
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
        /// Where to.
        #[arg(default_value = "skytale.toml")]
        file: PathBuf,
        /// Write it to standard output instead.
        #[arg(long, conflicts_with = "file")]
        stdout: bool,
    },
    /// Say whether the configuration can be used.
    Check,
    /// Show every key with its value and where that came from. Secrets are redacted.
    Print,
}

pub(crate) fn run(command: Command, global: &Global, output: &Output) -> Outcome {
    match command {
        Command::Init { stdout: true, .. } => output.write(TEMPLATE.as_bytes()),
        Command::Init { file, .. } => init(&file).and_then(|()| output.give(&Written { written: file })),
        Command::Check => {
            let loaded = configuration(global, Vec::new())?;
            loaded.remarks.iter().for_each(|remark| output.note(remark));
            output.give(&Checked {
                ok: true,
                file: loaded.file,
            })
        }
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
}

impl Human for Checked {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        match &self.file {
            Some(file) => writeln!(to, "{} {}", style.good("ok:"), file.display()),
            None => writeln!(to, "{} no file; defaults, environment and flags", style.good("ok:")),
        }
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
