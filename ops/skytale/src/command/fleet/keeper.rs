//! `skytale fleet keeper`: purges the streams, which no relay node may.

use crate::command::Session;
use crate::output::{Failure, Human, Outcome, Style};
use serde::Serialize;
use skytale_log_store::fleet::{Keeper, KeeperRound, OpenError};
use skytale_proto::Code;
use std::fmt;
use tokio_util::sync::CancellationToken;

/// End of the `--help`.
const NOTES: &str = "\
Reads relay.fleet.keeper_key, nodes_file, nats, regions, witnesses and tls_roots, and relay.retention_s, from a configuration of its own that
names none of a relay node's keys. One keeper is enough; a second one does no harm. Relay nodes serve without it, and streams grow: `/readyz`
and `skytale fleet doctor` say so.

A stream is purged up to a checkpoint that is older than the retention, if enough relay nodes vouch for it and for a later one, every relay
node that answers has followed it, and all that it has is trimmed.";

/// Purges messages older than the retention, again and again; relay.fleet.retention_check_s says how often.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct Args {
    /// Do so once, and end: for a timer instead of a service.
    #[arg(long)]
    once: bool,
}

/// Result of one round.
#[derive(Serialize)]
struct Round {
    /// Relay nodes that were heard.
    nodes: usize,
    purged: Vec<Purged>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Purged {
    stream: String,
    /// The checkpoint up to which it was purged.
    up_to: u64,
    messages: u64,
}

#[derive(Serialize)]
struct Problem {
    stream: String,
    problem: String,
}

impl Round {
    fn of(round: &KeeperRound) -> Self {
        let purged = round.shards.iter().filter_map(|kept| {
            let (up_to, messages) = kept.purged?;
            Some(Purged {
                stream: kept.shard.stream(),
                up_to,
                messages,
            })
        });
        let problems = round.shards.iter().filter_map(|kept| {
            Some(Problem {
                stream: kept.shard.stream(),
                problem: kept.problem.clone()?,
            })
        });
        Self {
            nodes: round.nodes,
            purged: purged.collect(),
            problems: problems.collect(),
        }
    }
}

impl Human for Round {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        writeln!(to, "{} relay nodes answer", self.nodes)?;
        for purged in &self.purged {
            writeln!(
                to,
                "purged  {} up to {}: {} messages",
                purged.stream, purged.up_to, purged.messages
            )?;
        }
        for problem in &self.problems {
            writeln!(to, "waits   {}: {}", problem.stream, problem.problem)?;
        }
        Ok(())
    }
}

fn refused(error: &OpenError) -> Failure {
    Failure::new(error.code(), "the keeper cannot do its work").because(error)
}

pub(crate) async fn run(args: &Args, session: &Session) -> Outcome {
    let keeper = Keeper::new(session.loaded.kept_fleet()?);
    if args.once {
        let round = session
            .shutdown
            .unless(Box::pin(async {
                keeper.round().await.map_err(|error| refused(&error))
            }))
            .await?;
        let shown = Round::of(&round);
        let problems = shown.problems.len();
        session.output.give(&shown)?;
        if problems > 0 {
            let what = format!("{problems} of {} streams were not looked after", round.shards.len());
            return Err(Failure::new(Code::Environment, what).help("The next round tries again."));
        }
        return Ok(());
    }
    // A key that is no keeper's does not become one by waiting; servers that are away come back.
    session
        .shutdown
        .unless(async {
            match keeper.check().await {
                Err(
                    error @ (OpenError::NoKeeper { .. } | OpenError::Config { .. } | OpenError::Credentials { .. }),
                ) => Err(refused(&error)),
                _ => Ok(()),
            }
        })
        .await?;
    session.output.note("the keeper runs; Ctrl-C ends it");
    let ended = CancellationToken::new();
    let mut failed: Option<Failure> = None;
    let told = |round: Result<&KeeperRound, &OpenError>| {
        // A round that failed is in the log, and is tried again.
        let Ok(round) = round else { return };
        let shown = Round::of(round);
        if (!shown.purged.is_empty() || !shown.problems.is_empty())
            && let Err(failure) = session.output.give(&shown)
        {
            failed = Some(failure);
            ended.cancel();
        }
    };
    let running = keeper.run(&ended, told);
    tokio::select! {
        () = session.shutdown.requested() => {}
        () = running => {}
    }
    failed.map_or(Ok(()), Err)
}
