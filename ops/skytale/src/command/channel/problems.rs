//! `skytale channel problems`, and what other commands say of problems.

use super::{Reference, Session};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::names::Names;
use crate::output::{Failure, Human, Outcome, Output, Style, printable};
use serde::Serialize;
use skytale_proto::{AgentId, ChannelId, Code, FrameId, Offset};
use skytale_sdk::{Agent, Channel, Problem};
use std::fmt;

/// Lines of remarks, or of reasons, at once. The rest is counted.
const LINES_MAX: usize = 8;
const WHAT: &str = "cannot list the problems";
const DIVERGED_HELP: &str = "Do not trust what this relay shows of the channel. Ask its operator whether its data was put \
                             back from a copy: then `skytale relay accept-rollback` there settles it. \
                             `skytale channel problems` shows all evidence.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name [default: all].
    channel: Option<Reference>,
    /// Show what the vault knows, without asking the network.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

/// Whether problems are failures.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Strict {
    /// Exit with code 7 if there is any problem: messages lost or unreadable, sends that failed, out of sync. A divergence
    /// exits with code 7 in any case.
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    let found = with_agent(&session, &args.agent, mode, async |agent| {
        let one = match &args.channel {
            Some(channel) => Some(channel.known(agent, &session).await?.id()),
            None => None,
        };
        let all = agent.problems().await.map_err(failed(WHAT))?;
        let channels = agent.channels().await.map_err(failed(WHAT))?;
        let wanted = |channel: &Option<ChannelId>| one.is_none() || *channel == one;
        let logs = all.into_iter().filter(|(channel, _)| wanted(channel));
        let label = |channel: Option<ChannelId>| {
            let info = channels.iter().find(|info| Some(info.id) == channel);
            info.map(|info| info.label.clone()).unwrap_or_default()
        };
        let logs = logs.map(|(channel, problems)| (channel, label(channel), problems));
        Ok((logs.collect::<Vec<_>>(), Names::of(agent).await?))
    });
    let (found, names) = found.await?;
    let rows = found.iter().flat_map(|(channel, label, problems)| {
        let row = |problem| Row::new(*channel, label, problem);
        problems.iter().map(row)
    });
    session.output.give(&Problems {
        problems: rows.collect(),
        names,
    })?;
    args.strict.judge(found.iter().flat_map(|(channel, label, problems)| {
        let name = named(*channel, label);
        problems.iter().map(move |problem| (name.clone(), problem))
    }))
}

impl Strict {
    pub(super) const fn is_strict(self) -> bool {
        self.strict
    }

    /// The failure that these problems are, if they are one: a divergence always is.
    pub(super) fn judge<'a>(self, problems: impl IntoIterator<Item = (String, &'a Problem)>) -> Outcome {
        let counts = |problem: &Problem| self.strict || problem.is_divergence();
        let mut problems: Vec<_> = problems.into_iter().filter(|(_, problem)| counts(problem)).collect();
        problems.sort_by_key(|(_, problem)| match problem {
            Problem::Diverged(_) => 0,
            Problem::RolledBack(_) => 1,
            _ => 2,
        });
        let Some((name, first)) = problems.first() else {
            return Ok(());
        };
        let failure = match first {
            Problem::Diverged(_) => Failure::new(
                Code::Divergence,
                format!("the relay showed two agents different logs of {name}"),
            )
            .help(DIVERGED_HELP),
            Problem::RolledBack(_) => {
                Failure::new(Code::CursorBeyondHead, format!("the relay's log of {name} went back")).help(DIVERGED_HELP)
            }
            _ => {
                let count = problems.len();
                let what = format!("{count} {}", if count == 1 { "problem" } else { "problems" });
                Failure::new(first.code(), what)
                    .help("`skytale channel problems` shows each, and what is being done about it.")
            }
        };
        let lines = problems
            .iter()
            .take(LINES_MAX)
            .map(|(name, problem)| format!("{name}: {}", problem.describe()));
        let failure = lines.fold(failure, Failure::since);
        let rest = problems.len().saturating_sub(LINES_MAX);
        let failure = match rest {
            0 => failure,
            rest => failure.since(format!("and {rest} more")),
        };
        Err(failure.broken())
    }

    /// Judges one channel, as [`Strict::judge`] does.
    pub(super) async fn judge_channel(self, channel: &Channel) -> Outcome {
        let problems = channel.problems().await.map_err(failed(WHAT))?;
        let name = format!("channel {}", channel.id());
        self.judge(problems.iter().map(|problem| (name.clone(), problem)))
    }
}

/// Remarks on what a reader of a channel does not see, from an offset on. Sends that failed are not among it, and what ends
/// the command with its own words is not either.
pub(super) async fn remark(output: &Output, channel: &Channel, after: Offset) -> Outcome {
    let problems = channel.problems().await.map_err(failed(WHAT))?;
    let is_told = |problem: &&Problem| {
        let is_behind = problem.offsets().is_some_and(|(_, last)| last > after);
        !problem.is_divergence() && (problem.is_standing() || is_behind)
    };
    let told: Vec<_> = problems.iter().filter(is_told).collect();
    for problem in told.iter().take(LINES_MAX) {
        match problem.is_standing() {
            true => output.note(format_args!("{}; {}", printable(&problem.describe()), problem.remedy())),
            false => output.note(printable(&problem.describe())),
        }
    }
    if told.len() > LINES_MAX {
        output.note(format_args!(
            "and {} more: `skytale channel problems {}` shows all",
            told.len() - LINES_MAX,
            channel.id()
        ));
    }
    Ok(())
}

