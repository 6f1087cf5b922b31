//! Checks everything: checksums, density, and that the rule of the log accepts each entry again.

use super::InspectError;
use super::source::Source;
use crate::local::known::Known;
use crate::local::segment::{End, SegmentFile, Step, take_log};
use crate::{LogState, Verdict};
use skytale_proto::{Frame, LogId, Offset, Record};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Batches.
    pub batches: u64,
    /// Whole entries.
    pub entries: u64,
    /// Bytes of whole entries' records.
    pub bytes: u64,
    /// Logs, with what each has.
    pub logs: BTreeMap<LogId, LogReport>,
    /// A batch that a crash cut off at the end: file and position. It was never acknowledged; the node cuts it off when
    /// it starts.
    pub torn: Option<(PathBuf, u32)>,
    /// Problems found, in the order of the files.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether all is well. A torn end is.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Contents of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// The first entry that is stored.
    pub first: Offset,
    /// The last one.
    pub head: Offset,
    /// Whole entries.
    pub entries: u64,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Bytes from its beginning.
    pub at: u32,
    /// The log that it hits, where that is known.
    pub log: Option<LogId>,
    /// The entry that it hits, where that is known.
    pub offset: Option<Offset>,
    /// The problem.
    pub problem: String,
}

/// Checks a stopped store. Memory grows with the number of logs and the size of their states, not with their length.
pub fn verify(dir: &Path) -> Result<Report, InspectError> {
    let source = Source::open(dir)?;
    let mut check = Check::default();
    check.report.segments = source.len() as u64;
    source.walk(|file, step| {
        check.step(file, step);
        Ok(())
    })?;
    for index in 0..source.len() {
        let Some((file, ..)) = source.segment(index)? else {
            break;
        };
        let problem = file.directory_problem().map_err(InspectError::read(&file.path))?;
        if let Some(problem) = problem {
            check.problem(&file, 0, None, None, problem);
        }
    }
    check.finish(&source);
    Ok(check.report)
}

#[derive(Default)]
struct Check {
    report: Report,
    states: BTreeMap<LogId, Folded>,
}

/// Progress of a log's fold.
enum Folded {
    State(Box<LogState>),
    /// Its first entries were dropped: a state record follows.
    Waiting {
        last: Offset,
    },
    /// Damaged: later entries cannot be folded.
    Lost {
        last: Offset,
    },
}

impl Check {
    fn step(&mut self, file: &SegmentFile, step: Step) {
        match step {
            Step::Batch { .. } => self.report.batches += 1,
            Step::Entry { at, log, record } => self.entry(file, at, log, &record),
            Step::State { at, log, record } => self.state(file, at, log, &record),
            Step::Damaged { at, log, offset, why } => {
                self.problem(file, at, Some(log), Some(offset), why);
                self.states.insert(log, Folded::Lost { last: offset });
            }
            Step::DamagedState { at, log, why } => {
                self.problem(file, at, Some(log), None, format!("state record: {why}"))
            }
            Step::Lost { at, to, why } => {
                self.problem(file, at, None, None, format!("no batch can be read up to {to}: {why}"));
            }
            Step::End(End::Torn { at }) => self.report.torn = Some((file.path.clone(), at)),
            Step::BatchEnd { .. } | Step::End(_) => {}
        }
    }

    fn entry(&mut self, file: &SegmentFile, at: u32, log: LogId, record: &Record) {
        self.report.entries += 1;
        self.report.bytes += record.encoded_len() as u64;
        let seen = self.report.logs.entry(log).or_insert(LogReport {
            first: record.offset,
            head: record.offset,
            entries: 0,
        });
        seen.entries += 1;
        seen.head = record.offset;
        let folded = self.states.entry(log).or_insert_with(|| {
            if record.offset == Offset::FIRST {
                Folded::State(Box::new(LogState::new(log)))
            } else {
                Folded::Waiting {
                    last: record.offset.previous(),
                }
            }
        });
        let problem = match (Frame::decode(record.payload.clone()), folded) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(frame), _) if frame.header().log != log => Some(format!("the frame is of {}", frame.header().log)),
            (Ok(frame), Folded::State(state)) => refolded(state, &frame, record.offset),
            (Ok(_), Folded::Waiting { last } | Folded::Lost { last }) => {
                let expected = last.next();
                *last = record.offset;
                (record.offset != expected).then(|| format!("entry {expected} is missing before it"))
            }
        };
        if let Some(problem) = problem {
            self.problem(file, at, Some(log), Some(record.offset), problem);
            self.states.insert(log, Folded::Lost { last: record.offset });
        }
    }

    fn state(&mut self, file: &SegmentFile, at: u32, log: LogId, record: &Record) {
        let mut rest: &[u8] = &record.payload;
        let named = take_log(&mut rest);
        let bytes = record.payload.slice(record.payload.len() - rest.len()..);
        let state = match Known::decode(log, bytes) {
            Ok(known) if named == Some(log) => known.state,
            Ok(_) => return self.problem(file, at, Some(log), None, "the state record is another log's".into()),
            Err(error) => return self.problem(file, at, Some(log), None, format!("state record: {error}")),
        };
        match self.states.get(&log) {
            Some(Folded::State(folded)) if **folded != state => {
                self.problem(
                    file,
                    at,
                    Some(log),
                    None,
                    "the state record is not what the entries fold to".into(),
                );
            }
            Some(Folded::Waiting { last }) if *last != state.head() => {
                let problem = format!(
                    "the state record is of entry {}, but {last} comes before it",
                    state.head()
                );
                self.problem(file, at, Some(log), None, problem);
            }
            Some(Folded::State(_) | Folded::Lost { .. }) => {}
            Some(Folded::Waiting { .. }) | None => {
                self.states.insert(log, Folded::State(Box::new(state)));
            }
        }
    }

    fn problem(&mut self, file: &SegmentFile, at: u32, log: Option<LogId>, offset: Option<Offset>, problem: String) {
        self.report.problems.push(Problem {
            path: file.path.clone(),
            at,
            log,
            offset,
            problem,
        });
    }

    fn finish(&mut self, source: &Source) {
        for (log, folded) in &self.states {
            if let Folded::Waiting { .. } = folded {
                self.report.problems.push(Problem {
                    path: source.segments().path(source.first().unwrap_or_default()),
                    at: 0,
                    log: Some(*log),
                    offset: None,
                    problem: "its first entries were dropped, and no state record of it is left".into(),
                });
            }
        }
    }
}

fn refolded(state: &mut LogState, frame: &Frame, offset: Offset) -> Option<String> {
    let expected = state.head().next();
    if offset != expected {
        return Some(format!("entry {expected} is missing before it"));
    }
    match state.replay(frame.header()) {
        Verdict::Appended { .. } => None,
        Verdict::Duplicate { offset } => Some(format!("the rule of the log calls it a duplicate of {offset}")),
        Verdict::Refused(refused) => Some(format!("the rule of the log refuses it: {refused}")),
    }
}
