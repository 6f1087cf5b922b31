//! `/v1/accounts`: what the operator does.

use crate::asker::Operator;
use crate::audit::{Action, Actor, Series, Target};
use crate::auth::{Asking, KeyScopes, NewKey};
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Body, Meta, Path};
use crate::service::{Inner, Service};
use crate::store::keys::StoredKey;
use crate::store::{accounts, keys};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use secrecy::ExposeSecret as _;
use skytale_proto::rest::{CreateAccount, CreatedAccount, CreatedKey};
use skytale_proto::{AccountId, Code, KeyId};

/// Makes an account, with its first API key.
#[utoipa::path(
    post,
    path = "/v1/accounts",
    tag = "accounts",
    operation_id = "create_account",
    request_body = CreateAccount,
    security(("operator" = [])),
    responses(
        (status = 201, description = "The account. Its key is shown here and never again.", body = CreatedAccount),
        Refusals
    )
)]
pub(super) async fn create(
    State(service): State<Service>,
    _: Operator,
    meta: Meta,
    Body(request): Body<CreateAccount>,
) -> Result<(StatusCode, Json<CreatedAccount>), Refusal> {
    let inner = service.inner();
    let account = AccountId::generate();
    let (new, key) = whole_key(inner, account, "first").await?;
    let now_s = key.created_s;
    let mut write = inner.store.write().await?;
    accounts::insert(&mut write, account, &request.org, now_s)
        .await
        .map_err(|error| {
            if error.is_taken() {
                Refusal::new(Code::Conflict, "an account with this org exists")
            } else {
                error.into()
            }
        })?;
    keys::insert(&mut write, &key).await?;
    for (name, target) in [
        ("account.create", Target::Account(account)),
        ("key.create", Target::Key(key.id)),
    ] {
        let action = Action {
            account: Some(account),
            actor: Actor::Operator,
            name,
            target,
            code: None,
            counted: Series::Single,
        };
        action.record(&mut write, &meta, now_s).await?;
    }
    write.commit().await?;
    let created = CreatedAccount {
        account,
        org: request.org,
        key: CreatedKey {
            secret: new.text.expose_secret().to_owned(),
            key: key.shown(),
        },
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Makes an API key with every scope for an account that is there: for one that lost its last key.
#[utoipa::path(
    post,
    path = "/v1/accounts/{id}/keys",
    tag = "accounts",
    operation_id = "create_account_key",
    params(("id" = AccountId, Path, description = "The account.")),
    security(("operator" = [])),
    responses(
        (status = 201, description = "The key. Its text is shown here and never again.", body = CreatedKey),
        Refusals
    )
)]
pub(super) async fn create_key(
    State(service): State<Service>,
    _: Operator,
    meta: Meta,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<CreatedKey>), Refusal> {
    let missing = || Refusal::new(Code::NotFound, "no such account");
    let account: AccountId = id.parse().map_err(|_| missing())?;
    let inner = service.inner();
    // Before a hash is computed for nobody.
    accounts::org(&mut *inner.store.read().await?, account)
        .await?
        .ok_or_else(missing)?;
    let (new, key) = whole_key(inner, account, "by the operator").await?;
    let mut write = inner.store.write().await?;
    keys::insert(&mut write, &key).await?;
    let action = Action {
        account: Some(account),
        actor: Actor::Operator,
        name: "key.create",
        target: Target::Key(key.id),
        code: None,
        counted: Series::Single,
    };
    action.record(&mut write, &meta, key.created_s).await?;
    write.commit().await?;
    let created = CreatedKey {
        secret: new.text.expose_secret().to_owned(),
        key: key.shown(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// A new key with every scope.
async fn whole_key(inner: &Inner, account: AccountId, label: &str) -> Result<(NewKey<KeyId>, StoredKey), Refusal> {
    let new = NewKey::generate()?;
    let hash = inner.hasher.hash(Asking::known(Some(account)), new.secret()).await?;
    let key = StoredKey {
        id: new.id,
        account,
        label: label.to_owned(),
        scopes: KeyScopes::all(),
        hash,
        created_s: inner.now_s(),
        expires_s: None,
        revoked_s: None,
    };
    Ok((new, key))
}
