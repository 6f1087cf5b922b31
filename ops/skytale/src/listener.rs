//! Process that listens on an address that cannot be bound, as far as this user may see it.

use crate::output::Failure;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) process: u32,
    /// Its command line.
    pub(crate) command: String,
    /// Its working folder.
    pub(crate) folder: Option<PathBuf>,
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "process {}, `{}`",
            self.process,
            skytale_proto::shown(&self.command, 200)
        )?;
        match &self.folder {
            Some(folder) => write!(f, " in {}", folder.display()),
            None => Ok(()),
        }
    }
}

/// Whether somebody listens on an address.
pub(crate) fn is_taken(listen: SocketAddr, is_udp: bool) -> bool {
    let bound = match is_udp {
        true => UdpSocket::bind(listen).map(|_| ()),
        false => TcpListener::bind(listen).map(|_| ()),
    };
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// Says of a failed start who listens on the addresses that it needed.
pub(crate) fn blame(mut failure: Failure, needed: &[(SocketAddr, bool)]) -> Failure {
    for (listen, is_udp) in needed {
        if let Some(holder) = is_taken(*listen, *is_udp).then(|| on(*listen)).flatten() {
            failure = failure.since(format!("{holder} listens on {listen}"));
        }
    }
    failure
}

/// Returns the process that listens on a port; `None` if that cannot be seen: it is another user's, or this system has
/// no `/proc`.
pub(crate) fn on(listen: SocketAddr) -> Option<Listener> {
    let tables = ["tcp", "tcp6", "udp", "udp6"];
    let sockets: Vec<String> = tables
        .iter()
        .filter_map(|table| {
            fs::read_to_string(format!("/proc/net/{table}"))
                .ok()
                .map(|text| (table, text))
        })
        .flat_map(|(table, text)| sockets(&text, listen.port(), table.starts_with("tcp")))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let holds = |process: &Path| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut targets = open.filter_map(|file| fs::read_link(file.path()).ok());
        targets.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    };
    let own = std::process::id();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut numbered = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    let (process, path) = numbered.find(|(process, path): &(u32, PathBuf)| *process != own && holds(path))?;
    let command = fs::read(path.join("cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command);
    Some(Listener {
        process,
        command: command.trim_end_matches('\0').replace('\0', " "),
        folder: fs::read_link(path.join("cwd")).ok(),
    })
}

/// Inodes of sockets that listen on a port, in a table of `/proc/net`.
fn sockets(table: &str, port: u16, is_tcp: bool) -> Vec<u64> {
    let port = format!(":{port:04X}");
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, state) = (words.get(1)?, words.get(3)?);
        // 0A: listens.
        let listens = !is_tcp || *state == "0A";
        (listens && local.ends_with(&port)).then(|| words.get(9)?.parse().ok())?
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_the_sockets_that_listen_on_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1DB0 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1\n   \
                     1: 0100007F:1DB0 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1\n   \
                     2: 0100007F:1DB1 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4713 1\n";
        assert_eq!(sockets(table, 7_600, true), [4_711]);
        assert_eq!(sockets(table, 7_600, false), [4_711, 4_712]);
        assert_eq!(sockets(table, 80, true), [] as [u64; 0]);
    }
}
