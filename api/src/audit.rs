//! Audit of the API: one row for every action on a key or with one, without secrets.
//!
//! What programs do all day would fill the table: each agent asks for a token every hour, and a broken one is refused every
//! second. Such actions are counted, in one row for a [`Series`] and day.

use crate::request::Meta;
use crate::store::{StoreError, audit};
use skytale_proto::rest::AuditEvent;
use skytale_proto::{AccountId, AgentId, Code, EndpointId, EnrolmentId, KeyId};
use sqlx::AnyConnection;
use std::fmt;
use uuid::Uuid;

const DAY_S: u64 = 24 * 3_600;

/// Actor of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Actor {
    Key(KeyId),
    Operator,
    /// A relay node, with the secret that they share.
    Relay,
    /// A relay node, with its own key.
    Enrolment(EnrolmentId),
    /// The API itself, in its upkeep.
    Upkeep,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key:{key}"),
            Self::Operator => f.write_str("operator"),
            Self::Relay => f.write_str("relay"),
            Self::Enrolment(enrolment) => write!(f, "enrolment:{enrolment}"),
            Self::Upkeep => f.write_str("upkeep"),
        }
    }
}

/// Target of an action. Names and ids; never a secret.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Account(AccountId),
    Key(KeyId),
    Agent(AgentId),
    Channel(&'a str),
    Relay(EndpointId),
    Enrolment(EnrolmentId),
    SigningKey(&'a str),
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(account) => write!(f, "account:{account}"),
            Self::Key(key) => write!(f, "key:{key}"),
            Self::Agent(agent) => write!(f, "agent:{agent}"),
            Self::Channel(name) => write!(f, "channel:{name}"),
            Self::Relay(endpoint) => write!(f, "relay:{endpoint}"),
            Self::Enrolment(enrolment) => write!(f, "enrolment:{enrolment}"),
            Self::SigningKey(kid) => write!(f, "signing_key:{kid}"),
        }
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action<'a> {
    pub account: Option<AccountId>,
    pub actor: Actor,
    /// Name of the action, such as `key.create`.
    pub name: &'static str,
    pub target: Target<'a>,
    /// Reason why it was refused, if it was.
    pub code: Option<Code>,
    pub counted: Series,
}

/// Events that are one row a day (UTC), with a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// Each event is a row.
    Single,
    /// All of an action by an actor on a target.
    OfTarget,
    /// All of an action by an actor with a code, on any target: for targets that the caller makes up.
    OfCode,
}

impl Action<'_> {
    pub(crate) const fn counted(self, counted: Series) -> Self {
        Self { counted, ..self }
    }

    /// Writes the row, in the transaction of the action.
    pub(crate) async fn record(
        &self,
        connection: &mut AnyConnection,
        meta: &Meta,
        now_s: u64,
    ) -> Result<(), StoreError> {
        let event = AuditEvent {
            id: Uuid::now_v7().to_string(),
            at_s: now_s,
            actor: self.actor.to_string(),
            action: self.name.to_owned(),
            target: self.target.to_string(),
            request: meta.request.clone(),
            code: self.code.map(|code| code.to_string()),
            count: 1,
            last_at_s: now_s,
        };
        audit::insert(connection, self.account, &event, self.series(&event)).await
    }

    fn series(&self, event: &AuditEvent) -> Option<String> {
        let of = match self.counted {
            Series::Single => return None,
            Series::OfTarget => event.target.as_str(),
            Series::OfCode => event.code.as_deref().unwrap_or_default(),
        };
        let day = event.at_s / DAY_S;
        Some(format!("{day} {} {} {of}", event.action, event.actor))
    }
}
