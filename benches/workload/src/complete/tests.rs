use super::*;

const AGENT: Agent = Agent(0);

/// Sessions of one agent, a second between them: `+`, `-`, or `/` where another output begins.
fn sessions(completer: &mut Completer, input: &str) -> String {
    let mut out = Vec::new();
    for (second, letter) in (0..).zip(input.chars()) {
        let what = match letter {
            '+' => What::Connect(AGENT),
            '-' => What::Disconnect(AGENT),
            _ => {
                completer.restart();
                continue;
            }
        };
        let at = Duration::from_secs(second);
        completer.event(Event { at, what }, &mut out);
    }
    let letter = |event: Event| match event.what {
        What::Connect(_) => '+',
        What::Disconnect(_) => '-',
        other => panic!("{other:?}"),
    };
    out.into_iter().map(letter).collect()
}

#[test]
fn an_agent_is_offline_when_all_of_its_sessions_have_ended() {
    let cases = [
        ("+-+-", "+-+-"),
        ("++-", "+"),
        ("++--", "+-"),
        ("++-+--", "+-"),
        ("++--+-", "+-+-"),
        // Sessions that end more often than they began.
        ("+--+-", "+-+-"),
        // The second session goes on in the next output.
        ("+/+--", "++-"),
    ];
    for (input, output) in cases {
        for mut completer in [
            Completer::with_all_sessions(),
            Completer::with_sessions(HashSet::from([AGENT])),
        ] {
            assert_eq!(sessions(&mut completer, input), output, "{input}");
        }
        // Without completing, sessions stay as they are.
        assert_eq!(sessions(&mut Completer::new(), input), input.replace('/', ""));
    }
}

#[test]
fn sessions_of_before_the_output_count() {
    let mut completer = Completer::with_all_sessions();
    let at = Duration::ZERO;
    let channel = Channel(0);
    let observed = [
        What::Connect(AGENT),
        What::Connect(AGENT),
        What::Subscribe {
            agent: AGENT,
            log: Log::Channel(channel),
            behind: 0,
            follow: true,
        },
        What::Disconnect(AGENT),
    ];
    for what in observed {
        completer.observe(&Event { at, what });
    }
    let mut out = Vec::new();
    let frame = Frame::Create {
        channel,
        mode: ChannelMode::Mls,
    };
    let what = What::Append {
        author: AGENT,
        body_bytes: 180,
        frame,
    };
    completer.event(Event { at, what }, &mut out);
    let follows = |event: &Event| {
        matches!(
            event.what,
            What::Subscribe {
                log: Log::Channel(_),
                ..
            }
        )
    };
    assert!(out.iter().any(follows), "{out:?}");
    completer.event(
        Event {
            at,
            what: What::Disconnect(AGENT),
        },
        &mut out,
    );
    assert_eq!(out.last().map(|event| &event.what), Some(&What::Disconnect(AGENT)));
}
