//! A relay node without a network: the real fold, in memory; and agents that drive their engines against it.

use futures_util::FutureExt as _;
use skytale_log_store::{Accepted, Access, AppendError, LogState, LogStore, MemoryStore, Verdict};
use skytale_proto::{
    AccountId, AgentId, ChannelId, Detail, Frame, FrameId, Header, LogId, Offset, Policy, Record, Region,
};
use skytale_sdk::internals::engine::{
    Acceptance, ClaimedPackage, Engine, LogStatus, NextFrames, Outcome, Processed, RollbackWord,
};
use skytale_sdk::{ChannelState, EngineConfig, EngineError, Event, Message, VaultKey};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Bytes of frames that engines return at once.
pub(crate) const FRAMES_BYTES: usize = 64 * 1024;

pub(crate) struct Relay {
    store: RefCell<MemoryStore>,
    /// Everything offered to it, in order: a copy of its folder has a prefix of this.
    offered: RefCell<Vec<Frame>>,
    /// Its operator's word on logs that went back, with the heads that they had then.
    word: RefCell<Option<(u64, BTreeMap<LogId, Offset>)>>,
    account: AccountId,
}

impl Relay {
    pub(crate) fn new() -> Self {
        Self {
            store: RefCell::new(MemoryStore::new()),
            offered: RefCell::default(),
            word: RefCell::default(),
            account: AccountId::generate(),
        }
    }

    /// Returns its present state: see [`Relay::go_back`].
    pub(crate) fn moment(&self) -> usize {
        self.offered.borrow().len()
    }

    /// Restores its folder to an earlier state.
    pub(crate) fn go_back(&self, moment: usize) {
        let mut kept = self.offered.take();
        kept.truncate(moment);
        self.store.replace(MemoryStore::new());
        for frame in kept {
            let _ = self.append(frame);
        }
    }

    /// Accepts, as its operator, that its logs have gone back, so that agents may continue with them.
    pub(crate) fn accept_rollback(&self) {
        let logs: BTreeSet<LogId> = self.offered.borrow().iter().map(|frame| frame.header().log).collect();
        let heads = logs.into_iter().map(|log| (log, self.head(log))).collect();
        let before = self.word.borrow().as_ref().map_or(0, |(at_ms, _)| *at_ms);
        self.word.replace(Some((before + 1, heads)));
    }

    /// Returns its operator's word about a log.
    pub(crate) fn word(&self, log: LogId) -> Option<RollbackWord> {
        let word = self.word.borrow();
        let (at_ms, heads) = word.as_ref()?;
        let head = heads.get(&log).copied().unwrap_or(Offset::ZERO);
        Some(RollbackWord { at_ms: *at_ms, head })
    }

    pub(crate) fn append(&self, frame: Frame) -> Result<Accepted, AppendError> {
        self.offered.borrow_mut().push(frame.clone());
        let pending = self.store.borrow().append(frame).now_or_never().expect("at once")?;
        pending.verdict().now_or_never().expect("at once")
    }

    pub(crate) fn outcome(&self, frame: Frame) -> Outcome {
        match self.append(frame) {
            Ok(accepted) if accepted.duplicate => Outcome::Duplicate {
                offset: accepted.offset,
            },
            Ok(accepted) => Outcome::Appended {
                offset: accepted.offset,
            },
            Err(error) => {
                use skytale_log_store::Refused;
                match error {
                    AppendError::Refused(Refused::StaleEpoch { head }) => Outcome::StaleEpoch { head },
                    AppendError::Refused(Refused::StaleHandshake { head }) => Outcome::StaleHandshake { head },
                    AppendError::Refused(Refused::RosterChange { agent: Some(agent), .. }) => {
                        Outcome::RosterChange { agent }
                    }
                    error => Outcome::Refused {
                        code: error.code(),
                        retryable: error.code().is_retryable(),
                    },
                }
            }
        }
    }

