//! An attached process's connection to the owner of a vault.

use super::frame::{self, BYTES_MAX, Frame, Kind};
use super::hello::Welcome;
use super::message::{Fate, Fault, Prospect, Settled, decode, encode};
use super::operation::{Class, Request};
use super::runtime;
use crate::agent::AgentError;
use crate::agent::bus::{Bus, Delivery, Outlook};
use crate::channel::Sent;
use crate::event::Event;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use skytale_proto::{ChannelId, Code, EndpointId, FrameId};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A connection to the process that has the vault open. Dropping it detaches the guest.
pub(crate) struct Owner {
    shared: Arc<Shared>,
    /// Ends when the connection does.
    relay: watch::Receiver<Option<EndpointId>>,
    endpoint: EndpointId,
    detach: DropGuard,
}

struct Shared {
    bus: Arc<Bus>,
    out: mpsc::UnboundedSender<Vec<u8>>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    /// Whether the owner is closing or gone: then no new requests are sent.
    closing: bool,
}

/// A waiter for an answer.
enum Waiting {
    Answer(oneshot::Sender<Result<Vec<u8>, Fault>>),
    Sent(oneshot::Sender<Result<Vec<Queued>, Fault>>),
}

type Queued = (FrameId, oneshot::Receiver<Delivery>);

/// Reports the end of the connection when dropped.
struct End(Arc<Shared>, watch::Sender<bool>);

impl Drop for End {
    fn drop(&mut self) {
        let waiting = {
            let mut pending = self.0.pending.lock();
            pending.closing = true;
            std::mem::take(&mut pending.waiting)
        };
        // This notifies all waiters.
        drop(waiting);
        self.0.bus.detach();
        self.1.send_replace(true);
    }
}

impl Owner {
    /// Takes over a connection after the greeting. The owner's reports go to `bus`; the receiver says when it is gone.
    pub(super) fn new(stream: UnixStream, welcome: &Welcome, bus: &Arc<Bus>) -> Option<(Self, watch::Receiver<bool>)> {
        let runtime = runtime()?;
        let (out, outgoing) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            bus: Arc::clone(bus),
            out,
            pending: Mutex::default(),
        });
        let (relay_now, relay) = watch::channel(welcome.relay);
        let (end, ended) = watch::channel(false);
        let detached = CancellationToken::new();
        let end = End(Arc::clone(&shared), end);
        let task = carry(stream, Arc::clone(&shared), outgoing, relay_now);
        let cancelled = detached.clone();
        runtime.spawn(async move {
            let _end = end;
            tokio::select! {
                () = cancelled.cancelled() => {}
                Err(error) = task => tracing::debug!(%error, "the connection to the process that has the vault open has ended"),
            }
        });
        let owner = Self {
            shared,
            relay,
            endpoint: welcome.endpoint,
            detach: detached.drop_guard(),
        };
        Some((owner, ended))
    }

    /// Returns the agent's endpoint.
    pub(crate) const fn endpoint(&self) -> EndpointId {
        self.endpoint
    }

    /// Returns the relay node of the owner's current session.
    pub(crate) fn relay(&self) -> Option<EndpointId> {
        *self.relay.borrow()
    }

    /// Waits until the owner has a session.
    pub(crate) async fn connected(&self) -> Result<(), AgentError> {
        let connected = self.relay.clone().wait_for(Option::is_some).await.map(drop);
        connected.map_err(|_| AgentError::OwnerGone { unknown: false })
    }

    /// Detaches from the owner, which goes on.
    pub(crate) fn detach(&self) {
        self.detach.token().cancel();
    }

    pub(super) async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, AgentError> {
        let bytes = self.answered(request, Waiting::Answer).await?;
        decode(&bytes).map_err(not_known)
    }

    pub(super) async fn ask_to_send(&self, channel: ChannelId, request: Request) -> Result<Vec<Sent>, AgentError> {
        let queued = self.answered(request, Waiting::Sent).await?;
        let sent = queued
            .into_iter()
            .map(|(id, delivery)| Sent::new(channel, id, delivery, Arc::clone(&self.shared.bus)));
        Ok(sent.collect())
    }

    async fn answered<T>(
        &self,
        request: Request,
        waiting: impl FnOnce(oneshot::Sender<Result<T, Fault>>) -> Waiting,
    ) -> Result<T, AgentError> {
        let class = request.class();
        let body = encode(&request).map_err(not_known)?;
        drop(request);
        if body.len() > BYTES_MAX {
            return Err(AgentError::Owner {
                code: Code::PayloadTooLarge,
                reason: format!("a call of {} bytes is over the limit of {BYTES_MAX} bytes", body.len()),
                retryable: false,
            });
        }
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut pending = self.shared.pending.lock();
            pending.next_id += 1;
            pending.next_id
        };
        let frame = frame::encode(Kind::Request, id, &body).map_err(not_known)?;
        drop(body);
        {
            let mut pending = self.shared.pending.lock();
            if pending.closing {
                return Err(AgentError::OwnerGone { unknown: false });
            }
            pending.waiting.insert(id, waiting(answer));
            // Under the lock, so that no request follows the notice that there are no more. If the connection's task
            // has ended, nobody answers, which is reported below.
            let _ = self.shared.out.send(frame);
        }
        // From here on it is cancelled if nobody waits for it.
        let asked = Asked { owner: self, id };
        let answer = answered.await;
        drop(asked);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(fault)) => Err(fault.into()),
            Err(_) => Err(AgentError::OwnerGone {
                unknown: matches!(class, Class::Change | Class::Send | Class::LongSend),
            }),
        }
    }
}

