use super::*;
use crate::ids::Sample;
use crate::summary::Summarizer;
use skytale_proto::ChannelMode;
use skytale_proto::{AccountId, ChannelId, FrameId};

fn agent(number: u8) -> AgentId {
    AgentId::from_bytes([number; 32])
}

fn channel() -> ChannelId {
    ChannelId::from_bytes([7; 16])
}

fn header(author: u8, log: LogId, detail: Detail) -> Header {
    Header {
        log,
        id: FrameId::generate(),
        author: agent(author),
        parent: Offset::ZERO,
        detail,
    }
}

fn capture(window: Window, headers: &[(u64, Header)]) -> (Vec<What>, u64) {
    let mut capture = LogCapture::new(Pseudonyms::new(Sample::ALL).expect("random bytes"), window);
    let mut events = Vec::new();
    for (number, (time_ms, header)) in headers.iter().enumerate() {
        let entry = Entry {
            offset: Offset::new(number as u64 + 1),
            time_ms: *time_ms,
            header,
            body_bytes: 100,
        };
        capture.entry(&entry, &mut events);
    }
    assert!(events.is_sorted_by_key(|event| event.at));
    let mut summarizer = Summarizer::default();
    events.iter().for_each(|event| summarizer.add(event));
    (events.into_iter().map(|event| event.what).collect(), capture.made_up())
}

fn create() -> Detail {
    Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy: None,
    }
}

fn commit(adds: &[u8], removes: &[u8]) -> Detail {
    let agents = |numbers: &[u8]| numbers.iter().copied().map(agent).collect::<Vec<_>>();
    Detail::Commit {
        adds: agents(adds),
        removes: agents(removes),
        recipients: agents(adds),
        roster: None,
        policy: None,
    }
}

fn kinds(what: &[What]) -> Vec<&'static str> {
    what.iter().map(What::kind).collect()
}

fn script() -> Vec<(u64, Header)> {
    let log = channel().log();
    vec![
        (
            1_000,
            header(
                2,
                agent(2).log(),
                Detail::KeyPackage {
                    last_resort: false,
                    account: None,
                },
            ),
        ),
        (1_005, header(1, log, create())),
        (
            1_010,
            header(1, agent(2).log(), Detail::KeyPackageClaim { account: None }),
        ),
        (1_020, header(1, log, commit(&[2, 3], &[]))),
        (
            1_020,
            header(
                1,
                agent(2).log(),
                Detail::Welcome {
                    channel: channel(),
                    offset: Offset::new(2),
                    returns: false,
                },
            ),
        ),
        (1_030, header(2, log, Detail::Message)),
        (1_040, header(1, log, commit(&[], &[3]))),
        (1_050, header(1, log, Detail::Trim { up_to: Offset::new(3) })),
        // The clock of another node.
        (1_045, header(2, log, Detail::Message)),
    ]
}

#[test]
fn a_whole_log_is_captured_as_it_is() {
    let (what, made_up) = capture(Window::default(), &script());
    assert_eq!(made_up, 0);
    assert_eq!(
        kinds(&what),
        [
            "key_package",
            "create",
            "key_package_claim",
            "commit",
            "message",
            "commit",
            "trim",
            "message"
        ]
    );
    let Some(What::Append { author, frame, .. }) = what.get(3) else {
        panic!("{what:?}");
    };
    assert_eq!(*author, Agent(1));
    let (two, three) = (Agent(0), Agent(2));
    assert_eq!(
        *frame,
        Frame::Commit {
            channel: Channel(0),
            adds: vec![two, three],
            removes: vec![],
            recipients: vec![two, three],
        }
    );
}

#[test]
fn a_window_begins_with_the_channels_that_were_there() {
    let window = Window {
        from_ms: Some(1_025),
        until_ms: Some(1_046),
    };
    let (what, made_up) = capture(window, &script());
    assert_eq!(kinds(&what), ["create", "commit", "message", "commit", "message"]);
    assert_eq!(made_up, 2);
    // Those who are in it are numbered, and nobody else.
    let Some(What::Append { author, .. }) = what.first() else {
        panic!("{what:?}");
    };
    assert_eq!(*author, Agent(0));
}

#[test]
fn an_author_of_whom_nothing_is_known_is_added_first() {
    let log = channel().log();
    // Earlier entries were given up long ago.
    let headers = [
        (5, header(4, log, Detail::Message)),
        (6, header(5, log, Detail::Message)),
        (7, header(5, log, Detail::Message)),
    ];
    let (what, made_up) = capture(Window::default(), &headers);
    assert_eq!(kinds(&what), ["create", "message", "commit", "message", "message"]);
    assert_eq!(made_up, 2);
    // The rest of a channel begins with the relay's word on it.
    let trim = Detail::Trim { up_to: Offset::new(1) };
    let headers = [
        (5, header(9, log, trim.clone())),
        (6, header(4, log, Detail::Message)),
        (7, header(9, log, trim)),
    ];
    let (what, _) = capture(Window::default(), &headers);
    assert_eq!(kinds(&what), ["create", "message", "trim"]);
    let raw = Detail::Raw {
        account: AccountId::from_bytes([1; 16]),
    };
    let (what, _) = capture(
        Window::default(),
        &[(5, header(4, log, raw.clone())), (6, header(5, log, raw))],
    );
    assert_eq!(kinds(&what), ["create", "raw", "raw"]);
}
