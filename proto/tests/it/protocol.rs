//! `docs/protocol.md` is the protocol: its tables are the messages of the `.proto` files, its bounds the constants, and its
//! vectors what the code writes and reads.

use bytes::Bytes;
use prost_types::{DescriptorProto, EnumDescriptorProto, field_descriptor_proto::Type};
use skytale_proto::frame::Detail;
use skytale_proto::session::*;
use skytale_proto::{
    AccountId, AgentId, ChannelId, ChannelMode, ClaimRule, Code, EndpointId, Frame, FrameId, Header, Kind, LogId,
    Offset, Record, limits, record,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md")
}

fn page() -> String {
    std::fs::read_to_string(path()).expect("the page is there")
}

/// Rows of the table after a line, as their cells.
fn rows(page: &str, title: &str) -> Vec<Vec<String>> {
    let at = page
        .find(&format!("\n{title}\n"))
        .unwrap_or_else(|| panic!("the page has no `{title}`"));
    let lines = page[at..].lines().skip(2).skip_while(|line| line.is_empty());
    let table = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| {
        line.trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    };
    table.map(cells).collect()
}

/// Descriptors of the `.proto` files.
fn descriptors() -> Vec<prost_types::FileDescriptorProto> {
    let files = ["frame", "session", "payload"].map(|name| format!("proto/skytale/v1/{name}.proto"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<_> = files.iter().map(|file| folder.join(file)).collect();
    protox::compile(files, [folder.join("proto")])
        .expect("they compile")
        .file
}

fn type_of(field: &prost_types::FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Bytes => "bytes".to_owned(),
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Uint32 => "uint32".to_owned(),
        Type::Uint64 => "uint64".to_owned(),
        Type::Message | Type::Enum => field.type_name().rsplit('.').next().expect("a name").to_owned(),
        other => panic!("{other:?} is new here"),
    }
}

fn check_message(page: &str, message: &DescriptorProto) {
    let title = format!("`{}`", message.name());
    let fields: Vec<_> = message
        .field
        .iter()
        .map(|field| (field.number().to_string(), field.name().to_owned(), type_of(field)))
        .collect();
    let written: Vec<_> = rows(page, &title)
        .iter()
        .map(|cells| (cells[0].clone(), cells[1].clone(), cells[2].clone()))
        .collect();
    assert_eq!(written, fields, "{title}");
    for inner in &message.enum_type {
        check_enum(page, &format!("`{}.{}`", message.name(), inner.name()), inner);
    }
}

fn check_enum(page: &str, title: &str, described: &EnumDescriptorProto) {
    let values: Vec<_> = described
        .value
        .iter()
        .map(|value| (value.number().to_string(), value.name().to_owned()))
        .collect();
    let written: Vec<_> = rows(page, title)
        .iter()
        .map(|cells| (cells[0].clone(), cells[1].clone()))
        .collect();
    assert_eq!(written, values, "{title}");
}

#[test]
fn every_message_and_every_field_is_on_the_page() {
    let page = page();
    let mut messages = 0;
    for file in descriptors() {
        for message in &file.message_type {
            check_message(&page, message);
            messages += 1;
        }
        for described in &file.enum_type {
            check_enum(&page, &format!("`{}`", described.name()), described);
        }
    }
    assert!(messages > 30, "{messages}");
}

#[test]
fn the_bounds_on_the_page_are_the_codes() {
    let page = page();
    let bounds: BTreeMap<_, _> = rows(&page, "## Bounds")
        .into_iter()
        .map(|cells| (cells[0].clone(), cells[1].clone()))
        .collect();
    let expected = [
        ("FRAME_BYTES_MAX", limits::FRAME_BYTES_MAX),
        ("MESSAGE_BYTES_MAX", limits::MESSAGE_BYTES_MAX),
        ("HELLO_BYTES_MAX", limits::HELLO_BYTES_MAX),
        ("OPEN_BYTES_MAX", limits::OPEN_BYTES_MAX),
        ("TOKEN_BYTES_MAX", limits::TOKEN_BYTES_MAX),
        ("TOKEN_SCOPES_MAX", limits::TOKEN_SCOPES_MAX),
        ("ROSTER_CHANGE_MAX", limits::ROSTER_CHANGE_MAX),
        ("ROSTER_MAX", limits::ROSTER_MAX),
        ("ADMINS_MAX", limits::ADMINS_MAX),
        ("ROSTER_HISTORY_MAX", limits::ROSTER_HISTORY_MAX),
        ("KEY_PACKAGES_MAX", limits::KEY_PACKAGES_MAX),
        ("CLAIMS_REMEMBERED_MAX", limits::CLAIMS_REMEMBERED_MAX),
        ("CLAIMS_BY_ACCOUNT_MAX", limits::CLAIMS_BY_ACCOUNT_MAX),
        ("CLAIMS_BY_OTHERS_MAX", limits::CLAIMS_BY_OTHERS_MAX),
        ("CLAIM_RULE_MAX", limits::CLAIM_RULE_MAX),
        ("WELCOMES_REMEMBERED_MAX", limits::WELCOMES_REMEMBERED_MAX),
        ("WATCHED_AT_ONCE_MAX", limits::WATCHED_AT_ONCE_MAX),
    ];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    assert_eq!(bounds, expected);
    for (name, value) in [
        ("APPEND_IN_FLIGHT_BYTES_MAX", limits::APPEND_IN_FLIGHT_BYTES_MAX as u64),
        ("STREAMS_MAX", u64::from(limits::STREAMS_MAX)),
        ("WATCHED_MAX", u64::from(limits::WATCHED_MAX)),
        ("BATCH_BYTES_MAX", limits::BATCH_BYTES_MAX as u64),
        ("FRAMES_PER_SECOND", u64::from(limits::FRAMES_PER_SECOND)),
        ("BYTES_PER_SECOND", limits::BYTES_PER_SECOND),
        ("COMMITS_PER_MINUTE", u64::from(limits::COMMITS_PER_MINUTE)),
        ("ACCOUNT_COMMITS", u64::from(limits::ACCOUNT_COMMITS)),
    ] {
        assert!(page.contains(&format!("`{name}` {value}")), "{name} is {value}");
    }
    for word in page
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| word.starts_with("SKY-"))
    {
        let number = word["SKY-".len()..].parse().ok();
        assert!(
            word == "SKY-nnnn" || number.and_then(Code::from_number).is_some(),
            "{word} is no code"
        );
    }
}

