//! The connection to NATS.

use super::config::{NatsAuth, NatsConfig};
use super::error::OpenError;
use super::metrics;
use async_nats::{Client, ConnectError, ConnectOptions, Event};
use std::time::Duration;

/// The longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// Interval between pings on a silent connection; two without an answer end it.
const PING_EVERY: Duration = Duration::from_secs(3);
/// Attempts to connect once, where the server ends the connection and does not say why.
const UNSAID_MAX: usize = 5;

/// Connects, and stays connected: to whichever of the servers answers.
pub(super) async fn connect(
    config: &NatsConfig,
    auth: &NatsAuth,
    request_timeout: Duration,
    open_timeout: Duration,
) -> Result<Client, OpenError> {
    let options = options(config, auth, request_timeout).await?;
    let begun = tokio::time::Instant::now();
    loop {
        if let NatsAuth::NKeyFile(file) = auth {
            // Of a key that is refused another may have come into the file.
            file.load().await?;
        }
        let error = match options.clone().connect(&config.servers[..]).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        if begun.elapsed() >= open_timeout {
            return Err(failed(&config.servers, &error));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Connects to one of some servers, trying each once; and again where a server ends the connection without a word.
///
/// A server that refuses a key says so and ends the connection. A busy one may end it first: the word is lost, and the
/// server looks like one that fails.
pub(super) async fn connect_once(
    config: &NatsConfig,
    servers: &[String],
    auth: &NatsAuth,
    request_timeout: Duration,
) -> Result<Client, OpenError> {
    let options = options(config, auth, request_timeout).await?;
    let mut tries = 1;
    loop {
        match options.clone().connect(servers).await {
            Ok(client) => return Ok(client),
            Err(error) if tries < UNSAID_MAX && ended_unsaid(&error) => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(failed(servers, &error)),
        }
    }
}

/// Whether a server took the connection and ended it without saying why.
fn ended_unsaid(error: &ConnectError) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    error.kind() == async_nats::ConnectErrorKind::Io
        && io.is_none_or(|io| {
            matches!(
                io.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
            )
        })
}

/// Connects to each server of a configuration once, and says of each that cannot be used why.
pub async fn reach(config: &NatsConfig, within: Duration) -> Vec<OpenError> {
    let tries = config.servers.iter().map(|server| async move {
        let connected = connect_once(config, std::slice::from_ref(server), &config.auth, within).await;
        connected.err()
    });
    let tried = futures_util::future::join_all(tries).await;
    tried.into_iter().flatten().collect()
}

fn failed(servers: &[String], error: &ConnectError) -> OpenError {
    use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation};
    let (servers, refused) = (servers.join(", "), error.kind());
    let error = error.to_string();
    match refused {
        Authentication | AuthorizationViolation => OpenError::Denied { servers, error },
        _ => OpenError::Unreachable { servers, error },
    }
}

/// Connects as [`connect`] does, but no server has to answer now: requests fail until one does.
pub(super) async fn connect_later(
    config: &NatsConfig,
    auth: &NatsAuth,
    request_timeout: Duration,
) -> Result<Client, OpenError> {
    let options = options(config, auth, request_timeout).await?.retry_on_initial_connect();
    let client = options.connect(&config.servers[..]).await;
    client.map_err(|error| OpenError::Unreachable {
        servers: config.servers.join(", "),
        error: error.to_string(),
    })
}

async fn options(config: &NatsConfig, auth: &NatsAuth, request_timeout: Duration) -> Result<ConnectOptions, OpenError> {
    let mut options = match auth {
        NatsAuth::None => ConnectOptions::new(),
        NatsAuth::Password { user, password } => {
            ConnectOptions::with_user_and_password(user.clone(), password.reveal())
        }
        NatsAuth::NKeyFile(file) => {
            file.load().await?;
            let file = file.clone();
            ConnectOptions::with_auth_callback(move |nonce| {
                let signed = file.sign(&nonce);
                async move { signed }
            })
        }
        NatsAuth::NKey(seed) => ConnectOptions::with_nkey(seed.reveal()),
        NatsAuth::Credentials(path) => {
            ConnectOptions::with_credentials_file(path)
                .await
                .map_err(|error| OpenError::Credentials {
                    path: path.clone(),
                    error: error.to_string(),
                })?
        }
    };
    options = options
        .name(&config.name)
        .ping_interval(PING_EVERY)
        .request_timeout(Some(request_timeout))
        .connection_timeout(request_timeout)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            let wait = Duration::from_millis(20 << attempts.min(6));
            wait.min(RECONNECT_MAX)
        })
        .require_tls(config.tls.required)
        .event_callback(|event| async move {
            match event {
                Event::Connected => tracing::info!("connected to NATS"),
                Event::Disconnected => {
                    metrics::disconnected();
                    tracing::warn!("lost the connection to NATS");
                }
                event => tracing::info!(%event, "NATS"),
            }
        });
    if let Some(prefix) = &config.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    if let Some(roots) = &config.tls.roots {
        options = options.add_root_certificates(roots.clone());
    }
    if let Some((certificate, key)) = &config.tls.certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}