    /// Returns all entries after `after`, regardless of access.
    pub(crate) fn entries(&self, log: LogId, after: Offset) -> Vec<Record> {
        let read = self
            .store
            .borrow()
            .read(log, after, usize::MAX, u64::MAX)
            .now_or_never();
        let batch = read.expect("at once").expect("readable");
        let records = batch.records.into_iter().flat_map(Record::decode_batch);
        records.map(|record| record.expect("a record")).collect()
    }

    /// Returns entries after `after` that an agent may read.
    pub(crate) fn readable(&self, log: LogId, agent: AgentId, after: Offset) -> Vec<Record> {
        if after > self.head(log) {
            return Vec::new();
        }
        let access = self
            .store
            .borrow()
            .access(log, agent, self.account, after)
            .now_or_never();
        let until = match access.expect("at once").expect("known") {
            Access::Readable { until } => until.unwrap_or(Offset::MAX),
            Access::NotMember { .. } | Access::UnknownLog => return Vec::new(),
        };
        let mut records = self.entries(log, after);
        records.retain(|record| record.offset <= until);
        records
    }

    /// Returns the relay node's state of a channel.
    pub(crate) fn folded(&self, channel: ChannelId) -> LogState {
        let mut state = LogState::new(channel.log());
        for record in self.entries(channel.log(), Offset::ZERO) {
            let frame = Frame::decode(record.payload).expect("a frame");
            let verdict = state.apply(frame.header(), None);
            assert!(matches!(verdict, Verdict::Appended { .. }), "{verdict:?}");
        }
        state
    }

    /// The log's head.
    pub(crate) fn head(&self, log: LogId) -> Offset {
        let head = self.store.borrow().watch_head(log).now_or_never().expect("at once");
        *head.expect("known").borrow()
    }

    /// Returns the status of a trimmed log.
    pub(crate) fn status(&self, log: LogId) -> LogStatus {
        let status = self
            .store
            .borrow()
            .status(log)
            .now_or_never()
            .expect("at once")
            .expect("known");
        LogStatus {
            head: status.head,
            first: status.first,
            given_up: status.given_up,
            handshake_head: status.handshake_head,
            welcomes: status.welcomes,
            rollback: self.word(log),
        }
    }

    /// Returns the offset from which an agent may read again if it may not read the entry after `after`.
    pub(crate) fn absent_until(&self, log: LogId, agent: AgentId, after: Offset) -> Option<Offset> {
        let access = self
            .store
            .borrow()
            .access(log, agent, self.account, after)
            .now_or_never();
        match access.expect("at once").expect("known") {
            Access::NotMember { next } => next,
            Access::Readable { .. } | Access::UnknownLog => None,
        }
    }

    /// Trims entries up to and including an offset.
    pub(crate) fn trim(&self, log: LogId, up_to: Offset) {
        let header = Header {
            log,
            id: FrameId::generate(),
            author: AgentId::from_bytes([0; 32]),
            parent: Offset::ZERO,
            detail: Detail::Trim { up_to },
        };
        self.append(Frame::new(header, bytes::Bytes::new()).expect("a frame"))
            .expect("trimmed");
    }

    pub(crate) fn key_packages(&self, agent: AgentId) -> (u32, bool) {
        let stock = self.store.borrow().key_packages(agent).now_or_never();
        let stock = stock.expect("at once").expect("known");
        (stock.live, stock.last_resort)
    }
}

/// An agent with its own vault.
pub(crate) struct Agent {
    engine: Option<Engine>,
    path: PathBuf,
    config: EngineConfig,
    /// Whether the engine is dropped and reopened after each call.
    pub(crate) crashes: bool,
    pub(crate) events: Vec<Event>,
    /// Number of members before it in the turn to commit for leaving members, as last reported by the engine.
    pub(crate) turn: Option<u32>,
    _folder: tempfile::TempDir,
}

fn key() -> VaultKey {
    VaultKey::raw([7; 32])
}

