//! Every error code, in one table: its number, whether trying again can help, and what to do.
//!
//! Numbers are stable: a code is never given another meaning. 1xxx the log, 2xxx a session with a
//! relay node, 3xxx tokens, 4xxx the API, 5xxx the SDK, 6xxx the command, 7xxx the bridge.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $retryable:literal, $help:literal;)*) => {
        /// An error code. Shown as `SKY-1004`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// All codes, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Whether the same request may succeed later without a change.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }

            /// Returns the suggested fix, in a sentence.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)* }
            }

            /// The name, as in this enum.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

codes! {
    // ---- the log
    /// The frame's bytes are not a frame.
    FrameMalformed = 1001, false, "The frame was not built by a current SDK; upgrade it.";
    /// The frame is over the size limit.
    FrameTooLarge = 1002, false, "Send less in one message, or split it.";
    /// The frame's format version is not supported here.
    FrameVersion = 1003, false, "Upgrade the older of the two sides.";
    /// The author is not on the roster at this position.
    NotMember = 1004, false, "Ask a member of the channel to add this agent.";
    /// A commit or proposal built on a head that has moved.
    StaleHandshake = 1005, true, "Replay to the head, then commit again; the SDK does so by itself.";
    /// A message encrypted in an epoch that has passed.
    StaleEpoch = 1006, true, "Replay to the head, then encrypt again; the SDK does so by itself.";
    /// No such log.
    UnknownLog = 1007, false, "Check the channel id; a channel exists once its creator's Create was accepted.";
    /// A Create for a channel that exists.
    LogExists = 1008, false, "Make a new channel id.";
    /// The entries asked for are no longer kept.
    Trimmed = 1009, false, "Start at the first available offset; the entries before it are gone.";
    /// The agent has no KeyPackage to give, not even a last resort.
    KeyPackagesExhausted = 1010, true, "The agent must come online once to offer KeyPackages.";
    /// The roster would grow over its limit.
    RosterFull = 1011, false, "Remove agents, or use a second channel.";
    /// The agent already offers as many KeyPackages as it may.
    KeyPackagesFull = 1012, false, "Offer more when some have been claimed.";
    /// A commit adds who is on the roster or removes who is not.
    RosterChange = 1013, false, "The commit's header contradicts the roster; replay and rebuild it.";
    /// The store has stopped taking appends.
    StoreStopped = 1014, true, "The operator must look at the relay node's /readyz; nothing acknowledged is lost.";
    /// A stored record does not fit its checksum.
    StoreCorrupt = 1015, false, "The operator must run `skytale log verify`; entries before it are served.";
    /// This kind of frame is not allowed in this log, or not from this author.
    KindRefused = 1016, false, "Use the kind of frame that this log takes.";
    /// A trim past the log's end, or behind an earlier one.
    TrimRange = 1017, false, "Trim up to an offset that the log has.";
    /// A cursor past the log's head.
    CursorBeyondHead = 1018, false, "The relay's log is shorter than what this agent has seen: ask the operator; `skytale relay accept-rollback` settles it where a node was restored.";
    /// Another process has the store's folder open.
    StoreLocked = 1019, true, "Stop the other process, or give this one a folder of its own.";
    /// The store's files are of a format that this version does not read.
    StoreVersion = 1020, false, "Use the version that wrote them, or a newer one.";
    /// A claim that was accepted so long ago that the package it took is no longer known.
    ClaimForgotten = 1021, false, "Claim again, with a new frame.";
    /// The streams of the log's home region do not answer.
    HomeUnreachable = 1022, true, "Keep the frame and append it again later, with its id: it is an entry once. Replay goes on.";
    /// The relay node has not followed the log that far yet.
    CatchingUp = 1023, true, "Try again, or use another relay node, until this one is ready.";
    /// The relay node's disk is full.
    StoreFull = 1024, true, "The operator must make room on the relay node's disk; messages wait in the outbox and go out then. Replay goes on.";
    /// The channel's policy keeps this for its admins.
    PolicyForbids = 1025, false, "Ask an admin of the channel to do it: `skytale channel policy` shows who may do what, `skytale channel members` who is an admin.";
    /// The agent does not let the claimer have its KeyPackages.
    ClaimNotAllowed = 1029, false, "The agent's owner must allow it: `skytale consent --allow` there, with this agent's id or account as `skytale whoami` shows them.";
    /// The claimer's account, or all others together, hold as many of the agent's KeyPackages as they may.
    ClaimsUnspent = 1030, false, "Complete the additions that were begun, or add the agent later; claims are forgotten as the agent's log is trimmed.";
    /// A Welcome to an agent of which its author has claimed no KeyPackage.
    WelcomeUnclaimed = 1031, false, "Claim a KeyPackage of the agent before adding it; the SDK does so by itself.";
    /// Too few known nodes vouch for the checkpoint that a new node would begin with.
    CheckpointUnattested = 1033, false, "The operator must see that `relay.fleet.nodes_file` names the fleet's nodes, and run `skytale fleet doctor`.";

    // ---- a session with a relay node
    /// The first message was not a Hello.
    HelloExpected = 2001, false, "Open the control stream with a Hello first.";
    /// No Hello came in time.
    HelloTimeout = 2002, true, "Connect again and send the Hello at once.";
    /// A message that is not of the protocol.
    MessageMalformed = 2003, false, "The client does not speak this protocol; upgrade it.";
    /// A message over the size limit.
    MessageTooLarge = 2004, false, "Keep to the limits that the relay sent in Started.";
    /// More streams than one connection may have.
    TooManyStreams = 2005, true, "Close streams that are no longer read, or ask the operator for a higher `limits.streams_max`.";
    /// Too many frames or bytes a second.
    RateLimited = 2006, true, "Wait as long as the refusal says, then go on.";
    /// The relay node is about to stop.
    Draining = 2007, true, "Connect to another relay node, or to this one after its restart.";
    /// The frame names another author than the session's agent.
    AuthorMismatch = 2008, false, "An agent appends only under its own id.";
    /// Something failed in the relay node that the client cannot mend.
    RelayInternal = 2009, true, "Try again; the operator finds the cause in the relay node's log.";
    /// The relay node has as many connections as it takes.
    TooManyConnections = 2010, true, "Connect to another relay node, or later.";
    /// The agent connected again; this older session ends.
    SessionReplaced = 2011, false, "One process an agent: stop the other one.";
    /// The other side has been silent for twice the keepalive.
    KeepaliveLost = 2012, true, "Connect again.";
    /// The relay node could not ask the API for its keys or revocations, and starts no session until it can.
    TrustStale = 2013, true, "Connect to another relay node, or later; the operator must look at the relay node's /readyz.";
    /// The relay node is there, and has not answered what it was asked.
    Unanswered = 2014, true, "The SDK goes to another relay node by itself; the operator must look at this one and its store.";
    /// The API lets the relay node serve no agents.
    RelayBarred = 2015, true, "Connect to another relay node; the operator must look at this one's /readyz.";
    /// The relay node's clock and the one that it is measured by differ: it sends agents to other nodes.
    ClockWrong = 2016, true, "The SDK goes to another relay node by itself, and stays where there is none; the operator must look at the relay node's /readyz and set the wrong clock right.";
    /// A request whose bytes stopped coming, or came too slowly.
    RequestLate = 2017, true, "Send a request's bytes without pauses; on a slow link, send smaller messages.";
    /// The relay node has no room for a request whose bytes do not come.
    NoRoom = 2018, true, "Try again, or use another relay node: this one has to receive more than it has room for.";
    /// The agents of an account append too many frames or bytes a second, together.
    AccountRateLimited = 2019, true, "Wait as long as the refusal says, then go on; all agents of the account share this rate at a relay node.";
    /// The account has as many connections to the relay node as it may have.
    AccountConnections = 2020, true, "Close connections of the account's other agents, connect to another relay node, or ask the operator for more.";
    /// The network has as many connections to the relay node that have not said Hello as it may have.
    AddressConnections = 2021, true, "Connect again a moment later; behind a network that many agents share, ask the operator for more.";
    /// The account has made as many channels as it may in a day.
    AccountChannels = 2022, false, "Use the channels that there are, try again tomorrow, or ask the operator for more.";
    /// The account has as many bytes stored as it may have.
    AccountStored = 2023, true, "Send again when older entries are no longer kept, or ask the operator for more; messages wait in the outbox. Replay goes on.";

    /// More channels than one session may watch.
    TooManyWatched = 2024, true, "Leave channels that are no longer needed, spread them over several agents, or ask the operator for a higher `limits.watched_max`; until then the SDK reads these channels in turns.";
    /// The agents of an account have as many streams open at the relay node as they may, together.
    AccountStreams = 2025, true, "Close sessions and streams of the account's other agents that are no longer read, connect to another relay node, or ask the operator for a higher `limits.account_streams_max`.";

    // ---- tokens
    /// Not a token.
    TokenMalformed = 3001, false, "Ask the API for a token.";
    /// The signature does not verify, or the token names no key.
    TokenSignature = 3002, false, "Ask the API that this relay trusts for a token.";
    /// The token has ended.
    TokenExpired = 3003, true, "Ask the API for a new token.";
    /// The token is for another audience.
    TokenAudience = 3004, false, "Ask for a token for this relay's audience.";
    /// The token is from another issuer.
    TokenIssuer = 3005, false, "Ask the API that this relay trusts for a token.";
    /// An algorithm other than EdDSA.
    TokenAlgorithm = 3006, false, "Only EdDSA tokens of the API are taken.";
    /// The token belongs to another endpoint than this connection's.
    TokenEndpoint = 3007, false, "A token works only on the endpoint it was given to; ask for one of your own.";
    /// The token does not allow this.
    ScopeMissing = 3008, false, "Ask for a token with the scope, or an API key that may give it.";
    /// The API key behind the token was revoked.
    TokenRevoked = 3009, false, "Use an API key that is in force.";
    /// The token's beginning is in the future.
    TokenNotYet = 3010, true, "Set the clocks right.";
    /// The token lives longer than a token may.
    TokenLifetime = 3011, false, "Ask the API that this relay trusts for a token.";
    /// The session's agent cannot change.
    TokenSubject = 3012, false, "Refresh with a token of the same agent.";
    /// The token names a signing key that the relay node does not know yet.
    TokenKeyUnknown = 3013, true, "Try again: the relay node fetches the API's keys. If it persists, the token is from another API than the one that this relay node trusts.";
    /// The Hello carries no signature by the agent's identity key over this connection.
    AgentProof = 3014, false, "Sign the Hello with the identity key of the agent that the token names; an SDK of this version does.";

    // ---- the API
    /// The request's form is wrong.
    BadRequest = 4001, false, "Correct the request as the detail says.";
    /// No API key, or one that is not known.
    KeyUnknown = 4002, false, "Give a valid API key as `Authorization: Bearer sk_live_...`.";
    /// The API key was revoked.
    KeyRevoked = 4003, false, "Create a new API key.";
    /// No such thing, or not this account's.
    NotFound = 4004, false, "Check the id.";
    /// The name is taken, or the thing is in another state.
    Conflict = 4005, false, "Choose another name, or read the current state first.";
    /// Too many requests.
    ApiRateLimited = 4006, true, "Wait as long as Retry-After says.";
    /// The account's quota is used up.
    QuotaExceeded = 4007, false, "Remove what is no longer needed, or ask the operator for more.";
    /// The nonce is unknown, used or too old.
    NonceInvalid = 4008, true, "Ask for a new nonce and sign it at once.";
    /// The agent's signature over the nonce does not verify.
    ProofInvalid = 4009, false, "Sign `skytale token proof 1`, the nonce, the agent id and the endpoint id, as bytes one after another, with the agent's identity key; the text of `POST /v1/token` in `/openapi.json` has a test vector.";
    /// The agent belongs to another account.
    AgentTaken = 4010, false, "Use an identity of this account.";
    /// The request is too large.
    BodyTooLarge = 4011, false, "Send less.";
    /// Too much work is waiting.
    ApiBusy = 4012, true, "Wait as long as Retry-After says.";
    /// Something failed in the API that the client cannot mend.
    ApiInternal = 4013, true, "Try again; the operator finds the cause in the API's log.";
    /// The API key may not do this.
    KeyScope = 4014, false, "Use an API key with the scope.";
    /// The operator's secret is missing or wrong.
    AdminUnauthorized = 4015, false, "Give the operator's secret as `Authorization: Bearer ...`.";
    /// The agent was ended for good.
    AgentEnded = 4016, false, "Make a new identity; an agent that was ended does not come back.";
    /// The API key has expired.
    KeyExpired = 4017, false, "Create a new API key with one that is in force: `skytale key create`; without one, ask the operator.";
    /// The relay nodes' secret is missing or wrong.
    RelayUnauthorized = 4018, false, "Give the relay nodes' secret as `Authorization: Bearer ...`.";
    /// The path exists, but not with this method.
    MethodNotAllowed = 4019, false, "Use one of the methods that the Allow header names.";
    /// No enrolment's key, or one that is not known.
    EnrolmentUnknown = 4020, false, "Give the key that `skytale relay enrol` showed as `Authorization: Bearer rk_live_...`.";
    /// The relay node's enrolment was revoked.
    EnrolmentRevoked = 4021, false, "Enrol the relay node again.";
    /// The enrolment is bound to another endpoint, or the endpoint to another enrolment.
    EnrolmentTaken = 4022, false, "One enrolment a relay node: make another for this endpoint, or revoke the one that has it.";
    /// The signature over the registration does not verify.
    RegistrationProof = 4023, false, "Sign `skytale relay registration 1`, the enrolment's id and the endpoint id, as bytes one after another, with the endpoint's own secret key.";
    /// The API's database takes no writes.
    DatabaseReadOnly = 4024, true, "Try again later: the operator must make the API's database writable, or have `api.database` lead to the one that is.";
    /// The disk of the API's database is full.
    DatabaseFull = 4025, true, "Try again later: the operator must make room on the disk of the API's database.";
    /// The API's database does not answer.
    DatabaseAway = 4026, true, "Try again later: the operator must look at the API's database, and at the way to it.";
    /// Another process uses the relay node's key, and is in the directory.
    RelayTwin = 4027, true, "One process a relay node: stop the other one, or enrol one of them with a key and a secret key file of its own.";
    /// The account has as many agents as it may have.
    AgentQuota = 4028, false, "End agents that are no longer used, or ask the operator for more.";
    /// The account has as many API keys in force as it may have.
    KeyQuota = 4029, false, "Revoke keys that are no longer used, or ask the operator for more.";
    /// The account has as many channel names as it may have.
    ChannelNameQuota = 4030, false, "Remove names that are no longer used, or ask the operator for more.";
    /// Too many requests with all API keys of the account together.
    AccountTooMany = 4031, true, "Wait as long as Retry-After says; all keys of an account share this rate.";

    // ---- the SDK
    /// The vault is open in another process.
    VaultInUse = 5001, true, "Close the other process, or let it share the vault; or give this agent a vault of its own.";
    /// The vault's key is wrong, or the file is not a vault.
    VaultKey = 5002, false, "Open the vault with the key it was made with.";
    /// SQLCipher is not linked into this program.
    VaultPlain = 5003, false, "Build with SQLCipher; nothing is written in clear.";
    /// The vault's file cannot be read or written.
    VaultIo = 5004, true, "Check the disk and the file's permissions.";
    /// A vault of a newer version.
    VaultVersion = 5005, false, "Upgrade the SDK.";
    /// No such channel in the vault.
    ChannelUnknown = 5006, false, "List the channels; an agent joins by being added.";
    /// The agent has left the channel or was removed.
    ChannelLeft = 5007, false, "Ask a member to add this agent again.";
    /// The message is over the limit.
    PayloadTooLarge = 5008, false, "Send less in one message, or split it.";
    /// No relay node can be reached.
    Offline = 5009, true, "Check that the node runs and can be reached; an agent that runs reconnects by itself.";
    /// A KeyPackage that is not the agent's whom it was claimed from.
    KeyPackageForeign = 5010, false, "Someone offers keys under that agent's name; do not add it.";
    /// Two readers were shown different logs.
    Divergence = 5011, false, "Stop trusting this relay; the event names the offset and both digests.";
    /// The log has a gap.
    Gap = 5012, false, "The relay lost or hides an entry; ask its operator.";
    /// An entry cannot be processed, and never will be.
    EntryUnreadable = 5013, false, "The entry was recorded with its offset; ask its author to send it again.";
    /// The MLS library refused.
    Mls = 5014, false, "The group's state or input was not acceptable; the message says which.";
    /// The agent is closed.
    Closed = 5015, false, "Open the agent again.";
    /// The outbox is full.
    OutboxFull = 5016, true, "Wait until what was sent before has gone out.";
    /// A head moved each time a commit was tried.
    Contended = 5017, true, "Others commit all the time; try again.";
    /// The KeyPackage is older than this agent accepts.
    KeyPackageExpired = 5018, true, "All that the agent offers is too old: it must come online once, with its clock set right, to offer new ones.";
    /// A channel's label that cannot be used.
    LabelInvalid = 5019, false, "Give a label of at most 256 bytes, on one line, that is not an id.";
    /// There is no space left on the vault's disk.
    VaultFull = 5020, true, "Free disk space, or run `skytale channel purge`.";
    /// The vault, or a channel's group in it, is damaged.
    VaultDamaged = 5021, false, "Restore the newest backup with `skytale vault restore`; keep the damaged file.";
    /// An id that was given to another message before.
    SendIdReused = 5022, false, "Give each message an id of its own; the same id is for the same message alone.";
    /// The agent is still in the channel.
    NotLeft = 5023, false, "Leave the channel first.";
    /// A name that cannot be given to an agent.
    ContactInvalid = 5024, false, "Give a name of letters, digits, `-`, `_`, `.` or `@`, at most 64 bytes long, that is not an id.";
    /// Nobody has answered a request in time.
    NoReply = 5025, true, "Check that an agent that answers runs; call again with the same id to wait on, without sending again.";
    /// The sent message may be among entries that the log no longer keeps.
    DeliveryUnknown = 5030, false, "Members may have read it: ask them, or send it again as a new message.";
    /// This agent cannot follow the group's changes.
    OutOfSync = 5031, true, "The agent has asked to be added again; any member that is online answers. Sent messages wait.";
    /// Another copy of this vault is in use.
    Superseded = 5032, false, "Use the other copy; or, if this is the one to keep, run `skytale vault takeover`.";
    /// The last admin of a channel would leave it, or no longer be one.
    LastAdmin = 5033, false, "Name another admin first: `skytale channel promote`.";
    /// An agent that is to be an admin is no member of the channel.
    NoSuchMember = 5034, false, "Add the agent first; `skytale channel members` lists who is in the channel.";
    /// No addition to that channel waits to be accepted.
    RequestUnknown = 5037, false, "List those that wait: `skytale channel requests`.";
    /// More accounts and agents than a rule may list.
    ConsentInvalid = 5038, false, "List at most 256 accounts and agents, or allow whole accounts in place of their agents.";
    /// The process that had the vault open, and did this agent's work, has closed it. Nothing was done.
    VaultOwnerGone = 5050, true, "Try again: the vault is free, or another process has it open now.";
    /// The process that had the vault open has ended before it answered.
    OutcomeUnknown = 5051, false, "Check whether it was done (`skytale channel outbox`, `list`, `read`) before you repeat it.";
    /// The process that has the vault open does not know this version's messages, or this version not its.
    VaultOwnerVersion = 5052, false, "Restart the process that has the vault open with the same version as this one.";

    // ---- the command
    /// The configuration is wrong.
    Config = 6001, false, "Correct the key that the message names; `skytale config print` shows what is in force.";
    /// A file or address cannot be used.
    Environment = 6002, false, "Correct what the message names.";
    /// A promise of the log did not hold.
    Mismatch = 6003, false, "Keep the data folder and report it.";
    /// The command was used in a way that it does not know.
    Usage = 6004, false, "See `--help`.";
    /// A file that holds a secret can be read by other users of the machine.
    SecretReadable = 6005, false, "Take the rights of others away: the message names the command.";
    /// The keeper's NATS key may not do what a keeper does, or may do what it must not.
    KeeperRights = 6006, false, "Give the keeper the key that `skytale fleet nats` made for it, and the servers their accounts.conf.";

    // ---- the bridge
    /// A link that did not begin with a usable negotiation, or not in time.
    LinkNegotiation = 7001, false, "Use a SLIM client of version 3 or later; it negotiates the link by itself.";
    /// A message on a link without its header MAC, or with a wrong one.
    LinkMac = 7002, false, "Something changed the message on the way, or the client is broken; connect again.";
    /// A name that the account may not use.
    NameRefused = 7003, false, "Ask the bridge's operator to allow the name for this account.";
    /// A message on a link that is not of SLIM's data plane.
    LinkMessage = 7004, false, "The client does not speak SLIM's data plane; upgrade it.";
    /// The bridge, or the account, has as many links as it may.
    LinksFull = 7005, true, "Close links that are no longer used, or try again later.";
    /// The link has as many subscriptions as it may.
    SubscriptionsFull = 7006, false, "Use fewer names on one link, or a second link.";
    /// No credential, or one that the bridge does not take.
    BridgeUnauthorized = 7007, false, "Give a client certificate, a bearer token or an API key that the bridge takes.";
    /// The relay did not take a channel's subscription in time.
    LogUnreachable = 7008, true, "The bridge has no relay node to work with; try again.";
    /// The bridge is about to stop.
    BridgeStopping = 7009, true, "Connect again; another bridge of the account serves the same channels.";
}

