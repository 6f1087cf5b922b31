//! Catch-up in the SDK's engine, against OpenMLS' `process_message` on in-memory storage.
//!
//! An author's channel with 1 KiB messages, in groups of 2, 8 and 64 members. With `taskset -c 0` it has one processor. Ours is what an agent does that was away:
//! decode the entries, decrypt and check them, fold the channel digest, and put messages, group secrets and cursor into
//! the encrypted vault, durably, in transactions of as many entries as the agent puts into one. The limit reads and
//! decrypts messages of the same author, group size, length and settings, and keeps them nowhere. Both start each turn
//! from the state right after the join.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::*;
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::types::SignatureScheme;
use prost::Message as _;
use skytale_benches::frames::accept;
use skytale_benches::stopwatch::{Stopwatch, Took};
use skytale_benches::versus::{Aim, Bench, Case, Side, Work, sized};
use skytale_log_store::{LogStore, MemoryStore};
use skytale_proto::wire::Bundle;
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId, Header, LogId, Offset, Record};
use skytale_sdk::internals::engine::{ClaimedPackage, Engine, Outcome};
use skytale_sdk::{EngineConfig, VaultKey};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// A message's payload, in bytes.
const PAYLOAD_BYTES: usize = 1_024;
/// Entries in one transaction: what one batch of a relay node holds, and what an agent gathers at most.
const ENTRIES: [usize; 2] = [200, 800];

fn main() -> anyhow::Result<()> {
    let mut bench = Bench::new("catchup: the engine with its vault, against OpenMLS process_message in memory");
    let runtime = Runtime::new()?;
    // Batches of signatures are verified on other processors, where there are some.
    let aim = match std::thread::available_parallelism()?.get() {
        1 => 1.7,
        _ => 2.5,
    };
    for members in [2, 8, 64] {
        let setup = Setup::new(&runtime, members, sized(2_048, 256))?;
        for entries in ENTRIES {
            let case = Case {
                name: format!("catchup/{members} members, {entries} a transaction"),
                work: Work::Elements {
                    count: setup.records.len() as u64,
                    bytes: PAYLOAD_BYTES as u64,
                },
                aim: Aim::AtLeast(aim),
                pairs: 10,
            };
            bench.versus(case, |side| match side {
                Side::Ours => setup.engine(entries).expect("the engine processes sound entries"),
                Side::Limit => setup.openmls().expect("OpenMLS processes sound messages"),
            });
        }
    }
    sending(&runtime, &mut bench)?;
    bench.close();
    Ok(())
}

/// Benchmarks an author: messages into the outbox, encrypted, appended to a log in memory, their outcomes and the
/// entries taken; against OpenMLS' `create_message` on in-memory storage.
fn sending(runtime: &Runtime, bench: &mut Bench) -> anyhow::Result<()> {
    let (folder, store) = (tempfile::tempdir()?, MemoryStore::new());
    let mut author = Author {
        runtime,
        store: &store,
        engine: open(&folder.path().join(VAULT))?,
    };
    let messages = sized(2_048, 256);
    let (channel, _) = author.channel_with(BareMember::new()?.package()?, 0)?;
    let bare = BareMember::new()?;
    let mut group = bare.group()?;
    let case = Case {
        name: "send/2 members".into(),
        work: Work::Elements {
            count: messages as u64,
            bytes: PAYLOAD_BYTES as u64,
        },
        aim: Aim::AtLeast(0.3),
        pairs: 10,
    };
    let payload = vec![0x5a; PAYLOAD_BYTES];
    bench.versus(case, |side| {
        let stopwatch = Stopwatch::start();
        match side {
            Side::Ours => author.say(channel, messages).expect("the engine sends"),
            Side::Limit => {
                for _ in 0..messages {
                    let made = group.create_message(&bare.provider, &bare.key, &payload);
                    std::hint::black_box(made.expect("OpenMLS encrypts"));
                }
            }
        }
        stopwatch.took()
    });
    Ok(())
}

/// Two channels of one author with the same messages: one that an engine reads, one that OpenMLS alone reads.
struct Setup {
    channel: ChannelId,
    /// The entries after the reader's join.
    records: Vec<Record>,
    /// The reader's vault right after its join.
    vault: tempfile::TempDir,
    /// Folder for each turn's copy of it.
    turn: tempfile::TempDir,
    /// Bodies of the entries after the bare member's join.
    bodies: Vec<Bytes>,
    /// Contents of the bare member's storage right after its join.
    storage: HashMap<Vec<u8>, Vec<u8>>,
    group_id: GroupId,
}

