//! `skytale account`.

use super::Session;
use crate::client;
use crate::output::{Human, Outcome, Style};
use clap::Subcommand;
use serde::Serialize;
use skytale_proto::rest::{CreateAccount, CreatedAccount, OrgName};
use skytale_sdk::internals::net::Method;
use std::fmt;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an account and its first API key, which is shown once. Needs the operator's secret (SKYTALE_ADMIN_SECRET).
    Create {
        /// The first part of the account's channel names, as in `acme`.
        org: OrgName,
    },
}

pub(crate) async fn run(command: Command, session: Session) -> Outcome {
    let Command::Create { org } = command;
    let client = client::operator(&session.loaded)?;
    let request = CreateAccount { org };
    let asking = client.call::<_, CreatedAccount>(Method::Post, "/v1/accounts", Some(&request));
    let created = session
        .shutdown
        .unless(async { asking.await.map_err(client::failed(&session.loaded)) })
        .await?;
    session.output.give(&Created { created: &created })
}

#[derive(Serialize)]
struct Created<'a> {
    #[serde(flatten)]
    created: &'a CreatedAccount,
}

impl Human for Created<'_> {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let created = self.created;
        writeln!(to, "account  {}", created.account)?;
        writeln!(to, "org      {}", created.org)?;
        writeln!(to, "key id   {}", created.key.key.id)?;
        writeln!(to, "{}", style.dim("The key, shown now and never again:"))?;
        writeln!(to, "export SKYTALE_API_KEY={}", created.key.secret)
    }
}
