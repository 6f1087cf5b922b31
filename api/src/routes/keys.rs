//! `/v1/keys`: API keys.

use crate::audit::{Action, Actor, Series, Target};
use crate::auth::{Asking, Caller, KeyScope, KeyScopes, NewKey};
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Body, Meta, Page, Params, Path, too_many_made};
use crate::service::{Inner, Service};
use crate::store::keys::{self, StoredKey};
use crate::store::{Write, accounts, revocations};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use secrecy::ExposeSecret as _;
use skytale_proto::limits::TOKEN_SCOPES_MAX;
use skytale_proto::rest::{CreateKey, CreatedKey, Keys, LABEL_CHARS_MAX};
use skytale_proto::{Code, KeyId};

/// Refuses what the key may not do.
pub(super) fn need(caller: &Caller, scope: KeyScope) -> Result<(), Refusal> {
    if caller.scopes.allows(&scope) {
        return Ok(());
    }
    Err(Refusal::new(Code::KeyScope, format!("the API key lacks `{scope}`")))
}

/// Refuses when the key that asks was revoked since it was checked. Within the transaction that acts for it.
pub(super) async fn still_in_force(write: &mut Write, caller: &Caller, now_s: u64) -> Result<(), Refusal> {
    if keys::lock_in_force(write, caller.key, now_s).await? {
        return Ok(());
    }
    Err(Refusal::new(Code::KeyRevoked, "the API key was revoked"))
}

