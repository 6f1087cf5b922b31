//! Threads that hash keys. They have a low priority: a hash is 10 ms of a processor without a pause, and requests whose key
//! was checked before do not wait for it.

use argon2::Block;
use parking_lot::Mutex;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use tokio::sync::oneshot;

/// Difference of the threads' priority to that of the process, as `nice` counts it: above 0 is lower.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Computes in a thread's memory. Reused, so that it does not pile up in the allocator's arenas.
type Job = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

/// The threads. They end when all clones are dropped.
#[derive(Clone, Debug)]
pub(super) struct Workers(Sender<Job>);

impl Workers {
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..count {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new()
                .name("skytale-hashes".into())
                .spawn(move || work(&jobs))?;
        }
        Ok(Self(sender))
    }

    /// Runs a computation on one of the threads. `None` if it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        compute: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |memory| {
            // The request may have been given up.
            let _ = answer.send(compute(memory));
        });
        self.0.send(job).ok()?;
        answered.await.ok()
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    lower_priority();
    let mut memory = Vec::new();
    loop {
        // One thread waits for the next job, the others for their turn to do so.
        let job = jobs.lock().recv();
        let Ok(job) = job else { return };
        // The thread goes on: there are no others in its place.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
    }
}

fn lower_priority() {
    #[cfg(target_os = "linux")]
    let lower = || {
        let own = Some(rustix::thread::gettid());
        let nice = rustix::process::getpriority_process(own)?;
        rustix::process::setpriority_process(own, (nice + NICE).min(19))
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = lower() {
        tracing::debug!(%error, "key hashes have the priority of requests");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_outlives_a_panic_and_keeps_its_memory() {
        let workers = Workers::start(1).expect("threads");
        let grown = workers.run(|memory| {
            memory.resize(8, Block::new());
            memory.len()
        });
        assert_eq!(grown.await, Some(8));
        assert_eq!(workers.run::<usize>(|_| panic!("on purpose")).await, None);
        assert_eq!(workers.run(|memory| memory.len()).await, Some(8));
        let own = workers.run(|_| thread::current().name().map(str::to_owned)).await;
        assert_eq!(own, Some(Some("skytale-hashes".to_owned())));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn hashes_have_a_low_priority_and_requests_their_own() {
        use rustix::process::getpriority_process;
        use rustix::thread::gettid;
        let before = getpriority_process(Some(gettid())).expect("known");
        let workers = Workers::start(2).expect("threads");
        let theirs = workers.run(|_| getpriority_process(Some(gettid())).expect("known"));
        assert_eq!(theirs.await, Some((before + NICE).min(19)));
        assert_eq!(getpriority_process(Some(gettid())).expect("known"), before);
    }
}
