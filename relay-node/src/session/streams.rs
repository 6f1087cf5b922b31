//! The session's other streams: accepted, told apart, bounded.

use crate::metrics;
use crate::session::{Session, append, key_packages, status, subscribe, watch};
use crate::stream::{Receiver, Sender, abort};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use iroh::endpoint::Connection;
use skytale_proto::session::{Open, open};
use skytale_proto::{Code, limits};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Streams that a session may have whatever the other sessions of its account have.
pub(crate) const OWN_STREAMS: usize = 16;

/// Accepts streams until the connection is gone.
pub(crate) async fn accept(session: &Arc<Session>, connection: &Connection, streams: &mut JoinSet<()>) {
    let streams_max = session.node.config.limits.streams_max as usize;
    loop {
        session.streams.store(streams.len(), Ordering::Relaxed);
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((send, receive)) = stream else { return };
                let (mut sender, mut receiver) = (Sender::new(send), Receiver::new(receive));
                while streams.try_join_next().is_some() {}
                if streams.len() >= streams_max {
                    refuse(session, &mut sender, &mut receiver, Code::TooManyStreams);
                    continue;
                }
                let place = match streams.len() {
                    few if few < OWN_STREAMS => None,
                    _ => match session.account.streams.clone().try_acquire_owned() {
                        Ok(place) => Some(place),
                        Err(_) => {
                            session.node.limited.note(Some(Code::AccountStreams));
                            refuse(session, &mut sender, &mut receiver, Code::AccountStreams);
                            continue;
                        }
                    },
                };
                streams.spawn(serve(session.clone(), sender, receiver, place));
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Serves a stream of any kind. The memory for its beginning is given back before its real work begins.
async fn serve(session: Arc<Session>, sender: Sender, receiver: Receiver, place: Option<OwnedSemaphorePermit>) {
    let _place = place;
    let serving = Box::pin(opened(session, sender, receiver)).await;
    if let Some(serving) = serving {
        serving.await;
    }
}

/// Reads what a stream is for, and gives what serves it.
async fn opened(session: Arc<Session>, mut sender: Sender, mut receiver: Receiver) -> Option<BoxFuture<'static, ()>> {
    let hello_timeout = session.node.config.session.hello_timeout();
    let opened = tokio::select! {
        opened = timeout(hello_timeout, receiver.message::<Open>(limits::OPEN_BYTES_MAX)) => opened,
        () = session.end.ended() => {
            end(&session, &mut sender, &mut receiver);
            return None;
        }
    };
    let refused = match opened {
        Ok(Ok(Some(open))) => match open.stream {
            Some(open::Stream::Append(_)) => return Some(append::serve(session, sender, receiver).boxed()),
            Some(open::Stream::Subscribe(subscribe)) => {
                return Some(subscribe::serve(session, &subscribe, sender, receiver));
            }
            Some(open::Stream::LogStatus(request)) => {
                return Some(status::serve(session, request, sender, receiver).boxed());
            }
            Some(open::Stream::Watch(_)) => return Some(watch::serve(session, sender, receiver).boxed()),
            Some(open::Stream::KeyPackages(_)) => return Some(key_packages::serve(session, sender, receiver).boxed()),
            // A second Hello, or a kind that this version does not know.
            Some(open::Stream::Hello(_)) | None => Some(Code::MessageMalformed),
        },
        Ok(Ok(None)) => None,
        Ok(Err(error)) => error.code(),
        Err(_) => Some(Code::HelloTimeout),
    };
    if let Some(code) = refused {
        refuse(&session, &mut sender, &mut receiver, code);
    }
    None
}

fn refuse(session: &Session, sender: &mut Sender, receiver: &mut Receiver, code: Code) {
    metrics::refused(Some(code));
    if let Some(tap) = &session.node.tap {
        tap.refused(session.agent, Some(code));
    }
    abort(sender, receiver, code);
}

/// The session is over: the stream ends with the same code.
pub(crate) fn end(session: &Session, sender: &mut Sender, receiver: &mut Receiver) {
    if let Some(why) = session.end.why() {
        abort(sender, receiver, why.code);
    }
}
