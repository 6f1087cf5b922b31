//! Bare atomic batches: what their size, how many are in flight and message ids do to the rate.

use crate::FRAME_BYTES;
use skytale_benches::nats::{self, Message};
use skytale_benches::stopwatch::Stopwatch;
use skytale_benches::versus::{Aim, Bench, Case, Pair, Side, Work, in_turn, sized};
use skytale_log_store::cluster::Cluster;
use std::cell::Cell;
use tokio::runtime::Runtime;

/// Messages in a batch, batches in flight, whether they have ids, and how many messages a turn makes. The limit is the same
/// for all: batches of 512, eight in flight, without ids.
const CASES: [(usize, usize, bool, usize); 6] = [
    (512, 1, false, 16_384),
    (64, 1, false, 8_192),
    (64, 8, false, 8_192),
    (8, 1, false, 2_048),
    (8, 8, false, 4_096),
    (512, 8, true, 16_384),
];

pub(crate) fn run(bench: &mut Bench, runtime: &Runtime, cluster: &Cluster) -> anyhow::Result<()> {
    let context = runtime
        .block_on(cluster.account().context())
        .map_err(anyhow::Error::msg)?;
    runtime.block_on(nats::make_stream(&context, "RAW", "raw.*"))?;
    let payload = bytes::Bytes::from(vec![7; FRAME_BYTES]);
    let message = |number: usize| Message {
        subject: format!("raw.{}", number % crate::LOGS),
        payload: payload.clone(),
    };
    let ids_from = Cell::new(0);
    for (size, in_flight, ids, count) in CASES {
        let count = sized(count, count / 8).max(size);
        let messages: Vec<Message> = (0..count).map(message).collect();
        let mut turn = |side| {
            let stopwatch = Stopwatch::start();
            let done = match side {
                Side::Ours if ids => {
                    let first = ids_from.replace(ids_from.get() + count as u64);
                    runtime.block_on(nats::publish_with_ids(&context, &messages, size, in_flight, first))
                }
                Side::Ours => runtime.block_on(nats::publish(&context, &messages, size, in_flight)),
                Side::Limit => runtime.block_on(nats::publish(&context, &messages, 512, 8)),
            };
            done.expect("the stream takes them");
            stopwatch.took()
        };
        let pairs: Vec<Pair> = (0..sized(6, 3)).map(|number| in_turn(number, &mut turn)).collect();
        let ids = if ids { ", with ids" } else { "" };
        let case = Case {
            name: format!("batches of {size}, {in_flight} in flight{ids}"),
            work: Work::Elements {
                count: count as u64,
                bytes: FRAME_BYTES as u64,
            },
            aim: Aim::None,
            pairs: pairs.len(),
        };
        bench.add(case, pairs);
    }
    bench.note("the limit of each: batches of 512, 8 in flight, without ids, of the same stream");
    let messages: Vec<Message> = (0..3).map(message).collect();
    let refused = runtime.block_on(nats::publish_with_ids(&context, &messages, 3, 1, 0));
    bench.note(match refused {
        Ok(()) => "a batch with an id seen before is taken".to_owned(),
        Err(error) => format!("a batch with an id seen before: {error:#}"),
    });
    Ok(())
}
