//! The key packages stream: claiming KeyPackages of other agents, counting one's own.

use super::error::{Refused, RelayError};
use super::message::{self, MessageReader};
use super::session::Session;
use iroh::endpoint::SendStream;
use prost::Message as _;
use skytale_proto::session::{
    KeyPackageCount, KeyPackagesOpen, KeyPackagesRequest, KeyPackagesResponse, key_packages_request,
    key_packages_response, open,
};
use skytale_proto::{Detail, Frame, LogId, Offset, limits};

/// A KeyPackage that a claim took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The claim's offset in the agent's log.
    pub claim_offset: Offset,
    /// The package's offset in the same log.
    pub package_offset: Offset,
    /// Whether it is the last resort: others may hold it, too.
    pub last_resort: bool,
    /// The KeyPackage frame: of that agent's log and, by its header, of that agent. The MLS layer checks the body.
    pub frame: Frame,
}

/// KeyPackages that this agent has left at the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Single-use packages.
    pub live: u32,
    /// Whether there is a last resort.
    pub last_resort: bool,
}

/// Claims and counts KeyPackages. One request at a time.
#[derive(Debug)]
pub struct KeyPackages {
    send: SendStream,
    answers: MessageReader,
    session: Session,
}

impl KeyPackages {
    /// Opens a stream for claims and counts.
    pub async fn open(session: &Session) -> Result<Self, RelayError> {
        let (send, answers) = session
            .open(open::Stream::KeyPackages(KeyPackagesOpen {}), limits::MESSAGE_BYTES_MAX)
            .await?;
        Ok(Self {
            send,
            answers,
            session: session.clone(),
        })
    }

    /// Claims one package: `claim` is a KeyPackageClaim frame on the log of the agent whose package is wanted. The same
    /// frame claims the same package again.
    pub async fn claim(&mut self, claim: &Frame) -> Result<Claimed, RelayError> {
        let request = key_packages_request::Request::Claim(claim.encoded().clone());
        let claimed = match self.ask(request).await? {
            key_packages_response::Outcome::Claimed(claimed) => claimed,
            _ => return Err(self.broken("a claim answered with something else")),
        };
        let frame = match Frame::decode(claimed.frame) {
            Ok(frame) => frame,
            Err(error) => return Err(self.broken(&format!("a claimed key package: {error}"))),
        };
        let header = frame.header();
        let of_agent = header.log == claim.header().log && LogId::Agent(header.author) == header.log;
        let is_package =
            matches!(header.detail, Detail::KeyPackage { last_resort, .. } if last_resort == claimed.last_resort);
        if !of_agent || !is_package {
            return Err(self.broken("a claim answered with another agent's frame"));
        }
        Ok(Claimed {
            claim_offset: Offset::new(claimed.claim_offset),
            package_offset: Offset::new(claimed.package_offset),
            last_resort: claimed.last_resort,
            frame,
        })
    }

    /// Counts the packages that this agent has left.
    pub async fn count(&mut self) -> Result<Stock, RelayError> {
        let request = key_packages_request::Request::Count(KeyPackageCount {});
        match self.ask(request).await? {
            key_packages_response::Outcome::Stock(stock) => Ok(Stock {
                live: stock.live,
                last_resort: stock.last_resort,
            }),
            _ => Err(self.broken("a count answered with something else")),
        }
    }

    async fn ask(
        &mut self,
        request: key_packages_request::Request,
    ) -> Result<key_packages_response::Outcome, RelayError> {
        let message = KeyPackagesRequest { request: Some(request) };
        self.answers.owed().begin(message.encoded_len());
        let answer = match message::write(&mut self.send, &message).await {
            Ok(()) => self.answers.next::<KeyPackagesResponse>().await,
            Err(error) => Err(error),
        };
        self.answers.owed().end();
        match answer.map_err(|error| self.session.explain(error))? {
            Some(KeyPackagesResponse {
                outcome: Some(key_packages_response::Outcome::Refusal(refusal)),
            }) => Err(Refused::from(refusal).into()),
            Some(KeyPackagesResponse { outcome: Some(outcome) }) => Ok(outcome),
            Some(KeyPackagesResponse { outcome: None }) => Err(self.broken("a question answered with nothing")),
            None => Err(RelayError::lost("the relay ended the key packages stream")),
        }
    }

    fn broken(&self, problem: &str) -> RelayError {
        self.session.explain(RelayError::protocol(problem))
    }
}
