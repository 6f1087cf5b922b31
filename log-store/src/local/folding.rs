//! The first half of the writer: frames are folded, in the order of the queue, into the batch that is next to be written.
//!
//! The writer folds what it finds when it has written a batch. While it writes, the folding thread folds if much waits:
//! see [`super::intake`]. Entries that are folded and not durable yet are invisible to everybody else.

use super::batch::Batch;
use super::builder::{BatchBuilder, Laid};
use super::command::{Asked, Command, Outcome, Retired, Teller};
use super::config::LocalConfig;
use super::folder::Role;
use super::intake::{Bell, Intake, TAKEN_AT_ONCE};
use super::known::Known;
use super::position::ShardPosition;
use super::replica::{Answer, Follow, Followed};
use super::shared::{Shared, StopOnPanic};
use super::working::WorkingSet;
use crate::{AppendError, StoreError};
use parking_lot::{Condvar, Mutex, MutexGuard};
use skytale_proto::{Frame, LogId};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

/// Commands that wait in the queue while the writer writes, from which on the folding thread folds them.
pub(crate) const HELP_FROM: usize = TAKEN_AT_ONCE;
/// Those who were just answered are about to append again, and one sync for all of them is better than one for the first
/// and another for the rest: so a batch waits while it still grows within steps of this length.
const GATHER_STEP: Duration = Duration::from_micros(60);
/// Maximum time that a batch waits to grow, in all.
const GATHER_MAX: Duration = Duration::from_micros(900);
/// Maximum time that it waits for each unit of time that writing and syncing the batch before took. If frames take
/// nearly as long to come as a sync takes, two batches that take turns, one folded while the other is synced, are
/// faster than one.
const GATHER_PER_SYNC: f64 = 0.3;
/// A frame of so many bytes takes longer to write than a sync takes: it begins a batch. Those before it do not wait for it, and
/// those behind it wait for one such frame, not for several.
const LARGE_BYTES: usize = 256 * 1024;

/// Callers that wait for a batch, and their answers when it is durable.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) appends: Vec<(Teller, LogId, Outcome)>,
    pub(crate) retired: Vec<oneshot::Sender<Result<u64, StoreError>>>,
    /// Callers that want the open segment sealed, with the age that its first entry must have.
    pub(crate) seals: Vec<(oneshot::Sender<Result<bool, StoreError>>, u64)>,
    pub(crate) followed: Vec<(Answer, Follow, Vec<Followed>)>,
    /// Callers whose states are installed.
    pub(crate) installed: Vec<Answer>,
    /// Number of followed messages.
    pub(crate) messages: usize,
    /// Logs whose damaged entries the batch gives up.
    pub(crate) healed: Vec<LogId>,
    /// Bytes of frames that leave the queue with the batch.
    pub(crate) queued_bytes: usize,
}

impl Answers {
    /// Tells all who wait that the batch was not written.
    pub(crate) fn fail(self, error: &StoreError) {
        for (answer, ..) in self.appends {
            answer.tell(Err(error.clone().into()));
        }
        let followed = self.followed.into_iter().map(|(answer, ..)| answer);
        for answer in followed.chain(self.installed) {
            let _ = answer.send(Err(error.clone()));
        }
        for answer in self.retired {
            let _ = answer.send(Err(error.clone()));
        }
        for (answer, _) in self.seals {
            let _ = answer.send(Err(error.clone()));
        }
    }
}

/// The batch that grows.
struct Folding {
    set: WorkingSet,
    builder: BatchBuilder,
    answers: Answers,
    /// Logs of frames that were refused for lack of room and whose authors are not told yet, and how many frames: no later
    /// one of such a log is taken.
    untold: HashMap<LogId, usize>,
    /// Followed messages that wait for room, in order. Bounded by the messages that followers have on their way.
    waiting: VecDeque<(Follow, Answer)>,
    /// Number of times that folded frames were given up.
    rolled_back: u64,
    time_ms: u64,
    /// Frames answered by the batch before.
    before: usize,
    /// The writer waits for something to write.
    writer_waits: bool,
    /// The batch has its time.
    timed: bool,
    /// The batch begins with a large frame.
    is_large: bool,
    /// No more commands come.
    ended: bool,
    /// Nobody takes batches any more.
    abandoned: bool,
}