#[test]
fn the_kinds_of_frames_on_the_page_are_the_codes() {
    let kinds = [
        Kind::Create,
        Kind::Commit,
        Kind::Proposal,
        Kind::Message,
        Kind::Trim,
        Kind::Raw,
        Kind::Rejoin,
        Kind::KeyPackage,
        Kind::KeyPackageClaim,
        Kind::Welcome,
        Kind::KeyPackagePolicy,
    ];
    let page = page();
    let at = page.find("| kind | log | handshake rule |").expect("a table");
    let table: Vec<_> = page[at..]
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(table.len(), kinds.len());
    for (row, kind) in table.iter().zip(kinds) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[1].trim_matches('`'), format!("{kind:?}"));
        assert_eq!(cells[3] == "yes", kind.is_under_handshake_rule(), "{kind:?}");
        // In each log that the row names a frame of this kind can be made, and in no other.
        for (word, log) in [("channel", LogId::Channel(channel())), ("agent", LogId::Agent(agent()))] {
            let parent = if kind.is_under_handshake_rule() {
                Offset::FIRST
            } else {
                Offset::ZERO
            };
            let header = Header {
                log,
                id: id(),
                author: agent(),
                parent,
                detail: detail(kind),
            };
            assert_eq!(
                Frame::new(header, Bytes::new()).is_ok(),
                cells[2].contains(word),
                "{kind:?} in {word}"
            );
        }
    }
    assert!(page.contains(std::str::from_utf8(ALPN).expect("ASCII")));
}

const fn agent() -> AgentId {
    AgentId::from_bytes([0x11; 32])
}

const fn channel() -> ChannelId {
    ChannelId::from_bytes([0x22; 16])
}

const fn id() -> FrameId {
    FrameId::from_bytes([0x44; 16])
}