impl Agent {
    pub(crate) fn new() -> Self {
        let config = changed(|config| {
            config.key_packages_low = 2;
            config.key_packages_target = 4;
        });
        Self::with(config)
    }

    pub(crate) fn with(config: EngineConfig) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vault.db");
        let engine = Engine::open(&path, key(), config.clone()).expect("opens");
        Self {
            engine: Some(engine),
            path,
            config,
            crashes: false,
            events: Vec::new(),
            turn: None,
            _folder: folder,
        }
    }

    /// Crashes like a killed process: nothing is closed cleanly, only the vault's data remains.
    pub(crate) fn crash(&mut self) {
        self.engine = None;
        self.engine = Some(Engine::open(&self.path, key(), self.config.clone()).expect("opens again"));
    }

    /// Copies the vault's files, like a backup while nobody has it open.
    pub(crate) fn copy_vault(&mut self, to: &std::path::Path) {
        self.engine = None;
        std::fs::create_dir_all(to).expect("a folder");
        copy_vault(self.folder(), to);
        self.crash();
    }

    /// Replaces the vault by a copy.
    pub(crate) fn put_vault_back(&mut self, from: &std::path::Path) {
        self.engine = None;
        copy_vault(from, self.folder());
        self.crash();
    }

    pub(crate) fn engine(&mut self) -> &mut Engine {
        if self.crashes {
            self.crash();
        }
        self.engine.as_mut().expect("open")
    }

    pub(crate) fn id(&self) -> AgentId {
        self.engine.as_ref().expect("open").agent_id()
    }

    /// The vault's files as they are now.
    pub(crate) fn vault_files(&mut self) -> Vec<(PathBuf, Vec<u8>)> {
        self.engine = None;
        let files = std::fs::read_dir(self.folder()).expect("listed");
        let files = files.map(|file| file.expect("a file").path());
        let copy = files
            .map(|path| (path.clone(), std::fs::read(path).expect("read")))
            .collect();
        self.crash();
        copy
    }

    /// Restores the vault from a copy.
    pub(crate) fn put_back(&mut self, copy: &[(PathBuf, Vec<u8>)]) {
        self.engine = None;
        for file in std::fs::read_dir(self.folder()).expect("listed") {
            std::fs::remove_file(file.expect("a file").path()).expect("removed");
        }
        for (path, bytes) in copy {
            std::fs::write(path, bytes).expect("written");
        }
        self.crash();
    }

    /// Like [`Agent::roll_back`], with files of another folder.
    pub(crate) fn roll_back_to(&mut self, copy: &[(PathBuf, Vec<u8>)]) {
        let here = |path: &PathBuf| self.folder().join(path.file_name().expect("a name"));
        let copy: Vec<_> = copy.iter().map(|(path, bytes)| (here(path), bytes.clone())).collect();
        self.roll_back(&copy);
    }

    /// Restores the vault like a snapshot of its disk: its files do not reveal it.
    pub(crate) fn roll_back(&mut self, copy: &[(PathBuf, Vec<u8>)]) {
        self.engine = None;
        for file in std::fs::read_dir(self.folder()).expect("listed") {
            let path = file.expect("a file").path();
            if !copy.iter().any(|(of, _)| *of == path) {
                std::fs::remove_file(path).expect("removed");
            }
        }
        for (path, bytes) in copy {
            let is_lock = path.extension() == Some("lock".as_ref());
            std::fs::write(path, if is_lock { &[] } else { bytes.as_slice() }).expect("written");
        }
        self.crash();
    }

    /// Starts another process with a copy of the vault.
    pub(crate) fn second(&self, copy: &[(PathBuf, Vec<u8>)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, bytes) in copy {
            let name = path.file_name().expect("a name");
            std::fs::write(folder.path().join(name), bytes).expect("written");
        }
        let path = folder.path().join("vault.db");
        let engine = Engine::open(&path, key(), self.config.clone()).expect("opens");
        Self {
            engine: Some(engine),
            path,
            config: self.config.clone(),
            crashes: false,
            events: Vec::new(),
            turn: None,
            _folder: folder,
        }
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.path.parent().expect("a folder")
    }

    /// Offers the wanted KeyPackages.
    pub(crate) fn stock_up(&mut self, relay: &Relay) {
        let (live, last_resort) = relay.key_packages(self.id());
        for frame in self.engine().key_packages_wanted(live, last_resort).expect("made") {
            let id = frame.header().id;
            let outcome = relay.outcome(frame);
            self.engine().key_package_outcome(id, outcome).expect("kept");
        }
    }

    /// Claims a KeyPackage of another agent.
    pub(crate) fn claim(&mut self, relay: &Relay, agent: AgentId) -> ClaimedPackage {
        let frame = self.engine().claim_frame(agent).expect("a frame");
        let claimed = relay.append(frame).expect("claimed").claimed.expect("a package");
        let record = relay.entries(agent.log(), claimed.offset.previous()).swap_remove(0);
        ClaimedPackage {
            agent,
            frame: record.payload,
        }
    }

    /// Reads the agent's own log, and does all pending joins.
    pub(crate) fn read_own_log(&mut self, relay: &Relay) {
        let own = self.id();
        let status = relay.status(own.log());
        if let Some(word) = status.rollback
            && self.engine().is_word_news_of_agent_log(word.at_ms).expect("known")
        {
            let events = self.engine().accept_agent_log_rollback(word).expect("settled");
            self.events.extend(events);
        }
        if self.engine().agent_cursor().next() < status.first {
            let events = self.engine().agent_log_trimmed(&status).expect("taken");
            self.events.extend(events);
        }
        let after = self.engine().agent_cursor();
        let records = relay.readable(own.log(), own, after);
        let processed = self.engine().process_agent_entries(&records).expect("processed");
        self.took(processed);
        for join in self.engine().pending_joins().expect("listed") {
            let status = relay.status(join.channel.log());
            if join.offset < status.first {
                let events = self.engine().join_trimmed(join, &status).expect("taken");
                self.events.extend(events);
                continue;
            }
            let records = relay.readable(join.channel.log(), own, join.offset.previous());
            if let Some(bundle) = records.first() {
                let events = self.engine().join(join.channel, bundle).expect("joined or recorded");
                self.events.extend(events);
            }
        }
    }

    fn took(&mut self, processed: Processed) {
        assert_eq!(processed.gap, None);
        self.events.extend(processed.events);
    }

    /// Processes at most `limit` entries of a channel; returns whether there were any.
    pub(crate) fn pull(&mut self, relay: &Relay, channel: ChannelId, limit: usize) -> bool {
        let Ok(info) = self.engine().channel(channel) else {
            return false;
        };
        if info.state == ChannelState::Left {
            return false;
        }
        let status = relay.status(channel.log());
        let mut moved_on = self.settle_rollback(relay, channel);
        let cursor = self.engine().cursor(channel).expect("known");
        let access = relay
            .store
            .borrow()
            .access(channel.log(), self.id(), relay.account, cursor)
            .now_or_never();
        let access = access.expect("at once").expect("known");
        if access == (Access::NotMember { next: None }) && !moved_on && info.state != ChannelState::Creating {
            moved_on = self.settle_as(relay, channel);
        }
        let head = relay.head(channel.log());
        if info.cursor > head && !moved_on && info.state != ChannelState::Creating {
            let events = self.engine().log_is_short(channel, head).expect("noted");
            self.events.extend(events);
            return self.settle_rollback(relay, channel);
        }
        if self.engine().cursor(channel).expect("known").next() < status.first {
            let events = self.engine().trimmed(channel, &status).expect("taken");
            self.events.extend(events);
            moved_on = true;
        }
        let cursor = self.engine().cursor(channel).expect("known");
        if let Some(next) = relay.absent_until(channel.log(), self.id(), cursor) {
            let events = self.engine().absent_until(channel, next).expect("taken");
            self.events.extend(events);
            moved_on = true;
        }
        let cursor = self.engine().cursor(channel).expect("known");
        let mut records = relay.readable(channel.log(), self.id(), cursor);
        records.truncate(limit);
        let at_head = records.last().map_or(cursor, |record| record.offset);
        let processed = self.engine().process_entries(channel, &records).expect("processed");
        self.took(processed);
        if at_head >= relay.head(channel.log()) {
            self.reach(channel);
        }
        moved_on || !records.is_empty()
    }

    /// Settles on the relay's present log if there is evidence that it went back and its operator has confirmed it. The
    /// application has acknowledged all its messages.
    fn settle_rollback(&mut self, relay: &Relay, channel: ChannelId) -> bool {
        let log = channel.log();
        let suspect = self.engine().is_suspect(channel).expect("known");
        let word_ms = relay.word(log).map_or(0, |word| word.at_ms);
        let diverged = self.engine().is_diverged(channel).expect("known");
        let settles = word_ms > 0 && (diverged || self.engine().is_word_news(channel, word_ms).expect("known"));
        (suspect || settles) && self.settle_as(relay, channel)
    }

    fn settle_as(&mut self, relay: &Relay, channel: ChannelId) -> bool {
        let log = channel.log();
        self.engine().ack(channel, Offset::MAX).expect("acknowledged");
        let status = relay.status(log);
        let mut fork = self.engine().fork(channel).expect("known");
        fork.skip_to(status.first);
        let account = relay.account;
        let access = relay
            .store
            .borrow()
            .access(log, self.id(), account, fork.after())
            .now_or_never();
        match access.expect("at once").expect("known") {
            Access::UnknownLog => fork.gone(),
            Access::NotMember { .. } => fork.deny(),
            Access::Readable { .. } => fork.feed(&relay.readable(log, self.id(), fork.after())),
        }
        let events = self.engine().compared(channel, &fork).expect("compared");
        self.events.extend(events);
        let settled = self.engine().accept_rollback(channel, &fork, &status, true);
        match settled.expect("settled") {
            Acceptance::Settled(events) => {
                self.events.extend(events);
                true
            }
            Acceptance::Unconfirmed | Acceptance::Unacked => false,
        }
    }

    /// Marks the channel as replayed to its head in this session.
    pub(crate) fn reach(&mut self, channel: ChannelId) {
        if let Ok(events) = self.engine().reached_head(channel) {
            self.events.extend(events);
        }
    }

    /// Returns the frames to append, in a session that has reached the head.
    pub(crate) fn next_frames(&mut self, channel: ChannelId, bytes_max: usize) -> Result<NextFrames, EngineError> {
        self.reach(channel);
        let engine = self.engine.as_mut().expect("open");
        engine.next_frames(channel, bytes_max)
    }

    /// Appends all frames, without reading, as in a session that has already reached the head; returns whether there
    /// were any.
    pub(crate) fn push(&mut self, relay: &Relay, channel: ChannelId) -> bool {
        let Ok(next) = self.next_frames(channel, FRAMES_BYTES) else {
            return false;
        };
        self.events.extend(next.events);
        self.turn = next.turn;
        let any = !next.frames.is_empty();
        for frame in next.frames {
            let id = frame.frame.header().id;
            let outcome = relay.outcome(frame.frame);
            let events = self.engine().outcome(channel, id, outcome).expect("taken");
            self.events.extend(events);
        }
        any
    }

    pub(crate) fn send(&mut self, channel: ChannelId, text: &str) -> FrameId {
        self.engine().send(channel, text.as_bytes()).expect("queued")
    }

    /// Returns all messages of a channel.
    pub(crate) fn history(&mut self, channel: ChannelId) -> Vec<Message> {
        self.engine()
            .history(channel, Offset::ZERO, u32::MAX)
            .expect("readable")
    }

    /// Returns all messages of a channel, as (offset, author, text).
    pub(crate) fn transcript(&mut self, channel: ChannelId) -> Vec<(u64, AgentId, String)> {
        let messages = self.history(channel).into_iter();
        messages
            .map(|message| {
                let text = String::from_utf8(message.payload.to_vec()).expect("text");
                (message.offset.get(), message.author, text)
            })
            .collect()
    }

    pub(crate) fn texts(&mut self, channel: ChannelId) -> Vec<String> {
        self.transcript(channel).into_iter().map(|(_, _, text)| text).collect()
    }

    /// Returns the events since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

