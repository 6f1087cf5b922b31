//! A node for one machine: loopback alone, secrets made up at each start.

use crate::output::{Context as _, Failure, Outcome};
use crate::serve::{start_api, stop_api};
use secrecy::{ExposeSecret as _, SecretString};
use skytale_api::{Api, ApiConfig, Limits, Rate};
use skytale_proto::rest::{CreateAccount, CreateEnrolment, CreatedAccount, CreatedEnrolment, Jwks, Keys, Relays};
use skytale_proto::{Code, EndpointId};
use skytale_sdk::internals::net::Method;
use skytale_sdk::{ApiClient, ApiError, ApiKey};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The audience of a local node's tokens.
pub(crate) const AUDIENCE: &str = "skytale";
/// The org of a local node's account.
const ORG: &str = "dev";
/// Maximum time for a relay node to be listed in the directory: some heartbeats, on a machine that is busy with other work.
const REGISTERED_WITHIN: Duration = Duration::from_secs(120);

/// The API of a local node.
#[derive(Debug)]
pub(crate) struct LocalApi {
    /// While it is not paused.
    api: Option<Api>,
    /// Configuration with which it is started again.
    config: ApiConfig,
    admin_secret: SecretString,
    relay_secret: SecretString,
    /// URL of the API, and the issuer of its tokens.
    pub url: String,
    pub issuer: String,
    /// Its SQLite database.
    pub database: PathBuf,
}

impl LocalApi {
    /// Starts it over a database in `dir`.
    pub(crate) async fn start(dir: &Path, listen: SocketAddr) -> Outcome<Self> {
        Self::start_for(dir, listen, ApiConfig::dev("").relay_heartbeat).await
    }

    /// The same, for relay nodes that say so often that they are there.
    pub(crate) async fn start_for(dir: &Path, listen: SocketAddr, relay_heartbeat: Duration) -> Outcome<Self> {
        Self::start_within(dir, listen, relay_heartbeat, Limits::default()).await
    }

    /// The same, with limits that a crowd of agents of one account does not meet.
    pub(crate) async fn start_for_load(dir: &Path, listen: SocketAddr, relay_heartbeat: Duration) -> Outcome<Self> {
        let rate = Rate {
            per_second: 1_000_000,
            burst: 1_000_000,
        };
        let limits = Limits {
            address_rate: rate,
            key_rate: rate,
            account_rate: rate,
            attempt_rate: rate,
            connections_max: 20_000,
            hashes_waiting_max: 20_000,
            agents_max: 1_000_000,
            account_creations_per_day: 100_000_000,
            ..Limits::default()
        };
        Self::start_within(dir, listen, relay_heartbeat, limits).await
    }

    async fn start_within(dir: &Path, listen: SocketAddr, relay_heartbeat: Duration, limits: Limits) -> Outcome<Self> {
        // If it listens on all addresses, this machine's own is the one to show.
        let shown = on_this_machine(listen);
        let issuer = format!("http://{shown}");
        let database = dir.join("api.db");
        let mut config = ApiConfig {
            relay_heartbeat,
            limits,
            listen,
            dev_beyond_loopback: !listen.ip().is_loopback(),
            url: issuer.clone(),
            audience: AUDIENCE.into(),
            ..ApiConfig::dev(format!("sqlite:{}", database.display()))
        };
        let api = start_api(config.clone()).await?;
        let (admin_secret, relay_secret) = (api.admin_secret().clone(), api.relay_secret().clone());
        config.listen = api.local_addr();
        config.admin_secret = Some(admin_secret.clone());
        config.relay_secret = Some(relay_secret.clone());
        Ok(Self {
            url: format!("http://{}", on_this_machine(api.local_addr())),
            api: Some(api),
            config,
            admin_secret,
            relay_secret,
            issuer,
            database,
        })
    }

    /// Stops it. Calls meanwhile are refused a connection.
    pub(crate) async fn pause(&mut self) -> Outcome {
        match self.api.take() {
            Some(api) => stop_api(api).await,
            None => Ok(()),
        }
    }

    /// Starts it again on the same address and database, with the same secrets.
    pub(crate) async fn resume(&mut self) -> Outcome {
        if self.api.is_none() {
            self.api = Some(start_api(self.config.clone()).await?);
        }
        Ok(())
    }

    /// Ends it: requests that run are answered.
    pub(crate) async fn stop(mut self) -> Outcome {
        self.pause().await
    }