/// Stage between the thread that folds and the one that writes.
///
/// Locked in this order: `intake`, `folding`.
pub(crate) struct Stage {
    shared: Arc<Shared>,
    intake: Mutex<Intake>,
    folding: Mutex<Folding>,
    /// The batch has room again.
    moved: Condvar,
    /// Wakes the writer.
    writer: Arc<Bell>,
    /// Wakes the folding thread.
    help: Arc<Bell>,
}

impl Stage {
    pub(crate) fn new(shared: Arc<Shared>, queue: Receiver<Command>, next_batch: u64, time_ms: u64) -> Self {
        let (writer, help) = (Arc::<Bell>::default(), Arc::<Bell>::default());
        // A replica's commands are large, and keep a thread of their own busy.
        let rung = match shared.role {
            Role::Alone => writer.clone(),
            Role::Replica => help.clone(),
        };
        Self {
            shared,
            intake: Mutex::new(Intake::new(queue, rung)),
            writer,
            help,
            folding: Mutex::new(Folding {
                set: WorkingSet::new(),
                builder: BatchBuilder::new(next_batch),
                answers: Answers::default(),
                untold: HashMap::new(),
                waiting: VecDeque::new(),
                rolled_back: 0,
                time_ms,
                before: 0,
                writer_waits: false,
                timed: false,
                is_large: false,
                ended: false,
                abandoned: false,
            }),
            moved: Condvar::new(),
        }
    }

    /// The folding thread's bell, for those who find [`HELP_FROM`] commands in the queue.
    pub(crate) fn help(&self) -> Arc<Bell> {
        self.help.clone()
    }

    /// Folds commands whenever it is asked for help, until the queue is closed and empty.
    pub(crate) fn fold_all(&self) {
        let _ended = EndOnDrop(self);
        let _guard = StopOnPanic {
            shared: &self.shared,
            thread: "folds frames",
        };
        loop {
            let mut intake = self.intake.lock();
            while self.fold_some(&mut intake) {}
            if intake.is_over() {
                return;
            }
            drop(intake);
            self.help.wait();
        }
    }

    /// Folds some commands; false where there were none.
    fn fold_some(&self, intake: &mut Intake) -> bool {
        if intake.peek().is_none() {
            return false;
        }
        let mut folding = self.folding.lock();
        for _ in 0..TAKEN_AT_ONCE {
            let Some(command) = intake.next() else { break };
            match command {
                Command::Append { frame, asked, answer } => {
                    self.wait_until(&mut folding, |folding| folding.takes(&frame, &self.shared.config));
                    folding.append(&self.shared, &frame, asked, answer);
                }
                Command::Retire { logs, answer } => self.retire(&mut folding, &logs, answer),
                Command::Seal { before_ms, answer } => {
                    // Callers learn from the answer's end that the store ended.
                    if !folding.abandoned {
                        folding.answers.seals.push((answer, before_ms));
                    }
                }
                Command::Follow { follow, answer } => {
                    folding.waiting.push_back((follow, answer));
                    self.follow(&mut folding);
                }
                Command::Resume => self.follow(&mut folding),
                Command::Install {
                    states,
                    position,
                    answer,
                } => {
                    self.wait_for_room(&mut folding);
                    folding.install(&self.shared, states, position, answer);
                }
                Command::Close => intake.close(),
            }
        }
        self.tell_writer(&folding);
        // The writer may be waiting for the lock, and comes first.
        MutexGuard::unlock_fair(folding);
        true
    }

