//! Configurations with which the API does not start, and those with which it does.

use crate::database::{Backend, Database};
use crate::harness::{Client, config};
use secrecy::{ExposeSecret as _, SecretString};
use skytale_api::{Api, ApiConfig, Mode};
use skytale_proto::Code;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

async fn refused(database: &Database, change: impl FnOnce(&mut ApiConfig), key: &str) {
    let mut config = config(database);
    change(&mut config);
    let error = Api::start(config).await.expect_err(key);
    assert_eq!(error.code(), Code::Config);
    let text = error.to_string();
    assert!(text.starts_with(&format!("`api.{key}` ")), "{text}");
    assert!(!text.contains("marker"), "{text}");
}

#[tokio::test]
async fn outside_dev_what_is_missing_starts_nothing() {
    let database = Database::new(Backend::Sqlite).await;
    let text = |text: &str| Some(SecretString::from(text));
    refused(&database, |config| config.admin_secret = None, "admin_secret").await;
    refused(&database, |config| config.admin_secret = text(""), "admin_secret").await;
    refused(
        &database,
        |config| config.admin_secret = text("short-marker"),
        "admin_secret",
    )
    .await;
    refused(&database, |config| config.relay_secret = None, "relay_secret").await;
    refused(
        &database,
        |config| config.relay_secret = text("short-marker"),
        "relay_secret",
    )
    .await;
    refused(
        &database,
        |config| config.relay_secret = config.admin_secret.clone(),
        "relay_secret",
    )
    .await;
    refused(
        &database,
        |config| config.key_encryption_key = None,
        "key_encryption_key",
    )
    .await;
    refused(&database, |config| config.url = String::new(), "url").await;
    refused(&database, |config| config.audience = String::new(), "audience").await;
    refused(
        &database,
        |config| config.listen = "0.0.0.0:0".parse().unwrap(),
        "listen",
    )
    .await;
    refused(&database, |config| config.listen = "[::]:0".parse().unwrap(), "listen").await;
    refused(&database, |config| config.behind_tls_proxy = true, "url").await;
    refused(
        &database,
        |config| config.database = SecretString::from("mysql://u:marker@h/n"),
        "database",
    )
    .await;
    let remote = "postgres://u:marker@db.example/n";
    refused(
        &database,
        |config| config.database = SecretString::from(remote),
        "database",
    )
    .await;
    refused(
        &database,
        |config| config.token_lifetime = std::time::Duration::from_secs(3_601),
        "token_lifetime_s",
    )
    .await;
    refused(
        &database,
        |config| config.relay_heartbeat = std::time::Duration::ZERO,
        "relay_heartbeat_s",
    )
    .await;
    refused(
        &database,
        |config| config.region_distances = vec!["1=2".to_owned()],
        "region_distances",
    )
    .await;
    refused(&database, |config| config.limits.hashes_max = 0, "limits.hashes_max").await;
    assert!(
        !Path::new(database.url.trim_start_matches("sqlite:")).exists(),
        "nothing was made"
    );
}

#[tokio::test]
async fn behind_a_proxy_that_ends_tls_it_listens_everywhere() {
    let database = Database::new(Backend::Sqlite).await;
    let mut config = config(&database);
    config.listen = "0.0.0.0:0".parse().unwrap();
    config.behind_tls_proxy = true;
    config.url = "https://api.example".to_owned();
    assert_eq!(config.check(), Ok(()));
}

#[tokio::test]
async fn dev_stays_on_loopback() {
    let mut config = ApiConfig::dev("sqlite:/nowhere/api.db");
    config.listen = "0.0.0.0:0".parse().unwrap();
    assert_eq!(config.check().unwrap_err().key, "listen");
}

#[tokio::test]
async fn dev_makes_up_what_is_missing_and_opens_again() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("with space ü.db").display());
    let mut kid = None;
    for org in ["one", "two"] {
        let api = Api::start(ApiConfig::dev(url.clone())).await.unwrap();
        let client = Client::new(format!("http://{}", api.local_addr()));
        let admin = api.admin_secret().expose_secret().to_owned();
        let body = serde_json::json!({ "org": org });
        assert!(client.post("/v1/accounts", &admin, &body).await.status.is_success());
        assert_ne!(admin, api.relay_secret().expose_secret());
        let now = client.jwks().await.keys[0].kid.clone();
        assert_eq!(*kid.get_or_insert(now.clone()), now, "the signing key is the same");
        let rotated = api.service().rotate_signing_key().await.unwrap();
        kid = Some(rotated);
        api.shutdown().await;
    }
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
    let key = std::fs::read_to_string(folder.path().join("with space ü.db.key")).unwrap();
    assert_eq!(key.len(), 64);
}

#[tokio::test]
async fn a_database_that_was_open_to_others_is_closed_to_them() {
    let database = Database::new(Backend::Sqlite).await;
    let path = Path::new(database.url.trim_start_matches("sqlite:")).to_owned();
    std::fs::write(&path, []).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let api = Api::start(config(&database)).await.unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(database.folder()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
        files += 1;
    }
    assert!(files >= 2, "the write-ahead log is there too");
    api.shutdown().await;
}

#[tokio::test]
async fn what_is_no_database_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    std::fs::write(&path, vec![7; 8_192]).unwrap();
    let error = Api::start(ApiConfig::dev(format!("sqlite:{}", path.display())))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Environment);
    assert!(error.to_string().contains("`api.database`"), "{error}");
    let error = Api::start(ApiConfig::dev("sqlite:/nowhere/at/all/api.db"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all/api.db"), "{error}");
}

#[tokio::test]
async fn a_configuration_shows_no_secret() {
    let database = Database::new(Backend::Sqlite).await;
    let mut config = config(&database);
    config.mode = Mode::Production;
    config.database = SecretString::from("postgres://u:database-password-marker@localhost/n");
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("marker") && !shown.contains("167, 167") && shown.contains("REDACTED"),
        "{shown}"
    );
}
