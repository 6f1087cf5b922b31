//! Each kind of value that OpenMLS stores, and where it goes.

use super::{Label, Secrets, Storage, StorageError, decode, encode, epoch_key, key};
use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};

impl StorageProvider<CURRENT_VERSION> for Storage<'_> {
    type Error = StorageError;

    fn write_tree<G: traits::GroupId<CURRENT_VERSION>, V: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::Tree, group_id, value)
    }

    fn tree<G: traits::GroupId<CURRENT_VERSION>, V: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::Tree, group_id)
    }

    fn delete_tree<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::Tree, group_id)
    }

    fn write_interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        V: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::InterimTranscriptHash, group_id, value)
    }

    fn interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        V: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::InterimTranscriptHash, group_id)
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(Label::InterimTranscriptHash, group_id)
    }

    fn write_context<G: traits::GroupId<CURRENT_VERSION>, V: traits::GroupContext<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::Context, group_id, value)
    }

    fn group_context<G: traits::GroupId<CURRENT_VERSION>, V: traits::GroupContext<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::Context, group_id)
    }

    fn delete_context<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::Context, group_id)
    }

    fn write_confirmation_tag<G: traits::GroupId<CURRENT_VERSION>, V: traits::ConfirmationTag<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::ConfirmationTag, group_id, value)
    }

    fn confirmation_tag<G: traits::GroupId<CURRENT_VERSION>, V: traits::ConfirmationTag<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::ConfirmationTag, group_id)
    }

    fn delete_confirmation_tag<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::ConfirmationTag, group_id)
    }

    fn write_resumption_psk_store<
        G: traits::GroupId<CURRENT_VERSION>,
        V: traits::ResumptionPskStore<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::ResumptionPsks, group_id, value)
    }

    fn resumption_psk_store<G: traits::GroupId<CURRENT_VERSION>, V: traits::ResumptionPskStore<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::ResumptionPsks, group_id)
    }

    fn delete_all_resumption_psk_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(Label::ResumptionPsks, group_id)
    }

    fn write_own_leaf_index<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNodeIndex<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::OwnLeafIndex, group_id, value)
    }

    fn own_leaf_index<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNodeIndex<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::OwnLeafIndex, group_id)
    }

    fn delete_own_leaf_index<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::OwnLeafIndex, group_id)
    }

    fn write_group_epoch_secrets<G: traits::GroupId<CURRENT_VERSION>, V: traits::GroupEpochSecrets<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::EpochSecrets, group_id, value)
    }

    fn group_epoch_secrets<G: traits::GroupId<CURRENT_VERSION>, V: traits::GroupEpochSecrets<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::EpochSecrets, group_id)
    }

    fn delete_group_epoch_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<(), StorageError> {
        self.delete(Label::EpochSecrets, group_id)
    }

    fn write_group_state<V: traits::GroupState<CURRENT_VERSION>, G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::GroupState, group_id, value)
    }

    fn group_state<V: traits::GroupState<CURRENT_VERSION>, G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::GroupState, group_id)
    }

    fn delete_group_state<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::GroupState, group_id)
    }

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
        let items = self.list(&key(Label::OwnLeafNodes, group_id)?)?;
        items.iter().map(|item| decode(item)).collect()
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
        let items = self.list(&key(Label::ProposalRefs, group_id)?)?;
        items.iter().map(|item| decode(item)).collect()
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
                let proposal = decode(&stored.ok_or(StorageError::ProposalMissing)?)?;
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
        stored.map_or_else(|| Ok(Vec::new()), |value| decode(&value))
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

    fn write_signature_key_pair<
        K: traits::SignaturePublicKey<CURRENT_VERSION>,
        V: traits::SignatureKeyPair<CURRENT_VERSION>,
    >(
        &self,
        id: &K,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::SignatureKeyPair, id, value)
    }

    fn signature_key_pair<
        K: traits::SignaturePublicKey<CURRENT_VERSION>,
        V: traits::SignatureKeyPair<CURRENT_VERSION>,
    >(
        &self,
        id: &K,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::SignatureKeyPair, id)
    }

    fn delete_signature_key_pair<K: traits::SignaturePublicKey<CURRENT_VERSION>>(
        &self,
        id: &K,
    ) -> Result<(), StorageError> {
        self.delete(Label::SignatureKeyPair, id)
    }

    fn write_encryption_key_pair<K: traits::EncryptionKey<CURRENT_VERSION>, V: traits::HpkeKeyPair<CURRENT_VERSION>>(
        &self,
        id: &K,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::EncryptionKeyPair, id, value)
    }

    fn encryption_key_pair<V: traits::HpkeKeyPair<CURRENT_VERSION>, K: traits::EncryptionKey<CURRENT_VERSION>>(
        &self,
        id: &K,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::EncryptionKeyPair, id)
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<CURRENT_VERSION>>(
        &self,
        id: &K,
    ) -> Result<(), StorageError> {
        self.delete(Label::EncryptionKeyPair, id)
    }

    fn write_key_package<K: traits::HashReference<CURRENT_VERSION>, V: traits::KeyPackage<CURRENT_VERSION>>(
        &self,
        id: &K,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::KeyPackage, id, value)
    }

    fn key_package<K: traits::HashReference<CURRENT_VERSION>, V: traits::KeyPackage<CURRENT_VERSION>>(
        &self,
        id: &K,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::KeyPackage, id)
    }

    fn delete_key_package<K: traits::HashReference<CURRENT_VERSION>>(&self, id: &K) -> Result<(), StorageError> {
        self.delete(Label::KeyPackage, id)
    }

    fn write_psk<K: traits::PskId<CURRENT_VERSION>, V: traits::PskBundle<CURRENT_VERSION>>(
        &self,
        id: &K,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(Label::Psk, id, value)
    }

    fn psk<V: traits::PskBundle<CURRENT_VERSION>, K: traits::PskId<CURRENT_VERSION>>(
        &self,
        id: &K,
    ) -> Result<Option<V>, StorageError> {
        self.read(Label::Psk, id)
    }

    fn delete_psk<K: traits::PskId<CURRENT_VERSION>>(&self, id: &K) -> Result<(), StorageError> {
        self.delete(Label::Psk, id)
    }
}
