//! Values that cannot work, all of them at once.

use super::trust::SERVE_WITHOUT_API_MAX;
use super::{ConfigError, HttpsConfig, LimitsConfig, RelayConfig, TapConfig, TrustConfig, ms};
use crate::trust::TrustSource;
use skytale_certificate::Reloading;
use skytale_proto::rest::{RELAY_ADDRESSES_MAX, check_https_url};
use skytale_proto::{limits, shown};
use std::net::SocketAddr;

/// Minimum bytes that a connection may have on their way from this node.
const SEND_WINDOW_BYTES_MIN: u32 = 64 * 1024;
/// Minimum bytes that the store is given at a time: with less, each sync is for a few frames.
const APPEND_WINDOW_BYTES_MIN: u64 = 64 * 1024;
/// Maximum bytes that the store is given at a time: with more, accounts do not take turns.
const APPEND_WINDOW_BYTES_MAX: u64 = 1 << 30;
/// Maximum number of connections, streams, watched channels.
const COUNT_MAX: u64 = 1_000_000;
/// Longest time to wait for a peer, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 10 * 60 * 1_000;
/// A file of the tap, at least, in bytes: single writes are smaller.
const TAP_FILE_BYTES_MIN: u64 = 1024 * 1024;

/// Gathers problems.
#[derive(Default)]
struct Wrong(Vec<ConfigError>);

impl Wrong {
    fn unless(&mut self, holds: bool, key: &'static str, problem: impl Into<String>) {
        if !holds {
            let problem = problem.into();
            self.0.push(ConfigError { key, problem });
        }
    }

    fn within(&mut self, key: &'static str, value: u64, min: u64, max: u64) {
        self.unless(
            (min..=max).contains(&value),
            key,
            format!("must be between {min} and {max}"),
        );
    }
}

impl RelayConfig {
    /// Refuses what cannot work, with the first key that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every value that cannot work.
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut wrong = Wrong::default();
        self.addresses(&mut wrong);
        wrong.unless(!self.issuer.is_empty(), "issuer", "must be the API's URL");
        wrong.unless(!self.audience.is_empty(), "audience", "must be set");
        let admin_is_local = !self.admin.enabled || self.admin.listen.ip().is_loopback();
        wrong.unless(
            admin_is_local || self.admin.allow_remote,
            "admin.listen",
            format!(
                "{} is not loopback, and `admin.allow_remote` is not set",
                self.admin.listen
            ),
        );
        self.https.problems(&mut wrong);
        self.tap.problems(&mut wrong);
        self.limits.problems(&mut wrong);
        let session = &self.session;
        wrong.within("session.keepalive_ms", session.keepalive_ms, 50, TIMEOUT_MS_MAX);
        wrong.within("session.hello_timeout_ms", session.hello_timeout_ms, 1, TIMEOUT_MS_MAX);
        wrong.within(
            "session.request_timeout_ms",
            session.request_timeout_ms,
            1,
            TIMEOUT_MS_MAX,
        );
        let lifetime_s = limits::TOKEN_LIFETIME_MAX.as_secs();
        wrong.within("session.token_notice_s", session.token_notice_s, 0, lifetime_s);
        self.trust.problems(&mut wrong);
        wrong.0
    }

    /// Every value that cannot work for a node that trusts this API.
    pub fn problems_with(&self, trust: &TrustSource) -> Vec<ConfigError> {
        let mut wrong = Wrong(self.problems());
        let TrustSource::Http { relay_secret, .. } = trust else {
            return wrong.0;
        };
        match relay_secret.enrolment() {
            Err(error) => wrong.unless(false, "relay_secret", format!("cannot be used: {error}")),
            Ok(None) => {}
            Ok(Some(_)) => {
                // It would work until the first restart.
                wrong.unless(
                    self.secret_key_file.is_some(),
                    "secret_key_file",
                    "must be set for an enrolled node: an enrolment is bound to one endpoint for good",
                );
                let anywhere = self.listen.iter().any(|address| address.ip().is_unspecified());
                wrong.unless(
                    !self.advertise.is_empty() || !anywhere,
                    "advertise",
                    "must be set for an enrolled node that listens on all addresses: agents need an address to connect to",
                );
            }
        }
        wrong.0
    }

    fn addresses(&self, wrong: &mut Wrong) {
        let family = |v4: bool| self.listen.iter().filter(|address| address.is_ipv4() == v4).count();
        wrong.unless(!self.listen.is_empty(), "listen", "names no address");
        wrong.unless(
            family(true) <= 1 && family(false) <= 1,
            "listen",
            "names more than one address of a family",
        );
        for address in &self.advertise {
            wrong.unless(
                address.parse::<SocketAddr>().is_ok(),
                "advertise",
                format!("`{}` is not `ip:port`", shown(address, 80)),
            );
        }
        wrong.unless(
            self.advertise.len() <= RELAY_ADDRESSES_MAX,
            "advertise",
            format!("names more than {RELAY_ADDRESSES_MAX} addresses"),
        );
    }
}

