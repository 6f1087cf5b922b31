//! Examples in help texts. A test gives each line to the parser of the command line.

pub(super) const BENCH_CAPTURE: &str = "\
Examples:
  skytale bench capture monday.skw --from-log /var/lib/skytale/relay
  skytale bench capture monday.skw --from-tap /var/lib/skytale/relay/tap --sample 0.1";

pub(super) const BENCH_SYNTH: &str = "\
Example:
  skytale bench synth nightly-team night.skw --agents 40 --duration 5m --rate 50 --seed 1";

pub(super) const BENCH_INSPECT: &str = "\
Examples:
  skytale bench inspect monday.skw
  skytale bench inspect monday.skw --html monday.html";

pub(super) const BENCH_RUN: &str = "\
Examples:
  skytale bench run monday.skw --speed 10 --dry-run
  skytale bench run monday.skw --local --speed 10 --out ten
  skytale bench run monday.skw --fleet --nodes 3 --kill-at 30s";

pub(super) const BENCH_SEARCH: &str = "\
Example:
  skytale bench search monday.skw --local --objective 'append.p99<250ms' --objective 'refused<1%' --to 64 --out limit";

pub(super) const BENCH_COMPARE: &str = "\
Example:
  skytale bench compare before after --fail-if 'append.p99>1.1x' --fail-if 'acknowledged_per_s<0.9x'";

pub(super) const FLEET_UP: &str = "\
Examples:
  skytale fleet up
  skytale fleet up --regions 3 --nats-server /opt/nats/nats-server";

pub(super) const FLEET_DEMO: &str = "\
Examples:
  skytale fleet demo
  skytale fleet demo --fault leader-killed --fault relay-emptied
  skytale fleet demo --regions 3 --rounds 10";

pub(super) const FLEET_NATS: &str = "\
Example:
  skytale fleet nats --inventory inventory.toml --out conf";

pub(super) const LOG: &str = "\
Examples:
  skytale log verify /var/lib/skytale/relay
  skytale log dump /var/lib/skytale/relay --json";

pub(super) const VAULT: &str = "\
Examples:
  skytale vault backup /backups/agent.backup
  skytale vault restore /backups/agent.backup --vault agent.vault";

pub(super) const CONFIG: &str = "\
Examples:
  skytale config init
  skytale config check --config /etc/skytale/skytale.toml
  skytale config print --set relay.retention_s=86400";