/// Makes an API key. Needs `keys:write`, and every scope that the new key is to have.
#[utoipa::path(
    post,
    path = "/v1/keys",
    tag = "keys",
    operation_id = "create_key",
    request_body = CreateKey,
    security(("api_key" = [])),
    responses(
        (status = 201, description = "The key. Its text is shown here and never again.", body = CreatedKey),
        Refusals
    )
)]
pub(super) async fn create(
    State(service): State<Service>,
    caller: Caller,
    meta: Meta,
    Body(request): Body<CreateKey>,
) -> Result<(StatusCode, Json<CreatedKey>), Refusal> {
    need(&caller, KeyScope::KeysWrite)?;
    let inner = service.inner();
    let scopes = check(&caller, &request, inner.now_s())?;
    // Before a hash is computed for nothing; and again below, where nobody comes between.
    let in_force = keys::count_in_force(&mut *inner.store.read().await?, caller.account, inner.now_s()).await?;
    within_quota(inner, in_force)?;
    inner.rates.creation(caller.account).map_err(too_many_made)?;
    let new = NewKey::generate()?;
    let hash = inner
        .hasher
        .hash(Asking::known(Some(caller.account)), new.secret())
        .await?;
    let now_s = inner.now_s();
    let key = StoredKey {
        id: new.id,
        account: caller.account,
        label: request.label,
        scopes,
        hash,
        created_s: now_s,
        expires_s: request.expires_s,
        revoked_s: None,
    };
    let mut write = inner.store.write().await?;
    still_in_force(&mut write, &caller, now_s).await?;
    accounts::lock(&mut write, caller.account).await?;
    within_quota(inner, keys::count_in_force(&mut write, caller.account, now_s).await?)?;
    keys::insert(&mut write, &key).await?;
    let action = Action {
        account: Some(caller.account),
        actor: Actor::Key(caller.key),
        name: "key.create",
        target: Target::Key(key.id),
        code: None,
        counted: Series::Single,
    };
    action.record(&mut write, &meta, now_s).await?;
    write.commit().await?;
    let created = CreatedKey {
        secret: new.text.expose_secret().to_owned(),
        key: key.shown(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

fn within_quota(inner: &Inner, in_force: u64) -> Result<(), Refusal> {
    let most = u64::from(inner.config.limits.keys_max);
    if in_force >= most {
        return Err(Refusal::new(
            Code::KeyQuota,
            format!("the account has {most} API keys in force"),
        ));
    }
    Ok(())
}

/// Refuses a text that is no label.
pub(super) fn check_label(label: &str) -> Result<(), Refusal> {
    let chars = label.chars().count();
    if chars == 0 || chars > LABEL_CHARS_MAX || label.chars().any(char::is_control) {
        return Err(Refusal::new(
            Code::BadRequest,
            format!("`label` must have 1 to {LABEL_CHARS_MAX} characters, none of them control characters"),
        ));
    }
    Ok(())
}

/// The scopes of a key that is asked for, if the caller may make it: with no scope that the caller has not, and
/// for no longer.
fn check(caller: &Caller, request: &CreateKey, now_s: u64) -> Result<KeyScopes, Refusal> {
    let bad = |detail: String| Refusal::new(Code::BadRequest, detail);
    check_label(&request.label)?;
    if request.scopes.len() > TOKEN_SCOPES_MAX {
        return Err(bad(format!("{TOKEN_SCOPES_MAX} scopes at most")));
    }
    let scopes =
        KeyScopes::from_texts(request.scopes.iter().map(String::as_str)).map_err(|error| bad(error.to_string()))?;
    if let Some(lacking) = caller.scopes.lacks(&scopes) {
        return Err(Refusal::new(
            Code::KeyScope,
            format!("a key cannot give `{lacking}`, which it has not"),
        ));
    }
    if request
        .expires_s
        .is_some_and(|expires_s| expires_s <= now_s || i64::try_from(expires_s).is_err())
    {
        return Err(bad("`expires_s` must be in the future".to_owned()));
    }
    let outlives = |own: u64| request.expires_s.is_none_or(|expires_s| expires_s > own);
    if caller.expires_s.is_some_and(outlives) {
        return Err(Refusal::new(Code::KeyScope, "a key cannot make one that outlives it"));
    }
    Ok(scopes)
}

/// Lists the account's API keys. Needs `keys:write`.
#[utoipa::path(
    get,
    path = "/v1/keys",
    tag = "keys",
    operation_id = "list_keys",
    params(Page<KeyId>),
    security(("api_key" = [])),
    responses((status = 200, description = "A page of keys.", body = Keys), Refusals)
)]
pub(super) async fn list(
    State(service): State<Service>,
    caller: Caller,
    Params(page): Params<Page<KeyId>>,
) -> Result<Json<Keys>, Refusal> {
    need(&caller, KeyScope::KeysWrite)?;
    let ask = page.ask()?;
    let page = keys::list(&mut *service.inner().store.read().await?, caller.account, &ask).await?;
    Ok(Json(Keys {
        keys: page.rows.iter().map(StoredKey::shown).collect(),
        next: page.next,
    }))
}

/// Revokes an API key, for good: it is refused from now on, and relay nodes end its sessions. Needs `keys:write`.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    tag = "keys",
    operation_id = "revoke_key",
    params(("id" = KeyId, Path, description = "The key.")),
    security(("api_key" = [])),
    responses((status = 204, description = "It is revoked, now or before."), Refusals)
)]
pub(super) async fn revoke(
    State(service): State<Service>,
    caller: Caller,
    meta: Meta,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    need(&caller, KeyScope::KeysWrite)?;
    let id: KeyId = id.parse().map_err(|_| Refusal::not_found("API key"))?;
    let inner = service.inner();
    let now_s = inner.now_s();
    let mut write = inner.store.write().await?;
    still_in_force(&mut write, &caller, now_s).await?;
    if keys::revoke(&mut write, caller.account, id, now_s).await? {
        revocations::add_key(&mut write, id, now_s).await?;
        let action = Action {
            account: Some(caller.account),
            actor: Actor::Key(caller.key),
            name: "key.revoke",
            target: Target::Key(id),
            code: None,
            counted: Series::Single,
        };
        action.record(&mut write, &meta, now_s).await?;
        write.commit().await?;
        inner.verified.forget(id);
        return Ok(StatusCode::NO_CONTENT);
    }
    match keys::get(&mut write, id).await? {
        Some(key) if key.account == caller.account => Ok(StatusCode::NO_CONTENT),
        _ => Err(Refusal::not_found("API key")),
    }
}
