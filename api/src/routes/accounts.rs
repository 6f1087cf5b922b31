//! `POST /v1/accounts`.

use crate::audit::{Action, Actor, Target};
use crate::auth::{KeyScopes, NewKey};
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Body, Meta, Operator};
use crate::service::Service;
use crate::store::keys::StoredKey;
use crate::store::{accounts, keys};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use secrecy::ExposeSecret as _;
use skytale_proto::rest::{CreateAccount, CreatedAccount, CreatedKey};
use skytale_proto::{AccountId, Code};

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
    let new = NewKey::generate()?;
    let hash = inner.hasher.hash(new.secret()).await?;
    let now_s = inner.now_s();
    let account = AccountId::generate();
    let key = StoredKey {
        id: new.id,
        account,
        label: "first".to_owned(),
        scopes: KeyScopes::all(),
        hash,
        created_s: now_s,
        expires_s: None,
        revoked_s: None,
    };
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