impl LimitsConfig {
    fn problems(&self, wrong: &mut Wrong) {
        let in_flight_min = limits::MESSAGE_BYTES_MAX;
        let batch_max = limits::MESSAGE_BYTES_MAX / 2;
        let bytes_burst = self.bytes_per_second.saturating_mul(self.burst_s.into());
        for (key, value) in [
            ("limits.connections_max", self.connections_max),
            ("limits.streams_max", self.streams_max),
            ("limits.watched_max", self.watched_max),
        ] {
            wrong.within(key, value.into(), 1, COUNT_MAX);
        }
        wrong.unless(
            (in_flight_min..=1 << 30).contains(&self.append_in_flight_bytes_max),
            "limits.append_in_flight_bytes_max",
            format!("must be between {in_flight_min} and {}", 1 << 30),
        );
        wrong.unless(
            (2 * in_flight_min..=1 << 40).contains(&self.receive_bytes_max),
            "limits.receive_bytes_max",
            format!("must be between {} and {}", 2 * in_flight_min, 1u64 << 40),
        );
        wrong.unless(
            (1..=batch_max).contains(&self.batch_bytes_max),
            "limits.batch_bytes_max",
            format!("must be between 1 and {batch_max}"),
        );
        wrong.unless(
            self.frames_per_second > 0,
            "limits.frames_per_second",
            "must be above 0",
        );
        wrong.unless(
            (limits::FRAME_BYTES_MAX as u64..=1 << 36).contains(&bytes_burst),
            "limits.bytes_per_second",
            format!(
                "times `limits.burst_s` must be between {} and {}",
                limits::FRAME_BYTES_MAX,
                1u64 << 36
            ),
        );
        wrong.unless(
            self.frames_per_second.checked_mul(self.burst_s).is_some(),
            "limits.frames_per_second",
            "times `limits.burst_s` is too large",
        );
        wrong.unless(
            self.commits_per_minute > 0,
            "limits.commits_per_minute",
            "must be above 0",
        );
        self.account_problems(wrong);
        wrong.unless(
            self.send_window_bytes >= SEND_WINDOW_BYTES_MIN,
            "limits.send_window_bytes",
            format!("must be at least {SEND_WINDOW_BYTES_MIN}"),
        );
        wrong.unless(
            self.send_bytes_max >= self.send_window_bytes.into(),
            "limits.send_bytes_max",
            "must be at least `limits.send_window_bytes`",
        );
    }
}

impl LimitsConfig {
    /// Checks the limits of one account, and of one address.
    fn account_problems(&self, wrong: &mut Wrong) {
        for (key, value) in [
            ("limits.account_connections_max", self.account_connections_max),
            ("limits.account_streams_max", self.account_streams_max),
            ("limits.account_watched_max", self.account_watched_max),
            ("limits.address_connections_max", self.address_connections_max),
            ("limits.account_frames_per_second", self.account_frames_per_second),
            ("limits.account_commits_per_minute", self.account_commits_per_minute),
        ] {
            wrong.unless(value != Some(0), key, "must be above 0");
        }
        let receive_min = limits::MESSAGE_BYTES_MAX;
        wrong.unless(
            (receive_min..=self.receive_bytes_max.max(receive_min)).contains(&self.account_receive_bytes_max()),
            "limits.account_receive_bytes_max",
            format!("must be between {receive_min} and `limits.receive_bytes_max`"),
        );
        let burst = |per_second: u64| per_second.saturating_mul(self.burst_s.into());
        wrong.unless(
            self.account_bytes_per_second
                .is_none_or(|bytes| burst(bytes) >= limits::FRAME_BYTES_MAX as u64),
            "limits.account_bytes_per_second",
            format!("times `limits.burst_s` must be at least {}", limits::FRAME_BYTES_MAX),
        );
        wrong.within(
            "limits.append_window_bytes",
            self.append_window_bytes,
            APPEND_WINDOW_BYTES_MIN,
            APPEND_WINDOW_BYTES_MAX,
        );
        wrong.unless(
            self.account_channels_per_day > 0,
            "limits.account_channels_per_day",
            "must be above 0",
        );
        wrong.unless(
            self.account_stored_bytes_max
                .is_none_or(|bytes| bytes >= limits::FRAME_BYTES_MAX as u64),
            "limits.account_stored_bytes_max",
            format!("must be at least {}", limits::FRAME_BYTES_MAX),
        );
    }
}

impl HttpsConfig {
    /// Refuses a certificate and a key that cannot be used together.
    pub fn check_files(&self) -> Result<(), String> {
        let (Some(certificate), Some(key)) = (&self.certificate_file, &self.key_file) else {
            return Ok(());
        };
        let loaded = Reloading::load(certificate, key);
        loaded.map(|_| ()).map_err(|error| error.to_string())
    }

