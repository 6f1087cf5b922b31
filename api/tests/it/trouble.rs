//! A database that takes no writes, has no room, or does not answer: the API says so, and answers what it can.

use crate::agent::TestAgent;
use crate::database::{Backend, Database, SmallDisk, execute, server_folder};
use crate::disk::Disk;
use crate::harness::{ADMIN, Client, NOTHING, RELAY, TestApi, in_time};
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::json;
use skytale_proto::Code;
use skytale_proto::rest::{Keys, NonceRequest, Problem};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until `/readyz` says this; `None` is ready.
async fn readiness(api: &Client, wanted: Option<Code>) {
    loop {
        let answer = api.try_call(Method::GET, "/readyz", None, NOTHING).await.unwrap();
        match wanted {
            None if answer.status == StatusCode::OK => return,
            Some(code) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
                if problem.known_code() == Some(code) {
                    return;
                }
            }
            _ => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Requests that need no write are answered.
async fn reads_are_answered(api: &Client, key: &str) {
    assert!(!api.jwks().await.keys.is_empty());
    api.revocations("").await;
    let keys: Keys = api.get("/v1/keys", key).await.ok();
    assert!(!keys.keys.is_empty());
}

/// A token is refused as retryable, with when to come back.
async fn no_token(api: &Client, key: &str, code: Code) {
    let request = NonceRequest {
        agent: TestAgent::new().id(),
    };
    let answer = api.post("/v1/nonce", key, &request).await.refused(code);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.retry_after_s().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_became_read_only_is_told_and_what_needs_no_write_is_answered() {
    in_time(async {
        let api = TestApi::start(Backend::Postgres).await;
        let key = api.account("acme").await.key.secret;
        let agent = TestAgent::new();
        api.token(&key, &agent).await;
        readiness(&api, None).await;

        // As after a failover: connections break, and the server that answers takes no writes.
        let name = api.database.name();
        let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
        execute(&cut).await;
        readiness(&api, Some(Code::DatabaseReadOnly)).await;
        no_token(&api, &key, Code::DatabaseReadOnly).await;
        api.post("/v1/signing-keys", ADMIN, &json!({}))
            .await
            .refused(Code::DatabaseReadOnly);
        reads_are_answered(&api, &key).await;

        // A process that starts meanwhile does what it can, too.
        let late = api.another().await;
        readiness(&late, Some(Code::DatabaseReadOnly)).await;
        reads_are_answered(&late, &key).await;

        // Connections that are open stay as they were begun: nobody cuts them, and all is well again all the same.
        execute(&format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
        for api in [&api, &late] {
            readiness(api, None).await;
            api.token(&key, &agent).await;
        }
        late.stop().await;
        api.stop().await;
    })
    .await;
}

/// The socket of a PostgreSQL server, by way of a link that can be cut.
struct Link {
    folder: tempfile::TempDir,
    server: PathBuf,
    up: CancellationToken,
}

impl Link {
    const SOCKET: &str = ".s.PGSQL.5432";

    fn to(server: &Path) -> Self {
        let link = Self {
            folder: tempfile::tempdir().unwrap(),
            server: server.join(Self::SOCKET),
            up: CancellationToken::new(),
        };
        link.listen();
        link
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(Self::SOCKET)
    }

    fn listen(&self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let (up, server) = (self.up.clone(), self.server.clone());
        tokio::spawn(async move {
            loop {
                let (mut client, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = up.cancelled() => return,
                };
                let (up, server) = (up.clone(), server.clone());
                tokio::spawn(async move {
                    let mut server = UnixStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = up.cancelled() => {}
                    }
                });
            }
        });
    }

    /// Connections break, and new ones are refused, as by a server that is gone.
    fn cut(&self) {
        self.up.cancel();
    }

    fn mend(&mut self) {
        std::fs::remove_file(self.socket()).unwrap();
        self.up = CancellationToken::new();
        self.listen();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_does_not_answer_is_told_apart_from_one_that_is_busy_and_keys_are_given_out() {
    in_time(async {
        let api = TestApi::start(Backend::Postgres).await;
        let key = api.account("acme").await.key.secret;
        let server = server_folder().await;
        let mut link = Link::to(&server);
        let name = api.database.name();
        let folder = link.folder.path().display().to_string().replace('/', "%2F");
        let url = format!("postgres://postgres@localhost/{name}?host={folder}");
        let far = api
            .another_with(|config| config.database = SecretString::from(url))
            .await;
        readiness(&far, None).await;
        let keys = far.jwks().await;

        link.cut();
        readiness(&far, Some(Code::DatabaseAway)).await;
        no_token(&far, &key, Code::DatabaseAway).await;
        far.get("/v1/revocations", RELAY).await.refused(Code::DatabaseAway);
        // The keys that verify tokens are at hand.
        assert_eq!(far.jwks().await, keys);
        link.mend();
        readiness(&far, None).await;
        far.token(&key, &TestAgent::new()).await;
        far.stop().await;
        api.stop().await;
    })
    .await;
}

/// Asks until the disk has no room for it.
async fn until_full(api: &Client, key: &str) {
    loop {
        let request = NonceRequest {
            agent: TestAgent::new().id(),
        };
        let answer = api.post("/v1/nonce", key, &request).await;
        if !answer.status.is_success() {
            let answer = answer.refused(Code::DatabaseFull);
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_whose_disk_is_full_is_told_and_goes_on_when_there_is_room() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::small(folder.path().join("disk"), 8) else {
            return;
        };
        let url = format!("sqlite:{}", disk.path().join("api.db").display());
        let api = TestApi::at(Database::at(url)).await;
        let key = api.account("acme").await.key.secret;
        disk.fill();
        until_full(&api, &key).await;
        readiness(&api, Some(Code::DatabaseFull)).await;
        reads_are_answered(&api, &key).await;
        disk.clear();
        readiness(&api, None).await;
        api.token(&key, &TestAgent::new()).await;
        api.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_whose_disk_is_full_is_told_and_goes_on_when_there_is_room() {
    in_time(async {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let Some(mut small) = SmallDisk::new(folder.path().join("disk"), 32).await else {
            return;
        };
        let api = TestApi::at(small.database.take().unwrap()).await;
        let key = api.account("acme").await.key.secret;
        small.disk.fill();
        until_full(&api, &key).await;
        readiness(&api, Some(Code::DatabaseFull)).await;
        reads_are_answered(&api, &key).await;
        small.disk.clear();
        readiness(&api, None).await;
        api.token(&key, &TestAgent::new()).await;
        api.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_that_is_read_only_is_told_and_what_needs_no_write_is_answered() {
    in_time(async {
        let api = TestApi::start(Backend::Sqlite).await;
        let key = api.account("acme").await.key.secret;
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::read_only(api.database.folder(), folder.path().join("disk")) else {
            return;
        };
        let url = format!("sqlite:{}", disk.path().join("api.db").display());
        let reader = api
            .another_with(|config| config.database = SecretString::from(url))
            .await;
        readiness(&reader, Some(Code::DatabaseReadOnly)).await;
        no_token(&reader, &key, Code::DatabaseReadOnly).await;
        reads_are_answered(&reader, &key).await;
        readiness(&api, None).await;
        reader.stop().await;
        api.stop().await;
    })
    .await;
}
