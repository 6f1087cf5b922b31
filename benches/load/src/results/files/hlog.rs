//! A histogram log: HdrHistogram's interval log of version 1.3, which its Java tools read.

use super::super::measured::INTERVALS_MAX;
use super::super::{Histogram64, LATENCY_US_MAX, Measure, histogram};
use data_encoding::BASE64;
use flate2::read::ZlibDecoder;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use std::io::Read as _;
use std::time::{Duration, UNIX_EPOCH};

/// The digits and the least value of our histograms.
const DIGITS: u8 = 3;
const LOW: u64 = 1;
/// Begins a compressed histogram, and the histogram in it.
const COMPRESSED_COOKIE: u32 = 0x1c84_9314;
const COOKIE: u32 = 0x1c84_9313;
/// Cookie, length, normalizing offset, digits, least and greatest value, ratio.
const HEAD_BYTES: usize = 40;
/// A count, or a run of zeros, takes at most so many bytes.
const VARINT_BYTES: usize = 9;

/// The most values of an interval: sums over all intervals of many runs stay far from a u64's end.
const TOTAL_MAX: u64 = 1 << 40;

/// Whether a histogram has the bounds of [`histogram`]: others cannot be read back.
pub(super) fn is_ours(histogram: &Histogram64) -> bool {
    (histogram.low(), histogram.high(), histogram.sigfig()) == (LOW, LATENCY_US_MAX, DIGITS)
}

/// The file: comments, the start, a line an interval.
pub(super) fn encode(
    measure: Measure,
    started_ms: u64,
    interval: Duration,
    intervals: &[Histogram64],
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let started = UNIX_EPOCH
        .checked_add(Duration::from_millis(started_ms))
        .ok_or("the time of the run's beginning is out of range")?;
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!(
            "[skytale: {} latency. Values are microseconds.]",
            measure.name()
        ))
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(1.0);
    let mut log = builder
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| error.to_string())?;
    for (number, histogram) in intervals.iter().enumerate() {
        let from = interval.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
        log.write_histogram(histogram, from, interval, None)
            .map_err(|error| error.to_string())?;
    }
    Ok(bytes)
}

/// Reads the file, of a run that began then. An error is the problem, and its place.
pub(super) fn decode(bytes: &[u8], started_ms: u64, interval: Duration) -> Result<Vec<Histogram64>, String> {
    let mut intervals = Vec::new();
    let started = Duration::from_millis(started_ms);
    let mut has_base = false;
    for entry in IntervalLogIterator::new(bytes) {
        let number = intervals.len() + 1;
        match entry.map_err(|error| format!("{error:?}"))? {
            LogEntry::StartTime(at) | LogEntry::BaseTime(at) if at.abs_diff(started) > Duration::from_millis(1) => {
                return Err("it begins at another time than the run of report.json".to_owned());
            }
            LogEntry::StartTime(_) => {}
            LogEntry::BaseTime(_) => has_base = true,
            LogEntry::Interval(_) if !has_base => return Err("it has no BaseTime".to_owned()),
            LogEntry::Interval(_) if number > INTERVALS_MAX => {
                return Err(format!("it has more than {INTERVALS_MAX} intervals"));
            }
            LogEntry::Interval(line) => {
                let from = interval.saturating_mul(u32::try_from(number - 1).unwrap_or(u32::MAX));
                if line.start_timestamp() != from || line.duration() != interval {
                    return Err(format!("interval {number} is not at its time"));
                }
                let histogram = decode_histogram(line.encoded_histogram())
                    .map_err(|error| format!("the histogram of interval {number}: {error}"))?;
                intervals.push(histogram);
            }
        }
    }
    Ok(intervals)
}

/// Reads one histogram, of our bounds.
fn decode_histogram(text: &str) -> Result<Histogram64, &'static str> {
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| "it is not base64")?;
    let (cookie, rest) = u32_of(&bytes).ok_or("it is too short")?;
    let (length, rest) = u32_of(rest).ok_or("it is too short")?;
    if cookie != COMPRESSED_COOKIE {
        return Err("it is not a compressed histogram of version 2");
    }
    if rest.len() != length as usize {
        return Err("its length is wrong");
    }
    let empty = histogram();
    let most = HEAD_BYTES + VARINT_BYTES * empty.distinct_values();
    let mut plain = Vec::new();
    // One byte more than there can be, so that more is noticed.
    ZlibDecoder::new(rest)
        .take(most as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|_| "it cannot be decompressed")?;
    if plain.len() > most {
        return Err("it is larger than a histogram can be");
    }
    check(&plain, empty.distinct_values())?;
    // The length that the head claims is what there is: nothing larger is allocated.
    let histogram: Histogram64 = Deserializer::new()
        .deserialize(&mut plain.as_slice())
        .map_err(|_| "it is damaged")?;
    if is_ours(&histogram) {
        Ok(histogram)
    } else {
        Err("its bounds or digits are not those of a latency")
    }
}

/// Checks what the deserializer takes on trust: lengths before it allocates, and counts before it adds them.
fn check(plain: &[u8], counts_max: usize) -> Result<(), &'static str> {
    let (cookie, rest) = u32_of(plain).ok_or("it is too short")?;
    let (length, _) = u32_of(rest).ok_or("it is too short")?;
    let payload = plain.get(HEAD_BYTES..).ok_or("it is too short")?;
    if cookie != COOKIE {
        return Err("it is not a histogram of version 2");
    }
    if payload.len() != length as usize {
        return Err("its length is wrong");
    }
    let digits = plain
        .get(12..16)
        .is_some_and(|bytes| bytes == u32::from(DIGITS).to_be_bytes());
    let low = plain.get(16..24).is_some_and(|bytes| bytes == LOW.to_be_bytes());
    let high = plain
        .get(24..32)
        .is_some_and(|bytes| bytes == LATENCY_US_MAX.to_be_bytes());
    if !(digits && low && high) {
        return Err("its bounds or digits are not those of a latency");
    }
    let (mut index, mut total) = (0u64, 0u64);
    let mut bytes = payload.iter().copied().peekable();
    while bytes.peek().is_some() {
        let number = varint(&mut bytes).ok_or("it ends within a number")?;
        // Zigzag: odd numbers are negative, and stand for so many zeros.
        let is_zeros = number & 1 == 1;
        let (steps, count) = match is_zeros {
            true => ((number >> 1).saturating_add(1), 0),
            false => (1, number >> 1),
        };
        index = index.checked_add(steps).ok_or("it has too many counts")?;
        total = total.checked_add(count).ok_or("its counts are too large")?;
        if index > counts_max as u64 {
            return Err("it has too many counts");
        }
    }
    if total > TOTAL_MAX {
        return Err("its counts are too large");
    }
    Ok(())
}

/// A number of HdrHistogram's LEB128 of at most nine bytes.
fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0;
    for place in 0..VARINT_BYTES {
        let byte = u64::from(bytes.next()?);
        if place == VARINT_BYTES - 1 {
            return Some(value | byte << (7 * place));
        }
        value |= (byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

fn u32_of(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*head), rest))
}
