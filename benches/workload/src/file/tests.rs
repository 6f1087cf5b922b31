use super::*;
use crate::event::{Agent, Channel, Event, Frame, Log, What};
use proptest::collection::vec;
use proptest::prelude::*;
use skytale_proto::{ChannelMode, Code};
use std::io::{Cursor, Read as _};
use std::time::Duration;

fn agents() -> impl Strategy<Value = Vec<Agent>> {
    vec(any::<u32>().prop_map(Agent), 0..4)
}

fn frame() -> impl Strategy<Value = Frame> {
    let channel = any::<u32>().prop_map(Channel);
    prop_oneof![
        (channel.clone(), any::<bool>()).prop_map(|(channel, raw)| Frame::Create {
            channel,
            mode: if raw { ChannelMode::Raw } else { ChannelMode::Mls },
        }),
        (channel.clone(), agents(), agents(), agents()).prop_map(|(channel, adds, removes, recipients)| {
            Frame::Commit {
                channel,
                adds,
                removes,
                recipients,
            }
        }),
        channel.clone().prop_map(Frame::Proposal),
        channel.clone().prop_map(Frame::Message),
        channel.clone().prop_map(Frame::Raw),
        channel.clone().prop_map(Frame::Rejoin),
        (channel, any::<u64>()).prop_map(|(channel, kept)| Frame::Trim { channel, kept }),
        any::<bool>().prop_map(|last_resort| Frame::KeyPackage { last_resort }),
        any::<u32>().prop_map(|of| Frame::Claim(Agent(of))),
    ]
}

fn what() -> impl Strategy<Value = What> {
    let agent = any::<u32>().prop_map(Agent);
    prop_oneof![
        (agent.clone(), any::<u32>(), frame()).prop_map(|(author, body_bytes, frame)| What::Append {
            author,
            body_bytes,
            frame,
        }),
        agent.clone().prop_map(What::Connect),
        agent.clone().prop_map(What::Disconnect),
        agent.clone().prop_map(What::Token),
        (agent.clone(), any::<bool>(), any::<u32>(), any::<u64>(), any::<bool>()).prop_map(
            |(agent, own, index, behind, follow)| What::Subscribe {
                agent,
                log: if own {
                    Log::Agent(Agent(index))
                } else {
                    Log::Channel(Channel(index))
                },
                behind,
                follow,
            }
        ),
        agent.prop_map(|agent| What::Refused {
            agent,
            code: Code::RateLimited,
        }),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    vec((0..10_000_000u64, what()), 0..40).prop_map(|parts| {
        let mut at = Duration::ZERO;
        let event = |(delta, what)| {
            at += Duration::from_micros(delta);
            Event { at, what }
        };
        parts.into_iter().map(event).collect()
    })
}

fn written(events: &[Event], flush_each: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &Header::new(Source::Log, "a test")).expect("written");
    for (number, event) in events.iter().enumerate() {
        writer.write(event).expect("written");
        if (number + 1) % flush_each == 0 {
            writer.flush().expect("flushed");
        }
    }
    writer.finish().expect("finished").0
}

fn read(bytes: &[u8]) -> Result<(Vec<Event>, End), ReadError> {
    let mut reader = Reader::new(bytes)?;
    let mut events = Vec::new();
    while let Some(event) = reader.next_event()? {
        events.push(event);
    }
    Ok((events, reader.end().expect("an end").clone()))
}

proptest! {
    #[test]
    fn what_is_written_is_read(events in events(), flush_each in 1..20usize) {
        let (read, end) = read(&written(&events, flush_each)).expect("a workload");
        prop_assert_eq!(read, events);
        prop_assert_eq!(end, End::Whole);
    }

    #[test]
    fn a_cut_file_is_good_up_to_its_last_whole_member(events in events(), cut in any::<prop::sample::Index>()) {
        let whole = written(&events, 1);
        let cut = &whole[..cut.index(whole.len())];
        match read(cut) {
            Ok((read, end)) => {
                // The last line can be whole where gzip's checksum of it is cut.
                prop_assert!(end == End::Cut || read == events);
                prop_assert!(events.starts_with(&read));
            }
            // Not even the header was whole.
            Err(error) => prop_assert!(matches!(error, ReadError::NoHeader { .. }), "{error}"),
        }
    }

    #[test]
    fn any_bytes_are_a_workload_or_an_error(bytes in vec(any::<u8>(), 0..200), events in events(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let _ = read(&bytes);
        let mut changed = written(&events, 3);
        let at = at.index(changed.len());
        changed[at] ^= with;
        let _ = read(&changed);
    }

    #[test]
    fn any_line_is_an_event_or_an_error(line in "\\PC{0,60}", numbers in vec(-5i64..5_000_000_000, 0..8), letter in "[a-z+-]") {
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        for line in [line, format!("[1,\"{letter}\",{}]", numbers.join(","))] {
            let _ = read(&gzip(&format!("{}\n{line}\n", header())));
        }
    }
}

fn header() -> String {
    serde_json::to_string(&Header::new(Source::Tap, "a test")).expect("JSON")
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::fast());
    let mut bytes = Vec::new();
    encoder.read_to_end(&mut bytes).expect("gzip");
    bytes
}