    /// Folds the appends that wait, unless the other thread is about it, and as long as the batch has room. All other
    /// commands are for that thread, which may have to wait for a batch to be written.
    fn fold_here(&self) {
        if self.shared.role != Role::Alone {
            return;
        }
        let Some(mut intake) = self.intake.try_lock() else {
            // The folding thread may have looked at the queue before what rang for the writer came, and not have let it go yet.
            // Then it looks again.
            return self.help.ring();
        };
        let mut folding = self.folding.lock();
        // Those that come meanwhile are for the next batch.
        for _ in 0..=intake.len() {
            match intake.peek() {
                Some(Command::Append { frame, .. }) if folding.takes(frame, &self.shared.config) => {}
                Some(Command::Append { .. }) => break,
                Some(_) => return self.help.ring(),
                None => break,
            }
            if let Some(Command::Append { frame, asked, answer }) = intake.next() {
                folding.append(&self.shared, &frame, asked, answer);
            }
        }
        if intake.is_over() {
            // It ends, and says so.
            self.help.ring();
        }
    }

    /// Rings for the writer where it waits, and there is something to write.
    fn tell_writer(&self, folding: &Folding) {
        if folding.writer_waits && !folding.is_idle() {
            self.writer.ring();
        }
    }

    /// Folds followed messages, as long as there is room for them.
    fn follow(&self, folding: &mut MutexGuard<'_, Folding>) {
        while !folding.waiting.is_empty() && !self.shared.space.is_full() {
            self.wait_for_room(folding);
            // Waiting lets the lock go: a batch may have been rolled back, and its messages come first.
            if let Some((follow, answer)) = folding.waiting.pop_front() {
                folding.follow(&self.shared, follow, answer);
            }
        }
        self.shared.space.set_waiting(!folding.waiting.is_empty());
    }

    fn retire(
        &self,
        folding: &mut MutexGuard<'_, Folding>,
        logs: &[Retired],
        answer: oneshot::Sender<Result<u64, StoreError>>,
    ) {
        let rolled_back = folding.rolled_back;
        for retired in logs {
            self.wait_for_room(folding);
            folding.retire(&self.shared, *retired);
        }
        if folding.rolled_back != rolled_back {
            // Some of them were in a batch that is given up. A caller that no longer waits needs no answer.
            let _ = answer.send(Err(StoreError::Full {
                reason: "there was no room for a Trim".into(),
            }));
        } else if !folding.abandoned {
            folding.answers.retired.push(answer);
        }
    }

    /// Waits until the batch may grow.
    fn wait_for_room(&self, folding: &mut MutexGuard<'_, Folding>) {
        self.wait_until(folding, |folding| folding.has_room(&self.shared.config));
    }

    fn wait_until(&self, folding: &mut MutexGuard<'_, Folding>, fits: impl Fn(&Folding) -> bool) {
        while !folding.abandoned && !fits(folding) {
            self.tell_writer(folding);
            self.moved.wait(folding);
        }
    }

    /// Takes the batch that is next to be written; `None` once none will come. `durable` is the batch before, if it was
    /// written; `sync` is how long writing and syncing take.
    pub(crate) fn take(&self, durable: Option<&Arc<Batch>>, sync: Duration) -> Option<(Laid, Answers)> {
        if let Some(batch) = durable {
            let mut folding = self.folding.lock();
            folding.set.durable(batch, self.shared.progress.last());
        }
        self.fold_here();
        let mut folding = self.folding.lock();
        let there = folding.answers.appends.len();
        while folding.is_idle() {
            if folding.ended {
                return None;
            }
            folding.writer_waits = true;
            drop(folding);
            self.writer.wait();
            self.fold_here();
            folding = self.folding.lock();
        }
        folding.writer_waits = false;
        let mut folding = self.gather(folding, there, GATHER_MAX.min(sync.mul_f64(GATHER_PER_SYNC)));
        // The author of a large frame needs longer than a sync to send another one.
        folding.before = if folding.is_large {
            0
        } else {
            folding.answers.appends.len()
        };
        folding.timed = false;
        folding.is_large = false;
        let taken = folding.lay(&self.shared, false);
        self.moved.notify_all();
        Some(taken)
    }

