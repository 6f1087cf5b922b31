//! A decoder allocates no more than a frame may be long, whatever it is given.
//!
//! One test in this binary measures: the allocator counts for the whole process.

use bytes::{BufMut, Bytes, BytesMut};
use peak_alloc::PeakAlloc;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use skytale_proto::session::{AppendRequest, ControlEvent, ControlRequest, KeyPackagesRequest, Open, SubscribeEvent};
use skytale_proto::{Frame, LogId, Record, limits, session};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes that a decoder may take beside its input: error messages and small structures.
const SLACK_BYTES: usize = 64 * 1024;

fn peak_while(decode: impl FnOnce()) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    decode();
    ALLOCATOR.peak_usage().saturating_sub(before)
}

fn decode_all(bytes: &Bytes) {
    let _ = Frame::decode(bytes.clone());
    let _ = Record::decode(bytes, limits::FRAME_BYTES_MAX);
    for record in Record::decode_batch(bytes.clone()) {
        let _ = record;
    }
    let _ = LogId::try_from(bytes.as_ref());
    let _ = session::decode_message::<Open>(bytes.clone());
    let _ = session::decode_message::<ControlRequest>(bytes.clone());
    let _ = session::decode_message::<ControlEvent>(bytes.clone());
    let _ = session::decode_message::<AppendRequest>(bytes.clone());
    let _ = session::decode_message::<SubscribeEvent>(bytes.clone());
    let _ = session::decode_message::<KeyPackagesRequest>(bytes.clone());
}

/// Bytes that look like what the decoders expect, with lengths that promise too much.
fn hostile() -> Vec<Bytes> {
    let mut all = vec![
        Bytes::new(),
        vec![0xff; 64].into(),
        vec![0; limits::FRAME_BYTES_MAX].into(),
    ];
    // Fields 1 to 15, length-delimited, each claiming lengths up to 2^63.
    for field in 1..=15_u8 {
        for claimed in [1_u64 << 20, 1 << 31, 1 << 40, 1 << 63] {
            let mut bytes = BytesMut::new();
            bytes.put_u8(field << 3 | 2);
            prost_varint(claimed, &mut bytes);
            bytes.put_bytes(b'x', 100);
            all.push(bytes.freeze());
        }
        // The same empty field, as often as fits: nested in a frame's header too.
        let mut inner = BytesMut::new();
        while inner.len() < limits::FRAME_BYTES_MAX - 16 {
            inner.put_slice(&[field << 3 | 2, 0]);
        }
        let mut nested = BytesMut::new();
        nested.put_u8(0x0a);
        prost_varint(inner.len() as u64, &mut nested);
        nested.put_slice(&inner);
        all.push(inner.freeze());
        all.push(nested.freeze());
    }
    // A record that says it is as long as can be said.
    let mut record = BytesMut::new();
    record.put_u32_le(u32::MAX);
    record.put_bytes(1, 60);
    all.push(record.freeze());
    all
}

fn prost_varint(mut value: u64, out: &mut BytesMut) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[test]
fn no_bytes_make_a_decoder_allocate_beyond_the_frame_limit() {
    let limit = limits::FRAME_BYTES_MAX + SLACK_BYTES;
    for bytes in hostile() {
        let peak = peak_while(|| decode_all(&bytes));
        let start = &bytes[..bytes.len().min(16)];
        assert!(
            peak <= limit,
            "{peak} bytes for {} bytes that begin {start:02x?}",
            bytes.len()
        );
    }
    let mut runner = TestRunner::deterministic();
    let any_bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..2_000);
    for _ in 0..2_000 {
        let bytes = any_bytes
            .new_tree(&mut runner)
            .expect("a strategy without rejects")
            .current();
        let bytes = Bytes::from(bytes);
        let peak = peak_while(|| decode_all(&bytes));
        assert!(peak <= bytes.len() + SLACK_BYTES, "{peak} bytes for {bytes:02x?}");
    }
}

#[test]
fn a_decoded_frames_body_is_a_slice_of_what_came() {
    use skytale_proto::{AgentId, ChannelId, Detail, FrameId, Header, Offset};
    let header = Header {
        log: ChannelId::generate().log(),
        id: FrameId::generate(),
        author: AgentId::from_bytes([1; 32]),
        parent: Offset::FIRST,
        detail: Detail::Message,
    };
    let frame = Frame::new(header, vec![7; 1000]).expect("a frame");
    let encoded = frame.encoded().clone();
    let body = Frame::decode(encoded.clone()).expect("a frame").body().clone();
    let range = encoded.as_ptr_range();
    assert!(range.contains(&body.as_ptr()));
}
