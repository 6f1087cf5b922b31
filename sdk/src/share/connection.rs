//! The owner's connection to one guest.

use super::frame::{self, BYTES_MAX, Frame, Kind};
use super::hello::{self, Greeted};
use super::message::{Fate, Fault, Prospect, Settled, decode, encode};
use super::operation::{Class, Ran, Request};
use super::serve::Host;
use crate::agent::AgentError;
use crate::agent::bus::Outlook;
use crate::channel::{Delivered, Sent};
use crate::event::Event;
use crate::net::Session;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use skytale_proto::{Code, EndpointId};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;

/// Time within which a guest must prove the key, or is disconnected.
const GREETED_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for pending writes at the end of a connection.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);
/// Maximum number of concurrent requests of one guest. Further ones stay in its socket.
const CALLS_MAX: usize = 64;
/// Maximum number of concurrent waits of one guest. More are refused.
const WAITS_MAX: usize = 4_096;
/// Maximum number of frames waiting to be written.
const OUT_MAX: usize = 64;

/// Serves a guest to the end.
pub(super) async fn serve(host: &Arc<Host>, mut stream: UnixStream) {
    let welcome = || (host.agent, host.endpoint, relay(&host.bus.session.borrow()));
    let greeting = timeout(GREETED_WITHIN, hello::receive(&mut stream, &host.key, welcome));
    let greeted = tokio::select! {
        () = host.ended.cancelled() => return,
        greeted = greeting => greeted,
    };
    match greeted {
        Ok(Ok(Greeted::In(()))) => {}
        Ok(Ok(Greeted::Refused(refused))) => {
            tracing::debug!(code = %refused.code(), "a process was refused at the vault's socket");
            if let Ok(frame) = refused.frame() {
                let _ = timeout(LAST_WORDS_WITHIN, frame::write(&mut stream, &frame)).await;
            }
            return;
        }
        Ok(Err(error)) => return tracing::debug!(%error, "a connection to the vault's socket failed"),
        Err(_) => return tracing::debug!("a process at the vault's socket did not greet in time"),
    }
    let (reading, mut writing) = stream.into_split();
    let (out, mut outgoing) = mpsc::channel::<Vec<u8>>(OUT_MAX);
    let (incoming, frames) = mpsc::channel(1);
    let writer = async {
        while let Some(frame) = outgoing.recv().await {
            frame::write(&mut writing, &frame).await?;
        }
        Ok::<_, io::Error>(())
    };
    tokio::pin!(writer);
    let guest = Guest::new(host, out);
    let (writes, reason) = tokio::select! {
        () = host.ended.cancelled() => (true, Ok(())),
        read = read_all(host, reading, incoming) => (true, read),
        () = guest.run(frames) => (true, Ok(())),
        written = &mut writer => (false, written),
    };
    if writes {
        // The rest of the connection and its waits are gone; its last frames are still being written.
        let _ = timeout(LAST_WORDS_WITHIN, writer).await;
    }
    if let Err(error) = reason {
        tracing::debug!(%error, "disconnected a guest");
    }
}

