//! `/v1/nonce` and `/v1/token`: a proof of possession, and the token for it.

use super::keys::still_in_force;
use super::relays;
use crate::audit::{Action, Actor, Series, Target};
use crate::auth::{Caller, KeyScope};
use crate::directory::Asking;
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Body, Meta, too_many_made};
use crate::service::{Inner, Service};
use crate::store::nonces::NonceOf;
use crate::store::{Write, accounts, agents, nonces};
use axum::Json;
use axum::extract::State;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, VerifyingKey};
use skytale_proto::limits::TOKEN_SCOPES_MAX;
use skytale_proto::rest::{NonceRequest, NonceResponse, TokenRequest, TokenResponse, proof_message};
use skytale_proto::token::{Claims, Confirmation, Scope};
use skytale_proto::{AgentId, Code};
use std::time::Duration;
use uuid::Uuid;

/// Nonces of one account that wait for their proof.
const NONCES_MAX: u32 = 10_000;
const NONCES_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Gives a nonce for an agent's proof.
///
/// It is good once, for this agent, for a minute. `POST /v1/token` says what to sign.
#[utoipa::path(
    post,
    path = "/v1/nonce",
    tag = "tokens",
    operation_id = "create_nonce",
    request_body = NonceRequest,
    security(("api_key" = [])),
    responses((status = 200, description = "A nonce, to be used once.", body = NonceResponse), Refusals)
)]
pub(super) async fn nonce(
    State(service): State<Service>,
    caller: Caller,
    Body(request): Body<NonceRequest>,
) -> Result<Json<NonceResponse>, Refusal> {
    // A key that gives no tokens needs no nonce, and takes none of the account's.
    may_give_tokens(&caller)?;
    let inner = service.inner();
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce)?;
    let now_s = inner.now_s();
    let expires_s = now_s + inner.config.limits.nonce_lifetime.as_secs();
    let of = NonceOf {
        nonce: &nonce,
        account: caller.account,
        agent: request.agent,
    };
    let mut write = inner.store.write().await?;
    if nonces::count(&mut write, caller.account, now_s, NONCES_MAX).await? >= u64::from(NONCES_MAX) {
        let refusal = Refusal::new(Code::ApiRateLimited, "too many nonces wait for their proof");
        return Err(refusal.retry_after(NONCES_RETRY_AFTER));
    }
    nonces::insert(&mut write, of, expires_s).await?;
    write.commit().await?;
    Ok(Json(NonceResponse {
        nonce: HEXLOWER.encode(&nonce),
        expires_s,
    }))
}

/// Gives a token, for an API key and an agent's signature over a nonce.
///
/// The first time it binds the agent to the account. A token is good on one iroh endpoint alone, and for an hour at most.
///
/// The agent signs these 117 bytes with its Ed25519 identity key (RFC 8032, without a context and without hashing first):
///
/// | bytes | what |
/// |---|---|
/// | 21 | `skytale token proof 1`, ASCII |
/// | 32 | the nonce of `POST /v1/nonce`, decoded from hex |
/// | 32 | the agent id: the public key of the identity key |
/// | 32 | the endpoint id: the public key of the endpoint that will show the token to relay nodes |
///
/// A test vector. The seed (the secret key of RFC 8032) of the agent is 32 bytes of `01`, that of the endpoint 32 bytes of
/// `02`, and the nonce is 32 bytes of `03`:
///
/// | field | value |
/// |---|---|
/// | `agent` | `8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c` |
/// | `endpoint` | `8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394` |
/// | `nonce` | `0303030303030303030303030303030303030303030303030303030303030303` |
/// | signed bytes | `736b7974616c6520746f6b656e2070726f6f662031` then `nonce`, `agent` and `endpoint` |
/// | `signature` | `2694780c1729ad0426088f525b7df8d8a719f71b33db848cc365409f77233c43714bd1a26f487f92c2c5bd974393b98b76910ac608172c2bb54f768009addf04` |
#[utoipa::path(
    post,
    path = "/v1/token",
    tag = "tokens",
    operation_id = "create_token",
    request_body = TokenRequest,
    security(("api_key" = [])),
    responses((status = 200, description = "The token, and where to use it.", body = TokenResponse), Refusals)
)]
pub(super) async fn token(
    State(service): State<Service>,
    caller: Caller,
    meta: Meta,
    Body(request): Body<TokenRequest>,
) -> Result<Json<TokenResponse>, Refusal> {
    let inner = service.inner();
    let scopes = scopes(&caller, &request.scopes)?;
    let given = give(inner, &caller, &meta, &request, &scopes).await;
    if let Err(refusal) = &given
        && is_about_the_agent(refusal.code)
        && inner.rates.refusal(caller.account)
    {
        // The transaction that refused was rolled back; that it refused is a fact of its own.
        let mut write = inner.store.write().await?;
        let action = of(&caller, "token.refuse", request.agent, Some(refusal.code));
        let action = action.counted(Series::OfCode);
        action.record(&mut write, &meta, inner.now_s()).await?;
        write.commit().await?;
    }
    given.map(Json)
}

