//! The way from the queue to the batch that grows: commands are folded by the writer itself while it has nothing to write,
//! and by the folding thread while many wait.
//!
//! ```text
//!   one append:   queue ──ring──> writer: fold, write, sync, answer
//!   many:         queue ──> writer: write and sync a batch ──> answer
//!                   └─────> folding thread: fold the next one meanwhile
//! ```
//!
//! An append that comes alone wakes one thread. What comes while a batch is synced wakes none: the writer folds it
//! afterwards, unless so much waits that folding it meanwhile is worth another thread.

use super::command::Command;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::mpsc::Receiver;

/// Commands taken from the queue at once.
pub(crate) const TAKEN_AT_ONCE: usize = 64;

/// Wakes one thread. Rung before the thread waits, it does not wait.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waits: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        // The thread looks at `rung` under this lock before it waits.
        if *self.waits.lock() {
            self.heard.notify_one();
        }
    }

    pub(crate) fn wait(&self) {
        let mut waits = self.waits.lock();
        *waits = true;
        while !self.rung.swap(false, Ordering::AcqRel) {
            self.heard.wait(&mut waits);
        }
        *waits = false;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// The end of the queue. Whoever holds it folds what it takes before letting it go: commands keep their order.
pub(crate) struct Intake {
    queue: Receiver<Command>,
    /// Commands that were taken and are not folded yet.
    commands: VecDeque<Command>,
    taken: Vec<Command>,
    /// Rung by the next command once none was left.
    waker: Waker,
    ended: bool,
}

impl Intake {
    pub(crate) fn new(queue: Receiver<Command>, bell: Arc<Bell>) -> Self {
        Self {
            queue,
            commands: VecDeque::with_capacity(TAKEN_AT_ONCE),
            taken: Vec::with_capacity(TAKEN_AT_ONCE),
            waker: bell.into(),
            ended: false,
        }
    }

    /// The next command. If there is none, the next one rings the bell.
    pub(crate) fn next(&mut self) -> Option<Command> {
        self.peek()?;
        self.commands.pop_front()
    }

    /// The same, and leaves it there.
    pub(crate) fn peek(&mut self) -> Option<&Command> {
        if self.commands.is_empty() && !self.ended {
            let mut cx = Context::from_waker(&self.waker);
            match self.queue.poll_recv_many(&mut cx, &mut self.taken, TAKEN_AT_ONCE) {
                Poll::Ready(0) => self.ended = true,
                Poll::Ready(_) => self.commands.extend(self.taken.drain(..)),
                Poll::Pending => {}
            }
        }
        self.commands.front()
    }

    /// Commands that are there now.
    pub(crate) fn len(&self) -> usize {
        self.commands.len() + self.queue.len()
    }

    /// From now on this bell is rung.
    pub(crate) fn rings(&mut self, bell: Arc<Bell>) {
        self.waker = bell.into();
    }

    /// Whether no command comes any more.
    pub(crate) fn is_over(&self) -> bool {
        self.ended && self.commands.is_empty()
    }

    /// Takes nothing more than what is in the queue.
    pub(crate) fn close(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn resume(intake: &mut Intake) -> bool {
        matches!(intake.next(), Some(Command::Resume))
    }

    #[test]
    fn a_bell_rung_before_the_wait_is_heard_once() {
        let bell = Arc::new(Bell::default());
        bell.ring();
        bell.ring();
        bell.wait();
        assert!(!bell.rung.load(Ordering::Acquire));
        let waits = std::thread::spawn({
            let bell = bell.clone();
            move || bell.wait()
        });
        while !*bell.waits.lock() {
            std::thread::yield_now();
        }
        bell.ring();
        waits.join().expect("it heard");
    }

    #[test]
    fn only_a_command_that_finds_nobody_at_work_rings() {
        let (queue, receiver) = mpsc::channel(8);
        let bell = Arc::new(Bell::default());
        let mut intake = Intake::new(receiver, bell.clone());
        let rung = || bell.rung.swap(false, Ordering::AcqRel);
        assert!(intake.next().is_none() && !rung());
        queue.try_send(Command::Resume).expect("room");
        assert!(rung(), "the thread waits for it");
        for _ in 0..3 {
            queue.try_send(Command::Resume).expect("room");
        }
        assert!(!rung(), "the thread is awake, and will look");
        assert_eq!(intake.len(), 4);
        assert!((0..4).all(|_| resume(&mut intake)));
        assert!(intake.next().is_none());
        queue.try_send(Command::Resume).expect("room");
        assert!(rung(), "it looked, and found nothing more");
    }

    #[test]
    fn what_is_in_a_closed_queue_is_taken_and_then_it_is_over() {
        let (queue, receiver) = mpsc::channel(8);
        let mut intake = Intake::new(receiver, Arc::default());
        queue.try_send(Command::Resume).expect("room");
        // A place that is taken, and used after the end.
        let place = queue.try_reserve().expect("room");
        intake.close();
        assert!(resume(&mut intake) && intake.next().is_none() && !intake.is_over());
        let late = Arc::new(Bell::default());
        intake.rings(late.clone());
        assert!(intake.next().is_none());
        place.send(Command::Resume);
        late.wait();
        assert!(resume(&mut intake) && intake.next().is_none() && intake.is_over());
    }
}
