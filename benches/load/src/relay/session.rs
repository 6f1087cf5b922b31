//! An agent's session with a relay node.

use super::offset_of;
use crate::target::{Appended, Failed, Read, Reading, Session as SessionTrait};
use futures_util::future::BoxFuture;
use skytale_proto::{Code, Frame, LogId, Offset};
use skytale_sdk::RelayError;
use skytale_sdk::internals::net::relay::{Appender, KeyPackages, Session, Subscription, SubscriptionItem};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A session. Its append stream is opened with it; that for KeyPackages with the first claim.
#[derive(Clone, Debug)]
pub struct RelaySession {
    session: Session,
    appender: Appender,
    key_packages: Arc<tokio::sync::Mutex<Option<KeyPackages>>>,
}

/// The verdict on an append.
pub struct RelayPending(BoxFuture<'static, Result<Appended, Failed>>);

impl std::fmt::Debug for RelayPending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayPending")
    }
}

impl Future for RelayPending {
    type Output = Result<Appended, Failed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// A subscription.
#[derive(Debug)]
pub struct RelayReading(Subscription);

impl RelaySession {
    pub(super) async fn begin(session: Session) -> Result<Self, RelayError> {
        let appender = Appender::open(&session).await?;
        Ok(Self {
            session,
            appender,
            key_packages: Arc::default(),
        })
    }
}

impl SessionTrait for RelaySession {
    type Pending = RelayPending;
    type Reading = RelayReading;

    async fn append(&self, frame: &Frame) -> Result<RelayPending, Failed> {
        let pending = self.appender.append(frame.encoded().clone()).await;
        let pending = pending.map_err(|error| failed(&error))?;
        Ok(RelayPending(Box::pin(async move {
            let receipt = pending.outcome().await.map_err(|error| failed(&error))?;
            Ok(Appended { offset: receipt.offset })
        })))
    }

    async fn claim(&self, claim: &Frame) -> Result<(), Failed> {
        let mut stream = self.key_packages.lock().await;
        let stream = match &mut *stream {
            Some(stream) => stream,
            none => none.insert(KeyPackages::open(&self.session).await.map_err(|error| failed(&error))?),
        };
        stream.claim(claim).await.map_err(|error| failed(&error))?;
        Ok(())
    }

    async fn read(&self, log: LogId, after: Offset, follow: bool) -> Result<RelayReading, Failed> {
        let reading = Subscription::open(&self.session, log, after, follow, None).await;
        Ok(RelayReading(reading.map_err(|error| failed(&error))?))
    }

    async fn ended(&self) -> Failed {
        let (mut draining, mut overdue) = (self.session.draining(), self.session.overdue());
        tokio::select! {
            reason = self.session.ended() => failed(&reason),
            Ok(_) = draining.wait_for(Option::is_some) => Failed {
                code: Code::Draining,
                ..Failed::lost("the relay node is about to stop")
            },
            Ok(error) = overdue.wait_for(Option::is_some) => {
                error.as_ref().map_or_else(|| Failed::lost("the relay node owes an answer"), failed)
            }
        }
    }

    async fn close(&self) {
        self.session.close().await;
    }
}

impl Reading for RelayReading {
    async fn next(&mut self) -> Result<Option<Read>, Failed> {
        match self.0.next().await.map_err(|error| failed(&error))? {
            None => Ok(None),
            Some(SubscriptionItem::CaughtUp { .. }) => Ok(Some(Read::CaughtUp)),
            Some(SubscriptionItem::Batch(records)) => {
                let entries = records.into_iter().map(|record| {
                    let frame = Frame::decode(record.payload);
                    Ok((
                        record.offset,
                        frame.map_err(|error| Failed::lost(format!("an entry that is no frame: {error}")))?,
                    ))
                });
                Ok(Some(Read::Entries(entries.collect::<Result<_, _>>()?)))
            }
        }
    }
}

/// Returns the failure, as a run takes it.
pub(super) fn failed(error: &RelayError) -> Failed {
    Failed {
        code: error.code(),
        problem: error.to_string(),
        is_refusal: error.refused().is_some() || matches!(error, RelayError::Token(_)),
        retry_after: error.retry_after(),
        offset: offset_of(error),
    }
}