    fn problems(&self, wrong: &mut Wrong) {
        let has_certificate = self.certificate_file.is_some();
        wrong.unless(
            has_certificate == self.key_file.is_some(),
            "https.certificate_file",
            "needs https.key_file, and the other way round",
        );
        let Some(listen) = self.listen else {
            let is_unused = self.url.is_none() && !has_certificate;
            wrong.unless(
                is_unused,
                "https.listen",
                "must be set where the rest of [relay.https] is",
            );
            return;
        };
        wrong.within("https.connections_max", self.connections_max.into(), 1, COUNT_MAX);
        let is_local = listen.ip().is_loopback();
        wrong.unless(
            has_certificate || is_local,
            "https.listen",
            "must be loopback where there is no https.certificate_file",
        );
        match &self.url {
            Some(url) => {
                if let Err(problem) = check_https_url(url) {
                    wrong.unless(false, "https.url", problem);
                }
            }
            None => wrong.unless(
                !has_certificate && is_local,
                "https.url",
                "must be set: the relay directory gives it to agents",
            ),
        }
    }
}

impl TapConfig {
    fn problems(&self, wrong: &mut Wrong) {
        let is_empty = self.dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty());
        wrong.unless(!is_empty, "tap.dir", "must be a folder, or not be set");
        wrong.unless(
            self.file_bytes >= TAP_FILE_BYTES_MIN,
            "tap.file_bytes",
            format!("must be {TAP_FILE_BYTES_MIN} or more"),
        );
        wrong.unless(
            self.bytes_max / 2 >= self.file_bytes,
            "tap.bytes_max",
            "must be twice `tap.file_bytes` or more",
        );
    }
}

impl TrustConfig {
    fn problems(&self, wrong: &mut Wrong) {
        let within = ms(limits::REVOCATION_WITHIN);
        wrong.unless(
            (1..=within / 2).contains(&self.revocations_every_ms),
            "trust.revocations_every_ms",
            format!("must be between 1 and {}", within / 2),
        );
        wrong.unless(
            (1..=within).contains(&self.revocations_stale_after_ms),
            "trust.revocations_stale_after_ms",
            format!("must be between 1 and {within}"),
        );
        let without_api_min = self.revocations_every_ms.saturating_mul(2);
        let without_api_max = ms(SERVE_WITHOUT_API_MAX);
        wrong.unless(
            (without_api_min..=without_api_max).contains(&self.serve_without_api_ms),
            "trust.serve_without_api_ms",
            format!("must be between {without_api_min} (twice `trust.revocations_every_ms`) and {without_api_max}"),
        );
        // A key that the API no longer gives verifies tokens here until the keys are fetched again.
        for (key, value) in [
            ("trust.keys_every_ms", self.keys_every_ms),
            ("trust.keys_stale_after_ms", self.keys_stale_after_ms),
        ] {
            wrong.unless(
                (1..=without_api_max).contains(&value),
                key,
                format!("must be between 1 and {without_api_max}"),
            );
        }
        for (key, value) in [
            ("trust.keys_refetch_after_ms", self.keys_refetch_after_ms),
            ("trust.register_every_ms", self.register_every_ms),
            ("trust.request_timeout_ms", self.request_timeout_ms),
        ] {
            wrong.unless(value > 0, key, "must be above 0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut RelayConfig);

    #[test]
    fn limits_that_protect_nothing_are_refused() {
        let changes: [(&str, Change); 11] = [
            ("session.keepalive_ms", |config| config.session.keepalive_ms = 600_001),
            ("session.hello_timeout_ms", |config| {
                config.session.hello_timeout_ms = 600_001;
            }),
            ("session.request_timeout_ms", |config| {
                config.session.request_timeout_ms = u64::MAX;
            }),
            ("session.token_notice_s", |config| config.session.token_notice_s = 3_601),
            ("limits.connections_max", |config| {
                config.limits.connections_max = 1_000_001;
            }),
            ("limits.streams_max", |config| config.limits.streams_max = u32::MAX),
            ("limits.watched_max", |config| config.limits.watched_max = u32::MAX),
            ("limits.commits_per_minute", |config| {
                config.limits.commits_per_minute = 0;
            }),
            ("limits.account_commits_per_minute", |config| {
                config.limits.account_commits_per_minute = Some(0);
            }),
            ("limits.append_window_bytes", |config| {
                config.limits.append_window_bytes = u64::MAX;
            }),
            ("https.connections_max", |config| {
                config.https.listen = Some(SocketAddr::from(([127, 0, 0, 1], 443)));
                config.https.connections_max = u32::MAX;
            }),
        ];
        for (key, change) in changes {
            let mut config = RelayConfig::for_tests("issuer", "audience");
            change(&mut config);
            let keys: Vec<_> = config.problems().into_iter().map(|error| error.key).collect();
            assert_eq!(keys, [key]);
        }
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let mut config = RelayConfig::for_tests("", "audience");
        config.limits.connections_max = 0;
        config.https.listen = Some(SocketAddr::from(([0, 0, 0, 0], 443)));
        config.trust.register_every_ms = 0;
        let keys: Vec<_> = config.problems().into_iter().map(|error| error.key).collect();
        assert_eq!(
            keys,
            [
                "issuer",
                "https.listen",
                "https.url",
                "limits.connections_max",
                "trust.register_every_ms"
            ]
        );
    }
}