    /// Waits for those who were just answered: see [`GATHER_STEP`]. `there` are the frames of others, which came while
    /// the batch before was written. Where one author appends one frame at a time, nobody is left to wait for.
    fn gather<'a>(
        &'a self,
        mut folding: MutexGuard<'a, Folding>,
        there: usize,
        longest: Duration,
    ) -> MutexGuard<'a, Folding> {
        let mut frames = folding.answers.appends.len();
        let enough = there + folding.before - folding.before / 4;
        let until = Instant::now() + longest;
        while frames < enough && !folding.ended && folding.has_room(&self.shared.config) {
            if Instant::now() + GATHER_STEP > until {
                break;
            }
            drop(folding);
            // Nothing wakes it: what comes meanwhile is folded at once.
            std::thread::sleep(GATHER_STEP);
            self.fold_here();
            folding = self.folding.lock();
            let grown = folding.answers.appends.len();
            if grown == frames {
                break;
            }
            frames = grown;
        }
        folding
    }

    /// The last batch: it has no entries, and says that all before is durable. With all states that the index lacks.
    pub(crate) fn take_last(&self, durable: Option<&Arc<Batch>>) -> Laid {
        let mut folding = self.folding.lock();
        if let Some(batch) = durable {
            folding.set.durable(batch, self.shared.progress.last());
        }
        let (mut laid, _) = folding.lay(&self.shared, true);
        laid.saved = folding.set.unsaved();
        laid
    }

    /// A batch could not be written for lack of room, nor can the one that was folded on top of it. Followed messages
    /// of both wait for room; all else is answered. The next batch has this number. Returns the number of bytes that
    /// leave the queue.
    pub(crate) fn roll_back(&self, next_batch: u64, failed: Answers, error: &StoreError) -> usize {
        let mut folding = self.folding.lock();
        let mut behind = std::mem::take(&mut folding.answers);
        let queued_bytes = behind.queued_bytes;
        let mut again = Vec::new();
        for mut answers in [failed, std::mem::take(&mut behind)] {
            let followed = std::mem::take(&mut answers.followed);
            again.extend(followed.into_iter().map(|(answer, follow, _)| (follow, answer)));
            // Told under the lock: nothing is folded between the telling and its note.
            let logs: Vec<LogId> = answers.appends.iter().map(|(_, log, _)| *log).collect();
            answers.fail(error);
            logs.into_iter().for_each(|log| self.shared.space.refused(log));
        }
        for again in again.into_iter().rev() {
            folding.waiting.push_front(again);
        }
        self.shared.space.set_waiting(!folding.waiting.is_empty());
        folding.untold.clear();
        folding.rolled_back += 1;
        folding.is_large = false;
        folding.builder.roll_back(next_batch);
        folding.set.roll_back();
        self.moved.notify_all();
        queued_bytes
    }

    /// Authors learned that frames of these logs were refused for lack of room.
    pub(crate) fn told(&self, refused: Vec<LogId>) {
        if refused.is_empty() {
            return;
        }
        let mut folding = self.folding.lock();
        for log in refused {
            self.shared.space.refused(log);
            if let Some(left) = folding.untold.get_mut(&log) {
                *left -= 1;
                if *left == 0 {
                    folding.untold.remove(&log);
                }
            }
        }
    }

    /// Nobody takes batches any more: waiting callers are let go.
    pub(crate) fn abandon(&self) {
        let mut folding = self.folding.lock();
        folding.abandoned = true;
        // Waiting callers learn from the answers' end that the store ended.
        folding.answers = Answers::default();
        folding.waiting.clear();
        self.moved.notify_all();
        drop(folding);
        self.let_go(&self.help);
        self.help.ring();
    }

    /// Takes no more commands, and lets the callers of those in the queue go. One that is on its way rings this bell.
    fn let_go(&self, bell: &Arc<Bell>) {
        let mut intake = self.intake.lock();
        intake.close();
        intake.rings(bell.clone());
        while intake.next().is_some() {}
    }
}

