//! A link: its listener, its state, its connections.

use crate::carry::{Target, carry};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections that a link carries at once, at most; one beyond them is reset.
pub const CONNECTIONS_MAX: usize = 1_024;
/// The pause after a connection could not be accepted: the process has no file left, as a rule.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Any free port of loopback.
const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Failure of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Nothing arrives any more, and nobody learns: bytes are lost both ways, ends and resets of connections too.
    Silent,
    /// Bytes of the dialling side are lost, and the end of its connection; those of the target arrive.
    Requests,
    /// Bytes of the target are lost, and the end of its connection; those of the dialling side arrive.
    Answers,
    /// Nothing arrives for the time being, and nothing is lost: as when packets are sent again until they get through.
    Held,
    /// Connections are reset, and new ones too.
    Reset,
}

/// One way of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    Lost,
    Held,
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) requests: Flow,
    pub(crate) answers: Flow,
    pub(crate) requests_delay: Duration,
    pub(crate) answers_delay: Duration,
    /// New connections are reset.
    refuses: bool,
    /// Bytes may have been lost since the last break.
    lossy: bool,
    /// Number of times that all connections were reset: one ends when this is no longer the value at its beginning.
    pub(crate) breaks: u64,
}

impl State {
    const fn whole() -> Self {
        Self {
            requests: Flow::Open,
            answers: Flow::Open,
            requests_delay: Duration::ZERO,
            answers_delay: Duration::ZERO,
            refuses: false,
            lossy: false,
            breaks: 0,
        }
    }

    /// Whether a new connection gets no further than the link.
    pub(crate) fn is_closed(&self) -> bool {
        self.requests != Flow::Open && self.answers != Flow::Open
    }

    fn cut(&mut self, cut: Cut) {
        (self.requests, self.answers) = match cut {
            Cut::Silent => (Flow::Lost, Flow::Lost),
            Cut::Requests => (Flow::Lost, Flow::Open),
            Cut::Answers => (Flow::Open, Flow::Lost),
            Cut::Held => (Flow::Held, Flow::Held),
            Cut::Reset => (Flow::Open, Flow::Open),
        };
        self.refuses = cut == Cut::Reset;
        if self.refuses {
            self.reset_all();
        } else if cut != Cut::Held {
            self.lossy = true;
        }
    }

    fn mend(&mut self) {
        (self.requests, self.answers, self.refuses) = (Flow::Open, Flow::Open, false);
        if self.lossy {
            self.reset_all();
        }
    }

    fn reset_all(&mut self) {
        self.breaks += 1;
        self.lossy = false;
    }
}

/// Counts of a link.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: AtomicU64,
    pub(crate) request_bytes: AtomicU64,
    pub(crate) answer_bytes: AtomicU64,
}

/// A link from a loopback port to a target. It ends when it is dropped, and its connections with it.
pub struct Link {
    address: SocketAddr,
    to: SocketAddr,
    state: watch::Sender<State>,
    counts: Arc<Counts>,
    tasks: TaskTracker,
    ended: CancellationToken,
}

impl Link {
    /// Listens on a free port of 127.0.0.1 and carries each connection to the target, which need not listen yet: a connection
    /// that the target refuses is reset. Must be called within a Tokio runtime.
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        Self::start(FREE, to, None)
    }

    /// Like [`Link::open`], for one dialler alone: a connection is reset unless the first bytes of the one who dialled contain
    /// this (its name in a greeting, say). For programs that tell each other of addresses, and then take each other's ways.
    pub fn open_for(to: SocketAddr, greeting: &[u8]) -> io::Result<Self> {
        Self::start(FREE, to, Some(greeting.into()))
    }

    /// Like [`Link::open`], on an address of choice. A link is no way into a machine: other addresses than loopback are
    /// refused.
    pub fn listen(on: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        Self::start(on, to, None)
    }

    fn start(on: SocketAddr, to: SocketAddr, greeting: Option<Arc<[u8]>>) -> io::Result<Self> {
        if !on.ip().is_loopback() || !to.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a link from {on} to {to}: both ends must be loopback addresses"),
            ));
        }
        let listener = StdListener::bind(on)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let link = Self {
            address: listener.local_addr()?,
            to,
            state: watch::Sender::new(State::whole()),
            counts: Arc::default(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        };
        let accepting = Accepting {
            to,
            greeting,
            state: link.state.subscribe(),
            counts: link.counts.clone(),
            tasks: link.tasks.clone(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        let ended = link.ended.clone();
        link.tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = accepting.accept_all(&listener, &ended) => {}
            }
        });
        Ok(link)
    }

    /// Returns the address on which the link listens: the one to dial instead of the target's.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of [`Link::address`].
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the target of its connections.
    pub const fn target(&self) -> SocketAddr {
        self.to
    }

    /// Cuts the link, also where it was cut in another way. Bytes that were read before and are not delivered yet are
    /// cut off too.
    pub fn cut(&self, cut: Cut) {
        self.state.send_modify(|state| state.cut(cut));
    }

    /// Carries everything again. Where bytes may have been lost, every connection of that time is reset on both sides: a TCP
    /// connection with a hole in it must not go on.
    pub fn mend(&self) {
        self.state.send_modify(State::mend);
    }

    /// Whether the link is cut, in whatever way.
    pub fn is_cut(&self) -> bool {
        let state = *self.state.borrow();
        state.refuses || state.requests != Flow::Open || state.answers != Flow::Open
    }

    /// Delays the bytes read from now on by so much, each way: half of a round trip.
    pub fn delay(&self, each_way: Duration) {
        self.delay_ways(each_way, each_way);
    }

    /// Like [`Link::delay`], with a time for each way: of what the one who dialled sends, and of what the target sends.
    pub fn delay_ways(&self, requests: Duration, answers: Duration) {
        self.state.send_modify(|state| {
            state.requests_delay = requests;
            state.answers_delay = answers;
        });
    }

    /// Connections accepted since the link was opened.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Bytes delivered since the link was opened: to the target, and from it.
    pub fn carried(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.counts.request_bytes), load(&self.counts.answer_bytes))
    }

    /// Ends the link and waits until its port is free and its connections are gone.
    pub async fn close(self) {
        self.ended.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} to {}, {:?})", self.address, self.to, *self.state.borrow())
    }
}

/// Task that accepts a link's connections.
struct Accepting {
    to: SocketAddr,
    greeting: Option<Arc<[u8]>>,
    state: watch::Receiver<State>,
    counts: Arc<Counts>,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
}

impl Accepting {
    async fn accept_all(&self, listener: &TcpListener, ended: &CancellationToken) {
        loop {
            let Ok((near, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            self.counts.accepted.fetch_add(1, Ordering::Relaxed);
            let place = self.places.clone().try_acquire_owned();
            let State { refuses, breaks, .. } = *self.state.borrow();
            let (Ok(place), false) = (place, refuses) else {
                reset(near);
                continue;
            };
            let (state, counts, ended) = (self.state.clone(), self.counts.clone(), ended.clone());
            let to = Target {
                address: self.to,
                greeting: self.greeting.clone(),
            };
            self.tasks.spawn(async move {
                carry(near, &to, breaks, state, &counts, &ended).await;
                drop(place);
            });
        }
    }
}

/// Ends a connection so that its other side sees a reset, and not of an orderly end.
pub(crate) fn reset(stream: TcpStream) {
    // If the option cannot be set the connection is gone already.
    drop(stream.set_zero_linger());
    drop(stream);
}
