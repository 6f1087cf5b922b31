//! The newest token and list of relay nodes, stored in the vault for times when the provider is unavailable.

use super::core::Core;
use crate::event::Event;
use crate::net::{Relay, Token, TokenError, TokenProvider, TokenSource, TokenSubject};
use parking_lot::Mutex;
use skytale_proto::{AccountId, Code, Region, rest};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

/// Remaining life below which a token is not used for another session if a new one is available.
const LIFE_MIN: Duration = Duration::from_secs(30);
/// Remaining life below which a token is not used at all.
const LIFE_LAST: Duration = Duration::from_secs(2);
/// Longest wait for the provider if there is a usable token.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shortest interval between two requests that are only for a newer list.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Maximum number of stored relay nodes of a directory.
const RELAYS_MAX: usize = 64;

/// Names of the values in the vault. Persisted: keep stable.
const TOKEN: &str = "relay_token";
pub(super) const RELAYS: &str = "relays";

/// Requests tokens from the provider, and remembers them. Sessions use it, too, so their new tokens are kept for the
/// next session.
pub(super) struct Tokens {
    core: Arc<Core>,
    provider: TokenSource,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// Time of the last request to the provider, since the agent was connected.
    asked: Option<Instant>,
    /// Whether the token was received since then, and has not been refused.
    fresh: bool,
    relays: Vec<rest::Relay>,
    /// The account stored in the vault.
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

    /// Loads the stored values from the vault.
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

    /// Returns a token to start a session with. Requests a new one if there was none since the agent was connected, or
    /// if the present one expires soon. `fresh` also requests one, since the list of relay nodes may be outdated. If
    /// the provider does not answer soon, the present token is used.
    pub(super) async fn ready(&self, subject: &TokenSubject, fresh: bool) -> Result<Token, TokenError> {
        let token = self.any(subject, fresh).await?;
        self.note_account(&token).await;
        Ok(token)
    }

    /// Stores the agent's account, which goes into its frames, before there is a session.
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

    /// Returns the relay nodes of the newest nonempty list, without unusable ones.
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

    /// Handles a refusal of the present token: a new one is requested before the next session. If the provider does not
    /// answer, the same token is tried again, since the relay node may have been wrong.
    pub(super) fn refused(&self) {
        let mut held = self.held.lock();
        held.asked = None;
        held.fresh = false;
    }

    /// Whether the present token was received since the agent was connected, and since the last refusal of a token.
    pub(super) fn is_fresh(&self) -> bool {
        self.held.lock().fresh
    }

    async fn ask(&self, subject: &TokenSubject) -> Result<Token, TokenError> {
        // Even if there is no answer: limits the requests to the provider.
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

/// Encodes a token: its expiry, unix seconds, u64 big-endian; then its text.
fn encode_token(token: &Token) -> Zeroizing<Vec<u8>> {
    let text = token.expose().as_bytes();
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 + text.len()));
    bytes.extend_from_slice(&token.expires_s().to_be_bytes());
    bytes.extend_from_slice(text);
    bytes
}

/// Decodes a token; `None` if it is unreadable, since a new one can be requested.
fn decode_token(bytes: &[u8]) -> Option<Token> {
    let (expires_s, text) = bytes.split_first_chunk::<8>()?;
    let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?;
    Some(Token::new(text, u64::from_be_bytes(*expires_s)))
}

/// Returns the region of the relay node listed as nearest, from the value stored under [`RELAYS`].
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
