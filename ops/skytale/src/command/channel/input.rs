//! Standard input as lines, beside what else a command does.

use skytale_sdk::PAYLOAD_BYTES_MAX;
use std::io::{self, BufRead};
use tokio::sync::mpsc;

/// The longest line, in bytes: a message in base64, or with each byte escaped in JSON.
pub(super) const LINE_BYTES_MAX: usize = 6 * PAYLOAD_BYTES_MAX + 4_096;
/// Lines that wait to be taken.
const LINES_WAITING_MAX: usize = 16;

/// Item from standard input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A line, without its end.
    Line(Vec<u8>),
    /// A line over the limit, which is left out.
    TooLong,
    /// It cannot be read on.
    Failed(String),
}

/// Reads on a thread of its own, which a blocked read keeps from nothing. The receiver ends with the input.
pub(super) fn lines() -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        while let Some(input) = next(&mut stdin, LINE_BYTES_MAX) {
            let is_last = matches!(input, Input::Failed(_));
            if sender.blocking_send(input).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// The next line; `None` at the end.
fn next(from: &mut impl BufRead, bytes_max: usize) -> Option<Input> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let piece = match from.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Some(Input::Failed(error.to_string())),
        };
        if piece.is_empty() {
            return match (line.is_empty(), too_long) {
                (_, true) => Some(Input::TooLong),
                (true, false) => None,
                (false, false) => Some(Input::Line(line)),
            };
        }
        let (taken, ends) = match piece.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end, true),
            None => (piece.len(), false),
        };
        too_long |= line.len() + taken > bytes_max;
        if !too_long {
            line.extend_from_slice(&piece[..taken]);
        }
        from.consume(taken + usize::from(ends));
        if ends {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Some(if too_long { Input::TooLong } else { Input::Line(line) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_one_that_is_too_long_takes_no_other_with_it() {
        let mut from = io::BufReader::with_capacity(3, &b"one\r\n\n123456789\nlast"[..]);
        let line = |text: &str| Some(Input::Line(text.as_bytes().to_vec()));
        let mut next = || next(&mut from, 5);
        assert_eq!(next(), line("one"));
        assert_eq!(next(), line(""));
        assert_eq!(next(), Some(Input::TooLong));
        assert_eq!(next(), line("last"));
        assert_eq!(next(), None);
    }
}
