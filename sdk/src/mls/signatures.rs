//! Verification of Ed25519 signatures, one at a time or many at once.
//!
//! All signatures are judged by the rules of [ZIP 215], which give the same answer for a signature alone and in a batch:
//! members that read live and members that catch up agree on every entry.
//!
//! A transaction may allow batches ([`Signatures::allow_batches`]). Within [`Signatures::deferring`] a signature is then
//! taken as valid and put into the open batch. [`Signatures::settle`] verifies what was put there, before the transaction
//! commits. If it fails, the transaction is rolled back and repeated without batches, which finds the entry.
//!
//! [ZIP 215]: https://zips.z.cash/zip-0215

use ed25519_zebra::{Error, Signature, VerificationKey, VerificationKeyBytes, batch};
use openmls_traits::types::CryptoError;
use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

/// Signatures in a batch that another thread verifies. A batch of 32 costs 15 µs a signature, one of 256 costs 11 µs.
const SIGNATURES_HANDED_OVER: usize = 32;

/// Signatures in a batch where there is one processor.
const SIGNATURES_MAX: usize = 1_024;

/// Bytes of signed data in a batch.
const BYTES_MAX: usize = 512 * 1024;

/// Threads that verify batches for all agents of the process, besides each agent's own.
const THREADS_MAX: usize = 4;

/// Keys of bad signatures that are remembered.
const DISTRUSTED_MAX: usize = 1_024;

/// Counts of signatures since the engine was opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SignatureCounts {
    /// Signatures that were verified one at a time.
    pub single: u64,
    /// Signatures that were put into batches.
    pub batched: u64,
    /// Transactions that were repeated because a batch had a bad signature.
    pub repeated: u64,
}

/// Verifies a signature by the rules of ZIP 215. Fails with [`CryptoError::InvalidSignature`], or with
/// [`CryptoError::CryptoLibraryError`] if key or signature have a wrong length.
pub(crate) fn verify(key: &[u8], data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
    let (key, signature) = parse(key, signature)?;
    verify_one(key, data, &signature).map_err(|_| CryptoError::InvalidSignature)
}

fn parse(key: &[u8], signature: &[u8]) -> Result<(VerificationKeyBytes, Signature), CryptoError> {
    let key = VerificationKeyBytes::try_from(key).map_err(|_| CryptoError::CryptoLibraryError)?;
    let signature = Signature::from_slice(signature).map_err(|_| CryptoError::CryptoLibraryError)?;
    Ok((key, signature))
}

fn verify_one(key: VerificationKeyBytes, data: &[u8], signature: &Signature) -> Result<(), Error> {
    VerificationKey::try_from(key)?.verify(signature, data)
}

/// Signatures with copies of what they sign.
#[derive(Default)]
struct Batch {
    data: Vec<u8>,
    /// Each with the end of its data.
    signatures: Vec<(VerificationKeyBytes, Signature, usize)>,
}

impl Batch {
    fn push(&mut self, key: VerificationKeyBytes, data: &[u8], signature: Signature) {
        self.data.extend_from_slice(data);
        self.signatures.push((key, signature, self.data.len()));
    }

    fn is_full(&self, signatures_max: usize) -> bool {
        self.signatures.len() >= signatures_max || self.data.len() >= BYTES_MAX
    }

    /// Whether all signatures are valid.
    fn is_valid(&self) -> bool {
        let mut verifier = batch::Verifier::new();
        let mut start = 0;
        for (key, signature, end) in &self.signatures {
            let Some(data) = self.data.get(start..*end) else {
                return false;
            };
            verifier.queue((*key, *signature, data));
            start = *end;
        }
        verifier.verify(rand::rng()).is_ok()
    }
}

/// Threads that verify batches; `None` where the process has one processor.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    POOL.get_or_init(|| {
        let processors = available_parallelism().map_or(1, usize::from);
        let threads = processors.saturating_sub(1).min(THREADS_MAX);
        let builder = ThreadPoolBuilder::new().num_threads(threads);
        let builder = builder.thread_name(|number| format!("skytale-verify-{number}"));
        // A batch without an answer is not valid.
        let builder = builder.panic_handler(|_| tracing::error!("verifying signatures panicked"));
        (threads > 0).then(|| builder.build().ok()).flatten()
    })
    .as_ref()
}

/// State of the verification of one engine's signatures.
#[derive(Default)]
pub(crate) struct Signatures {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    batches_allowed: bool,
    is_deferring: bool,
    open: Batch,
    handed_over: HandedOver,
    /// Whether a full batch of this transaction was bad where no other thread verifies.
    full_batch_failed: bool,
    batch_failed: bool,
    distrusted: Distrusted,
    counts: SignatureCounts,
}

/// Batches for other threads.
#[derive(Default)]
struct HandedOver {
    /// Each until a thread takes it.
    batches: Vec<Arc<Mutex<Option<Batch>>>>,
    answers: Option<(Sender<bool>, Receiver<bool>)>,
}

