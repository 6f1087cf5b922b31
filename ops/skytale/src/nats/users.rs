//! The keys of those who may connect.
//!
//! ```text
//! <dir>/operator.nk, operator-system.nk       people
//! <dir>/nodes/<node>/relay.nk                 a relay node, as who writes the log
//! <dir>/nodes/<node>/relay-sync.nk            a relay node, as who asks whether servers sync
//! <dir>/nodes/<node>/*.old.nk                 the keys before, while servers take both
//! <dir>/nodes/<node>/checkpoint.nk            a relay node, as who signs checkpoints: for no connection, and never changed
//! <dir>/keeper/keeper.nk, keeper.old.nk       the keeper, who purges the streams, and writes nothing
//! <dir>/fleet-nodes                           names and public signing keys of the relay nodes: for each node, and the keeper
//! <dir>/relay.nk, relay-sync.nk               keys that all nodes shared, of an earlier version: taken while they are there
//! ```

use crate::local::{private_folder, write_private};
use crate::output::{Context as _, Failure, Outcome};
use nkeys::KeyPair;
use skytale_proto::Code;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Names of the keys that a relay node connects with.
const KEYS: [&str; 2] = ["relay", "relay-sync"];
/// The key that it signs checkpoints with.
const CHECKPOINT: &str = "checkpoint";
/// Means the keeper, where relay nodes are named.
pub(crate) const KEEPER: &str = "keeper";

/// A user's public key, and where its seed is.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub public: String,
    pub seed_file: PathBuf,
}

/// Those who may connect.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    /// Relay nodes.
    pub nodes: Vec<NodeUsers>,
    /// Users that all relay nodes shared: the log's key, and the one that asks.
    pub shared: [Option<User>; 2],
    /// User that purges the streams.
    pub keeper: Keys,
    /// People.
    pub operator: User,
    /// People, in the system account.
    pub system: User,
}

/// A relay node.
#[derive(Clone, Debug)]
pub(crate) struct NodeUsers {
    pub name: String,
    /// User that writes the log.
    pub relay: Keys,
    /// User that checks whether servers sync.
    pub sync: Keys,
    /// Key that signs checkpoints: for no connection.
    pub checkpoint: User,
}

/// The key of a user, and the one before while both are taken.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub now: User,
    pub old: Option<User>,
}

impl Users {
    /// The keys kept in a folder, of these relay nodes; made where they are missing.
    pub(crate) fn in_folder<'a>(dir: &Path, nodes: impl IntoIterator<Item = &'a str>) -> Outcome<Self> {
        let user = |name: &str| user_in(&dir.join(format!("{name}.nk")));
        let nodes = nodes.into_iter().map(|name| {
            let dir = folder(dir, name);
            private_folder(&dir)?;
            let [relay, sync] = KEYS.map(|key| keys_in(&dir, key));
            Ok(NodeUsers {
                name: name.to_owned(),
                relay: relay?,
                sync: sync?,
                checkpoint: user_in(&dir.join(format!("{CHECKPOINT}.nk")))?,
            })
        });
        let nodes = nodes.collect::<Outcome<_>>()?;
        private_folder(&folder(dir, KEEPER))?;
        let [relay, sync] = KEYS.map(|key| known_in(&dir.join(format!("{key}.nk"))));
        Ok(Self {
            nodes,
            keeper: keys_in(&folder(dir, KEEPER), KEEPER)?,
            shared: [relay?, sync?],
            operator: user("operator")?,
            system: user("operator-system")?,
        })
    }
}

impl Users {
    /// The file that tells whose words for checkpoints count.
    pub(crate) fn known_nodes(&self) -> String {
        let head = "# Whose signatures under checkpoints count: names and public keys of the fleet's relay nodes. Give it to each of\n\
                    # them, and to the keeper (`relay.fleet.nodes_file`). It is read again while they run.\n";
        let lines = self
            .nodes
            .iter()
            .map(|node| format!("{} {}\n", node.name, node.checkpoint.public));
        std::iter::once(head.to_owned()).chain(lines).collect()
    }
}

fn folder(dir: &Path, node: &str) -> PathBuf {
    if node == KEEPER {
        dir.join(KEEPER)
    } else {
        dir.join("nodes").join(node)
    }
}

fn keys_of(node: &str) -> &'static [&'static str] {
    if node == KEEPER { &[KEEPER] } else { &KEYS }
}

