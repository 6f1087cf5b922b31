//! The newest token and the newest list of relay nodes, kept in the vault for a time when nobody gives out others.

use super::core::Core;
use crate::event::Event;
use crate::net::{Relay, Token, TokenError, TokenProvider, TokenSource, TokenSubject};
use parking_lot::Mutex;
use skytale_proto::{AccountId, Code, Region, rest};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

/// A token with less life than this left is not used for another session, where another one can be had.
const LIFE_MIN: Duration = Duration::from_secs(30);
/// A token with less life than this left is not used at all.
const LIFE_LAST: Duration = Duration::from_secs(2);
/// How long the provider may take where there is a token to go on with.
const PATIENCE: Duration = Duration::from_secs(2);
/// The provider is not asked once more within this time for the sake of a newer list alone.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Relay nodes of a directory that are kept.
const RELAYS_MAX: usize = 64;

/// Where they are in the vault. Persisted: keep stable.
const TOKEN: &str = "relay_token";
pub(super) const RELAYS: &str = "relays";

/// Asks the provider, and remembers what it gave. Sessions ask through this, too, and keep what they get on the way
/// for the next one.
pub(super) struct Tokens {
    core: Arc<Core>,
    provider: TokenSource,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// When the provider was asked last, since the agent was connected.
    asked: Option<Instant>,
    /// The token was given since then, and has not been refused.
    fresh: bool,
    relays: Vec<rest::Relay>,
    /// The account that the vault knows.
    account: Option<AccountId>,
}

impl Tokens {
    pub(super) fn new(core: Arc<Core>, provider: TokenSource) -> Self {
        Self {
            core,
            provider,
            held: Mutex::default(),
        }
    }

    /// Takes up what the vault has.
    pub(super) async fn load(&self) {
        let kept = self
            .core
            .try_call(|actor| Ok((actor.engine.kept(TOKEN)?, actor.engine.kept(RELAYS)?)));
        match kept.await {
            Ok((token, relays)) => {
                let mut held = self.held.lock();
                held.token = token.and_then(|bytes| decode_token(&bytes));
                held.relays = relays.and_then(|bytes| decode_relays(&bytes)).unwrap_or_default();
            }
            Err(error) => self.tell(error.code(), error.to_string()),
        }
    }

    /// A token to begin a session with. The provider is asked where there is none yet since the agent was connected, where
    /// the one there is ends soon, and with `fresh`: the list of relay nodes may be an old one. Where it does not answer, or
    /// not soon, the token that there is will do.
    pub(super) async fn ready(&self, subject: &TokenSubject, fresh: bool) -> Result<Token, TokenError> {
        let token = self.any(subject, fresh).await?;
        self.note_account(&token).await;
        Ok(token)
    }

    /// The agent's account goes into what it appends: the vault has it before there is a session.
    async fn note_account(&self, token: &Token) {
        let Some(account) = token.account() else { return };
        if self.held.lock().account.replace(account) == Some(account) {
            return;
        }
        let noted = self.core.try_call(move |actor| actor.engine.set_account(account));
        if let Err(error) = noted.await
            && error.code() != Code::Closed
        {
            self.held.lock().account = None;
            self.tell(error.code(), error.to_string());
        }
    }

    async fn any(&self, subject: &TokenSubject, fresh: bool) -> Result<Token, TokenError> {
        let (held, asked) = {
            let held = self.held.lock();
            (held.token.clone(), held.asked)
        };
        let stale = asked.is_none_or(|at| fresh && at.elapsed() >= ASK_AGAIN);
        if !stale && let Some(token) = held.clone().filter(|token| token.remaining() >= LIFE_MIN) {
            return Ok(token);
        }
        let Some(token) = held.filter(|token| token.remaining() >= LIFE_LAST) else {
            return self.ask(subject).await;
        };
        match timeout(PATIENCE, self.ask(subject)).await {
            Ok(Err(error)) if error.is_retryable() => {
                tracing::debug!(code = %error.code(), %error, "no new token, going on with the one there is");
                Ok(token)
            }
            Ok(answer) => answer,
            Err(_) => {
                tracing::debug!("no new token in time, going on with the one there is");
                Ok(token)
            }
        }
    }

