//! Rights of this node's NATS key, as a server reports them: less than it needs, or more than it should have.

use super::metrics;
use super::node::Node;
use super::shards::ShardId;
use serde::Deserialize;
use skytale_proto::Region;
use std::sync::Arc;
use std::time::Duration;

/// The question; the server that is connected answers it.
const QUESTION: &str = "$SYS.REQ.USER.INFO";
/// The system account, as accounts.conf calls it.
const SYSTEM_ACCOUNT: &str = "SYS";
/// Interval at which the rights are requested.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// Subjects that a user may publish to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// `None` where everything is allowed.
    allow: Option<Vec<String>>,
    deny: Vec<String>,
    account: String,
}

#[derive(Deserialize)]
struct Answer {
    data: Option<User>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    account: String,
    permissions: Option<Permissions>,
}

#[derive(Deserialize)]
struct Permissions {
    publish: Option<Publish>,
}

#[derive(Deserialize)]
struct Publish {
    allow: Option<Vec<String>>,
    #[serde(default)]
    deny: Option<Vec<String>>,
}

impl Rights {
    fn read(answer: &[u8]) -> Option<Self> {
        let user = serde_json::from_slice::<Answer>(answer).ok()?.data?;
        let publish = user.permissions.and_then(|permissions| permissions.publish);
        let (allow, deny) = publish.map_or((None, None), |publish| (publish.allow, publish.deny));
        Some(Self {
            allow,
            deny: deny.unwrap_or_default(),
            account: user.account,
        })
    }

    /// Whether they are restricted at all.
    pub(super) const fn are_limited(&self) -> bool {
        self.allow.is_some()
    }

    /// Whether a subject may be published to.
    pub(super) fn allow(&self, subject: &str) -> bool {
        let is_in = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, subject));
        self.allow.as_deref().is_none_or(is_in) && !is_in(&self.deny)
    }
}

/// Whether a pattern of NATS covers a subject.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    let mut pattern = pattern.split('.');
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(one), Some(other)) if one == "*" || one == other => {}
            _ => return false,
        }
    }
}

/// Asks the server that is connected.
pub(super) async fn ask(client: &async_nats::Client, within: Duration) -> Result<Rights, String> {
    let asked = tokio::time::timeout(within, client.request(QUESTION, "".into())).await;
    let answer = asked
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    Rights::read(&answer.payload).ok_or_else(|| "its answer is not understood".to_owned())
}

/// Returns the subjects that take messages away, of one shard's stream and its checkpoints.
fn destroying(shard: ShardId) -> Vec<String> {
    let streams = [shard.stream(), super::bucket::stream(shard.region)];
    let all = streams.iter().flat_map(|stream| {
        ["PURGE", "DELETE", "UPDATE", "MSG.DELETE", "RESTORE"].map(|what| format!("$JS.API.STREAM.{what}.{stream}"))
    });
    all.collect()
}

/// Returns the problems in a serving node's rights; none, if there are no limits at all: such a server is no fleet's.
pub(super) fn of_node(rights: &Rights, shard: ShardId) -> Vec<String> {
    if !rights.are_limited() {
        return Vec::new();
    }
    let too_many: Vec<String> = destroying(shard)
        .into_iter()
        .filter(|subject| rights.allow(subject))
        .collect();
    let needed = [
        shard.named("mark"),
        format!("skytale.checkpoint.{}.{}.0.0.word", shard.region.0, shard.index),
    ];
    let missing: Vec<String> = needed.into_iter().filter(|subject| !rights.allow(subject)).collect();
    let mut problems = Vec::new();
    if !too_many.is_empty() {
        problems.push(format!(
            "this node's NATS key may take messages away ({}): give the servers the accounts.conf that `skytale fleet nats` writes now",
            too_many.join(", ")
        ));
    }
    if !missing.is_empty() {
        problems.push(format!(
            "this node's NATS key may not publish to {}: give the servers the accounts.conf that `skytale fleet nats` writes now",
            missing.join(", ")
        ));
    }
    problems
}