impl Setup {
    fn new(runtime: &Runtime, members: usize, messages: usize) -> anyhow::Result<Self> {
        let (vault, turn, author_folder) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
        let store = MemoryStore::new();
        let mut author = Author {
            runtime,
            store: &store,
            engine: open(&author_folder.path().join(VAULT))?,
        };
        let mut reader = open(&vault.path().join(VAULT))?;
        let fillers = members - 2;

        let package = author.claim_from(&mut reader)?;
        let (channel, bundle) = author.channel_with(package, fillers)?;
        let own = author.entries(reader.agent_id().log(), Offset::ZERO)?;
        let _ = reader.process_agent_entries(&own)?;
        let joined = reader.join(channel, &bundle)?;
        ensure!(reader.members(channel)?.len() == members, "joined: {joined:?}");
        drop(reader);
        author.say(channel, messages)?;
        let records = author.entries(channel.log(), bundle.offset)?;

        let member = BareMember::new()?;
        let (bare_channel, bundle) = author.channel_with(member.package()?, fillers)?;
        let group_id = member.join(&bundle)?;
        author.say(bare_channel, messages)?;
        let bare = author.entries(bare_channel.log(), bundle.offset)?;
        let bodies = bare
            .into_iter()
            .map(|record| Ok(Frame::decode(record.payload)?.body().clone()));
        let bodies: Vec<Bytes> = bodies.collect::<anyhow::Result<_>>()?;
        ensure!(bodies.len() == records.len(), "as many messages on both sides");
        Ok(Self {
            channel,
            records,
            vault,
            turn,
            bodies,
            storage: member.stored()?,
            group_id,
        })
    }

    /// The time in which an engine that has just joined processes all entries.
    fn engine(&self, entries: usize) -> anyhow::Result<Took> {
        let path = self.turn.path().join(VAULT);
        copy(self.vault.path(), self.turn.path())?;
        let mut engine = open(&path)?;
        let stopwatch = Stopwatch::start();
        for records in self.records.chunks(entries) {
            let processed = engine.process_entries(self.channel, records)?;
            ensure!(processed.gap.is_none(), "{:?}", processed.gap);
        }
        let took = stopwatch.took();
        // One entry tells the author's digest, and is no message.
        let received = engine.unacked(self.channel)?;
        ensure!(
            received + 1 == self.records.len() as u64,
            "{received} messages received"
        );
        Ok(took)
    }

    /// The time in which OpenMLS decrypts all messages.
    fn openmls(&self) -> anyhow::Result<Took> {
        let provider = OpenMlsRustCrypto::default();
        let mut values = provider
            .storage()
            .values
            .write()
            .map_err(|_| anyhow::anyhow!("storage"))?;
        values.clone_from(&self.storage);
        drop(values);
        let mut group = MlsGroup::load(provider.storage(), &self.group_id)?.context("the group")?;
        let stopwatch = Stopwatch::start();
        for body in &self.bodies {
            let message = MlsMessageIn::tls_deserialize_exact(body)?.try_into_protocol_message()?;
            let processed = group.process_message(&provider, message)?;
            let ProcessedMessageContent::ApplicationMessage(message) = processed.into_content() else {
                anyhow::bail!("not a message");
            };
            std::hint::black_box(message.into_bytes());
        }
        Ok(stopwatch.took())
    }
}

const VAULT: &str = "vault.db";

fn open(path: &Path) -> anyhow::Result<Engine> {
    let mut config = EngineConfig::default();
    config.key_packages_low = 1;
    config.key_packages_target = 1;
    Ok(Engine::open(path, VaultKey::raw([7; 32]), config)?)
}

/// Makes `to` hold the files of `from`, and nothing else.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let files = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        Ok(fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?)
    };
    for file in files(to)? {
        fs::remove_file(file)?;
    }
    for file in files(from)? {
        fs::copy(&file, to.join(file.file_name().context("a file's name")?))?;
    }
    Ok(())
}

/// The SDK's extension of the group context that holds a channel's policy.
const POLICY_EXTENSION: u16 = 0xF5C2;

fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[SUITE]),
        Some(&[ExtensionType::LastResort, ExtensionType::Unknown(POLICY_EXTENSION)]),
        None,
        Some(&[CredentialType::Basic]),
    )
}

/// The author's engine, and a log for it to append to.
struct Author<'a> {
    runtime: &'a Runtime,
    store: &'a MemoryStore,
    engine: Engine,
}