async fn read_all(host: &Host, mut reading: OwnedReadHalf, incoming: mpsc::Sender<Frame>) -> io::Result<()> {
    while let Some(frame) = frame::read(&mut reading, BYTES_MAX, Some(&host.budget)).await? {
        if incoming.send(frame).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn relay(session: &Option<Session>) -> Option<EndpointId> {
    session.as_ref().map(Session::relay)
}

type Done = (u64, Result<Ran, Fault>);

struct Guest<'a> {
    host: &'a Arc<Host>,
    out: mpsc::Sender<Vec<u8>>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Running requests, by id, and whether they are waits.
    ids: HashMap<u64, (AbortHandle, bool)>,
    /// Number of running waits.
    waits: usize,
    sent: FuturesUnordered<BoxFuture<'static, Option<Settled>>>,
    events: broadcast::Receiver<Event>,
    session: watch::Receiver<Option<Session>>,
    outlook: watch::Receiver<Outlook>,
    /// Set until the guest has said that it sends no more: until then, there may be unread requests.
    talks: Option<Counted>,
}

/// The guest is gone.
struct Gone;

impl<'a> Guest<'a> {
    fn new(host: &'a Arc<Host>, out: mpsc::Sender<Vec<u8>>) -> Self {
        Self {
            host,
            out,
            running: FuturesUnordered::new(),
            ids: HashMap::new(),
            waits: 0,
            sent: FuturesUnordered::new(),
            events: host.bus.subscribe(),
            // Send the present value first: it may have changed since the welcome.
            session: {
                let mut session = host.bus.session.subscribe();
                session.mark_changed();
                session
            },
            outlook: {
                let mut outlook = host.bus.outlook();
                outlook.mark_changed();
                outlook
            },
            talks: Some(Counted::new(host)),
        }
    }

    /// Runs until the guest goes, or the vault is closed.
    async fn run(mut self, mut frames: mpsc::Receiver<Frame>) {
        let mut told = false;
        loop {
            let may_read = self.ids.len() - self.waits < CALLS_MAX;
            let went = tokio::select! {
                frame = frames.recv(), if may_read => match frame {
                    Some(frame) => self.take(frame).await,
                    None => Err(Gone),
                },
                Some((id, done)) = self.running.next() => self.answer(id, done).await,
                Some(settled) = self.sent.next() => match settled {
                    Some(settled) => self.say(Kind::Settled, 0, encode(&settled)).await,
                    None => Ok(()),
                },
                event = self.events.recv() => match event {
                    Ok(event) => self.say(Kind::Event, 0, encode(&event)).await,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        self.say(Kind::Event, 0, encode(&Event::Lagged { missed })).await
                    }
                    Err(broadcast::error::RecvError::Closed) => Err(Gone),
                },
                Ok(()) = self.session.changed() => {
                    let relay = relay(&self.session.borrow_and_update());
                    self.say(Kind::Relay, 0, encode(&relay)).await
                }
                Ok(()) = self.outlook.changed() => {
                    // For the next check.
                    self.outlook.mark_changed();
                    self.tell_outlook().await
                }
                () = self.host.closing.cancelled(), if !told => {
                    told = true;
                    self.say(Kind::Closing, 0, Ok(Vec::new())).await
                }
            };
            if went.is_err() {
                return;
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Gone> {
        match frame.kind {
            Some(Kind::Request) => self.begin(frame).await,
            Some(Kind::Cancel) => {
                // It may be done already.
                if let Some(handle) = self.over(frame.id) {
                    handle.abort();
                }
                Ok(())
            }
            Some(Kind::Closing) => {
                self.talks = None;
                Ok(())
            }
            // A frame of a later version, or nonsense: there is nothing to answer.
            _ => Ok(()),
        }
    }

    async fn begin(&mut self, frame: Frame) -> Result<(), Gone> {
        let Frame { id, body, budget, .. } = frame;
        let request = match decode::<Request>(&body) {
            Ok(request) => request,
            Err(error) => {
                let fault = Fault::new(Code::VaultOwnerVersion, format!("unknown request: {error}"));
                return self.say(Kind::Fault, id, encode(&fault)).await;
            }
        };
        drop(body);
        if matches!(request, Request::connect {}) {
            // The next attempt may be a while away, and the guest waits for the reason.
            for missed in self.host.bus.missed() {
                self.say(Kind::Event, 0, encode(&missed)).await?;
            }
        }
        let wait = matches!(request.class(), Class::Wait | Class::LongSend);
        let refused = if self.host.closing.is_cancelled() {
            Some(Fault::closing())
        } else if self.ids.contains_key(&id) {
            Some(Fault::new(Code::BadRequest, "two requests with one id"))
        } else if wait && self.waits >= WAITS_MAX {
            Some(Fault::new(
                Code::VaultInUse,
                format!("{WAITS_MAX} waits at one time are the limit"),
            ))
        } else {
            None
        };
        if let Some(fault) = refused {
            return self.say(Kind::Fault, id, encode(&fault)).await;
        }
        let (handle, aborted) = AbortHandle::new_pair();
        self.ids.insert(id, (handle, wait));
        self.waits += usize::from(wait);
        let host = Arc::clone(self.host);
        // Counted while it exists: the deadline applies to these.
        let counted = (request.class() != Class::Wait).then(|| Counted::new(&host));
        let run = async move {
            let _held = (budget, counted);
            let agent = host.agent()?;
            if request.class() != Class::Wait {
                return request.run(&agent).await;
            }
            tokio::select! {
                ran = request.run(&agent) => ran,
                () = host.closing.cancelled() => Err(Fault::closing()),
            }
        };
        let run = Abortable::new(run, aborted);
        // An abandoned request is not answered.
        self.running.push(Box::pin(async move {
            let ran = run.await.unwrap_or_else(|_| Err(Fault::closing()));
            (id, ran)
        }));
        Ok(())
    }

    /// Reports the outlook of waits, if it has changed.
    async fn tell_outlook(&mut self) -> Result<(), Gone> {
        if !self.outlook.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let prospect: Prospect = match &*self.outlook.borrow_and_update() {
            Outlook::Open => None,
            // A later frame reports it.
            Outlook::Closed => return Ok(()),
            outlook => outlook.reason().map(Fault::from),
        };
        self.say(Kind::Outlook, 0, encode(&prospect)).await
    }

    /// Removes a request that has ended, or may be aborted. Returns its handle.
    fn over(&mut self, id: u64) -> Option<AbortHandle> {
        let (handle, wait) = self.ids.remove(&id)?;
        self.waits -= usize::from(wait);
        Some(handle)
    }

    async fn answer(&mut self, id: u64, done: Result<Ran, Fault>) -> Result<(), Gone> {
        if self.over(id).is_none() {
            return Ok(());
        }
        // The guest must know of changes by the request before it gets the answer.
        self.tell_outlook().await?;
        match done {
            Ok(Ran { answer, sent }) => {
                if answer.len() > BYTES_MAX {
                    let fault = Fault::new(Code::PayloadTooLarge, "the answer is over the limit");
                    return self.say(Kind::Fault, id, encode(&fault)).await;
                }
                // First the frame ids, then their outcomes.
                self.say(Kind::Answer, id, Ok(answer)).await?;
                self.sent.extend(
                    sent.into_iter()
                        .map(|sent| Box::pin(settled(sent)) as BoxFuture<'static, _>),
                );
                Ok(())
            }
            Err(fault) => self.say(Kind::Fault, id, encode(&fault)).await,
        }
    }

    async fn say(&mut self, kind: Kind, id: u64, body: io::Result<Vec<u8>>) -> Result<(), Gone> {
        match body.and_then(|body| frame::encode(kind, id, &body)) {
            Ok(frame) => self.out.send(frame).await.map_err(|_| Gone),
            Err(error) => {
                tracing::warn!(%error, ?kind, "cannot encode a message to a guest");
                Err(Gone)
            }
        }
    }
}

/// Waits for the outcome of a send; `None` if the agent is closed first.
async fn settled(sent: Sent) -> Option<Settled> {
    let frame_id = sent.frame_id();
    let fate = match sent.settled().await {
        Ok(Delivered::At(offset)) => Fate::Delivered(offset),
        Ok(Delivered::Unneeded) => Fate::Unneeded,
        Err(AgentError::SendFailed { code, .. }) => Fate::Failed(code.number()),
        Err(_) => return None,
    };
    Some(Settled { frame_id, fate })
}

/// Counts an operation that a closing vault waits for.
struct Counted(Arc<Host>);

impl Counted {
    fn new(host: &Arc<Host>) -> Self {
        host.calls.send_modify(|calls| *calls += 1);
        Self(Arc::clone(host))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.calls.send_modify(|calls| *calls -= 1);
    }
}
