//! The shape of a group's ratchet tree (RFC 9420 sections 4 and 12.4.3.3), as far as it decides what commits cost.
//!
//! A commit encrypts a secret to each node of the resolution of its copath. A member that joined by a KeyPackage and
//! never committed is a node of its own there, until a commit in its part of the tree gives it a parent that all others
//! can use. So in a group whose members joined and never committed, a commit is as long as the group is large.

use openmls::group::MlsGroup;
use openmls::prelude::LeafNodeIndex;
use openmls::prelude::tls_codec::Serialize as _;

/// A node of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Blank,
    Leaf,
    /// With the leaves that do not have its secret.
    Parent(Vec<u32>),
}

/// Whether this member still has the leaf that it joined with: it has made no commit.
pub(crate) fn has_first_leaf(group: &MlsGroup) -> bool {
    // Only a commit's leaf has a parent hash (RFC 9420 section 7.2).
    group.own_leaf_node().is_some_and(|leaf| leaf.parent_hash().is_none())
}

/// Whether each commit of others encrypts to this member alone, which a commit of this member, or of its nearest
/// neighbour in the tree, would change.
pub(crate) fn is_single(group: &MlsGroup) -> bool {
    let bytes = group.export_ratchet_tree().tls_serialize_detached().ok();
    let nodes = bytes.as_deref().and_then(read);
    nodes.is_some_and(|nodes| is_single_in(&nodes, group.own_leaf_index()))
}

fn is_single_in(nodes: &[Node], own: LeafNodeIndex) -> bool {
    let width = nodes.len().next_power_of_two();
    let own = own.u32();
    let mut at = 2 * own as usize;
    loop {
        // A node's level is the number of ones at its end (RFC 9420 appendix C).
        let level = at.trailing_ones();
        let parent = (at | (1 << level)) & !(1 << (level + 1));
        if parent >= width {
            return false;
        }
        let sibling = if at < parent {
            parent + (1 << level)
        } else {
            parent - (1 << level)
        };
        let reach = (1_usize << level) - 1;
        let is_there = (sibling - reach..=sibling + reach)
            .step_by(2)
            .any(|leaf| nodes.get(leaf) == Some(&Node::Leaf));
        if is_there {
            return match nodes.get(parent) {
                Some(Node::Parent(unmerged)) => unmerged.contains(&own),
                _ => true,
            };
        }
        at = parent;
    }
}

/// Reads a tree: `optional<Node> ratchet_tree<V>` (RFC 9420 section 12.4.3.3).
fn read(bytes: &[u8]) -> Option<Vec<Node>> {
    let mut outer = Reader(bytes);
    let mut tree = Reader(outer.vector()?);
    let mut nodes = Vec::new();
    while !tree.0.is_empty() {
        let node = match (tree.byte()?, tree.0.first()) {
            (0, _) => Node::Blank,
            (1, Some(1)) => {
                tree.byte()?;
                tree.leaf()?;
                Node::Leaf
            }
            (1, Some(2)) => {
                tree.byte()?;
                // The key and the parent hash.
                tree.vector()?;
                tree.vector()?;
                let (unmerged, rest) = tree.vector()?.as_chunks();
                if !rest.is_empty() {
                    return None;
                }
                Node::Parent(unmerged.iter().copied().map(u32::from_be_bytes).collect())
            }
            _ => return None,
        };
        nodes.push(node);
    }
    outer.0.is_empty().then_some(nodes)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// A vector with its length in one, two or four bytes (RFC 9420 section 2.1.2).
    fn vector(&mut self) -> Option<&'a [u8]> {
        let first = *self.0.first()?;
        let bytes = self.take(1 << (first >> 6))?;
        let length = bytes
            .iter()
            .fold(0_u64, |length, byte| (length << 8) | u64::from(*byte));
        let length = length & !(3 << (8 * bytes.len() - 2));
        match bytes.len() {
            1 | 2 | 4 => self.take(usize::try_from(length).ok()?),
            _ => None,
        }
    }

    /// A LeafNode (RFC 9420 section 7.2) with a basic credential, the only kind that members have.
    fn leaf(&mut self) -> Option<()> {
        // Two keys.
        self.vector()?;
        self.vector()?;
        if self.take(2)? != [0, 1] {
            return None;
        }
        self.vector()?;
        // Five lists of capabilities.
        for _ in 0..5 {
            self.vector()?;
        }
        match self.byte()? {
            // By a KeyPackage, with its lifetime.
            1 => {
                self.take(16)?;
            }
            // By an Update.
            2 => {}
            // By a commit, with a parent hash.
            3 => {
                self.vector()?;
            }
            _ => return None,
        }
        // The extensions and the signature.
        self.vector()?;
        self.vector().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Node::{Blank, Leaf};

    fn parent(unmerged: &[u32]) -> Node {
        Node::Parent(unmerged.to_vec())
    }

    fn single(nodes: &[Node]) -> Vec<bool> {
        let leaves = u32::try_from(nodes.len().div_ceil(2)).expect("few");
        let is_single = |leaf: u32| is_single_in(nodes, LeafNodeIndex::new(leaf));
        (0..leaves)
            .filter(|leaf| nodes[2 * *leaf as usize] == Leaf)
            .map(is_single)
            .collect()
    }

    #[test]
    fn a_member_is_single_until_its_nearest_ancestor_has_its_secret() {
        // Joined, and nobody has committed: the first pair, and the second.
        assert_eq!(single(&[Leaf, Blank, Leaf, Blank, Leaf, Blank, Leaf]), [true; 4]);
        // One of the first pair has committed.
        let nodes = [Leaf, parent(&[]), Leaf, parent(&[2, 3]), Leaf, Blank, Leaf];
        assert_eq!(single(&nodes), [false, false, true, true]);
        // A new member beside one that had committed.
        assert_eq!(single(&[Leaf, parent(&[1]), Leaf]), [false, true]);
        // No neighbour: the next ancestor counts.
        let nodes = [Leaf, parent(&[]), Leaf, parent(&[2]), Leaf];
        assert_eq!(single(&nodes), [false, false, true]);
        let nodes = [Leaf, parent(&[]), Leaf, parent(&[]), Leaf];
        assert_eq!(single(&nodes), [false, false, false]);
        // Alone.
        assert_eq!(single(&[Leaf]), [false]);
        assert_eq!(single(&[Leaf, Blank, Blank, Blank, Blank, Blank, Leaf]), [true, true]);
    }

    #[test]
    fn bytes_that_are_no_tree_are_not_read() {
        assert_eq!(read(&[2, 0, 0]), Some(vec![Blank, Blank]));
        // A node of an unknown kind, a length past the end, bytes behind it, and a length in eight bytes.
        for wrong in [
            &[2, 1, 3][..],
            &[5, 0],
            &[1, 0, 0],
            &[0xc0, 0, 0, 0, 0, 0, 0, 1, 0],
            &[],
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
