//! The steps from an empty database to this version's schema.
//!
//! They are listed here, and not found by sqlx's macro: that would compile both databases' drivers, with SQLite, a second
//! time for the compiler.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use std::sync::LazyLock;

/// Number, description and statements of each step. A step that was released never changes: its checksum is in every
/// database.
const STEPS: [(i64, &str, &str); 6] = [
    (1, "accounts", include_str!("../../migrations/0001_accounts.sql")),
    (2, "enrolments", include_str!("../../migrations/0002_enrolments.sql")),
    (3, "relay https", include_str!("../../migrations/0003_relay_https.sql")),
    (4, "readiness", include_str!("../../migrations/0004_readiness.sql")),
    (5, "instances", include_str!("../../migrations/0005_instances.sql")),
    (
        6,
        "audit series",
        include_str!("../../migrations/0006_audit_series.sql"),
    ),
];

pub(super) static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let step = |(number, description, statements): (i64, &'static str, &'static str)| {
        Migration::new(
            number,
            description.into(),
            MigrationType::Simple,
            statements.into_sql_str(),
            false,
        )
    };
    Migrator::with_migrations(STEPS.map(step).into())
});

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[tokio::test]
    async fn every_file_is_listed_as_sqlx_reads_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let found = Migrator::new(folder.as_path()).await.expect("readable");
        let described = |migrator: &Migrator| -> Vec<_> {
            let of = |step: &Migration| (step.version, step.description.clone(), step.checksum.clone());
            migrator.iter().map(of).collect()
        };
        assert_eq!(described(&MIGRATIONS), described(&found));
    }
}
