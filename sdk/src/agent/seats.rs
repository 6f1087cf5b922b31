//! The subscriptions that a session has streams for. Channels take turns in them.
//!
//! ```text
//!   wants to read ──seat is free──> reads ──at the head──> idle
//!        │                            ^                      │ somebody waits: the channel that was idle longest
//!        └── waits, first come first served <──── gives up its seat, and is watched
//! ```
//!
//! With fewer channels than seats nothing ever waits, and each channel keeps its subscription.

use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// Most subscriptions that follow channels in one session. A stream costs a relay node more than a watch does.
const SEATS_MAX: u32 = 1_024;

/// Streams beside those of seats: appends, the agent's log, KeyPackages, bundles, status, and the watch stream.
const OTHER_STREAMS: u32 = 8;

/// The seats of one session.
#[derive(Clone, Debug)]
pub(super) struct Seats(Arc<Mutex<Room>>);

#[derive(Debug)]
struct Room {
    free: u32,
    waiting: VecDeque<oneshot::Sender<Seat>>,
    /// Seats whose channel is at its head, the one idle for longest first.
    idle: BTreeMap<u64, Arc<Notify>>,
    /// Number of seats whose channel was asked to give way and has not answered yet.
    asked: usize,
    next: u64,
}

/// A place for one subscription. Dropping it gives it to the channel that has waited longest.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    gives_way: Arc<Notify>,
    /// Its key among the idle ones; `None` if its channel reads. If it is not among them, it was asked to give way.
    idle: Option<u64>,
    /// Whether it is to be given back.
    is_held: bool,
}

impl Seats {
    /// Creates the seats of a session with so many streams. A seat needs two: the relay node may still be about to end
    /// one subscription when the next one begins.
    pub(super) fn of(streams_max: u32) -> Self {
        Self(Arc::new(Mutex::new(Room {
            free: (streams_max.saturating_sub(OTHER_STREAMS) / 2).clamp(1, SEATS_MAX),
            waiting: VecDeque::new(),
            idle: BTreeMap::new(),
            asked: 0,
            next: 0,
        })))
    }

    /// Takes a free seat.
    pub(super) fn try_take(&self) -> Option<Seat> {
        let mut room = self.0.lock();
        room.free = room.free.checked_sub(1)?;
        Some(self.seat())
    }

    /// Waits for a seat. Asks the channel that was idle for longest to give way.
    pub(super) fn take(&self) -> oneshot::Receiver<Seat> {
        let (sender, receiver) = oneshot::channel();
        let mut room = self.0.lock();
        if room.free > 0 {
            room.free -= 1;
            // The receiver is here.
            let _ = sender.send(self.seat());
            return receiver;
        }
        room.waiting.push_back(sender);
        room.ask();
        receiver
    }

    fn seat(&self) -> Seat {
        Seat {
            seats: self.clone(),
            gives_way: Arc::new(Notify::new()),
            idle: None,
            is_held: true,
        }
    }

    /// Gives a seat to the channel that has waited longest.
    fn give_back(&self) {
        loop {
            let waiter = {
                let mut room = self.0.lock();
                match room.waiting.pop_front() {
                    Some(waiter) => waiter,
                    None => {
                        room.free += 1;
                        return;
                    }
                }
            };
            // Outside the lock: one that waits no longer drops it here.
            match waiter.send(self.seat()) {
                Ok(()) => return,
                Err(mut seat) => seat.is_held = false,
            }
        }
    }
}

impl Room {
    /// Asks idle channels to give way, as many as are waited for.
    fn ask(&mut self) {
        while self.asked < self.waiting.len()
            && let Some((_, longest)) = self.idle.pop_first()
        {
            self.asked += 1;
            longest.notify_one();
        }
    }
}

impl Seat {
    /// Marks its channel as at its head: it can give way from now on.
    pub(super) fn idle(&mut self) {
        if self.idle.is_some() {
            return;
        }
        let mut room = self.seats.0.lock();
        let number = room.next;
        room.next += 1;
        room.idle.insert(number, Arc::clone(&self.gives_way));
        self.idle = Some(number);
        if !room.waiting.is_empty() {
            room.ask();
        }
    }

    /// Marks its channel as busy: if it was asked to give way, another one is.
    pub(super) fn busy(&mut self) {
        let mut room = self.seats.0.lock();
        if room.leave(&mut self.idle) {
            self.gives_way = Arc::new(Notify::new());
            room.ask();
        }
    }

    /// Resolves when its channel is to give way: then drop the seat, or call [`Seat::busy`]. Cancel-safe.
    pub(super) async fn gives_way(&self) {
        self.gives_way.notified().await;
    }
}

impl Room {
    /// Takes a seat from the idle ones. Returns whether it had been asked to give way.
    fn leave(&mut self, idle: &mut Option<u64>) -> bool {
        let was_asked = idle.take().is_some_and(|number| self.idle.remove(&number).is_none());
        self.asked -= usize::from(was_asked);
        was_asked
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.is_held {
            self.seats.0.lock().leave(&mut self.idle);
            self.seats.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn is_asked(seat: &Seat) -> bool {
        seat.gives_way().now_or_never().is_some()
    }

    #[test]
    fn the_channel_that_was_idle_longest_gives_way_and_no_other() {
        let seats = Seats::of(OTHER_STREAMS + 6);
        let mut taken: Vec<Seat> = (0..3).map(|_| seats.try_take().expect("free")).collect();
        assert!(seats.try_take().is_none());
        taken[1].idle();
        taken[0].idle();
        let mut waiting = seats.take();
        assert_eq!(taken.iter().map(is_asked).collect::<Vec<_>>(), [false, true, false]);
        assert!(waiting.try_recv().is_err());
        // It reads after all: the next one gives way.
        taken[1].busy();
        assert!(is_asked(&taken[0]));
        drop(taken.remove(0));
        let seat = waiting.try_recv().expect("given");
        taken[0].idle();
        assert!(!is_asked(&taken[0]), "nobody waits");
        drop((seat, taken));
        assert_eq!(seats.0.lock().free, 3);
    }

    #[test]
    fn whoever_becomes_idle_while_others_wait_gives_way_at_once() {
        let seats = Seats::of(OTHER_STREAMS + 2);
        let mut seat = seats.try_take().expect("free");
        let (gone, mut waiting) = (seats.take(), seats.take());
        drop(gone);
        assert!(!is_asked(&seat));
        seat.idle();
        assert!(is_asked(&seat));
        drop(seat);
        let seat = waiting.try_recv().expect("given");
        drop(seat);
        let room = seats.0.lock();
        assert_eq!((room.free, room.asked, room.waiting.len()), (1, 0, 0));
    }

    #[test]
    fn a_seat_given_to_nobody_comes_back() {
        let seats = Seats::of(OTHER_STREAMS + 2);
        let seat = seats.try_take().expect("free");
        let waiting = seats.take();
        drop(seat);
        assert_eq!(seats.0.lock().free, 0);
        // Given, and not taken out.
        drop(waiting);
        assert_eq!(seats.0.lock().free, 1);
    }
}