/// Returns the problems in the rights of the key that asks whether servers sync. A user of the system account can have
/// an answer sent to the subject that purges all streams of an account, whatever it may publish to.
pub(super) fn of_sync(rights: &Rights) -> Vec<String> {
    if rights.are_limited() && rights.account == SYSTEM_ACCOUNT {
        return vec![format!(
            "the key in relay.fleet.sync_key is a user of the system account ({SYSTEM_ACCOUNT}), from where all streams can be purged: give \
             the servers the accounts.conf that `skytale fleet nats` writes now"
        )];
    }
    Vec::new()
}

/// Returns the problems in a keeper's rights.
pub(super) fn of_keeper(rights: &Rights, shard: ShardId, home: Region) -> Vec<String> {
    if !rights.are_limited() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for stream in [shard.stream(), super::bucket::stream(home)] {
        let subject = format!("$JS.API.STREAM.PURGE.{stream}");
        if !rights.allow(&subject) {
            problems.push(format!("it may not publish to {subject}"));
        }
    }
    let mark = shard.named("mark");
    if rights.allow(&mark) {
        problems.push(format!("it may publish to {mark}: it is no keeper's"));
    }
    problems
}

/// Asks from time to time, until the node ends: servers take up other accounts while they run.
pub(super) async fn watch(node: Arc<Node>) {
    let Some(shard) = node.shards.all().first().copied() else {
        return;
    };
    loop {
        if node.connected().is_ok() {
            let found = tokio::select! {
                found = ask(&node.client, node.config.request_timeout) => found,
                () = node.ended.cancelled() => return,
            };
            match found {
                Ok(rights) => {
                    let problems = of_node(&rights, shard);
                    let mut known = node.rights.lock();
                    if *known != problems {
                        problems
                            .iter()
                            .for_each(|problem| tracing::warn!(%problem, "rights of the NATS key"));
                    }
                    metrics::rights(problems.len());
                    *known = problems;
                }
                Err(problem) => tracing::debug!(%problem, "the rights of the NATS key are not known"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_EVERY) => {}
            () = node.ended.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId {
        region: Region(1),
        index: 0,
    };

    fn rights(allow: &[&str], deny: &[&str]) -> Rights {
        let answer = serde_json::json!({"server": {}, "data": {"user": "U", "account": "SYS", "permissions": {
            "publish": {"allow": allow, "deny": deny}, "subscribe": {"allow": ["_INBOX.>"]}
        }}});
        Rights::read(answer.to_string().as_bytes()).expect("rights")
    }

    #[test]
    fn subjects_are_matched_as_nats_does() {
        for (pattern, subject, is) in [
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            (">", "a", true),
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
        ] {
            assert_eq!(matches(pattern, subject), is, "{pattern} {subject}");
        }
    }

    #[test]
    fn a_key_that_may_purge_is_named_and_so_is_one_that_may_not_vouch() {
        let good = rights(
            &[
                "skytale.log.>",
                "skytale.checkpoint.>",
                "$JS.API.STREAM.CREATE.SKYTALE_LOG_1_0",
            ],
            &[],
        );
        assert_eq!(of_node(&good, SHARD), [""; 0]);
        let old = rights(&["skytale.log.>", "$JS.API.STREAM.PURGE.SKYTALE_LOG_1_0"], &[]);
        let problems = of_node(&old, SHARD).join("\n");
        assert!(
            problems.contains("STREAM.PURGE.SKYTALE_LOG_1_0") && problems.contains("skytale.checkpoint"),
            "{problems}"
        );
        let all = rights(&[">"], &[]);
        assert!(of_node(&all, SHARD).join("").contains("MSG.DELETE"));
        let denied = rights(&[">"], &["$JS.API.STREAM.>"]);
        assert_eq!(of_node(&denied, SHARD), [""; 0]);
        assert_eq!(of_node(&Rights::default(), SHARD), [""; 0], "a server without users");
        assert!(of_sync(&good).join("").contains("all streams can be purged"));
        let elsewhere = Rights {
            account: "SYNC".to_owned(),
            ..good.clone()
        };
        assert_eq!(of_sync(&elsewhere), [""; 0]);
        assert_eq!(of_keeper(&good, SHARD, Region(1)).len(), 3);
        let keeper = rights(
            &[
                "$JS.API.STREAM.PURGE.SKYTALE_LOG_1_0",
                "$JS.API.STREAM.PURGE.SKYTALE_CHECKPOINTS_1",
            ],
            &[],
        );
        assert_eq!(of_keeper(&keeper, SHARD, Region(1)), [""; 0]);
    }
}
