//! Templates of `ops/nats`, filled in.

use super::inventory::{Inventory, Region, Server};
use super::users::{Keys, NodeUsers, User, Users};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const SERVER: &str = include_str!("../../../nats/server.conf");
const ACCOUNTS: &str = include_str!("../../../nats/accounts.conf");

/// One server's files: they belong together in one folder.
#[derive(Debug)]
pub(crate) struct Rendered {
    /// The server.
    pub name: String,
    /// `nats-server.conf`.
    pub server: String,
    /// `accounts.conf`.
    pub accounts: String,
}

/// The files of each server.
pub(crate) fn render(inventory: &Inventory, users: &Users) -> Vec<Rendered> {
    let accounts = accounts(inventory, users);
    let of_region = |region| {
        let accounts = &accounts;
        move |server: &Server| Rendered {
            name: server.name.clone(),
            server: server_file(inventory, region, server),
            accounts: accounts.clone(),
        }
    };
    inventory
        .regions
        .iter()
        .flat_map(|region| region.servers.iter().map(of_region(region)))
        .collect()
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = template.to_owned();
    for (name, value) in values {
        out = out.replace(&format!("{{{{{name}}}}}"), value);
    }
    out
}

fn server_file(inventory: &Inventory, region: &Region, server: &Server) -> String {
    let tls = inventory.tls_dir.as_deref();
    let listen = |port: u16| {
        // Servers on loopback stay there.
        let host = if server.is_loopback() {
            server.host.as_str()
        } else {
            "0.0.0.0"
        };
        format!("{host}:{port}")
    };
    let others = region.servers.iter().filter(|other| other.name != server.name);
    let routes: Vec<String> = others
        .map(|other| format!("\"nats-route://{}:{}\"", other.host, other.ports.cluster))
        .collect();
    let store = server.store_dir.as_ref().unwrap_or(&inventory.store_dir);
    fill(
        SERVER,
        &[
            ("name", &server.name),
            ("region", &region.name),
            ("client_listen", &listen(server.ports.client)),
            ("monitor_listen", &format!("127.0.0.1:{}", server.ports.monitor)),
            ("store_dir", &store.to_string_lossy()),
            ("max_file", &inventory.max_file),
            ("cluster_listen", &listen(server.ports.cluster)),
            ("routes", &routes.join(", ")),
            (
                "cluster_tls",
                &tls.map(|dir| tls_block(dir, "  ", true)).unwrap_or_default(),
            ),
            ("gateway", &gateway(inventory, region, &listen(server.ports.gateway))),
            (
                "client_tls",
                &tls.map(|dir| tls_block(dir, "", false)).unwrap_or_default(),
            ),
        ],
    )
}

/// Servers check each other's certificates; relay nodes check the server's, and show their NKey.
fn tls_block(dir: &Path, indent: &str, mutual: bool) -> String {
    let path = |name: &str| -> PathBuf { dir.join(name) };
    let mut out = String::new();
    let _ = writeln!(out, "{indent}tls {{");
    let _ = writeln!(out, "{indent}  cert_file: \"{}\"", path("server.pem").display());
    let _ = writeln!(out, "{indent}  key_file: \"{}\"", path("server.key").display());
    let _ = writeln!(out, "{indent}  ca_file: \"{}\"", path("ca.pem").display());
    let _ = writeln!(out, "{indent}  min_version: \"1.3\"");
    if mutual {
        let _ = writeln!(out, "{indent}  verify: true");
    }
    let _ = write!(out, "{indent}}}");
    out
}