/// The problems of all channels, for a list.
pub(super) async fn all(agent: &Agent) -> Outcome<Vec<(Option<ChannelId>, Vec<Problem>)>> {
    agent.problems().await.map_err(failed(WHAT))
}

/// A channel as a sentence names it.
pub(super) fn named(channel: Option<ChannelId>, label: &str) -> String {
    match channel {
        None => "the agent's own log".to_owned(),
        Some(channel) if label.is_empty() => format!("channel {channel}"),
        Some(_) => format!("channel `{label}`"),
    }
}

#[derive(Serialize)]
struct Problems {
    problems: Vec<Row>,
    #[serde(skip)]
    names: Names,
}

#[derive(Serialize)]
struct Row {
    /// Null where it is about the agent's own log.
    channel: Option<ChannelId>,
    label: String,
    /// `diverged`, `rolled-back`, `settled`, `superseded`, `out-of-sync`, `renewing`, `lost`, `unreadable` or `send-failed`.
    problem: &'static str,
    code: String,
    /// The entries that it is about.
    first: Option<Offset>,
    last: Option<Offset>,
    what: String,
    /// The repair under way, or the one to make.
    remedy: &'static str,
    frame_id: Option<FrameId>,
    /// Reason that an entry cannot be read.
    cause: Option<&'static str>,
    /// Author of the message that showed a divergence, with both digests.
    author: Option<AgentId>,
    ours: Option<String>,
    theirs: Option<String>,
}

impl Row {
    fn new(channel: Option<ChannelId>, label: &str, problem: &Problem) -> Self {
        let offsets = problem.offsets();
        let divergence = match problem {
            Problem::Diverged(divergence) => Some(divergence),
            _ => None,
        };
        Self {
            channel,
            label: label.to_owned(),
            problem: problem.name(),
            code: problem.code().to_string(),
            first: offsets.map(|(first, _)| first),
            last: offsets.map(|(_, last)| last),
            what: problem.describe(),
            remedy: problem.remedy(),
            frame_id: match problem {
                Problem::SendFailed(send) => Some(send.frame_id),
                Problem::Unreadable(entry) => entry.frame_id,
                _ => None,
            },
            cause: match problem {
                Problem::Unreadable(entry) => Some(entry.cause.name()),
                _ => None,
            },
            author: divergence.map(|divergence| divergence.author),
            ours: divergence
                .and_then(|divergence| divergence.ours)
                .map(|digest| digest.to_string()),
            theirs: divergence
                .and_then(|divergence| divergence.theirs)
                .map(|digest| digest.to_string()),
        }
    }
}

impl Human for Problems {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.problems.is_empty() {
            return writeln!(to, "no problems");
        }
        let mut last = None;
        for row in &self.problems {
            if last != Some(row.channel) {
                writeln!(to, "{}", style.bold(&printable(&named(row.channel, &row.label))))?;
                last = Some(row.channel);
            }
            writeln!(to, "  {}", printable(&self.names.annotate(&row.what)))?;
            writeln!(to, "    {}", style.dim(row.remedy))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Exit;
    use skytale_proto::Digest;
    use skytale_sdk::{Divergence, Lost, LostReason};

    fn lost() -> Problem {
        Problem::Lost(Lost::new(Offset::new(5), Offset::new(61), LostReason::Trimmed))
    }

    fn diverged() -> Problem {
        let (author, theirs) = (AgentId::from_bytes([0xab; 32]), Digest::from_bytes([0xcd; 32]));
        Problem::Diverged(Divergence::new(Offset::new(7), author, None, Some(theirs)))
    }

    fn judge(strict: bool, problems: &[Problem]) -> Outcome {
        let problems = problems.iter().map(|problem| ("channel `plans`".to_owned(), problem));
        Strict { strict }.judge(problems)
    }

    #[test]
    fn a_divergence_is_a_failure_and_other_problems_are_where_that_is_asked_for() {
        assert!(judge(true, &[]).is_ok());
        assert!(judge(false, &[lost()]).is_ok());
        let failure = judge(true, &[lost()]).expect_err("strict");
        assert_eq!((failure.code(), failure.exit()), (Code::Trimmed, Exit::Broken));
        let text = failure.text(&Style::PLAIN);
        assert!(
            text.contains("messages 5 to 61 are gone: the log no longer kept them"),
            "{text}"
        );
        let failure = judge(false, &[lost(), diverged()]).expect_err("diverged");
        assert_eq!((failure.code(), failure.exit()), (Code::Divergence, Exit::Broken));
        let text = failure.text(&Style::PLAIN);
        for part in ["offset 7", &"ab".repeat(32), "this agent has nothing", &"cd".repeat(32)] {
            assert!(text.contains(part), "no {part}: {text}");
        }
    }

    #[test]
    fn many_problems_are_counted_and_not_all_said() {
        let many = vec![lost(); 3 * LINES_MAX];
        let text = judge(true, &many).expect_err("strict").text(&Style::PLAIN);
        assert!(text.contains(&format!("and {} more", 2 * LINES_MAX)), "{text}");
        assert_eq!(text.matches("are gone").count(), LINES_MAX);
    }
}
