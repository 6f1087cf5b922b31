//! Authorization from a session's claims and a frame's header alone. Rosters are the log's business.

use skytale_proto::session::Refusal;
use skytale_proto::token::{Action, Claims};
use skytale_proto::{AccountId, Code, Detail, Header, LogId};

/// Reason why an operation is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("the frame names another author than the session's agent")]
    Author,
    #[error("the frame does not name the session's account")]
    Account,
    #[error("the token does not allow {} here", .0)]
    Scope(Action),
    #[error("{0}")]
    Kind(&'static str),
    #[error("another agent's log is not readable")]
    OthersLog,
}

impl Denied {
    pub(crate) const fn code(self) -> Code {
        match self {
            Self::Author | Self::Account => Code::AuthorMismatch,
            Self::Scope(_) => Code::ScopeMissing,
            Self::Kind(_) => Code::KindRefused,
            Self::OthersLog => Code::NotMember,
        }
    }

    pub(crate) fn refusal(self) -> Refusal {
        Refusal::because(self.code(), self.to_string())
    }
}

/// Whether a frame may be appended on an append stream.
pub(crate) fn append(claims: &Claims, header: &Header) -> Result<(), Denied> {
    if header.author != claims.sub {
        return Err(Denied::Author);
    }
    match &header.detail {
        Detail::Create { account, .. } => {
            own_account(claims, account.as_ref())?;
            scope(claims, Action::CreateChannel, &header.log)
        }
        Detail::Raw { account } => {
            own_account(claims, Some(account))?;
            scope(claims, Action::Append, &header.log)
        }
        Detail::Commit { .. } | Detail::Proposal | Detail::Message | Detail::Rejoin => {
            scope(claims, Action::Append, &header.log)
        }
        Detail::KeyPackage { account, .. } => {
            if header.log != claims.sub.log() {
                return Err(Denied::Kind("an agent offers key packages on its own log only"));
            }
            sessions_account(claims, account.as_ref())?;
            scope(claims, Action::PublishKeyPackages, &header.log)
        }
        Detail::KeyPackagePolicy { account, .. } => {
            if header.log != claims.sub.log() {
                return Err(Denied::Kind("an agent says who may claim its own key packages only"));
            }
            sessions_account(claims, Some(account))?;
            scope(claims, Action::PublishKeyPackages, &header.log)
        }
        Detail::KeyPackageClaim { .. } => Err(Denied::Kind("claims go over a key packages stream")),
        Detail::Trim { .. } => Err(Denied::Kind("trims are made by the operator")),
        Detail::Welcome { .. } => Err(Denied::Kind("welcomes are made by the store")),
    }
}

/// Whether a frame may be appended on a key packages stream: claims alone.
pub(crate) fn claim(claims: &Claims, header: &Header) -> Result<(), Denied> {
    if header.author != claims.sub {
        return Err(Denied::Author);
    }
    match &header.detail {
        Detail::KeyPackageClaim { account } => {
            sessions_account(claims, account.as_ref())?;
            scope(claims, Action::ClaimKeyPackages, &header.log)
        }
        _ => Err(Denied::Kind("a key packages stream takes claims only")),
    }
}

/// Whether the session's agent may ask for its own stock of KeyPackages.
pub(crate) fn count(claims: &Claims) -> Result<(), Denied> {
    scope(claims, Action::PublishKeyPackages, &claims.sub.log())
}

/// Whether a log may be read, as far as claims say.
pub(crate) fn read(claims: &Claims, log: &LogId) -> Result<(), Denied> {
    match log {
        LogId::Agent(agent) if *agent != claims.sub => Err(Denied::OthersLog),
        LogId::Agent(_) | LogId::Channel(_) => scope(claims, Action::Replay, log),
    }
}

fn scope(claims: &Claims, action: Action, log: &LogId) -> Result<(), Denied> {
    if claims.allows(action, log) {
        Ok(())
    } else {
        Err(Denied::Scope(action))
    }
}

