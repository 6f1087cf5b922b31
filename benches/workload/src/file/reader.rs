//! Reads a workload file.

use super::head::{Header, Last, Totals, VERSION};
use super::line::Line;
use crate::event::Event;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

/// A line, in bytes. The longest is a commit that names [`NAMED_MAX`](super::line::NAMED_MAX) agents thrice.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// No workload is longer.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// Reason why a file is not a workload.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read, or is not gzip.
    #[error("cannot read the workload: {0}")]
    Io(#[from] io::Error),
    /// Its first line is not a header.
    #[error("not a workload: the first line is not a header ({problem})")]
    NoHeader {
        /// The problem.
        problem: String,
    },
    /// A version that is not known here.
    #[error("workload version {found} is not supported (this is version {VERSION})")]
    Version {
        /// The version found.
        found: u64,
    },
    /// A line that is not an event.
    #[error("line {line} of the workload: {problem}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// The problem.
        problem: String,
    },
    /// The totals in the last line differ from those of the file.
    #[error("the workload holds other events than its last line says: {found:?}, not {said:?}")]
    Totals {
        /// Totals of the file.
        found: Box<Totals>,
        /// Totals in the last line.
        said: Box<Totals>,
    },
}

/// End of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The file has its last line.
    Whole,
    /// Without it: it was cut, or is still being written.
    Cut,
}

/// A workload file that is being read.
#[derive(Debug)]
pub struct Reader<R: Read> {
    lines: BufReader<MultiGzDecoder<BufReader<R>>>,
    header: Header,
    text: Vec<u8>,
    line: u64,
    at: Duration,
    totals: Totals,
    end: Option<End>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(input: R) -> Result<Self, ReadError> {
        let mut reader = Self {
            lines: BufReader::new(MultiGzDecoder::new(BufReader::new(input))),
            header: Header::new(super::Source::Log, ""),
            text: Vec::new(),
            line: 0,
            at: Duration::ZERO,
            totals: Totals::default(),
            end: None,
        };
        let no_header = |problem: String| ReadError::NoHeader { problem };
        if !reader.next_line()? {
            return Err(no_header("the file ends there".into()));
        }
        let mut value: serde_json::Value =
            serde_json::from_slice(&reader.text).map_err(|error| no_header(error.to_string()))?;
        match value.get("skytale_workload").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(found) => return Err(ReadError::Version { found }),
            None => return Err(no_header("there is no `skytale_workload` in it".into())),
        }
        // A profile never had ids. Of real traffic the file itself must say what became of them.
        if let Some(header) = value.as_object_mut()
            && header.get("source").is_some_and(|source| source == "synth")
        {
            header.entry("ids").or_insert_with(|| "synthetic".into());
        }
        reader.header = serde_json::from_value(value).map_err(|error| no_header(error.to_string()))?;
        Ok(reader)
    }

    /// The header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The next event; `None` at the end.
    pub fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        if self.end.is_some() {
            return Ok(None);
        }
        if !self.next_line()? {
            self.end = Some(End::Cut);
            return Ok(None);
        }
        let wrong = |error: serde_json::Error| ReadError::Line {
            line: self.line,
            problem: error.to_string(),
        };
        if self.text.first() == Some(&b'{') {
            let Last { totals: said } = serde_json::from_slice(&self.text).map_err(wrong)?;
            if said != self.totals {
                return Err(ReadError::Totals {
                    found: Box::new(self.totals.clone()),
                    said: Box::new(said),
                });
            }
            if self.next_line()? {
                return Err(ReadError::Line {
                    line: self.line,
                    problem: "there is more after the last line".into(),
                });
            }
            self.end = Some(End::Whole);
            return Ok(None);
        }
        let Line { delta, what } = serde_json::from_slice(&self.text).map_err(wrong)?;
        self.at = self
            .at
            .checked_add(delta)
            .filter(|at| *at <= DURATION_MAX)
            .ok_or_else(|| ReadError::Line {
                line: self.line,
                problem: "a time more than ten years after the start".into(),
            })?;
        self.totals.add(self.at, &what);
        Ok(Some(Event { at: self.at, what }))
    }

    /// Returns the end of the file, once [`Reader::next_event`] gave `None`.
    pub const fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Returns the totals so far.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Reads a whole line into `text`; false where there is none: at the end, or where the file was cut.
    fn next_line(&mut self) -> Result<bool, ReadError> {
        self.text.clear();
        self.line += 1;
        let read = (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.text);
        match read {
            Ok(_) if self.text.last() == Some(&b'\n') => Ok(true),
            Ok(read) if read as u64 == LINE_BYTES_MAX => Err(ReadError::Line {
                line: self.line,
                problem: format!("longer than {LINE_BYTES_MAX} bytes"),
            }),
            Ok(_) => Ok(false),
            // A gzip member that was cut.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
