//! Frames on a socket: bounded in size and in time.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The largest frame before the proof, in bytes.
pub(super) const GREETING_BYTES_MAX: usize = 1024;
/// The largest frame, in bytes.
pub(super) const BYTES_MAX: usize = 128 * 1024 * 1024;
/// Longest time to read a frame after its start.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Longest time to write a chunk.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// Length of a chunk, in bytes.
const WRITE_BYTES: usize = 64 * 1024;
/// A frame of this size or less takes nothing from the budget, in bytes.
const SMALL_BYTES_MAX: usize = 64 * 1024;
/// Value of one permit of the budget, in bytes.
const PERMIT_BYTES: usize = 1024;
/// Length of a header: length, kind, id.
const HEAD_BYTES: usize = 4 + 1 + 8;

/// Kind of a frame. On the wire: keep stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Challenge = 2,
    Proof = 3,
    Welcome = 4,
    Refused = 5,
    Request = 6,
    Cancel = 7,
    Answer = 8,
    Fault = 9,
    Settled = 10,
    Event = 11,
    Relay = 12,
    Closing = 13,
    Outlook = 14,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Hello,
        Self::Challenge,
        Self::Proof,
        Self::Welcome,
        Self::Refused,
        Self::Request,
        Self::Cancel,
        Self::Answer,
        Self::Fault,
        Self::Settled,
        Self::Event,
        Self::Relay,
        Self::Closing,
        Self::Outlook,
    ];
}

/// A received frame.
#[derive(Debug)]
pub(super) struct Frame {
    /// `None` for a kind that this version does not know.
    pub(super) kind: Option<Kind>,
    /// Id of its request; 0 if it concerns none.
    pub(super) id: u64,
    pub(super) body: Vec<u8>,
    /// Its share of the memory budget.
    pub(super) budget: Option<OwnedSemaphorePermit>,
}

/// Creates a budget of this many bytes, for [`read`].
pub(super) fn budget(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes / PERMIT_BYTES))
}

/// Encodes a frame.
pub(super) fn encode(kind: Kind, id: u64, body: &[u8]) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::new(ErrorKind::InvalidInput, "the frame is too large");
    if body.len() > BYTES_MAX {
        return Err(too_large());
    }
    let length = u32::try_from(body.len()).map_err(|_| too_large())?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.push(kind as u8);
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

/// Reads a frame; `None` at the end. Not cancel-safe.
pub(super) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
    budget: Option<&Arc<Semaphore>>,
) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD_BYTES];
    let begun = from.read(&mut head).await?;
    if begun == 0 {
        return Ok(None);
    }
    let [a, b, c, d, kind, id @ ..] = within(async {
        // `read` returns no more than there is room for.
        from.read_exact(head.get_mut(begun..).unwrap_or_default()).await?;
        Ok(head)
    })
    .await?;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > bytes_max {
        let text = format!("a frame of {length} bytes is over the limit of {bytes_max} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    let budget = match budget {
        Some(budget) if length > SMALL_BYTES_MAX => {
            let permits = u32::try_from(length.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
            let taken = Arc::clone(budget).acquire_many_owned(permits).await;
            Some(taken.map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?)
        }
        _ => None,
    };
    let body = within(async {
        // Grows with the received bytes, whatever the header says.
        let mut body = Vec::new();
        let read = from.take(length as u64).read_to_end(&mut body).await?;
        match read == length {
            true => Ok(body),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    })
    .await?;
    Ok(Some(Frame {
        kind: Kind::ALL.into_iter().find(|known| *known as u8 == kind),
        id: u64::from_be_bytes(id),
        body,
        budget,
    }))
}

async fn within<T>(reading: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(READ_WITHIN, reading)
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Writes a frame.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    for piece in frame.chunks(WRITE_BYTES) {
        timeout(WRITE_WITHIN, to.write_all(piece))
            .await
            .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_is_read_as_it_was_written() {
        let frame = encode(Kind::Answer, 7, &[1; 100_000]).expect("small enough");
        let budget = budget(1024 * 1024);
        let read = read(&mut frame.as_slice(), BYTES_MAX, Some(&budget)).await;
        let read = read.expect("read").expect("a frame");
        assert_eq!((read.kind, read.id, read.body.len()), (Some(Kind::Answer), 7, 100_000));
        assert_eq!(budget.available_permits(), 1024 - 98);
        drop(read);
        assert_eq!(budget.available_permits(), 1024);
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_before_anything_is_read() {
        let mut frame = encode(Kind::Hello, 0, b"x").expect("small enough");
        frame[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        for limit in [GREETING_BYTES_MAX, BYTES_MAX] {
            let error = read(&mut frame.as_slice(), limit, None).await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
    }

    #[tokio::test]
    async fn a_length_that_is_not_kept_allocates_nothing() {
        let mut frame = encode(Kind::Request, 0, b"x").expect("small enough");
        let claimed = u32::try_from(BYTES_MAX).expect("small enough");
        frame[..4].copy_from_slice(&claimed.to_be_bytes());
        let error = read(&mut frame.as_slice(), BYTES_MAX, None).await.expect_err("cut off");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn the_end_between_frames_is_no_error_and_within_one_it_is() {
        assert!(read(&mut [].as_slice(), 10, None).await.expect("the end").is_none());
        assert!(read(&mut [0_u8; 5].as_slice(), 10, None).await.is_err());
    }
}