/// Sets the keys of a relay node, or of the keeper, aside as its old ones: the next ones are made when keys are read.
pub(crate) fn rotate(dir: &Path, node: &str) -> Outcome {
    let dir = folder(dir, node);
    let old = |key: &str| dir.join(format!("{key}.old.nk"));
    if keys_of(node).iter().any(|key| old(key).exists()) {
        let what = format!("{node} has old keys that servers still take");
        return Err(Failure::new(Code::Config, what).help(format!(
            "Finish that change first: when {node} uses its new keys, run this with `--retire {node}`."
        )));
    }
    for key in keys_of(node) {
        let now = dir.join(format!("{key}.nk"));
        match std::fs::rename(&now, old(key)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let what = format!("cannot set {} aside", now.display());
                return Err(Failure::new(Code::Environment, what).because(&error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the old keys of a relay node, or of the keeper.
pub(crate) fn retire(dir: &Path, node: &str) -> Outcome {
    for key in keys_of(node) {
        let old = folder(dir, node).join(format!("{key}.old.nk"));
        match std::fs::remove_file(&old) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let what = format!("cannot remove {}", old.display());
                return Err(Failure::new(Code::Environment, what).because(&error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn keys_in(dir: &Path, key: &str) -> Outcome<Keys> {
    Ok(Keys {
        now: user_in(&dir.join(format!("{key}.nk")))?,
        old: known_in(&dir.join(format!("{key}.old.nk")))?,
    })
}

/// The user whose seed is in a file; made where there is none.
fn user_in(seed_file: &Path) -> Outcome<User> {
    if let Some(user) = known_in(seed_file)? {
        return Ok(user);
    }
    let making = || format!("cannot make a key for {}", seed_file.display());
    let pair = KeyPair::new_user();
    let seed = Zeroizing::new(pair.seed().failing(Code::Environment, making)?);
    write_private(seed_file, seed.as_bytes())?;
    Ok(User {
        public: pair.public_key(),
        seed_file: seed_file.to_owned(),
    })
}

/// The user whose seed is in a file, if there is one.
fn known_in(seed_file: &Path) -> Outcome<Option<User>> {
    let pair = match std::fs::read_to_string(seed_file).map(Zeroizing::new) {
        Ok(seed) => KeyPair::from_seed(seed.trim()).map_err(|error| {
            Failure::new(Code::Config, format!("{} holds no NKey seed", seed_file.display())).because(&error)
        })?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(
                Failure::new(Code::Environment, format!("cannot read {}", seed_file.display())).because(&error),
            );
        }
    };
    Ok(Some(User {
        public: pair.public_key(),
        seed_file: seed_file.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_old_keys_are_taken_until_they_are_retired() {
        let dir = tempfile::tempdir().expect("a folder");
        let node = || {
            let users = Users::in_folder(dir.path(), ["relay-1", "relay-2"]).expect("keys");
            assert_eq!(users.shared.iter().flatten().count(), 0);
            users.nodes.into_iter().next().expect("a node")
        };
        let before = node();
        assert!(before.relay.old.is_none() && before.sync.old.is_none());
        rotate(dir.path(), "relay-1").expect("rotated");
        let both = node();
        for (before, both) in [(before.relay, &both.relay), (before.sync, &both.sync)] {
            assert_ne!(both.now.public, before.now.public);
            assert_eq!(both.old.as_ref().map(|old| &old.public), Some(&before.now.public));
        }
        // A second change would forget the key that the node uses.
        assert!(rotate(dir.path(), "relay-1").is_err());
        retire(dir.path(), "relay-1").expect("retired");
        retire(dir.path(), "relay-1").expect("nothing is left to do");
        let after = node();
        assert!(after.relay.old.is_none() && after.sync.old.is_none());
        assert_eq!(after.relay.now.public, both.relay.now.public);
    }

    #[test]
    fn the_keeper_has_a_key_of_its_own_and_signing_keys_outlive_a_change() {
        let dir = tempfile::tempdir().expect("a folder");
        let users = || Users::in_folder(dir.path(), ["relay-1"]).expect("keys");
        let before = users();
        for name in [KEEPER, "relay-1"] {
            rotate(dir.path(), name).expect("rotated");
        }
        let after = users();
        let old = after.keeper.old.as_ref().map(|old| &old.public);
        assert_eq!(old, Some(&before.keeper.now.public));
        assert_eq!(after.nodes[0].checkpoint.public, before.nodes[0].checkpoint.public);
        assert!(
            after
                .known_nodes()
                .contains(&format!("relay-1 {}\n", before.nodes[0].checkpoint.public))
        );
        retire(dir.path(), KEEPER).expect("retired");
        assert!(users().keeper.old.is_none());
        let every = [
            &after.nodes[0].relay.now,
            &after.nodes[0].sync.now,
            &after.nodes[0].checkpoint,
            &after.keeper.now,
        ];
        let keys: std::collections::BTreeSet<&str> = every.map(|user| user.public.as_str()).into();
        assert_eq!(keys.len(), 4);
    }

    #[test]
    fn a_key_that_all_nodes_shared_is_taken_while_its_file_is_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let made = user_in(&dir.path().join("relay.nk")).expect("made");
        let users = Users::in_folder(dir.path(), ["relay-1"]).expect("keys");
        assert_eq!(users.shared[0].as_ref().map(|user| &user.public), Some(&made.public));
        assert!(users.shared[1].is_none());
    }
}
