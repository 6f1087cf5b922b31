//! The kinds of values that OpenMLS stores, and their keys.

use super::{Label, Secrets, Storage, StorageError, encode, epoch_key, key};
use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};

/// Generates the methods to write, read and delete the kinds that have one value under a key `K`. OpenMLS passes the
/// key before the value in most of them, and after it in some.
macro_rules! values {
    ($($label:ident:
        $write:ident<$($in_write:ident: $of_write:ident),*>,
        $read:ident<$($in_read:ident: $of_read:ident),*>,
        $delete:ident<$of_delete:ident>;)*) => {$(
        fn $write<$($in_write: traits::$of_write<CURRENT_VERSION>),*>(
            &self,
            id: &K,
            value: &V,
        ) -> Result<(), StorageError> {
            self.write(Label::$label, id, value)
        }

        fn $read<$($in_read: traits::$of_read<CURRENT_VERSION>),*>(&self, id: &K) -> Result<Option<V>, StorageError> {
            self.read(Label::$label, id)
        }

        fn $delete<K: traits::$of_delete<CURRENT_VERSION>>(&self, id: &K) -> Result<(), StorageError> {
            self.delete(Label::$label, id)
        }
    )*};
}

impl StorageProvider<CURRENT_VERSION> for Storage<'_> {
    type Error = StorageError;

    values! {
        // Of a group.
        Tree:
            write_tree<K: GroupId, V: TreeSync>,
            tree<K: GroupId, V: TreeSync>,
            delete_tree<GroupId>;
        InterimTranscriptHash:
            write_interim_transcript_hash<K: GroupId, V: InterimTranscriptHash>,
            interim_transcript_hash<K: GroupId, V: InterimTranscriptHash>,
            delete_interim_transcript_hash<GroupId>;
        Context:
            write_context<K: GroupId, V: GroupContext>,
            group_context<K: GroupId, V: GroupContext>,
            delete_context<GroupId>;
        ConfirmationTag:
            write_confirmation_tag<K: GroupId, V: ConfirmationTag>,
            confirmation_tag<K: GroupId, V: ConfirmationTag>,
            delete_confirmation_tag<GroupId>;
        ResumptionPsks:
            write_resumption_psk_store<K: GroupId, V: ResumptionPskStore>,
            resumption_psk_store<K: GroupId, V: ResumptionPskStore>,
            delete_all_resumption_psk_secrets<GroupId>;
        OwnLeafIndex:
            write_own_leaf_index<K: GroupId, V: LeafNodeIndex>,
            own_leaf_index<K: GroupId, V: LeafNodeIndex>,
            delete_own_leaf_index<GroupId>;
        EpochSecrets:
            write_group_epoch_secrets<K: GroupId, V: GroupEpochSecrets>,
            group_epoch_secrets<K: GroupId, V: GroupEpochSecrets>,
            delete_group_epoch_secrets<GroupId>;
        GroupState:
            write_group_state<V: GroupState, K: GroupId>,
            group_state<V: GroupState, K: GroupId>,
            delete_group_state<GroupId>;
        // Of the agent.
        SignatureKeyPair:
            write_signature_key_pair<K: SignaturePublicKey, V: SignatureKeyPair>,
            signature_key_pair<K: SignaturePublicKey, V: SignatureKeyPair>,
            delete_signature_key_pair<SignaturePublicKey>;
        EncryptionKeyPair:
            write_encryption_key_pair<K: EncryptionKey, V: HpkeKeyPair>,
            encryption_key_pair<V: HpkeKeyPair, K: EncryptionKey>,
            delete_encryption_key_pair<EncryptionKey>;
        KeyPackage:
            write_key_package<K: HashReference, V: KeyPackage>,
            key_package<K: HashReference, V: KeyPackage>,
            delete_key_package<HashReference>;
        Psk:
            write_psk<K: PskId, V: PskBundle>,
            psk<V: PskBundle, K: PskId>,
            delete_psk<PskId>;
    }

    // ---- a group's configuration and message secrets, which may be put off

    fn write_mls_join_config<G: traits::GroupId<CURRENT_VERSION>, V: traits::MlsGroupJoinConfig<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        if self.secrets.get() == Secrets::Settling {
            return Ok(());
        }
        self.write(Label::JoinConfig, group_id, value)
    }

    fn mls_group_join_config<G: traits::GroupId<CURRENT_VERSION>, V: traits::MlsGroupJoinConfig<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::JoinConfig, group_id)
    }

    fn delete_group_config<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::JoinConfig, group_id)
    }

    fn write_message_secrets<G: traits::GroupId<CURRENT_VERSION>, V: traits::MessageSecrets<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        let key = key(Label::MessageSecrets, group_id)?;
        if self.secrets.get() == Secrets::Deferred {
            self.unsettled.borrow_mut().insert(key);
            return Ok(());
        }
        self.unsettled.borrow_mut().remove(&key);
        self.put(key, encode(value)?);
        Ok(())
    }

    fn message_secrets<G: traits::GroupId<CURRENT_VERSION>, V: traits::MessageSecrets<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        if self.is_unsettled(group_id)? {
            return Err(StorageError::Unsettled);
        }
        self.read(Label::MessageSecrets, group_id)
    }

    fn delete_message_secrets<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        let key = key(Label::MessageSecrets, group_id)?;
        self.unsettled.borrow_mut().remove(&key);
        self.remove(key);
        Ok(())
    }

    // ---- own leaf nodes: a list a group

    fn append_own_leaf_node<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNode<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        leaf_node: &V,
    ) -> Result<(), StorageError> {
        self.append(key(Label::OwnLeafNodes, group_id)?, encode(leaf_node)?)
    }

    fn own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNode<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Vec<V>, StorageError> {
        self.items(&key(Label::OwnLeafNodes, group_id)?)
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::OwnLeafNodes, group_id)
    }

    // ---- proposals: a list of references a group, and each proposal under its reference

    fn queue_proposal<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        V: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        proposal_ref: &R,
        proposal: &V,
    ) -> Result<(), StorageError> {
        self.put(
            key(Label::QueuedProposal, &(group_id, proposal_ref))?,
            encode(proposal)?,
        );
        self.append(key(Label::ProposalRefs, group_id)?, encode(proposal_ref)?)
    }

    fn queued_proposal_refs<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Vec<R>, StorageError> {
        self.items(&key(Label::ProposalRefs, group_id)?)
    }

    fn queued_proposals<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        V: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Vec<(R, V)>, StorageError> {
        let refs: Vec<R> = self.queued_proposal_refs(group_id)?;
        refs.into_iter()
            .map(|proposal_ref| {
                let stored = self.get(&key(Label::QueuedProposal, &(group_id, &proposal_ref))?)?;
                let proposal = self.decode(&stored.ok_or(StorageError::ProposalMissing)?)?;
                Ok((proposal_ref, proposal))
            })
            .collect()
    }

    fn remove_proposal<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        proposal_ref: &R,
    ) -> Result<(), StorageError> {
        let refs = key(Label::ProposalRefs, group_id)?;
        let (mut items, removed) = (self.list(&refs)?, encode(proposal_ref)?);
        if let Some(at) = items.iter().position(|item| *item == removed) {
            items.remove(at);
            self.put_list(refs, &items)?;
        }
        self.remove(key(Label::QueuedProposal, &(group_id, proposal_ref))?);
        Ok(())
    }

    fn clear_proposal_queue<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        for proposal_ref in self.queued_proposal_refs::<G, R>(group_id)? {
            self.remove(key(Label::QueuedProposal, &(group_id, &proposal_ref))?);
        }
        self.delete(Label::ProposalRefs, group_id)
    }

    // ---- key pairs of an epoch

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        V: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        epoch: &E,
        leaf_index: u32,
        key_pairs: &[V],
    ) -> Result<(), StorageError> {
        self.put(epoch_key(group_id, epoch, leaf_index)?, encode(key_pairs)?);
        Ok(())
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        V: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<Vec<V>, StorageError> {
        let stored = self.get(&epoch_key(group_id, epoch, leaf_index)?)?;
        stored.map_or_else(|| Ok(Vec::new()), |value| self.decode(&value))
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<CURRENT_VERSION>, E: traits::EpochKey<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Result<(), StorageError> {
        self.remove(epoch_key(group_id, epoch, leaf_index)?);
        Ok(())
    }
}