/// Clusters of several regions are joined by gateways; a single one has none.
fn gateway(inventory: &Inventory, region: &Region, listen: &str) -> String {
    if inventory.regions.len() < 2 {
        return String::new();
    }
    let mut out = format!("\ngateway {{\n  name: \"{}\"\n  listen: \"{listen}\"\n", region.name);
    if !inventory.detours.is_empty() {
        // Nobody listens there: the others come by the ways that they learned of, and learn no straight ones.
        out.push_str("  advertise: \"127.0.0.1:1\"\n");
    }
    out.push_str("  gateways: [\n");
    for other in &inventory.regions {
        let urls: Vec<String> = other
            .servers
            .iter()
            .map(|server| {
                let detour = inventory.detours.get(&(region.name.clone(), server.name.clone()));
                let port = detour.copied().unwrap_or(server.ports.gateway);
                format!("\"nats://{}:{port}\"", server.host)
            })
            .collect();
        let _ = writeln!(out, "    {{ name: \"{}\", urls: [{}] }}", other.name, urls.join(", "));
    }
    out.push_str("  ]\n");
    if let Some(dir) = &inventory.tls_dir {
        out.push_str(&tls_block(dir, "  ", true));
        out.push('\n');
    }
    out.push_str("}\n");
    out
}

fn accounts(inventory: &Inventory, users: &Users) -> String {
    let mut streams: Vec<String> = Vec::new();
    for region in &inventory.regions {
        let others = inventory.regions.iter().filter(|other| other.number != region.number);
        for shard in 0..region.shards {
            let stream = format!("SKYTALE_LOG_{}_{shard}", region.number);
            // Its mirrors in the other regions.
            streams.extend(others.clone().map(|other| format!("{stream}_IN_{}", other.number)));
            streams.push(stream);
        }
    }
    let checkpoints: Vec<String> = inventory
        .regions
        .iter()
        .map(|region| format!("SKYTALE_CHECKPOINTS_{}", region.number))
        .collect();
    streams.extend(checkpoints.iter().cloned());
    let of_streams = |what: &str| {
        let mut subjects = String::new();
        for stream in &streams {
            let _ = writeln!(subjects, "    \"$JS.API.STREAM.{what}.{stream}\"");
        }
        subjects
    };
    let mut reads = String::new();
    for stream in &checkpoints {
        let _ = writeln!(reads, "    \"$JS.API.CONSUMER.CREATE.{stream}\"");
        for what in ["CREATE", "INFO", "DELETE", "MSG.NEXT"] {
            let _ = writeln!(reads, "    \"$JS.API.CONSUMER.{what}.{stream}.>\"");
        }
    }
    fill(
        ACCOUNTS,
        &[
            (
                "relay_users",
                &relay_users(users, |node| &node.relay, &users.shared[0], "$RELAY"),
            ),
            (
                "sync_users",
                &relay_users(users, |node| &node.sync, &users.shared[1], "$SYNC"),
            ),
            ("operator_user", &users.operator.public),
            ("system_user", &users.system.public),
            ("relay_streams", of_streams("CREATE").trim_end()),
            (
                "keeper_streams",
                &format!("{}{}", reads, of_streams("PURGE").trim_end()),
            ),
            (
                "keeper_users",
                lines_of(&users.keeper, "the keeper", "$KEEPER").trim_end(),
            ),
        ],
    )
}

/// A line for each key of the relay nodes.
fn relay_users(users: &Users, keys: impl Fn(&NodeUsers) -> &Keys, shared: &Option<User>, permissions: &str) -> String {
    let of_nodes = users
        .nodes
        .iter()
        .map(|node| lines_of(keys(node), &node.name, permissions));
    let mut lines: String = of_nodes.collect();
    if let Some(shared) = shared {
        lines.push_str(&line(shared, "all relay nodes, of an earlier version", permissions));
    }
    lines.trim_end().to_owned()
}

/// A line for the key of a user, and one for the key before.
fn lines_of(keys: &Keys, whose: &str, permissions: &str) -> String {
    let mut lines = line(&keys.now, whose, permissions);
    if let Some(old) = &keys.old {
        lines.push_str(&line(old, &format!("{whose}, the key before"), permissions));
    }
    lines
}

