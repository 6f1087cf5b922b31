//! `skytale relay enrol`, `enrolments` and `revoke`: which relay nodes belong to the fleet.

use super::Session;
use crate::client;
use crate::output::{Human, Outcome, Style, table};
use crate::time::utc;
use serde::Serialize;
use skytale_proto::rest::{CreateEnrolment, CreatedEnrolment, Enrolment, Enrolments};
use skytale_proto::{EndpointId, EnrolmentId};
use skytale_sdk::internals::net::Method;
use std::fmt;

/// Pages that are read, at most.
const PAGES_MAX: usize = 1_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Enrol {
    /// The name of the relay node for people.
    label: String,
    /// The endpoint that it is for [default: the first that uses the key].
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<EndpointId>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// The enrolment's id, as `relay enrolments` shows it.
    id: EnrolmentId,
}

pub(crate) async fn enrol(args: Enrol, session: &Session) -> Outcome {
    let client = client::operator(&session.loaded)?;
    let request = CreateEnrolment {
        label: args.label,
        endpoint: args.endpoint,
    };
    let created: CreatedEnrolment = client
        .call(Method::Post, "/v1/enrolments", Some(&request))
        .await
        .map_err(client::failed(&session.loaded))?;
    session.output.give(&Created { created: &created })
}

pub(crate) async fn list(session: &Session) -> Outcome {
    let client = client::operator(&session.loaded)?;
    let mut enrolments = Vec::new();
    let mut path = "/v1/enrolments".to_owned();
    for _ in 0..PAGES_MAX {
        let page: Enrolments = client
            .call(Method::Get, &path, None::<&()>)
            .await
            .map_err(client::failed(&session.loaded))?;
        enrolments.extend(page.enrolments);
        match page.next {
            Some(next) => path = format!("/v1/enrolments?after={next}"),
            None => break,
        }
    }
    session.output.give(&List { enrolments })
}

pub(crate) async fn revoke(args: Revoke, session: &Session) -> Outcome {
    let client = client::operator(&session.loaded)?;
    let path = format!("/v1/enrolments/{}", args.id);
    let () = client
        .call(Method::Delete, &path, None::<&()>)
        .await
        .map_err(client::failed(&session.loaded))?;
    session.output.give(&Revoked { revoked: args.id })
}

#[derive(Serialize)]
struct Created<'a> {
    #[serde(flatten)]
    created: &'a CreatedEnrolment,
}

impl Human for Created<'_> {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let enrolment = &self.created.enrolment;
        writeln!(to, "enrolment {}", enrolment.id)?;
        if let Some(endpoint) = enrolment.endpoint {
            writeln!(to, "endpoint  {endpoint}")?;
        }
        writeln!(
            to,
            "{}",
            style.dim("The relay node's key, shown now and never again. Keep it in a file with mode 0600:")
        )?;
        writeln!(to, "{}", self.created.secret)
    }
}

#[derive(Serialize)]
struct List {
    enrolments: Vec<Enrolment>,
}

impl Human for List {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.enrolments.is_empty() {
            return writeln!(to, "no enrolments");
        }
        let rows = self.enrolments.iter().map(|enrolment| {
            let state = enrolment
                .revoked_s
                .map_or_else(|| "in force".to_owned(), |revoked| format!("revoked {}", utc(revoked)));
            let endpoint = enrolment.endpoint.map(|endpoint| endpoint.to_string());
            vec![
                enrolment.id.to_string(),
                enrolment.label.clone(),
                state,
                utc(enrolment.created_s),
                endpoint.unwrap_or_else(|| "not used yet".to_owned()),
            ]
        });
        table(to, style, &["enrolment", "label", "state", "made", "endpoint"], rows)
    }
}

#[derive(Serialize)]
struct Revoked {
    revoked: EnrolmentId,
}

impl Human for Revoked {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        writeln!(
            to,
            "revoked {}: its relay node has left the directory, and serves no agents within 10 s",
            self.revoked
        )
    }
}
