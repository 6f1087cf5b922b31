//! Log status streams: what became of entries that a log has given up. One question, one answer.

use crate::authorize;
use crate::refusal::{self, counted};
use crate::session::{Session, streams};
use crate::stream::{Receiver, Sender};
use bytes::{BufMut as _, BytesMut};
use skytale_log_store::Access;
use skytale_proto::session::{LogStatus, LogStatusRequest, LogStatusResponse, Refusal, log_status_response::Outcome};
use skytale_proto::{ChannelId, Code, LogId};
use std::sync::Arc;

/// Answers the question that the stream was opened with.
pub(crate) async fn serve(
    session: Arc<Session>,
    request: LogStatusRequest,
    mut sender: Sender,
    mut receiver: Receiver,
) {
    let answer = async {
        // A question costs the node time like a frame that it refuses.
        session.account.pace.wait(0).await;
        status(&session, &request).await
    };
    let outcome = tokio::select! {
        biased;
        () = session.end.ended() => return streams::end(&session, &mut sender, &mut receiver),
        outcome = answer => outcome,
    };
    let outcome = match outcome {
        Ok(status) => Outcome::Status(status),
        Err(refusal) => Outcome::Refusal(counted(refusal)),
    };
    let response = LogStatusResponse { outcome: Some(outcome) };
    if sender.send(&response).await.is_ok() {
        sender.finish();
    }
}

async fn status(session: &Session, request: &LogStatusRequest) -> Result<LogStatus, Refusal> {
    let log = LogId::try_from(request.log.as_ref())
        .map_err(|error| Refusal::because(Code::MessageMalformed, error.to_string()))?;
    let claims = session.claims();
    authorize::read(&claims, &log).map_err(authorize::Denied::refusal)?;
    let store = &session.node.store;
    let status = store.status(log).await.map_err(|error| refusal::of_store(&error))?;
    // A log that was not there when the operator spoke had no entry.
    let rollback = session.node.rollback.as_ref();
    let rollback = rollback.map(|word| (word.at_ms, word.heads.get(&log).map_or(0, |head| head.get())));
    let (rollback_ms, rollback_head) = rollback.unwrap_or_default();
    // The state that a store has at hand is that after the last entry that changed it: messages alone do not.
    let head = store.watch_head(log).await.map_err(|error| refusal::of_store(&error))?;
    let head = status.head.max(*head.borrow());
    if log != session.agent.log() {
        // Only agents that may read the next entries may know which ones are gone.
        let access = store.access(log, claims.sub, claims.acct, head).await;
        match access.map_err(|error| refusal::of_store(&error))? {
            Access::Readable { .. } => {}
            // By the log as it is now: it may have been in the lost part. It gets the operator's word alone.
            Access::NotMember { .. } if rollback_ms > 0 => {
                return Ok(LogStatus {
                    head: rollback_head,
                    first: 1,
                    rollback_ms,
                    rollback_head,
                    ..LogStatus::default()
                });
            }
            Access::NotMember { .. } => {
                return Err(Refusal::because(Code::NotMember, "the agent is not on the roster"));
            }
            // It may be one that is gone: the caller knows no more of it than that it is not there.
            Access::UnknownLog if rollback_ms > 0 => {}
            Access::UnknownLog => return Err(Refusal::because(Code::UnknownLog, "no such log")),
        }
    }
    let mut welcomes = BytesMut::with_capacity(status.welcomes.len() * (ChannelId::LENGTH + 8));
    for (channel, bundle) in &status.welcomes {
        welcomes.put_slice(channel.as_bytes());
        welcomes.put_u64_le(bundle.get());
    }
    Ok(LogStatus {
        head: head.get(),
        first: status.first.get(),
        given_up: status.given_up.get(),
        handshake_head: status.handshake_head.get(),
        welcomes: welcomes.freeze(),
        rollback_ms,
        rollback_head,
    })
}
