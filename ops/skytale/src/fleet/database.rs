//! A SQLite database that takes no writes from any process: its header says that a later version of SQLite wrote it.
//! (<https://www.sqlite.org/fileformat2.html#file_format_version_numbers>)

use crate::output::{Context as _, Failure, Outcome};
use skytale_proto::Code;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Position in the header of the version that a writer must know.
const WRITE_VERSION_AT: u64 = 18;
/// With a write-ahead log, as the API's database has it.
const WRITE_AHEAD: u8 = 2;
/// One that no version of SQLite knows.
const UNKNOWN: u8 = 3;

/// Marks a database that nobody writes to now. Readers go on; a connection finds out when it is opened.
pub(crate) fn set_read_only(database: &Path, read_only: bool) -> Outcome {
    let marking = || format!("cannot change the header of {}", database.display());
    let file = File::options().read(true).write(true).open(database);
    let file = file.failing(Code::Environment, marking)?;
    let (from, to) = if read_only {
        (WRITE_AHEAD, UNKNOWN)
    } else {
        (UNKNOWN, WRITE_AHEAD)
    };
    let mut version = [0];
    file.read_exact_at(&mut version, WRITE_VERSION_AT)
        .failing(Code::Environment, marking)?;
    if version != [from] {
        return Err(
            Failure::new(Code::Environment, marking()).since(format!("it has the version {version:?}, not {from}"))
        );
    }
    file.write_all_at(&[to], WRITE_VERSION_AT)
        .and_then(|()| file.sync_all())
        .failing(Code::Environment, marking)
}
