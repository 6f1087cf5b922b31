//! The session's other streams: accepted, told apart, bounded.

use crate::metrics;
use crate::session::{Session, append, key_packages, subscribe};
use crate::stream::{Receiver, Sender, abort};
use iroh::endpoint::Connection;
use skytale_proto::session::{Open, open};
use skytale_proto::{Code, limits};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Accepts streams until the connection is gone.
pub(crate) async fn accept(session: &Arc<Session>, connection: &Connection, streams: &mut JoinSet<()>) {
    let streams_max = session.node.config.limits.streams_max as usize;
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((send, receive)) = stream else { return };
                let (mut sender, mut receiver) = (Sender::new(send), Receiver::new(receive));
                while streams.try_join_next().is_some() {}
                if streams.len() >= streams_max {
                    refuse(&mut sender, &mut receiver, Code::TooManyStreams);
                    continue;
                }
                let session = session.clone();
                streams.spawn(async move { serve(&session, sender, receiver).await });
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn serve(session: &Arc<Session>, mut sender: Sender, mut receiver: Receiver) {
    let opened = tokio::select! {
        opened = timeout(session.node.config.session.hello_timeout(), receiver.message::<Open>(limits::HELLO_BYTES_MAX)) => opened,
        () = session.end.ended() => return end(session, &mut sender, &mut receiver),
    };
    let stream = match opened {
        Ok(Ok(Some(open))) => open.stream,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            if let Some(code) = error.code() {
                refuse(&mut sender, &mut receiver, code);
            }
            return;
        }
        Err(_) => return refuse(&mut sender, &mut receiver, Code::HelloTimeout),
    };
    match stream {
        Some(open::Stream::Append(_)) => Box::pin(append::serve(session, sender, receiver)).await,
        Some(open::Stream::Subscribe(subscribe)) => {
            Box::pin(subscribe::serve(session, subscribe, sender, receiver)).await;
        }
        Some(open::Stream::KeyPackages(_)) => Box::pin(key_packages::serve(session, sender, receiver)).await,
        // A second Hello, or a kind that this version does not know.
        Some(open::Stream::Hello(_)) | None => refuse(&mut sender, &mut receiver, Code::MessageMalformed),
    }
}

fn refuse(sender: &mut Sender, receiver: &mut Receiver, code: Code) {
    metrics::refused(Some(code));
    abort(sender, receiver, code);
}

/// The session is over: the stream ends with the same code.
pub(crate) fn end(session: &Session, sender: &mut Sender, receiver: &mut Receiver) {
    if let Some(why) = session.end.why() {
        abort(sender, receiver, why.code);
    }
}