#[test]
fn what_is_no_workload_is_refused_with_its_line() {
    let lines = |text: &str| {
        read(&gzip(&format!("{}\n{text}", header())))
            .expect_err("refused")
            .to_string()
    };
    assert!(lines("[1,\"m\",1]\n").contains("line 2"));
    assert!(lines("[1,\"?\",1]\n").contains("not a kind of event"));
    assert!(lines("[18446744073709551615,\"+\",1]\n").contains("ten years"));
    assert!(lines("[0,\"+\",0]\n{\"totals\":{\"events\":2,\"duration_us\":0,\"agents\":1,\"channels\":0,\"body_bytes\":0,\"kinds\":{}}}\n").contains("other events"));
    let version = header().replace("\"skytale_workload\":1", "\"skytale_workload\":2");
    let error = read(&gzip(&format!("{version}\n"))).expect_err("refused");
    assert!(matches!(error, ReadError::Version { found: 2 }), "{error}");
    for text in ["", "{}\n", "[]\n", "no JSON\n"] {
        assert!(matches!(read(&gzip(text)), Err(ReadError::NoHeader { .. })), "{text}");
    }
    assert!(matches!(read(b"not gzip at all"), Err(ReadError::Io(_))));
    // A line without an end, of which gzip makes little.
    let bomb = gzip(&format!("{}\n[{}", header(), " ".repeat(5_000_000)));
    assert!(bomb.len() < 50_000);
    assert!(read(&bomb).expect_err("refused").to_string().contains("longer than"));
}

#[test]
fn the_example_in_the_documentation_is_a_whole_workload() {
    let document = include_str!("../../../../docs/workloads.md");
    let (_, section) = document.split_once("\n## The file\n").expect("the section");
    let (_, example) = section.split_once("```json\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let (events, end) = read(&gzip(example)).expect("a workload");
    assert_eq!((events.len(), end), (5, End::Whole));
}

#[test]
fn a_header_need_not_say_what_goes_without_saying() {
    let header = |source: &str, more: &str| {
        let text =
            format!("{{\"skytale_workload\":1,\"source\":\"{source}\",\"made_by\":\"me\",\"unit\":\"us\"{more}}}\n");
        Reader::new(gzip(&text).as_slice()).map(|reader| reader.header().clone())
    };
    assert_eq!(header("synth", "").expect("a header"), Header::new(Source::Synth, "me"));
    let log = header("log", ",\"ids\":\"hmac_index\"").expect("a header");
    assert_eq!(log, Header::new(Source::Log, "me"));
    // Nobody but the file knows what became of the ids of real traffic.
    for source in ["log", "tap"] {
        assert!(
            matches!(header(source, ""), Err(ReadError::NoHeader { .. })),
            "{source}"
        );
    }
}

#[test]
fn what_a_later_version_adds_to_a_line_is_ignored() {
    let text = format!("{}\n[7,\"+\",3,\"more\",[1]]\n", header());
    let (events, end) = read(&gzip(&text)).expect("a workload");
    assert_eq!(end, End::Cut);
    assert_eq!(
        events,
        [Event {
            at: Duration::from_micros(7),
            what: What::Connect(Agent(3)),
        }]
    );
}

#[test]
fn a_whole_file_tells_its_totals_first_and_any_gzip_reads_it() {
    let size = crate::synth::Size {
        duration: Duration::from_secs(20),
        agents: 20,
        messages_per_second: 500,
    };
    let events = crate::synth::synthesize(crate::synth::Profile::ToolSwarm, size, 1).expect("a size");
    let (mut out, scratch) = (Vec::new(), Cursor::new(Vec::new()));
    let header = Header::new(Source::Synth, "a test");
    let totals = write_whole::<WriteError>(
        &mut out,
        scratch,
        || header,
        |writer| events.iter().try_for_each(|event| writer.write(event)),
    )
    .expect("written");
    assert_eq!(totals.events, events.len() as u64);
    let reader = Reader::new(out.as_slice()).expect("a workload");
    assert_eq!(reader.header().totals.as_ref(), Some(&totals));
    assert!(read(&out).expect("a workload").0 == events, "other events");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(out.as_slice())
        .read_to_string(&mut text)
        .expect("gzip");
    assert!(
        text.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    assert_eq!(text.lines().count(), events.len() + 2);
    let each = out.len() as f64 / events.len() as f64;
    assert!(each < 9.0, "{each} bytes an event");
}
