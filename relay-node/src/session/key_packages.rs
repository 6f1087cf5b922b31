//! Key packages streams: claim one of an agent's KeyPackages, count one's own. One request at a time.

use crate::authorize;
use crate::metrics::{self, Verdict};
use crate::rate::Cost;
use crate::refusal::{self, Short, counted};
use crate::session::append::body;
use crate::session::{Session, streams};
use crate::stream::{ReceiveError, Receiver, Sender};
use crate::turns;
use bytes::Bytes;
use skytale_log_store::ClaimedPackage;
use skytale_proto::session::{
    KeyPackageClaimed, KeyPackageStock, KeyPackagesRequest, KeyPackagesResponse, Refusal, decode_message,
    key_packages_request::Request, key_packages_response::Outcome,
};
use skytale_proto::{Code, Frame, LogId, Record, limits, record};
use skytale_workload::tap::{Fact, Shape};
use std::sync::Arc;
use tokio::time::Instant;
use tracing::warn;

/// Serves a key packages stream until either side ends it.
pub(crate) async fn serve(session: Arc<Session>, mut sender: Sender, mut receiver: Receiver) {
    let mut run = Box::pin(run(&session, &mut sender, &mut receiver));
    let ended = tokio::select! {
        biased;
        () = session.end.ended() => None,
        ended = &mut run => Some(ended),
    };
    drop(run);
    match ended {
        None => streams::end(&session, &mut sender, &mut receiver),
        Some(Ok(())) => sender.finish(),
        Some(Err(error)) => {
            let Some(refusal) = refusal::of_receive(&error) else {
                return;
            };
            let code = refusal.known_code().unwrap_or(Code::RelayInternal);
            if respond(&mut sender, Outcome::Refusal(counted(refusal))).await {
                sender.finish();
            }
            receiver.stop(code);
        }
    }
}

async fn run(session: &Session, sender: &mut Sender, receiver: &mut Receiver) -> Result<(), ReceiveError> {
    while let Some(length) = receiver.length(limits::MESSAGE_BYTES_MAX).await? {
        let pieces = session.account.pace.wait(length).await;
        let (body, in_flight) = body(session, receiver, length, pieces).await?;
        let message: KeyPackagesRequest = decode_message(body)?;
        let outcome = match message.request {
            Some(Request::Claim(frame)) => {
                let claimed = claim(session, frame).await;
                claimed
                    .inspect_err(|refusal| session.tap_refusal(refusal))
                    .map(Outcome::Claimed)
            }
            Some(Request::Count(_)) => count(session).await.map(Outcome::Stock),
            None => Err(Refusal::because(
                Code::MessageMalformed,
                "a key packages request of no known kind",
            )),
        };
        drop(in_flight);
        let outcome = outcome.unwrap_or_else(|refusal| Outcome::Refusal(counted(refusal)));
        if !respond(sender, outcome).await {
            break;
        }
    }
    Ok(())
}

async fn respond(sender: &mut Sender, outcome: Outcome) -> bool {
    let response = KeyPackagesResponse { outcome: Some(outcome) };
    sender.send(&response).await.is_ok()
}

async fn count(session: &Session) -> Result<KeyPackageStock, Refusal> {
    authorize::count(&session.claims()).map_err(authorize::Denied::refusal)?;
    let stock = session.node.store.key_packages(session.agent).await;
    let stock = stock.map_err(|error| refusal::of_store(&error))?;
    Ok(KeyPackageStock {
        live: stock.live,
        last_resort: stock.last_resort,
    })
}

async fn claim(session: &Session, encoded: Bytes) -> Result<KeyPackageClaimed, Refusal> {
    let (node, read) = (&session.node, Instant::now());
    metrics::append_requested(encoded.len());
    if session.is_going() {
        return Err(Refusal::because(Code::Draining, "this relay node is about to stop"));
    }
    let bytes = encoded.len();
    let frame = Frame::decode(encoded).map_err(|error| Refusal::because(error.code(), error.to_string()));
    let frame = frame.and_then(|frame| {
        let allowed = authorize::claim(&session.claims(), frame.header());
        allowed.map(|()| frame).map_err(authorize::Denied::refusal)
    });
    let frame = frame.inspect_err(|_| {
        // A frame that cannot be read, or may not be sent, costs as much.
        let _ = node.rates.take(&session.agent, &session.account.id, Cost::unfit(bytes));
    })?;
    let (log, kind) = (frame.header().log, frame.header().kind());
    let shape = node.tap.as_ref().and_then(|_| Shape::of(&frame));
    let charge = session.charge(frame.header(), Cost::of(frame.header(), bytes))?;
    let lane = node.store.lane(&log);
    let turn = node.turns.take(lane, session.account.id, turns::weight(1, bytes)).await;
    let pending = node.store.append_lent(frame, Box::new(turn)).await.map_err(|error| {
        node.accounts.usage.take_back(charge);
        refusal::of_store(&error)
    })?;
    let accepted = match pending.verdict().await {
        Ok(accepted) => accepted,
        Err(error) => {
            node.accounts.usage.refused(charge, node.store.keeps_refused());
            metrics::append_answered(Some(kind), Verdict::Refused(Some(error.code())));
            return Err(refusal::of_append(&error));
        }
    };
    if accepted.duplicate {
        node.accounts.usage.refused(charge, node.store.keeps_refused());
    }
    let verdict = if accepted.duplicate {
        Verdict::Duplicate
    } else {
        Verdict::Appended
    };
    metrics::append_answered(Some(kind), verdict);
    node.load.appended();
    if let Some(shape) = shape.filter(|_| !accepted.duplicate) {
        session.tap_at(read, |author| Fact::Append { author, log, shape });
    }
    let Some(package) = accepted.claimed else {
        if accepted.duplicate {
            return Err(Refusal::because(
                Code::ClaimForgotten,
                "this claim was accepted before; which package it took is no longer known",
            ));
        }
        warn!(%log, offset = %accepted.offset, "the store took a claim and named no package");
        return Err(refusal::internal());
    };
    let frame = package_frame(session, log, package).await?;
    metrics::claimed(package.last_resort);
    Ok(KeyPackageClaimed {
        claim_offset: accepted.offset.get(),
        package_offset: package.offset.get(),
        last_resort: package.last_resort,
        frame,
    })
}

/// The frame of the package that a claim took.
async fn package_frame(session: &Session, log: LogId, package: ClaimedPackage) -> Result<Bytes, Refusal> {
    let store = &session.node.store;
    let batch = store.read(log, package.offset.previous(), 1, 1).await;
    let batch = batch.map_err(|error| {
        warn!(agent = %Short(&session.agent), %log, %error, "a claimed key package cannot be read");
        refusal::of_store(&error)
    })?;
    let bytes = match batch.records.as_slice() {
        [record] => record.clone(),
        chunks => chunks.concat().into(),
    };
    match Record::decode(&bytes, record::PAYLOAD_BYTES_MAX) {
        Ok((record, _)) if record.offset == package.offset => Ok(record.payload),
        _ => {
            warn!(%log, offset = %package.offset, "a claimed key package is not where it should be");
            Err(refusal::internal())
        }
    }
}