impl HandedOver {
    fn push(&mut self, batch: Batch, pool: &ThreadPool) {
        let batch = Arc::new(Mutex::new(Some(batch)));
        let (sender, _) = self.answers.get_or_insert_with(channel);
        let sender = sender.clone();
        self.batches.push(Arc::clone(&batch));
        pool.spawn(move || {
            let taken = batch.lock().take();
            if let Some(batch) = taken {
                // Nobody waits for the answer if the transaction has ended.
                let _ = sender.send(batch.is_valid());
            }
        });
    }

    /// Verifies what no thread has begun, waits for the rest, and returns whether all batches are valid.
    fn settle(&mut self) -> bool {
        let Self { batches, answers } = std::mem::take(self);
        let mut begun = 0;
        let mut all_valid = true;
        // Threads take the oldest first.
        for batch in batches.iter().rev() {
            let taken = batch.lock().take();
            match taken {
                Some(batch) => all_valid &= batch.is_valid(),
                None => begun += 1,
            }
        }
        if let Some((sender, answers)) = answers {
            // A thread that panics gives no answer.
            drop(sender);
            all_valid &= answers.iter().take(begun).filter(|is_valid| *is_valid).count() == begun;
        }
        all_valid
    }

    /// Gives up batches that no thread has begun, and the answers for the others.
    fn abandon(&mut self) {
        for batch in std::mem::take(self).batches {
            batch.lock().take();
        }
    }
}

/// Keys whose signatures were bad before: they are verified at once, so that a member that signs badly costs one
/// repeated transaction and not one for each of its messages.
#[derive(Default)]
struct Distrusted {
    keys: BTreeSet<[u8; 32]>,
    oldest_first: VecDeque<[u8; 32]>,
}

impl Distrusted {
    fn add(&mut self, key: [u8; 32]) {
        if !self.keys.insert(key) {
            return;
        }
        self.oldest_first.push_back(key);
        if self.oldest_first.len() > DISTRUSTED_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

impl Signatures {
    /// Verifies a signature, or puts it into the open batch.
    pub(crate) fn verify(&self, key: &[u8], data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let (key, signature) = parse(key, signature)?;
        let mut state = self.state.lock();
        let bytes = <[u8; 32]>::from(key);
        if state.is_deferring && state.batches_allowed && !state.distrusted.keys.contains(&bytes) {
            state.counts.batched += 1;
            state.open.push(key, data, signature);
            return Ok(());
        }
        state.counts.single += 1;
        verify_one(key, data, &signature).map_err(|_| {
            state.distrusted.add(bytes);
            CryptoError::InvalidSignature
        })
    }

    /// Runs `process`, whose signatures may be verified later.
    pub(crate) fn deferring<T>(&self, process: impl FnOnce() -> T) -> T {
        self.state.lock().is_deferring = true;
        let result = process();
        let mut state = self.state.lock();
        state.is_deferring = false;
        state.hand_over_if_full();
        result
    }

    /// Starts a transaction, in which all signatures are verified at once unless batches are allowed.
    pub(crate) fn start(&self) {
        let mut state = self.state.lock();
        state.batches_allowed = false;
        state.is_deferring = false;
        state.open = Batch::default();
        state.handed_over.abandon();
        state.full_batch_failed = false;
    }

    /// Allows batches in this transaction.
    pub(crate) fn allow_batches(&self) {
        self.state.lock().batches_allowed = true;
    }

    /// Hands the open batch over, although it is not full: this transaction adds no more signatures.
    pub(crate) fn hand_over_rest(&self) {
        let mut state = self.state.lock();
        if let Some(pool) = pool()
            && !state.open.signatures.is_empty()
        {
            let rest = std::mem::take(&mut state.open);
            state.handed_over.push(rest, pool);
        }
    }

    /// Whether other threads have batches of this transaction.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.state.lock().handed_over.batches.is_empty()
    }

    /// Verifies all signatures of this transaction that were put into batches. Returns whether all are valid.
    pub(crate) fn settle(&self) -> bool {
        let mut state = self.state.lock();
        let open = std::mem::take(&mut state.open);
        let mut all_valid = open.signatures.is_empty() || open.is_valid();
        all_valid &= state.handed_over.settle();
        all_valid &= !std::mem::take(&mut state.full_batch_failed);
        if !all_valid {
            state.batch_failed = true;
            state.counts.repeated += 1;
        }
        all_valid
    }

    /// Whether a batch has failed since the last call.
    pub(crate) fn take_batch_failed(&self) -> bool {
        std::mem::take(&mut self.state.lock().batch_failed)
    }

    pub(crate) fn counts(&self) -> SignatureCounts {
        self.state.lock().counts
    }
}

impl State {
    fn hand_over_if_full(&mut self) {
        let pool = pool();
        let signatures_max = match pool {
            Some(_) => SIGNATURES_HANDED_OVER,
            None => SIGNATURES_MAX,
        };
        if !self.open.is_full(signatures_max) {
            return;
        }
        let full = std::mem::take(&mut self.open);
        match pool {
            Some(pool) => self.handed_over.push(full, pool),
            None => self.full_batch_failed |= !full.is_valid(),
        }
    }
}

#[cfg(test)]
mod tests;