fn copy_vault(from: &std::path::Path, to: &std::path::Path) {
    let files = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    for file in files(to) {
        std::fs::remove_file(file).expect("gone");
    }
    for file in files(from) {
        std::fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copied");
    }
}

/// Lets all agents read and append until nothing is left to do.
pub(crate) fn settle(relay: &Relay, channel: ChannelId, agents: &mut [&mut Agent]) {
    for _ in 0..1_000 {
        let mut busy = false;
        for agent in agents.iter_mut() {
            agent.read_own_log(relay);
            busy |= agent.pull(relay, channel, usize::MAX);
            busy |= agent.push(relay, channel);
        }
        if busy {
            continue;
        }
        // Time passes: it is the turn of the first of the present agents.
        let waiting = agents.iter_mut().filter(|agent| agent.turn.is_some());
        match waiting.min_by_key(|agent| agent.turn) {
            Some(first) => first.engine().take_turn(channel).expect("taken"),
            None => return,
        }
    }
    panic!("the agents do not come to rest");
}

/// Creates a channel of `agents`, by the first one.
pub(crate) fn channel_of(relay: &Relay, agents: &mut [&mut Agent]) -> ChannelId {
    let first = agents.first_mut().expect("someone");
    // Everybody may do everything: roles have tests of their own.
    let policy = Policy::open(first.id());
    let channel = first.engine().create_channel_with("test", Region::default(), &policy);
    let channel = channel.expect("made");
    join_all(relay, channel, agents)
}