async fn give(
    inner: &Inner,
    caller: &Caller,
    meta: &Meta,
    request: &TokenRequest,
    scopes: &[Scope],
) -> Result<TokenResponse, Refusal> {
    let nonce = nonce_of(&request.nonce)?;
    // Before anything is written: a request without a proof costs a signature check and no more.
    check_proof(request, &nonce)?;
    let now_s = inner.now_s();
    let signer = inner.ring.view(now_s).await?.signer;
    let mut write = inner.store.write().await?;
    still_in_force(&mut write, caller, now_s).await?;
    let of_nonce = NonceOf {
        nonce: &nonce,
        account: caller.account,
        agent: request.agent,
    };
    if !nonces::take(&mut write, of_nonce, now_s).await? {
        return Err(Refusal::new(
            Code::NonceInvalid,
            "the nonce is unknown, used, too old, or another agent's",
        ));
    }
    bind(inner, &mut write, caller, meta, request.agent, now_s).await?;
    of(caller, "token.issue", request.agent, None)
        .counted(Series::OfTarget)
        .record(&mut write, meta, now_s)
        .await?;
    let asking = Asking::new(request.region, inner.config.region, request.agent.as_bytes());
    let relays = relays::known(inner, &mut write, asking).await?;
    write.commit().await?;
    let ends_s = now_s + inner.config.token_lifetime.as_secs();
    // A token does not outlive the key it is for; that one is in force, so this is after now.
    let expires_s = caller.expires_s.map_or(ends_s, |key_ends_s| key_ends_s.min(ends_s));
    let token = signer.sign(&Claims {
        iss: inner.config.url.clone(),
        aud: inner.config.audience.clone(),
        sub: request.agent,
        acct: caller.account,
        key: caller.key,
        scope: Claims::join_scopes(scopes),
        cnf: Confirmation { eid: request.endpoint },
        exp: expires_s,
        iat: now_s,
        jti: Uuid::now_v7().to_string(),
    });
    Ok(TokenResponse {
        token,
        expires_s,
        relays,
    })
}

/// The agent is this account's, from now on if it was nobody's; and it has not ended.
async fn bind(
    inner: &Inner,
    write: &mut Write,
    caller: &Caller,
    meta: &Meta,
    agent: AgentId,
    now_s: u64,
) -> Result<(), Refusal> {
    if agents::bind(write, caller.account, agent, now_s).await? {
        accounts::lock(write, caller.account).await?;
        let most = u64::from(inner.config.limits.agents_max);
        if agents::count(write, caller.account).await? > most {
            return Err(Refusal::new(Code::AgentQuota, format!("the account has {most} agents")));
        }
        inner.rates.creation(caller.account).map_err(too_many_made)?;
        return Ok(of(caller, "agent.bind", agent, None).record(write, meta, now_s).await?);
    }
    let bound = agents::get(write, agent).await?;
    if bound.is_none_or(|bound| bound.account != caller.account) {
        return Err(Refusal::new(Code::AgentTaken, "the agent belongs to another account"));
    }
    if !agents::seen(write, agent, now_s).await? {
        return Err(Refusal::new(Code::AgentEnded, "the account ended this agent"));
    }
    Ok(())
}

/// The scopes of tokens that a key may give.
fn may_give_tokens(caller: &Caller) -> Result<Vec<Scope>, Refusal> {
    let own = caller.scopes.for_tokens();
    if own.is_empty() {
        return Err(Refusal::new(Code::KeyScope, "the API key may give out no tokens"));
    }
    Ok(own)
}

/// The scopes of the token: those asked for, if the key may give them, or all that it may give.
fn scopes(caller: &Caller, asked: &[String]) -> Result<Vec<Scope>, Refusal> {
    let own = may_give_tokens(caller)?;
    if asked.is_empty() {
        return Ok(own);
    }
    if asked.len() > TOKEN_SCOPES_MAX {
        return Err(Refusal::new(
            Code::BadRequest,
            format!("{TOKEN_SCOPES_MAX} scopes at most"),
        ));
    }
    let mut scopes = Vec::with_capacity(asked.len());
    for text in asked {
        let scope: Scope = text
            .parse()
            .map_err(|error: skytale_proto::token::ScopeError| Refusal::new(Code::BadRequest, error.to_string()))?;
        super::keys::need(caller, KeyScope::Token(scope))?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(scopes)
}

fn nonce_of(text: &str) -> Result<[u8; 32], Refusal> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Refusal::new(Code::BadRequest, "`nonce` must be 64 hex digits"))
}

/// The signature is the agent's, over this nonce, for this endpoint. Strict: no weak keys, one form of a signature.
fn check_proof(request: &TokenRequest, nonce: &[u8; 32]) -> Result<(), Refusal> {
    let bytes = HEXLOWER_PERMISSIVE.decode(request.signature.as_bytes()).ok();
    let signature: [u8; 64] = bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Refusal::new(Code::BadRequest, "`signature` must be 128 hex digits"))?;
    let message = proof_message(nonce, &request.agent, &request.endpoint);
    let invalid = |_| Refusal::new(Code::ProofInvalid, "the signature over the nonce does not verify");
    let key = VerifyingKey::from_bytes(request.agent.as_bytes()).map_err(invalid)?;
    key.verify_strict(&message, &Signature::from_bytes(&signature))
        .map_err(invalid)
}

fn is_about_the_agent(code: Code) -> bool {
    matches!(
        code,
        Code::ProofInvalid | Code::NonceInvalid | Code::AgentTaken | Code::AgentEnded | Code::AgentQuota
    )
}

fn of(caller: &Caller, name: &'static str, agent: AgentId, code: Option<Code>) -> Action<'static> {
    Action {
        account: Some(caller.account),
        actor: Actor::Key(caller.key),
        name,
        target: Target::Agent(agent),
        code,
        counted: Series::Single,
    }
}