fn line(user: &User, whose: &str, permissions: &str) -> String {
    format!(
        "      {{ nkey: {}, permissions: {permissions} }} # {whose}\n",
        user.public
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        toml::from_str(include_str!("../../../nats/inventory.toml")).expect("the inventory that is shipped")
    }

    fn rendered(inventory: &Inventory) -> Vec<Rendered> {
        let dir = tempfile::tempdir().expect("a folder");
        render(
            inventory,
            &Users::in_folder(dir.path(), inventory.nodes()).expect("keys"),
        )
    }

    #[test]
    fn the_shipped_inventory_makes_nine_servers_and_nothing_is_left_open() {
        let inventory = inventory();
        assert_eq!(inventory.problem(), None);
        let rendered = rendered(&inventory);
        assert_eq!(rendered.len(), 9);
        for server in rendered {
            for text in [&server.server, &server.accounts] {
                assert!(!text.contains("{{"), "{text}");
            }
            assert!(server.server.contains("sync_interval: always"));
            assert!(server.server.contains("strict: true"));
            // Clients, routes and gateways.
            assert_eq!(
                server.server.matches("min_version: \"1.3\"").count(),
                3,
                "{}",
                server.server
            );
        }
    }

    #[test]
    fn servers_beyond_loopback_need_tls() {
        let mut inventory = inventory();
        inventory.tls_dir = None;
        assert!(
            inventory
                .problem()
                .is_some_and(|problem| problem.contains("in the clear"))
        );
        for region in &mut inventory.regions {
            for server in &mut region.servers {
                server.host = "127.0.0.1".into();
            }
        }
        assert_eq!(inventory.problem(), None);
        assert!(
            rendered(&inventory)
                .iter()
                .all(|server| !server.server.contains("tls {"))
        );
    }

    #[test]
    fn relay_nodes_may_make_each_stream_and_its_mirrors_and_purge_none() {
        let text = rendered(&inventory()).remove(0).accounts;
        let block = |name: &str| {
            let (_, rest) = text.split_once(&format!("\n{name} = {{")).expect("a block");
            rest.split_once("\n}").expect("its end").0
        };
        let named = |block: &str, what: &str| {
            let prefix = format!("\"$JS.API.STREAM.{what}.");
            block.lines().filter(|line| line.trim().starts_with(&prefix)).count()
        };
        // Three regions of eight shards, each with two mirrors, and the checkpoints of each.
        let all = 3 * 8 * 3 + 3;
        assert_eq!(
            (named(block("RELAY"), "CREATE"), named(block("RELAY"), "PURGE")),
            (all, 0)
        );
        assert_eq!(
            (named(block("KEEPER"), "CREATE"), named(block("KEEPER"), "PURGE")),
            (0, all)
        );
        for never in ["skytale.log", "skytale.checkpoint", "$O."] {
            assert!(!block("KEEPER").contains(never), "{never}");
        }
        assert!(
            text.contains("\"$JS.API.STREAM.CREATE.SKYTALE_LOG_1_0_IN_2\""),
            "{text}"
        );
        for never in [
            "_IN_1_",
            "SKYTALE_LOG_1_0_IN_1\"",
            "STREAM.DELETE",
            "STREAM.LIST",
            "STREAM.NAMES",
            "STREAM.UPDATE",
            "MSG.DELETE",
        ] {
            assert!(!text.contains(never), "{never}");
        }
    }

    #[test]
    fn each_relay_node_is_two_users_with_a_right_of_its_account_each() {
        let inventory = inventory();
        let text = rendered(&inventory).remove(0).accounts;
        for node in inventory.nodes() {
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| line.ends_with(&format!("# {node}")))
                .collect();
            let [sync, relay] = &lines[..] else {
                panic!("{node}: {lines:?}")
            };
            assert!(sync.contains("$SYNC") && relay.contains("$RELAY"), "{lines:?}");
        }
    }

    #[test]
    fn a_single_region_has_no_gateway() {
        let mut inventory = inventory();
        inventory.regions.truncate(1);
        assert!(
            rendered(&inventory)
                .iter()
                .all(|server| !server.server.contains("gateway {"))
        );
    }

    #[test]
    fn nothing_that_is_named_can_break_out_of_the_file() {
        let mut inventory = inventory();
        inventory.regions[0].servers[0].host = "a\" b".into();
        assert!(inventory.problem().is_some());
        inventory.regions[0].servers[0].host = "a".into();
        inventory.store_dir = "/x\"y".into();
        assert!(inventory.problem().is_some());
    }
}
