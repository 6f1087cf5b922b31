//! `counts.csv`: a line an interval, a column a count.

use super::super::measured::INTERVALS_MAX;
use super::super::{Count, Measured, compute};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const AT: &str = "at_ms";

/// The file. A count that has fewer intervals than others ends with empty cells.
pub(super) fn encode(measured: &Measured) -> String {
    let interval_ms = compute::interval_ms(measured);
    let mut text = AT.to_owned();
    for count in measured.counts.keys() {
        text.push(',');
        text.push_str(count.name());
    }
    text.push('\n');
    let lines = measured.counts.values().map(Vec::len).max().unwrap_or(0);
    for line in 0..lines {
        // Writing to a String does not fail.
        let _ = write!(text, "{}", interval_ms.saturating_mul(line as u64));
        for values in measured.counts.values() {
            text.push(',');
            if let Some(value) = values.get(line) {
                let _ = write!(text, "{value}");
            }
        }
        text.push('\n');
    }
    text
}

/// Reads the file. An error is a line and its problem.
pub(super) fn decode(text: &str, interval_ms: u64) -> Result<BTreeMap<Count, Vec<u64>>, (usize, String)> {
    let mut lines = text.lines();
    let heads = lines.next().unwrap_or_default();
    let mut cells = heads.split(',');
    if cells.next() != Some(AT) {
        return Err((1, format!("the first column is not {AT}")));
    }
    let mut columns: Vec<(Count, Vec<u64>)> = Vec::new();
    for name in cells {
        let count = Count::named(name).ok_or_else(|| (1, format!("unknown count {name:?}")))?;
        if columns.iter().any(|(known, _)| *known == count) {
            return Err((1, format!("column {name} is there twice")));
        }
        columns.push((count, Vec::new()));
    }
    for (index, line) in lines.enumerate() {
        let number = index + 2;
        if index >= INTERVALS_MAX {
            return Err((number, format!("more than {INTERVALS_MAX} intervals")));
        }
        let mut cells = line.split(',');
        let at = cells.next().and_then(|cell| cell.parse::<u64>().ok());
        if at != Some(interval_ms.saturating_mul(index as u64)) {
            return Err((
                number,
                format!("{AT} is not a multiple of the interval, {interval_ms} ms"),
            ));
        }
        for (count, values) in &mut columns {
            match cells.next() {
                Some("") => {}
                Some(cell) if values.len() == index => {
                    let value = cell
                        .parse()
                        .map_err(|_| (number, format!("{} is not a number", count.name())))?;
                    values.push(value);
                }
                Some(_) => return Err((number, format!("{} goes on after an empty cell", count.name()))),
                None => return Err((number, "too few cells".to_owned())),
            }
        }
        if cells.next().is_some() {
            return Err((number, "too many cells".to_owned()));
        }
    }
    Ok(columns.into_iter().collect())
}