    /// Returns the address on which it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.config.listen
    }

    /// Signs tokens with a new key from now on. `false` where the key set is full: keys leave it when their last tokens end.
    pub(crate) async fn rotate_signing_key(&self) -> Outcome<bool> {
        let rotated = self
            .operator()?
            .call::<_, Jwks>(Method::Post, "/v1/signing-keys", Some(&serde_json::json!({})))
            .await;
        match rotated {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Code::Conflict => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Returns the secret that its relay node shows.
    pub(crate) fn relay_secret(&self) -> &str {
        self.relay_secret.expose_secret()
    }

    /// A client with an API key.
    pub(crate) fn client(&self, key: &str) -> Outcome<ApiClient> {
        let key = ApiKey::new(key).map_err(|error| self.failed(&error))?;
        ApiClient::new(&self.url, key).map_err(|error| self.failed(&error))
    }

    /// Lets a relay node into the fleet, and gives the key that it shows.
    pub(crate) async fn enrol(&self, label: &str) -> Outcome<Zeroizing<String>> {
        let request = CreateEnrolment {
            label: label.to_owned(),
            endpoint: None,
        };
        let created: CreatedEnrolment = self
            .operator()?
            .call(Method::Post, "/v1/enrolments", Some(&request))
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(Zeroizing::new(created.secret))
    }

    fn operator(&self) -> Outcome<ApiClient> {
        let secret = ApiKey::operator(self.admin_secret.expose_secret()).map_err(|error| self.failed(&error))?;
        ApiClient::new(&self.url, secret).map_err(|error| self.failed(&error))
    }

    /// Makes an account and gives its first API key.
    pub(crate) async fn create_account(&self) -> Outcome<Zeroizing<String>> {
        let operator = self.operator()?;
        // The second name is for a folder whose key file was lost: the account of the first one is still there.
        let spare = format!("{ORG}-{:x}", std::process::id());
        let mut refused = None;
        for org in [ORG, &spare] {
            let org = org
                .parse()
                .failing(Code::Environment, || format!("cannot name an account `{org}`"))?;
            let request = CreateAccount { org };
            match operator
                .call::<_, CreatedAccount>(Method::Post, "/v1/accounts", Some(&request))
                .await
            {
                Ok(created) => return Ok(Zeroizing::new(created.key.secret)),
                Err(error) if error.code() == Code::Conflict => refused = Some(error),
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Err(refused.map_or_else(
            || Failure::new(Code::Conflict, "cannot make an account"),
            |error| self.failed(&error),
        ))
    }

    /// The API key kept in `file`; made, with its account, where there is none that the API knows.
    pub(crate) async fn key_in(&self, file: &Path) -> Outcome<Zeroizing<String>> {
        let reading = || format!("cannot read {}", file.display());
        match std::fs::read_to_string(file).map(Zeroizing::new) {
            Ok(text) => {
                let key = Zeroizing::new(text.trim().to_owned());
                match self
                    .client(&key)?
                    .call::<_, Keys>(Method::Get, "/v1/keys", None::<&()>)
                    .await
                {
                    Ok(_) => return Ok(key),
                    // The database is a new one, or the key was revoked.
                    Err(error) if matches!(error.code(), Code::KeyUnknown | Code::KeyRevoked) => {}
                    Err(error) => return Err(self.failed(&error)),
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::new(Code::Environment, reading()).because(&error)),
        }
        let key = self.create_account().await?;
        write_private(file, key.as_bytes())?;
        Ok(key)
    }

    /// Waits until the directory lists the relay node.
    pub(crate) async fn registered(&self, client: &ApiClient, endpoint: EndpointId) -> Outcome {
        let listed = async {
            loop {
                let relays: Relays = client.call(Method::Get, "/v1/relays", None::<&()>).await?;
                if relays.relays.iter().any(|relay| relay.endpoint == endpoint) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(REGISTERED_WITHIN, listed).await {
            Ok(listed) => listed.map_err(|error: ApiError| self.failed(&error)),
            Err(_) => Err(
                Failure::new(Code::Offline, "the relay node did not register with the API")
                    .help("Run again with `--log debug` to see why."),
            ),
        }
    }

    fn failed(&self, error: &ApiError) -> Failure {
        Failure::new(error.code(), format!("the API at {} did not do as asked", self.url)).because(error)
    }
}

/// Returns the address on this machine of one that a server listens on.
pub(crate) fn on_this_machine(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.is_ipv4() {
            true => std::net::Ipv4Addr::LOCALHOST.into(),
            false => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}

/// Makes a folder that its owner alone may enter. One that is there stays as it is.
pub(crate) fn private_folder(dir: &Path) -> Outcome {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .failing(Code::Environment, || {
            format!("cannot make the folder {}", dir.display())
        })
}

/// Takes away others' rights to an existing data folder: it was made by an earlier version, or by a person.
pub(crate) fn close_folder(dir: &Path) -> Outcome {
    let looking = || format!("cannot look at the folder {}", dir.display());
    let found = match std::fs::metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::new(Code::Environment, looking()).because(&error)),
    };
    let mode = found.permissions().mode() & 0o7777;
    if !found.is_dir() || mode & 0o077 == 0 {
        return Ok(());
    }
    // Somebody else's folder is theirs to close, and one such as /tmp is everybody's: what this makes in it is private all the same.
    let is_shared = mode & 0o1000 != 0;
    if is_shared || found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let closing = || format!("cannot take the rights of others away from {}", dir.display());
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode & 0o7700)).failing(Code::Environment, closing)
}

/// Writes a file that its owner alone may read.
pub(crate) fn write_private(file: &Path, contents: &[u8]) -> Outcome {
    let writing = || format!("cannot write {}", file.display());
    let mut to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .failing(Code::Environment, writing)?;
    to.write_all(contents)
        .and_then(|()| to.sync_all())
        .failing(Code::Environment, writing)
}

/// Puts a copy in the place of a folder.
pub(crate) fn replace_folder(dir: &Path, copy: &Path) -> Outcome {
    let removed = std::fs::remove_dir_all(dir);
    if !matches!(&removed, Err(error) if error.kind() == ErrorKind::NotFound) {
        removed.failing(Code::Environment, || format!("cannot remove {}", dir.display()))?;
    }
    copy_folder(copy, dir)
}

/// Copies all files of a folder with their times, as a snapshot of a disk has them.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Outcome {
    let copying = || format!("cannot copy {} to {}", from.display(), to.display());
    private_folder(to)?;
    for entry in std::fs::read_dir(from).failing(Code::Environment, copying)? {
        let entry = entry.failing(Code::Environment, copying)?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata().failing(Code::Environment, copying)?;
        if metadata.is_dir() {
            copy_folder(&path, &to)?;
        } else if metadata.is_file() {
            std::fs::copy(&path, &to).failing(Code::Environment, copying)?;
            let modified = metadata.modified().failing(Code::Environment, copying)?;
            let copy = File::options().write(true).open(&to);
            let copy = copy.failing(Code::Environment, copying)?;
            copy.set_modified(modified).failing(Code::Environment, copying)?;
        }
    }
    Ok(())
}
