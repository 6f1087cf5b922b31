//! Problems of a fleet's servers and streams, and the commands that fix them: read only.
//!
//! `gather` asks, `servers` and `streams` judge the answers and ask nothing. A question without an answer is unknown,
//! not a problem.
//!
//! | asked | as whom | gives |
//! |---|---|---|
//! | each address of the configuration | relay node | which servers answer, and whether they take the key |
//! | all servers, `$SYS.REQ.SERVER.PING.VARZ` | system account | versions, JetStream, `sync_interval`, free bytes, clocks, the meta group |
//! | each stream, mirror and stream of checkpoints, `$JS.API.STREAM.INFO` | relay node | settings, leader, copies |
//! | what nodes vouch for, by consumers of the checkpoints | relay node | which states contradict, and which nobody believes |
//! | the server that is connected, `$SYS.REQ.USER.INFO` | relay node | what its key may do |

mod checkpoints;
mod clock;
mod commands;
mod gather;
mod majority;
mod report;
mod servers;
mod streams;

pub use report::{CHECKS, Examination, Finding, ServerReport, Severity, StreamReport};

use super::config::FleetConfig;
use super::error::OpenError;
use commands::Commands;

/// Examines the fleet of a relay node's configuration. It fails for a configuration that cannot be, and for nothing else:
/// what does not answer is a finding.
pub async fn examine(config: &FleetConfig) -> Result<Examination, OpenError> {
    let wrong = |problem| OpenError::Config { problem };
    if let Some(problem) = config.problem() {
        return Err(wrong(problem));
    }
    let shards = config.shards().map_err(wrong)?;
    let facts = Box::pin(gather::gather(config, &shards)).await;
    let commands = Commands::new(config, &facts);
    let mut findings = servers::judge(&facts, &commands);
    findings.extend(streams::judge(config, &shards, &facts, &commands));
    findings.extend(checkpoints::judge(config, &facts));
    // Each severity keeps the order of the checks.
    findings.sort_by_key(|finding| finding.severity);
    Ok(Examination {
        ok: findings.is_empty(),
        findings,
        servers: servers::report(&facts),
        streams: streams::report(&facts),
    })
}