fn own_account(claims: &Claims, account: Option<&AccountId>) -> Result<(), Denied> {
    match account {
        Some(account) if *account != claims.acct => Err(Denied::Account),
        _ => Ok(()),
    }
}

/// Consent and limits go by the account: a frame that they are about names it.
fn sessions_account(claims: &Claims, account: Option<&AccountId>) -> Result<(), Denied> {
    match account {
        Some(account) if *account == claims.acct => Ok(()),
        _ => Err(Denied::Account),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::token::Confirmation;
    use skytale_proto::{AgentId, ChannelId, ChannelMode, ClaimRule, EndpointId, FrameId, KeyId, Offset};

    const ME: AgentId = AgentId::from_bytes([1; 32]);
    const OTHER: AgentId = AgentId::from_bytes([2; 32]);
    const ACCOUNT: AccountId = AccountId::from_bytes([3; 16]);
    const CHANNEL: ChannelId = ChannelId::from_bytes([4; 16]);
    const ALL: &str = "relay:append relay:replay channels:create keypackages:publish keypackages:claim";

    fn claims(scope: &str) -> Claims {
        Claims {
            iss: "issuer".into(),
            aud: "audience".into(),
            sub: ME,
            acct: ACCOUNT,
            key: KeyId::from_bytes([5; 16]),
            scope: scope.into(),
            cnf: Confirmation {
                eid: EndpointId::from_bytes([6; 32]),
            },
            exp: 0,
            iat: 0,
            jti: "jti".into(),
        }
    }

    fn header(log: LogId, detail: Detail) -> Header {
        Header {
            log,
            id: FrameId::from_bytes([7; 16]),
            author: ME,
            parent: Offset::ZERO,
            detail,
        }
    }

    fn create(account: Option<AccountId>) -> Detail {
        Detail::Create {
            mode: if account.is_some() {
                ChannelMode::Raw
            } else {
                ChannelMode::Mls
            },
            account,
            policy: None,
        }
    }

    fn commit() -> Detail {
        Detail::Commit {
            adds: vec![],
            removes: vec![],
            recipients: vec![],
            roster: None,
            policy: None,
        }
    }

    fn code(result: Result<(), Denied>) -> Option<Code> {
        result.err().map(Denied::code)
    }

    #[test]
    fn each_kind_needs_its_own_scope_and_no_other() {
        let package = Detail::KeyPackage {
            last_resort: false,
            account: Some(ACCOUNT),
        };
        let policy = Detail::KeyPackagePolicy {
            account: ACCOUNT,
            rule: ClaimRule::Anyone,
        };
        let cases = [
            (header(CHANNEL.log(), create(None)), "channels:create"),
            (header(CHANNEL.log(), create(Some(ACCOUNT))), "channels:create"),
            (header(CHANNEL.log(), commit()), "relay:append"),
            (header(CHANNEL.log(), Detail::Proposal), "relay:append"),
            (header(CHANNEL.log(), Detail::Rejoin), "relay:append"),
            (header(CHANNEL.log(), Detail::Message), "relay:append"),
            (header(CHANNEL.log(), Detail::Raw { account: ACCOUNT }), "relay:append"),
            (header(ME.log(), package), "keypackages:publish"),
            (header(ME.log(), policy), "keypackages:publish"),
        ];
        for (header, needed) in cases {
            assert_eq!(append(&claims(needed), &header), Ok(()), "{needed}");
            let others: Vec<&str> = ALL.split(' ').filter(|scope| *scope != needed).collect();
            assert_eq!(
                code(append(&claims(&others.join(" ")), &header)),
                Some(Code::ScopeMissing),
                "{needed}"
            );
        }
    }

    #[test]
    fn a_scope_for_one_channel_is_none_for_another() {
        let header = header(CHANNEL.log(), Detail::Message);
        let here = format!("relay:append@{CHANNEL}");
        let elsewhere = format!("relay:append@{}", ChannelId::from_bytes([9; 16]));
        assert_eq!(append(&claims(&here), &header), Ok(()));
        assert_eq!(code(append(&claims(&elsewhere), &header)), Some(Code::ScopeMissing));
    }

    #[test]
    fn nobody_appends_under_anothers_name_or_account() {
        let mut message = header(CHANNEL.log(), Detail::Message);
        message.author = OTHER;
        assert_eq!(append(&claims(ALL), &message), Err(Denied::Author));
        let foreign = AccountId::from_bytes([8; 16]);
        for detail in [Detail::Raw { account: foreign }, create(Some(foreign))] {
            assert_eq!(
                append(&claims(ALL), &header(CHANNEL.log(), detail)),
                Err(Denied::Account)
            );
        }
        for account in [None, Some(foreign)] {
            let package = Detail::KeyPackage {
                last_resort: false,
                account,
            };
            assert_eq!(append(&claims(ALL), &header(ME.log(), package)), Err(Denied::Account));
            let wanted = header(OTHER.log(), Detail::KeyPackageClaim { account });
            assert_eq!(claim(&claims(ALL), &wanted), Err(Denied::Account));
        }
        let policy = Detail::KeyPackagePolicy {
            account: foreign,
            rule: ClaimRule::Anyone,
        };
        assert_eq!(append(&claims(ALL), &header(ME.log(), policy)), Err(Denied::Account));
    }

    #[test]
    fn kinds_that_are_not_an_agents_are_refused() {
        let kinds = [
            header(CHANNEL.log(), Detail::Trim { up_to: Offset::FIRST }),
            header(
                ME.log(),
                Detail::Welcome {
                    channel: CHANNEL,
                    offset: Offset::FIRST,
                    returns: false,
                },
            ),
            header(OTHER.log(), Detail::KeyPackageClaim { account: Some(ACCOUNT) }),
            header(
                OTHER.log(),
                Detail::KeyPackage {
                    last_resort: false,
                    account: Some(ACCOUNT),
                },
            ),
            header(
                OTHER.log(),
                Detail::KeyPackagePolicy {
                    account: ACCOUNT,
                    rule: ClaimRule::Anyone,
                },
            ),
        ];
        for header in kinds {
            assert_eq!(code(append(&claims(ALL), &header)), Some(Code::KindRefused));
        }
    }

    #[test]
    fn claims_have_a_stream_and_a_scope_of_their_own() {
        let wanted = header(OTHER.log(), Detail::KeyPackageClaim { account: Some(ACCOUNT) });
        assert_eq!(claim(&claims("keypackages:claim"), &wanted), Ok(()));
        assert_eq!(
            code(claim(&claims("keypackages:publish"), &wanted)),
            Some(Code::ScopeMissing)
        );
        let message = header(CHANNEL.log(), Detail::Message);
        assert_eq!(code(claim(&claims(ALL), &message)), Some(Code::KindRefused));
        assert_eq!(count(&claims("keypackages:publish")), Ok(()));
        assert_eq!(code(count(&claims("keypackages:claim"))), Some(Code::ScopeMissing));
    }

    #[test]
    fn an_agent_reads_channels_by_scope_its_own_log_and_no_other_agents() {
        let named = format!("relay:replay@{CHANNEL}");
        assert_eq!(read(&claims(&named), &CHANNEL.log()), Ok(()));
        assert_eq!(read(&claims(&named), &ME.log()), Ok(()));
        assert_eq!(read(&claims(ALL), &OTHER.log()), Err(Denied::OthersLog));
        assert_eq!(
            code(read(&claims("relay:append"), &CHANNEL.log())),
            Some(Code::ScopeMissing)
        );
        assert_eq!(code(read(&claims("relay:append"), &ME.log())), Some(Code::ScopeMissing));
    }
}