impl Code {
    /// The number.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether an append stream that refused a frame with this takes no later frame of the same log: trying again can
    /// help, and it is not the log that said no. A refusal by the log keeps an author's order by itself: the frames
    /// behind a stale one are stale, too.
    pub const fn holds_log(self) -> bool {
        self.is_retryable()
            && !matches!(
                self,
                Self::StaleHandshake | Self::StaleEpoch | Self::KeyPackagesExhausted
            )
    }
}

/// Serializes the code as its number.
impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.number())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        Self::from_number(number).ok_or_else(|| serde::de::Error::custom(format!("unknown error code {number}")))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SKY-{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_number_of_its_own_and_a_sentence_of_help() {
        let mut numbers: Vec<u32> = Code::ALL.iter().map(|code| code.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(*code));
            assert!(code.help().ends_with('.'), "{code}");
        }
    }

    #[test]
    fn what_the_log_says_and_what_no_retry_mends_hold_no_log() {
        for code in [
            Code::RelayInternal,
            Code::StoreStopped,
            Code::StoreFull,
            Code::HomeUnreachable,
            Code::CatchingUp,
            Code::RateLimited,
            Code::AccountRateLimited,
            Code::AccountStored,
            Code::Draining,
        ] {
            assert!(code.holds_log(), "{code}");
        }
        for code in [
            Code::StaleEpoch,
            Code::StaleHandshake,
            Code::NotMember,
            Code::FrameTooLarge,
            Code::AccountChannels,
        ] {
            assert!(!code.holds_log(), "{code}");
        }
    }
}