impl Author<'_> {
    /// Lets an agent offer KeyPackages, and claims one.
    fn claim_from(&mut self, agent: &mut Engine) -> anyhow::Result<ClaimedPackage> {
        for frame in agent.key_packages_wanted(0, false)? {
            let id = frame.header().id;
            let offset = self.append(frame)?;
            agent.key_package_outcome(id, Outcome::Appended { offset })?;
        }
        let owner = agent.agent_id();
        let claim = self.engine.claim_frame(owner)?;
        let accepted = self.runtime.block_on(accept(self.store, claim))?;
        let package = accepted.claimed.context("a package")?.offset;
        let record = self.entries(owner.log(), package.previous())?.swap_remove(0);
        Ok(ClaimedPackage {
            agent: owner,
            frame: record.payload,
        })
    }

    /// A channel with the owner of a package, and so many others that never say anything. With the bundle that added them.
    fn channel_with(&mut self, package: ClaimedPackage, fillers: usize) -> anyhow::Result<(ChannelId, Record)> {
        let channel = self.engine.create_channel("bench")?;
        self.settle(channel)?;
        let mut packages = vec![package];
        for _ in 0..fillers {
            packages.push(BareMember::new()?.package()?);
        }
        self.engine.add(channel, packages)?;
        self.settle(channel)?;
        let bundle = self.engine.handshake_head(channel)?;
        let record = self.entries(channel.log(), bundle.previous())?.swap_remove(0);
        Ok((channel, record))
    }

    /// Sends messages.
    fn say(&mut self, channel: ChannelId, messages: usize) -> anyhow::Result<()> {
        let payloads = vec![Bytes::from(vec![0x5a; PAYLOAD_BYTES]); messages];
        self.engine.send_many(channel, &payloads)?;
        self.settle(channel)
    }

    /// Appends and reads until nothing is left to do.
    fn settle(&mut self, channel: ChannelId) -> anyhow::Result<()> {
        loop {
            let frames = self.engine.next_frames(channel, 256 * 1024)?.frames;
            let idle = frames.is_empty();
            for frame in frames {
                let id = frame.frame.header().id;
                let offset = self.append(frame.frame)?;
                self.engine.outcome(channel, id, Outcome::Appended { offset })?;
            }
            let records = self.entries(channel.log(), self.engine.cursor(channel)?)?;
            if idle && records.is_empty() {
                return Ok(());
            }
            let _ = self.engine.process_entries(channel, &records)?;
            // Messages that wait may be offered from here on.
            let _ = self.engine.reached_head(channel)?;
        }
    }

    fn append(&self, frame: Frame) -> anyhow::Result<Offset> {
        Ok(self.runtime.block_on(accept(self.store, frame))?.offset)
    }

    fn entries(&self, log: LogId, after: Offset) -> anyhow::Result<Vec<Record>> {
        let batch = self
            .runtime
            .block_on(self.store.read(log, after, usize::MAX, u64::MAX))?;
        let records = batch.records.into_iter().flat_map(Record::decode_batch);
        Ok(records.collect::<Result<_, _>>()?)
    }
}

/// A member with OpenMLS and its in-memory storage, and nothing else.
struct BareMember {
    provider: OpenMlsRustCrypto,
    key: SignatureKeyPair,
}

impl BareMember {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            provider: OpenMlsRustCrypto::default(),
            key: SignatureKeyPair::new(SignatureScheme::ED25519)?,
        })
    }

    /// A group of this member's own, with one other.
    fn group(&self) -> anyhow::Result<MlsGroup> {
        let credential = CredentialWithKey {
            credential: BasicCredential::new(self.id()?.as_bytes().to_vec()).into(),
            signature_key: self.key.public().into(),
        };
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .use_ratchet_tree_extension(true)
            .capabilities(capabilities())
            .build();
        let mut group = MlsGroup::new(&self.provider, &self.key, &config, credential)?;
        let frame = Frame::decode(Self::new()?.package()?.frame)?;
        let package = KeyPackageIn::tls_deserialize_exact(frame.body())?;
        let package = package.validate(self.provider.crypto(), ProtocolVersion::Mls10)?;
        group.add_members(&self.provider, &self.key, &[package])?;
        group.merge_pending_commit(&self.provider)?;
        Ok(group)
    }

    fn id(&self) -> anyhow::Result<AgentId> {
        Ok(AgentId::try_from(self.key.public())?)
    }

    fn package(&self) -> anyhow::Result<ClaimedPackage> {
        let owner = self.id()?;
        let credential = CredentialWithKey {
            credential: BasicCredential::new(owner.as_bytes().to_vec()).into(),
            signature_key: self.key.public().into(),
        };
        let package = KeyPackage::builder()
            .key_package_lifetime(Lifetime::init(0, u64::MAX))
            .leaf_node_capabilities(capabilities())
            .build(SUITE, &self.provider, &self.key, credential)?;
        let header = Header {
            log: owner.log(),
            id: FrameId::generate(),
            author: owner,
            parent: Offset::ZERO,
            detail: Detail::KeyPackage {
                last_resort: false,
                account: None,
            },
        };
        let body = package.key_package().tls_serialize_detached()?;
        Ok(ClaimedPackage {
            agent: owner,
            frame: Frame::new(header, body)?.encoded().clone(),
        })
    }

    /// Joins by a bundle's Welcome, with the settings of a channel.
    fn join(&self, bundle: &Record) -> anyhow::Result<GroupId> {
        let frame = Frame::decode(bundle.payload.clone())?;
        let bundle = Bundle::decode(frame.body().clone())?;
        let MlsMessageBodyIn::Welcome(welcome) = MlsMessageIn::tls_deserialize_exact(&bundle.welcome)?.extract() else {
            anyhow::bail!("not a Welcome");
        };
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .max_past_epochs(0)
            .number_of_resumption_psks(0)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(SenderRatchetConfiguration::new(0, 10_000))
            .build();
        let staged = StagedWelcome::new_from_welcome(&self.provider, &config, welcome, None)?;
        Ok(staged.into_group(&self.provider)?.group_id().clone())
    }

    fn stored(&self) -> anyhow::Result<HashMap<Vec<u8>, Vec<u8>>> {
        let values = self
            .provider
            .storage()
            .values
            .read()
            .map_err(|_| anyhow::anyhow!("storage"))?;
        Ok(values.clone())
    }
}
