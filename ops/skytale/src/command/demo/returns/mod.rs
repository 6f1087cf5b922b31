//! `skytale demo --returns`: ways back, one after another, each on a node of its own.

mod cases;
mod player;
mod report;
mod scene;

use super::note_kept;
use crate::command::Session;
use crate::output::{Failure, Outcome};
use crate::stage::Timeline;
use report::Report;
use skytale_proto::Code;
use std::path::Path;

/// Plays all cases and judges them.
pub(super) async fn show(session: &Session, dir: &Path, kept: Option<String>) -> Outcome {
    let timeline = Timeline::new(session.output);
    let played = Box::pin(cases::play(session, dir, &timeline)).await;
    let rows = played.inspect_err(|_| note_kept(session, kept.as_deref()))?;
    let report = Report::new(rows, kept);
    session.output.give(&report)?;
    if report.ok {
        Ok(())
    } else {
        Err(Failure::new(Code::Mismatch, "an agent did not get back as it must"))
    }
}