fn detail(kind: Kind) -> Detail {
    let account = AccountId::from_bytes([0x33; 16]);
    match kind {
        Kind::Create => Detail::Create {
            mode: ChannelMode::Mls,
            account: None,
            policy: None,
        },
        Kind::Commit => Detail::Commit {
            adds: vec![agent()],
            removes: Vec::new(),
            recipients: vec![agent()],
            roster: None,
            policy: None,
        },
        Kind::Proposal => Detail::Proposal,
        Kind::Message => Detail::Message,
        Kind::Trim => Detail::Trim { up_to: Offset::new(7) },
        Kind::Raw => Detail::Raw { account },
        Kind::Rejoin => Detail::Rejoin,
        Kind::KeyPackage => Detail::KeyPackage {
            last_resort: true,
            account: Some(account),
        },
        Kind::KeyPackageClaim => Detail::KeyPackageClaim { account: Some(account) },
        Kind::KeyPackagePolicy => Detail::KeyPackagePolicy {
            account,
            rule: ClaimRule::Anyone,
        },
        Kind::Welcome => Detail::Welcome {
            channel: channel(),
            offset: Offset::new(7),
            returns: false,
        },
    }
}

/// Each vector with its bytes.
fn vectors() -> Vec<(&'static str, Bytes)> {
    let open = |stream| frame_message(&Open { stream: Some(stream) });
    let control = |event| frame_message(&ControlEvent { event: Some(event) });
    let hello = Hello {
        token: "token".into(),
        sdk_version: "1".into(),
        last_resort: false,
        proof: vec![0x66; 64].into(),
    };
    let subscribe = Subscribe {
        log: channel().log().to_bytes().into(),
        after: 7,
        follow: true,
        limit: 0,
    };
    let started = Started {
        limits: Some(Limits {
            frame_bytes_max: 1_048_576,
            ..Limits::default()
        }),
        keepalive_ms: 15_000,
        durability: Durability::NodeSynced.into(),
        relay_version: "0.1.0".into(),
        time_ms: 1_800_000_000_000,
        token_expires_s: 1_800_003_600,
        rollback_ms: 0,
    };
    let message = frame(Kind::Message);
    let appended = Appended {
        offset: 8,
        time_ms: 1_800_000_000_000,
        durability: Durability::NodeSynced.into(),
        duplicate: false,
    };
    let refusal = Refusal::because(Code::StaleEpoch, "the head has moved").at(Offset::new(9));
    let record = Record {
        kind: record::KIND_ENTRY,
        offset: Offset::new(8),
        time_ms: 1_800_000_000_000,
        payload: message.encoded().clone(),
    };
    let watched = WatchRequest {
        add: [channel().as_bytes().as_slice(), &7_u64.to_le_bytes()].concat().into(),
        ..WatchRequest::default()
    };
    let mut records = bytes::BytesMut::new();
    record.encode_into(&mut records);
    let records = records.freeze();
    let mut batch = bytes::BytesMut::from(batch_prefix(records.len()).as_ref());
    batch.extend_from_slice(&records);
    vec![
        (
            "What a Hello's proof is of",
            hello_proof_message(
                &EndpointId::from_bytes([0x77; 32]),
                &EndpointId::from_bytes([0x88; 32]),
                &agent(),
                &[0x99; 32],
            )
            .into(),
        ),
        ("Open with Hello", open(open::Stream::Hello(hello))),
        ("Open with AppendOpen", open(open::Stream::Append(AppendOpen {}))),
        ("Open with Subscribe", open(open::Stream::Subscribe(subscribe))),
        (
            "Open with KeyPackagesOpen",
            open(open::Stream::KeyPackages(KeyPackagesOpen {})),
        ),
        (
            "ControlEvent with Started",
            control(control_event::Event::Started(started)),
        ),
        (
            "ControlEvent with Ping",
            control(control_event::Event::Ping(Ping { nonce: 1 })),
        ),
        ("Frame, a Message", message.encoded().clone()),
        ("Frame, a Commit", frame(Kind::Commit).encoded().clone()),
        (
            "Frame, a KeyPackageClaim",
            frame(Kind::KeyPackageClaim).encoded().clone(),
        ),
        (
            "AppendRequest",
            frame_message(&AppendRequest {
                frame: message.encoded().clone(),
            }),
        ),
        (
            "AppendResponse with Appended",
            frame_message(&AppendResponse {
                outcome: Some(append_response::Outcome::Appended(appended)),
            }),
        ),
        (
            "AppendResponse with Refusal",
            frame_message(&AppendResponse {
                outcome: Some(append_response::Outcome::Refusal(refusal)),
            }),
        ),
        ("Record", records),
        ("SubscribeEvent with Batch", batch.freeze()),
        (
            "SubscribeEvent with CaughtUp",
            frame_message(&SubscribeEvent {
                event: Some(subscribe_event::Event::CaughtUp(CaughtUp {
                    head: 8,
                    unconfirmed: false,
                })),
            }),
        ),
        ("Open with WatchOpen", open(open::Stream::Watch(WatchOpen {}))),
        ("WatchRequest", frame_message(&watched)),
        (
            "WatchEvent",
            frame_message(&WatchEvent {
                ready: Bytes::copy_from_slice(channel().as_bytes()),
                ..WatchEvent::default()
            }),
        ),
    ]
}