    /// The relay nodes of the newest list that had any; those that cannot be used are left out.
    pub(super) fn relays(&self) -> Vec<Relay> {
        let usable = |relay: &rest::Relay| match Relay::from_directory(relay) {
            Ok(relay) => Some(relay),
            Err(error) => {
                tracing::warn!(%error, "relay directory entry not usable");
                None
            }
        };
        self.held.lock().relays.iter().filter_map(usable).collect()
    }

    /// The token that there is was refused: the provider is asked before the next session. Where it does not answer, the same
    /// one is tried again, since it may be the relay node that was wrong.
    pub(super) fn refused(&self) {
        let mut held = self.held.lock();
        held.asked = None;
        held.fresh = false;
    }

    /// Whether the token that there is was given since the agent was connected, and since one was refused last.
    pub(super) fn is_fresh(&self) -> bool {
        self.held.lock().fresh
    }

    async fn ask(&self, subject: &TokenSubject) -> Result<Token, TokenError> {
        // Also where no answer comes: the provider is not to be asked all the time.
        self.held.lock().asked = Some(Instant::now());
        let token = self.provider.token(subject).await?;
        self.take(&token).await;
        Ok(token)
    }

    async fn take(&self, token: &Token) {
        let relays: Vec<rest::Relay> = token.relays().iter().take(RELAYS_MAX).cloned().collect();
        let new_list = {
            let mut held = self.held.lock();
            held.token = Some(token.clone());
            held.fresh = true;
            let new_list = !relays.is_empty() && relays != held.relays;
            if new_list {
                held.relays.clone_from(&relays);
            }
            new_list
        };
        self.keep(TOKEN, encode_token(token)).await;
        if new_list && let Ok(bytes) = serde_json::to_vec(&relays) {
            self.keep(RELAYS, Zeroizing::new(bytes)).await;
        }
    }

    async fn keep(&self, name: &'static str, value: Zeroizing<Vec<u8>>) {
        let kept = self.core.try_call(move |actor| actor.engine.keep(name, &value));
        if let Err(error) = kept.await
            && error.code() != Code::Closed
        {
            self.tell(error.code(), error.to_string());
        }
    }

    fn tell(&self, code: Code, reason: String) {
        self.core.bus.tell(Event::VaultFailed { code, reason });
    }
}

impl TokenProvider for Tokens {
    async fn token(&self, subject: &TokenSubject) -> Result<Token, TokenError> {
        self.ask(subject).await
    }
}

/// Its end, unix seconds, u64 big-endian; its text.
fn encode_token(token: &Token) -> Zeroizing<Vec<u8>> {
    let text = token.expose().as_bytes();
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 + text.len()));
    bytes.extend_from_slice(&token.expires_s().to_be_bytes());
    bytes.extend_from_slice(text);
    bytes
}

/// What cannot be read is none: another one can be had.
fn decode_token(bytes: &[u8]) -> Option<Token> {
    let (expires_s, text) = bytes.split_first_chunk::<8>()?;
    let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?;
    Some(Token::new(text, u64::from_be_bytes(*expires_s)))
}

/// The region of the relay node that was named nearest, from what is kept under [`RELAYS`].
pub(super) fn nearest_region(kept: Option<Zeroizing<Vec<u8>>>) -> Option<Region> {
    let relays = decode_relays(&kept?)?;
    relays.first().map(|relay| Region(relay.region))
}

fn decode_relays(bytes: &[u8]) -> Option<Vec<rest::Relay>> {
    let mut relays: Vec<rest::Relay> = serde_json::from_slice(bytes).ok()?;
    relays.truncate(RELAYS_MAX);
    Some(relays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_kept_and_what_is_none_is_not_taken_for_one() {
        let token = Token::new("header.claims.signature", 1_900_000_000);
        let read = decode_token(&encode_token(&token)).expect("a token");
        assert_eq!((read.expose(), read.expires_s()), (token.expose(), token.expires_s()));
        for wrong in [&b""[..], &[0; 7], &[0; 8], &[0, 0, 0, 0, 0, 0, 0, 0, 0xff]] {
            assert!(decode_token(wrong).is_none(), "{wrong:?}");
        }
        assert!(decode_relays(b"{}").is_none());
    }
}
