//! Databases to test on: a SQLite file, or a database in a PostgreSQL server that this process starts.

use crate::disk::Disk;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// An empty database.
pub(crate) struct Database {
    pub backend: Backend,
    pub url: String,
    folder: TempDir,
}

impl Database {
    pub(crate) async fn new(backend: Backend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match backend {
            Backend::Sqlite => format!("sqlite:{}", folder.path().join("api.db").display()),
            Backend::Postgres => server().await.create_database().await,
        };
        Self { backend, url, folder }
    }

    /// The one at a URL, which somebody else made.
    pub(crate) fn at(url: String) -> Self {
        let backend = if url.starts_with("sqlite:") {
            Backend::Sqlite
        } else {
            Backend::Postgres
        };
        let folder = tempfile::tempdir().unwrap();
        Self { backend, url, folder }
    }

    /// Its name in the server.
    pub(crate) fn name(&self) -> &str {
        self.url.split('?').next().unwrap().rsplit('/').next().unwrap()
    }

    /// A folder that goes when the database does.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until nothing is done for a client: PostgreSQL may still commit what one asked for that was killed.
    pub(crate) async fn until_idle(&self) {
        if self.backend == Backend::Sqlite {
            return;
        }
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend' \
            AND state IS DISTINCT FROM 'idle'";
        let mut connection = PgConnection::connect(&server().await.url("postgres")).await.unwrap();
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < Duration::from_secs(120), "a backend is at work");
            let busy = sqlx::query_scalar::<sqlx::Postgres, i64>(busy).bind(self.name());
            if busy.fetch_one(&mut connection).await.unwrap() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        connection.close().await.unwrap();
    }

    /// Everything that the database stores, as bytes.
    pub(crate) fn dump(&self) -> Vec<u8> {
        match self.backend {
            Backend::Sqlite => std::fs::read_dir(self.folder())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("api.db"))
                .flat_map(|path| std::fs::read(path).unwrap())
                .collect(),
            Backend::Postgres => {
                let server = SERVER.get().unwrap();
                let dump = Command::new(server.bin.join("pg_dump"))
                    .args(["--inserts", "--username=postgres", "--host"])
                    .arg(&server.folder)
                    .arg(self.name())
                    .output()
                    .unwrap();
                assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
                dump.stdout
            }
        }
    }
}

/// Returns the folder of the server's socket.
pub(crate) async fn server_folder() -> PathBuf {
    server().await.folder.clone()
}

/// Has the server's operator do something.
pub(crate) async fn execute(sql: &str) {
    server().await.execute(sql).await;
}

/// A database on a small disk, in a server of its own: one that loses its disk may take others with it.
pub(crate) struct SmallDisk {
    pub database: Option<Database>,
    pub disk: Disk,
    _server: Server,
}

impl SmallDisk {
    /// `None` where this user may not mount.
    pub(crate) async fn new(at: PathBuf, mib: u32) -> Option<Self> {
        let disk = Disk::small(at, mib)?;
        if is_root() {
            let owner = server_user();
            let parent = disk.path().parent().unwrap();
            std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(disk.path(), Some(owner.uid), Some(owner.gid)).unwrap();
        }
        let server = Server::start().await;
        let location = disk.path().display();
        server
            .execute(&format!("CREATE TABLESPACE small LOCATION '{location}'"))
            .await;
        server.execute("CREATE DATABASE small TABLESPACE small").await;
        Some(Self {
            database: Some(Database::at(server.url("small"))),
            disk,
            _server: server,
        })
    }
}

static SERVER: OnceLock<Server> = OnceLock::new();
static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn server() -> &'static Server {
    let _one_starts = STARTING.lock().await;
    if SERVER.get().is_none() {
        let server = Server::start().await;
        assert!(SERVER.set(server).is_ok());
    }
    SERVER.get().unwrap()
}

/// A PostgreSQL server. It ends with this process, however that ends: the shell that runs it waits for the end of
/// its standard input, which is a pipe from here.
struct Server {
    bin: PathBuf,
    folder: PathBuf,
    databases: AtomicU32,
    _shell: Child,
}

const RUN: &str = r#"
set -eu
bin=$1 folder=$2
cd "$folder"
"$bin/initdb" -D "$folder/data" -U postgres -A trust --no-sync --locale=C -E UTF8 >"$folder/log" 2>&1
"$bin/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= -c fsync=off -c max_connections=400 \
    >>"$folder/log" 2>&1 &
server=$!
cat >/dev/null
kill -INT "$server" || true
wait "$server" || true
cd /
rm -rf "$folder"
"#;

impl Server {
    async fn start() -> Self {
        let bin = binaries();
        let owner = is_root().then(server_user);
        let folder = folder_for(owner.as_ref());
        let mut command = match &owner {
            // PostgreSQL refuses to run as root.
            Some(owner) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={}", owner.uid))
                    .arg(format!("--regid={}", owner.gid))
                    .args(["--clear-groups", "sh"]);
                command
            }
            None => Command::new("sh"),
        };
        let shell = command
            .args(["-c", RUN, "sh"])
            .arg(&bin)
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("PostgreSQL's shell starts");
        let server = Self {
            bin,
            folder,
            databases: AtomicU32::new(0),
            _shell: shell,
        };
        server.wait().await;
        server
    }

    async fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            match PgConnection::connect(&self.url("postgres")).await {
                Ok(connection) => return connection.close().await.unwrap(),
                Err(error) if Instant::now() > until => {
                    let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                    panic!("PostgreSQL does not answer: {error}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(sql.to_owned())).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres:database-password-marker@localhost/{database}?host={folder}")
    }
}

fn binaries() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    installed
        .map(|version| version.path().join("bin"))
        .chain(std::env::split_paths(&on_path))
        .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists() && bin.join("pg_dump").exists())
        .max()
        .expect("PostgreSQL is needed for these tests (Debian: apt-get install postgresql)")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

struct User {
    uid: u32,
    gid: u32,
}

fn server_user() -> User {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(|number| number.parse().unwrap());
        Some(User {
            uid: numbers.next()?,
            gid: numbers.next()?,
        })
    };
    user("postgres")
        .or_else(|| user("nobody"))
        .expect("a user to run PostgreSQL")
}

/// A new folder that the server's user owns and can reach: the temporary folder of this process may be closed to it.
fn folder_for(owner: Option<&User>) -> PathBuf {
    for parent in [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()] {
        let folder = tempfile::Builder::new()
            .prefix("skytale-pg-")
            .tempdir_in(parent)
            .unwrap();
        let Some(owner) = owner else { return folder.keep() };
        std::os::unix::fs::chown(folder.path(), Some(owner.uid), Some(owner.gid)).unwrap();
        let reached = Command::new("setpriv")
            .arg(format!("--reuid={}", owner.uid))
            .arg(format!("--regid={}", owner.gid))
            .args(["--clear-groups", "test", "-w"])
            .arg(folder.path())
            .status()
            .unwrap();
        if reached.success() {
            return folder.keep();
        }
    }
    panic!("no folder that PostgreSQL's user can reach");
}