/// Tells the writer that nothing more comes, however the folding thread ends.
struct EndOnDrop<'a>(&'a Stage);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.let_go(&self.0.writer);
        }
        self.0.folding.lock().ended = true;
        self.0.writer.ring();
    }
}

impl Folding {
    fn append(&mut self, shared: &Shared, frame: &Frame, asked: Asked, answer: Teller) {
        if self.abandoned {
            return;
        }
        self.begin(&shared.config);
        self.is_large |= frame.encoded().len() >= LARGE_BYTES;
        self.answers.queued_bytes += frame.encoded().len();
        let log = frame.header().log;
        let outcome = match shared.running().and_then(|()| self.admits(shared, &log, asked)) {
            Ok(()) => self.builder.append(shared, &mut self.set, frame),
            Err(error) => Err(error.into()),
        };
        if matches!(outcome, Err(AppendError::Store(StoreError::Full { .. }))) {
            *self.untold.entry(log).or_default() += 1;
        }
        self.answers.appends.push((answer, log, outcome));
    }

    fn admits(&self, shared: &Shared, log: &LogId, asked: Asked) -> Result<(), StoreError> {
        match asked {
            Asked::Author(_) if self.untold.contains_key(log) => Err(shared.space.refusal()),
            Asked::Author(asked) => shared.space.admits(log, asked),
            Asked::Store => Ok(()),
        }
    }

    fn retire(&mut self, shared: &Shared, retired: Retired) {
        self.begin(&shared.config);
        let Retired { log, up_to, with_state } = retired;
        if self.abandoned || shared.running().is_err() || self.builder.doomed.is_some() {
            return;
        }
        let outcome = self.builder.retire(shared, &mut self.set, log, up_to, with_state);
        if let Err(AppendError::Store(StoreError::Full { reason })) = &outcome {
            self.builder.doomed = Some(shared.space.failed(format!("a Trim could not be folded: {reason}")));
            return;
        }
        if let Err(error) = outcome {
            tracing::error!(%log, %error, "entries are dropped without a Trim: the log is damaged");
            return;
        }
        let damage = shared.damage(&log).ok().flatten();
        if damage.is_some_and(|damage| up_to.is_some_and(|up_to| up_to >= damage.offset)) {
            self.answers.healed.push(log);
        }
    }

    /// A message that cannot be folded stops the store: later ones must not be folded without it.
    fn follow(&mut self, shared: &Shared, follow: Follow, answer: Answer) {
        if self.abandoned {
            return;
        }
        let messages = follow.messages.len();
        let outcome = shared
            .running()
            .and_then(|()| self.builder.follow(shared, &mut self.set, &follow));
        match outcome {
            Err(StoreError::Full { reason }) => {
                self.builder.doomed = Some(shared.space.failed(format!("messages could not be folded: {reason}")));
                self.waiting.push_front((follow, answer));
            }
            outcome => {
                self.answers.messages += messages;
                self.followed(shared, outcome, follow, answer);
            }
        }
    }

    fn install(&mut self, shared: &Shared, states: Vec<Known>, position: ShardPosition, answer: Answer) {
        if self.abandoned {
            return;
        }
        if shared.space.is_full() {
            // A caller that no longer waits needs no answer.
            let _ = answer.send(Err(shared.space.refusal()));
            return;
        }
        let outcome = shared
            .running()
            .and_then(|()| self.builder.install(shared, &mut self.set, states, position));
        match outcome {
            Ok(()) => self.answers.installed.push(answer),
            Err(StoreError::Full { reason }) => {
                let error = shared.space.failed(format!("states could not be installed: {reason}"));
                self.builder.doomed = Some(error.clone());
                let _ = answer.send(Err(error));
            }
            Err(error) => {
                shared.stop(error.to_string());
                let _ = answer.send(Err(error));
            }
        }
    }