/// Creates a channel of `agents`, by the first one, its admin.
pub(crate) fn governed_channel_of(relay: &Relay, agents: &mut [&mut Agent]) -> ChannelId {
    let channel = agents[0].engine().create_channel("test").expect("made");
    join_all(relay, channel, agents)
}

fn join_all(relay: &Relay, channel: ChannelId, agents: &mut [&mut Agent]) -> ChannelId {
    let (first, others) = agents.split_first_mut().expect("someone");
    let mut packages = Vec::new();
    for other in others.iter_mut() {
        other.stock_up(relay);
        packages.push(first.claim(relay, other.id()));
    }
    if !packages.is_empty() {
        first.engine().add(channel, packages).expect("queued");
    }
    settle(relay, channel, agents);
    for agent in agents.iter_mut() {
        agent.take_events();
    }
    channel
}

/// Checks that all agents have the same cursor, and saw the same.
pub(crate) fn assert_agree(channel: ChannelId, agents: &mut [&mut Agent]) {
    let mut seen = agents.iter_mut().map(|agent| {
        let engine = agent.engine();
        (
            engine.cursor(channel).expect("known"),
            engine.handshake_head(channel).expect("known"),
            engine.epoch(channel).expect("known"),
            engine.digest(channel).expect("known"),
            engine.members(channel).expect("known"),
        )
    });
    let first = seen.next().expect("someone");
    for other in seen {
        assert_eq!(first, other);
    }
}

/// Returns settings that differ from the defaults.
pub(crate) fn changed(change: impl FnOnce(&mut EngineConfig)) -> EngineConfig {
    let mut config = EngineConfig::default();
    change(&mut config);
    config
}