/// A sent request. If it is dropped before the answer, the owner may stop.
struct Asked<'a> {
    owner: &'a Owner,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let unanswered = self.owner.shared.pending.lock().waiting.remove(&self.id).is_some();
        if unanswered && let Ok(cancel) = frame::encode(Kind::Cancel, self.id, &[]) {
            let _ = self.owner.shared.out.send(cancel);
        }
    }
}

/// Carries frames in both directions, until one of them ends.
async fn carry(
    stream: UnixStream,
    shared: Arc<Shared>,
    mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
    relay: watch::Sender<Option<EndpointId>>,
) -> io::Result<()> {
    let (mut reading, mut writing) = stream.into_split();
    let writes = async {
        while let Some(frame) = outgoing.recv().await {
            frame::write(&mut writing, &frame).await?;
        }
        Ok::<_, io::Error>(())
    };
    let reads = async {
        while let Some(frame) = frame::read(&mut reading, BYTES_MAX, None).await? {
            shared.take(frame, &relay)?;
        }
        Err::<(), _>(ErrorKind::UnexpectedEof.into())
    };
    tokio::try_join!(writes, reads).map(drop)
}

impl Shared {
    fn take(&self, frame: Frame, relay: &watch::Sender<Option<EndpointId>>) -> io::Result<()> {
        let Frame { kind, id, body, .. } = frame;
        match kind {
            Some(Kind::Answer) => self.answer(id, Ok(body)),
            Some(Kind::Fault) => self.answer(id, Err(decode(&body)?)),
            Some(Kind::Settled) => {
                let Settled { frame_id, fate } = decode(&body)?;
                self.bus.settle(frame_id, fate.into());
                Ok(())
            }
            Some(Kind::Event) => {
                match decode(&body) {
                    Ok(event) => self.tell(event),
                    // An event of a later version.
                    Err(error) => tracing::debug!(%error, "skipped an unknown event"),
                }
                Ok(())
            }
            Some(Kind::Relay) => {
                relay.send_replace(decode(&body)?);
                Ok(())
            }
            Some(Kind::Outlook) => {
                let prospect: Prospect = decode(&body)?;
                self.bus.set_outlook(prospect.map_or(Outlook::Open, Outlook::from));
                Ok(())
            }
            Some(Kind::Closing) => {
                let ready = frame::encode(Kind::Closing, 0, &[])?;
                let mut pending = self.pending.lock();
                pending.closing = true;
                let _ = self.out.send(ready);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn answer(&self, id: u64, answer: Result<Vec<u8>, Fault>) -> io::Result<()> {
        let waiting = self.pending.lock().waiting.remove(&id);
        match waiting {
            Some(Waiting::Answer(to)) => {
                // The caller may be gone.
                let _ = to.send(answer);
            }
            Some(Waiting::Sent(to)) => {
                let queued = match answer {
                    Ok(body) => {
                        // Their outcomes follow this frame.
                        let ids: Vec<FrameId> = decode(&body)?;
                        Ok(ids.into_iter().map(|id| (id, self.bus.wait_for(id))).collect())
                    }
                    Err(fault) => Err(fault),
                };
                let _ = to.send(queued);
            }
            None => {}
        }
        Ok(())
    }

    fn tell(&self, event: Event) {
        if matches!(event, Event::Lagged { .. }) {
            // Messages may be among the missed events.
            self.bus.wake_inboxes();
            // So may items that left an outbox.
            self.bus.settled.send_modify(|version| *version += 1);
        }
        self.bus.tell_all(vec![event]);
    }
}

impl From<Fate> for Delivery {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Delivered(offset) => Self::Delivered(offset),
            Fate::Unneeded => Self::Unneeded,
            Fate::Failed(number) => Self::Failed(Code::from_number(number).unwrap_or(Code::VaultOwnerVersion)),
        }
    }
}

fn not_known(error: io::Error) -> AgentError {
    AgentError::Owner {
        code: Code::VaultOwnerVersion,
        reason: format!("cannot decode a message of the process that has the vault open: {error}"),
        retryable: false,
    }
}
