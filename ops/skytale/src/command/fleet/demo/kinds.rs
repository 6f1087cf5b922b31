//! The kinds of faults, and what each needs.

use crate::nats::SmallDisk;
use crate::output::{Failure, Outcome};
use crate::stage::WrongClock;
use clap::ValueEnum;
use serde::Serialize;
use skytale_proto::Code;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A relay node is killed, and started again.
    RelayKilled,
    /// A relay node is there and does nothing for a while (--pause-s), then goes on as if no time had passed.
    RelayPaused,
    /// A relay node is killed, and comes back without its data.
    RelayEmptied,
    /// A relay node reaches no NATS server.
    RelayCut,
    /// The NATS server that leads the channel's stream is killed, and started again.
    LeaderKilled,
    /// One NATS server is killed, and another once it is back and current.
    NatsKilled,
    /// A NATS server is there and does nothing for a while.
    NatsPaused,
    /// Everything is restarted one after the other: relay nodes drain, NATS servers leave by lame duck mode.
    Restart,
    /// A region that is not the channel's home is cut off from the others.
    RegionCut,
    /// The channel's home region is cut off from the others.
    HomeCut,
    /// All NATS servers are put back to an older copy of their stores; what relay nodes had followed since is put back from their replicas,
    /// by `skytale fleet restore`.
    StoreRestored,
    /// All servers and relay nodes of a region that is not the channel's home are killed, and started again.
    RegionKilled,
    /// The API is stopped, and a relay node is restarted meanwhile.
    ApiAway,
    /// The API's database takes no writes.
    DatabaseReadOnly,
    /// The NATS keys of all relay nodes are changed one after the other, and the API's signing keys four times in a row.
    KeysRotated,
    /// A relay node is restarted with a clock that is 40 days ahead (needs libfaketime).
    ClockAhead,
    /// A relay node is restarted with a clock that is an hour behind (needs libfaketime).
    ClockBehind,
    /// The disk of a NATS server is full, until room is made and the server is restarted (needs the right to mount).
    DiskFull,
}

/// Requirement of a kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Regions,
    Faketime,
    SmallDisk,
}

/// Means for faults.
#[derive(Clone, Copy, Debug)]
pub(super) struct Means {
    pub regions: usize,
    pub faketime: bool,
    pub small_disk: bool,
}

impl Means {
    /// Returns the means on this machine.
    pub(super) fn of_machine(regions: usize) -> Self {
        Self {
            regions,
            faketime: WrongClock::by("+0").is_some(),
            small_disk: SmallDisk::is_possible(),
        }
    }

    const fn has(self, need: Need) -> bool {
        match need {
            Need::Regions => self.regions > 1,
            Need::Faketime => self.faketime,
            Need::SmallDisk => self.small_disk,
        }
    }
}

impl Kind {
    /// Those that are possible.
    pub(super) fn of(means: Means) -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|kind| kind.need().is_none_or(|need| means.has(need)))
            .collect()
    }

    const fn need(self) -> Option<Need> {
        match self {
            Self::RegionCut | Self::HomeCut | Self::RegionKilled => Some(Need::Regions),
            Self::ClockAhead | Self::ClockBehind => Some(Need::Faketime),
            Self::DiskFull => Some(Need::SmallDisk),
            _ => None,
        }
    }

    /// Refuses one that is not possible, and says what to do.
    pub(super) fn check(self, means: Means) -> Outcome {
        let Some(need) = self.need().filter(|need| !means.has(*need)) else {
            return Ok(());
        };
        let name = self.name();
        Err(match need {
            Need::Regions => Failure::new(
                Code::Usage,
                format!("there is no fault `{name}` in a fleet of one region"),
            )
            .help("Give it more of them: `--regions 3`."),
            Need::Faketime => Failure::new(Code::Environment, format!("the fault `{name}` needs libfaketime")).help(
                "Install the package `libfaketime` (`apt-get install libfaketime`), or name other faults by `--fault`.",
            ),
            Need::SmallDisk => Failure::new(
                Code::Environment,
                format!("the fault `{name}` needs the right to mount a small disk (tmpfs)"),
            )
            .help("Run it as root, or name other faults by `--fault`."),
        })
    }

    /// Returns its name on the command line.
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faults_of_a_round_are_those_that_are_possible() {
        let means = |regions, faketime, small_disk| Means {
            regions,
            faketime,
            small_disk,
        };
        let count = |means| Kind::of(means).len();
        let all = Kind::value_variants().len();
        assert_eq!(count(means(3, true, true)), all);
        assert_eq!(count(means(1, true, true)), all - 3);
        assert_eq!(count(means(3, false, true)), all - 2);
        assert_eq!(count(means(3, true, false)), all - 1);
        assert_eq!(count(means(1, false, false)), all - 6);
        assert_eq!(Kind::LeaderKilled.name(), "leader-killed");
    }

    #[test]
    fn a_fault_that_is_not_possible_says_what_it_needs() {
        let none = Means {
            regions: 1,
            faketime: false,
            small_disk: false,
        };
        for (kind, help) in [
            (Kind::HomeCut, "--regions"),
            (Kind::ClockAhead, "`libfaketime`"),
            (Kind::ClockBehind, "`libfaketime`"),
            (Kind::DiskFull, "root"),
        ] {
            let refused = kind.check(none).expect_err("it is not possible");
            assert!(format!("{refused:?}").contains(help), "{refused:?}");
        }
        for kind in Kind::of(none) {
            kind.check(none).expect("it is possible");
        }
    }
}
