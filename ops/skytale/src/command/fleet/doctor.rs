//! `skytale fleet doctor`: what a fleet's NATS servers and streams lack, and what mends it.

use crate::command::Session;
use crate::output::{Failure, Human, Outcome, Style, table};
use serde::Serialize;
use skytale_log_store::fleet::doctor::{Examination, Finding, Severity, examine};
use skytale_proto::Code;
use std::fmt;

/// End of the `--help`.
const NOTES: &str = "\
Reads [relay.fleet] of a relay node's configuration, uses its keys, and changes nothing. To use an operator's keys:
  --set relay.fleet.nats_key=file:operator.nk --set relay.fleet.sync_key=file:operator-system.nk
`nats` in the commands that it prints is NATS' own command line: https://github.com/nats-io/natscli

Exit codes:
  0  nothing was found
  3  the configuration is no fleet's
  7  something was found, or a server could not be checked";

/// Has no options of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, session: &Session) -> Outcome {
    let config = session.loaded.examined_fleet()?;
    let examined = session.shutdown.unless(async {
        examine(&config)
            .await
            .map_err(|error| Failure::new(error.code(), "cannot examine the fleet").because(&error))
    });
    let examined = examined.await?;
    let outcome = judge(&examined);
    session.output.give(&Examined(examined))?;
    outcome
}

/// The failure that these findings are, if there are any.
fn judge(examined: &Examination) -> Outcome {
    if examined.ok {
        return Ok(());
    }
    let count = |severity| {
        let findings = examined.findings.iter();
        findings
            .filter(|finding: &&Finding| finding.severity == severity)
            .count()
    };
    let severities = [Severity::Critical, Severity::Warning, Severity::Unknown];
    let counts = severities.map(|severity| (severity, count(severity)));
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(severity, count)| format!("{count} {}", severity.name()))
        .collect();
    let findings = match examined.findings.len() {
        1 => "1 finding".to_owned(),
        several => format!("{several} findings"),
    };
    let failure = Failure::new(Code::Environment, format!("{findings}: {}", counts.join(", ")));
    let failure = failure.help("Each finding says what mends it. docs/operating-a-fleet.md explains the checks.");
    Err(failure.broken())
}

#[derive(Serialize)]
struct Examined(Examination);

impl Human for Examined {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let Self(examined) = self;
        servers(examined, to, style)?;
        writeln!(to)?;
        streams(examined, to)?;
        for finding in &examined.findings {
            writeln!(to)?;
            write_finding(finding, to, style)?;
        }
        if examined.ok {
            writeln!(to, "\n{} nothing was found", style.good("ok:"))?;
        }
        Ok(())
    }
}

fn servers(examined: &Examination, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
    let yes_or_no = |known: Option<bool>, yes: &str, no: &str| match known {
        Some(true) => yes.to_owned(),
        Some(false) => no.to_owned(),
        None => "unknown".to_owned(),
    };
    let rows = examined.servers.iter().map(|server| {
        if !server.answers {
            let silent = ["", "silent", "", "", "", ""].map(str::to_owned);
            return std::iter::once(server.name.clone()).chain(silent).collect();
        }
        let unknown = || "unknown".to_owned();
        let name = match server.leads_meta {
            Some(true) => format!("{} (meta leader)", server.name),
            _ => server.name.clone(),
        };
        let stored = match (server.stored_bytes, server.stored_bytes_max) {
            (Some(stored), Some(most)) => format!("{} of {}", megabytes(stored), megabytes(most)),
            (Some(stored), None) => megabytes(stored),
            (None, _) => unknown(),
        };
        vec![
            name,
            server.cluster.clone().unwrap_or_else(unknown),
            server.version.clone().unwrap_or_else(unknown),
            yes_or_no(server.jetstream, "enabled", "disabled"),
            yes_or_no(server.sync_always, "always", "not always"),
            stored,
            server
                .clock_ahead_ms
                .map_or_else(unknown, |ahead| format!("{ahead:+} ms")),
        ]
    });
    let heads = [
        "server",
        "cluster",
        "version",
        "jetstream",
        "sync_interval",
        "stored",
        "clock",
    ];
    table(to, style, &heads, rows)
}

fn streams(examined: &Examination, to: &mut dyn fmt::Write) -> fmt::Result {
    for (kind, label) in [
        ("log", "streams"),
        ("mirror", "mirrors"),
        ("checkpoints", "checkpoints"),
    ] {
        let of_kind = || examined.streams.iter().filter(|stream| stream.kind == kind);
        let all = of_kind().count();
        if all > 0 {
            let there = of_kind().filter(|stream| stream.state == "there").count();
            let missing = examined
                .findings
                .iter()
                .any(|finding| finding.check == "checkpoints-missing");
            let note = if kind == "checkpoints" && there < all && !missing {
                " (made with the first checkpoint)"
            } else {
                ""
            };
            writeln!(to, "{label:<12} {there} of {all} there{note}")?;
        }
    }
    Ok(())
}

fn write_finding(finding: &Finding, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
    let severity = finding.severity.name();
    let severity = match finding.severity {
        Severity::Critical => style.bad(severity),
        _ => style.bold(severity),
    };
    writeln!(to, "{severity} {}: {}", finding.check, finding.subject)?;
    writeln!(to, "  found  {}", finding.found)?;
    writeln!(to, "  means  {}", finding.means)?;
    for (number, step) in finding.mend.iter().enumerate() {
        let label = if number == 0 { "do" } else { "" };
        writeln!(to, "  {label:<5}  {step}")?;
    }
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Exit;

    fn finding(severity: Severity) -> Finding {
        Finding {
            severity,
            check: "server-silent",
            subject: "eu-3".into(),
            found: "it does not answer".into(),
            means: "Appends go on.".into(),
            mend: vec!["start it".into(), "or replace it".into()],
        }
    }

    fn examined(findings: Vec<Finding>) -> Examination {
        Examination {
            ok: findings.is_empty(),
            findings,
            servers: Vec::new(),
            streams: Vec::new(),
        }
    }

    #[test]
    fn any_finding_ends_with_the_exit_code_that_is_documented() {
        assert!(judge(&examined(Vec::new())).is_ok());
        for severity in [Severity::Critical, Severity::Warning, Severity::Unknown] {
            let failure = judge(&examined(vec![finding(severity)])).expect_err("a finding");
            assert_eq!(failure.exit(), Exit::Broken);
        }
        let two = judge(&examined(vec![finding(Severity::Critical), finding(Severity::Unknown)]));
        let text = two.expect_err("findings").text(&Style::PLAIN);
        assert!(text.contains("2 findings: 1 critical, 1 unknown"), "{text}");
    }

    #[test]
    fn a_person_reads_what_was_found_what_it_means_and_what_to_do() {
        let mut text = String::new();
        write_finding(&finding(Severity::Warning), &mut text, &Style::PLAIN).expect("written");
        assert_eq!(
            text,
            "warning server-silent: eu-3\n  found  it does not answer\n  means  Appends go on.\n  do     start it\n         \
             or replace it\n"
        );
    }
}
