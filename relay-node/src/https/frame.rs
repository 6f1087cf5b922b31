//! Destination of a frame of iroh's relay protocol. A frame is a type, as a QUIC varint (RFC 9000, section 16), and the
//! type's contents; datagrams to another endpoint begin with its id.

/// A datagram, and several of them, for another endpoint.
const DATAGRAM: u64 = 4;
const DATAGRAMS: u64 = 5;

/// Request of a client in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// To bring it to this endpoint.
    Bring([u8; 32]),
    /// Something between it and the server.
    Other,
    /// It cannot be read.
    Malformed,
}

/// Reads no more than a frame's beginning.
pub(super) fn asks(frame: &[u8]) -> Asks {
    let Some((kind, rest)) = varint(frame) else {
        return Asks::Malformed;
    };
    if kind != DATAGRAM && kind != DATAGRAMS {
        return Asks::Other;
    }
    rest.first_chunk().map_or(Asks::Malformed, |id| Asks::Bring(*id))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let length = 1_usize << (first >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    let value = number.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let bits = 8 * length as u32 - 2;
    Some((value & (u64::MAX >> (64 - bits)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt as _, StreamExt as _};
    use iroh_relay::protos::relay::ClientToRelayMsg;
    use iroh_relay::protos::streams::StreamError;
    use iroh_relay::server::streams::RelayedStream;
    use proptest::prelude::*;

    const ID: [u8; 32] = [7; 32];

    #[test]
    fn a_datagram_s_destination_is_found_however_its_type_is_written() {
        for kind in [
            &[4][..],
            &[5],
            &[0x40, 4],
            &[0x80, 0, 0, 5],
            &[0xC0, 0, 0, 0, 0, 0, 0, 4],
        ] {
            let frame = [kind, &ID, &[0, 1, 2]].concat();
            assert_eq!(asks(&frame), Asks::Bring(ID), "{kind:?}");
            assert_eq!(asks(&frame[..kind.len() + 31]), Asks::Malformed, "{kind:?}");
        }
    }

    #[test]
    fn pings_go_nowhere() {
        assert_eq!(asks(&[9, 0, 0, 0, 0, 0, 0, 0, 0]), Asks::Other);
        assert_eq!(asks(&[]), Asks::Malformed);
        assert_eq!(asks(&[0xC0, 4]), Asks::Malformed);
    }

    proptest! {
        /// A frame that this reads as something else is not forwarded by iroh either.
        #[test]
        fn it_reads_a_destination_where_iroh_does(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 0..16_u8) {
            let frame = [&[kind][..], &bytes].concat();
            let stream = futures_util::stream::iter([Ok::<_, StreamError>(frame.clone().into())]);
            let read = RelayedStream::new(stream, iroh_relay::KeyCache::new(0)).next().now_or_never().flatten();
            match read {
                Some(Ok(ClientToRelayMsg::Datagrams { dst_endpoint_id, .. })) => {
                    prop_assert_eq!(asks(&frame), Asks::Bring(*dst_endpoint_id.as_bytes()));
                }
                Some(Ok(_)) => prop_assert_eq!(asks(&frame), Asks::Other),
                Some(Err(_)) | None => {}
            }
        }
    }
}