fn frame(kind: Kind) -> Frame {
    let log = if kind == Kind::KeyPackageClaim {
        agent().log()
    } else {
        channel().log()
    };
    let parent = if kind.is_under_handshake_rule() {
        Offset::new(7)
    } else {
        Offset::ZERO
    };
    let header = Header {
        log,
        id: id(),
        author: agent(),
        parent,
        detail: detail(kind),
    };
    Frame::new(header, Bytes::from_static(b"body")).expect("a frame")
}

fn read<M: prost::Message + Default>(bytes: &Bytes) {
    let (prefix, body) = bytes.split_first_chunk::<LENGTH_BYTES>().expect("a length");
    assert_eq!(
        message_length(*prefix, limits::MESSAGE_BYTES_MAX).expect("within the limit"),
        body.len()
    );
    let message: M = decode_message(bytes.slice(LENGTH_BYTES..)).expect("a message");
    assert_eq!(message.encode_to_vec(), body, "nothing of it was skipped");
}

/// With `SKYTALE_UPDATE_DOCS=1` the vectors are written.
#[test]
fn the_vectors_on_the_page_are_what_the_code_writes_and_reads() {
    let expected: String = vectors()
        .iter()
        .map(|(name, bytes)| format!("| {name} | `{}` |\n", data_encoding::HEXLOWER.encode(bytes)))
        .collect();
    let at = |page: &str| {
        page.find("| vector | bytes, hex |\n|---|---|\n").expect("a table")
            + "| vector | bytes, hex |\n|---|---|\n".len()
    };
    if std::env::var_os("SKYTALE_UPDATE_DOCS").is_some() {
        let page = page();
        std::fs::write(path(), format!("{}{expected}", &page[..at(&page)])).expect("written");
    }
    let page = page();
    assert!(
        page[at(&page)..] == expected,
        "docs/protocol.md: run this test with SKYTALE_UPDATE_DOCS=1"
    );
    for row in page[at(&page)..].lines() {
        let (name, hex) = row.trim_matches('|').split_once(" | ").expect("two cells");
        let bytes = data_encoding::HEXLOWER
            .decode(hex.trim().trim_matches('`').as_bytes())
            .expect("hex");
        let bytes = Bytes::from(bytes);
        let name = name.trim();
        match name.split([' ', ',']).next().expect("a word") {
            "Open" => read::<Open>(&bytes),
            "ControlEvent" => read::<ControlEvent>(&bytes),
            "AppendRequest" => read::<AppendRequest>(&bytes),
            "AppendResponse" => read::<AppendResponse>(&bytes),
            "SubscribeEvent" => read::<SubscribeEvent>(&bytes),
            "WatchRequest" => read::<WatchRequest>(&bytes),
            "WatchEvent" => read::<WatchEvent>(&bytes),
            "Frame" => assert_eq!(Frame::decode(bytes.clone()).expect("a frame").encoded(), &bytes),
            "Record" => assert_eq!(
                Record::decode(&bytes, record::PAYLOAD_BYTES_MAX).expect("a record").1,
                bytes.len()
            ),
            "What" => assert!(bytes.starts_with(HELLO_PROOF_CONTEXT)),
            other => panic!("{other}"),
        }
    }
}
