//! Check that a person can tell labels apart.

use super::super::likeness::{looks_like, normal};
use crate::output::{Failure, Outcome, printable};
use skytale_proto::{ChannelId, Code};
use skytale_sdk::{ChannelInfo, ChannelState};

/// A label as it is kept (NFC). Refused, unless `force` says otherwise, where another channel has it, an id of another one
/// begins with it, or it looks like another one's. `own` is the channel that it is for.
pub(super) fn usable(label: &str, own: Option<ChannelId>, channels: &[ChannelInfo], force: bool) -> Outcome<String> {
    let label = normal(label);
    // A whole id is no label, whatever else.
    if force || label.is_empty() || label.parse::<ChannelId>().is_ok() {
        return Ok(label);
    }
    let others = channels
        .iter()
        .filter(|other| Some(other.id) != own && other.state != ChannelState::Left);
    for other in others {
        let (shown, id) = (printable(&label), other.id);
        let problem = if normal(&other.label) == label {
            format!("channel {id} has the label `{shown}`")
        } else if id.to_string().starts_with(&label.to_lowercase()) {
            format!("`{shown}` is the beginning of the id of channel {id}")
        } else if looks_like(&other.label, &label) {
            format!(
                "`{shown}` looks like `{}`, the label of channel {id}",
                printable(&other.label)
            )
        } else {
            continue;
        };
        return Err(Failure::new(Code::Usage, problem)
            .help("Give another label, or use it all the same with `--force`: commands then ask for an id."));
    }
    Ok(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(first: u8, label: &str, state: ChannelState) -> ChannelInfo {
        ChannelInfo::new(ChannelId::from_bytes([first; 16]), label, state)
    }

    #[test]
    fn a_label_that_means_two_channels_or_seems_to_is_refused() {
        let channels = [
            channel(0xaa, "plans", ChannelState::Active),
            channel(0xbb, "Zo\u{eb}", ChannelState::Creating),
            channel(0xcc, "gone", ChannelState::Left),
        ];
        let usable = |label: &str, own, force| usable(label, own, &channels, force);
        for label in [
            "plans",
            "Plans",
            "p1ans",
            "\u{440}lans",
            "aa",
            "AAAA",
            "bbb",
            "Zoe\u{308}",
        ] {
            assert_eq!(
                usable(label, None, false).expect_err(label).code(),
                Code::Usage,
                "{label}"
            );
            assert!(usable(label, None, true).is_ok(), "{label}");
        }
        assert_eq!(usable("Zoe\u{308}x", None, false).expect("kept"), "Zo\u{eb}x");
        for label in ["gone", "plan", "", "cc"] {
            assert!(usable(label, None, false).is_ok(), "{label}");
        }
        assert!(usable("plans", Some(channels[0].id), false).is_ok(), "its own");
    }
}