    fn followed(
        &mut self,
        shared: &Shared,
        outcome: Result<Vec<Followed>, StoreError>,
        follow: Follow,
        answer: Answer,
    ) {
        match outcome {
            Ok(followed) => self.answers.followed.push((answer, follow, followed)),
            Err(error) => {
                shared.stop(error.to_string());
                // A caller that no longer waits finds the store stopped.
                let _ = answer.send(Err(error));
            }
        }
    }

    fn has_room(&self, config: &LocalConfig) -> bool {
        self.builder.bytes() < config.batch_bytes_max
            && self.answers.appends.len() + self.answers.messages < config.batch_frames_max
    }

    /// Whether this frame may be in the batch.
    fn takes(&self, frame: &Frame, config: &LocalConfig) -> bool {
        self.has_room(config) && (frame.encoded().len() < LARGE_BYTES || self.is_idle())
    }

    /// Whether there is nothing to write and nobody to answer.
    fn is_idle(&self) -> bool {
        self.answers.appends.is_empty()
            && self.answers.retired.is_empty()
            && self.answers.seals.is_empty()
            && self.answers.followed.is_empty()
            && self.answers.installed.is_empty()
            && self.builder.is_empty()
    }

    /// The batch's time is that of its first command; it never goes back, whatever the clock does.
    fn begin(&mut self, config: &LocalConfig) {
        if !self.timed {
            self.timed = true;
            self.time_ms = self.time_ms.max(config.clocks.read().wall_ms);
            self.builder.set_time(self.time_ms);
        }
    }

    fn lay(&mut self, shared: &Shared, last: bool) -> (Laid, Answers) {
        // The batch before this one is durable; its states may go from memory.
        let mut laid = self.builder.lay(&mut self.set, last);
        laid.saved.extend(self.set.evict(&shared.config, laid.number - 1));
        let next = Answers {
            appends: Vec::with_capacity(self.answers.appends.len()),
            ..Answers::default()
        };
        (laid, std::mem::replace(&mut self.answers, next))
    }
}

#[cfg(test)]
mod tests {
    use crate::{LocalConfig, LocalStore, LogStore as _};
    use skytale_proto::{AgentId, ChannelId, ChannelMode, Detail, Frame, FrameId, Header, Offset};
    use std::time::Duration;

    /// The folding thread has seen an empty queue and is about to let its end go when a command comes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_comes_while_the_folding_thread_lets_the_queue_go_is_folded() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let store = LocalStore::open(LocalConfig::new(dir.path())).await.expect("opened");
        let header = Header {
            log: ChannelId::generate().log(),
            id: FrameId::generate(),
            author: AgentId::from_bytes([1; 32]),
            parent: Offset::ZERO,
            detail: Detail::Create {
                mode: ChannelMode::Mls,
                account: None,
                policy: None,
            },
        };
        let frame = Frame::new(header, &b"create"[..]).expect("a frame");
        let stage = store.stage.clone();
        let (held, holds) = std::sync::mpsc::channel();
        let (let_go, lets_go) = std::sync::mpsc::channel();
        let holder = std::thread::spawn(move || {
            let intake = stage.intake.lock();
            held.send(()).expect("waited for");
            lets_go.recv().expect("told");
            drop(intake);
        });
        holds.recv().expect("held");
        let pending = store.append(frame).await.expect("taken");
        // The writer is rung for, cannot look, and waits again.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let_go.send(()).expect("held");
        holder.join().expect("no panic");
        let verdict = tokio::time::timeout(Duration::from_secs(60), pending.verdict()).await;
        assert_eq!(verdict.expect("folded").expect("appended").offset, Offset::FIRST);
        store.close().await.expect("closed");
    }
}
