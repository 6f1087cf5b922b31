//! `/v1/enrolments`: which relay nodes belong to the fleet.

use super::keys::check_label;
use crate::asker::Operator;
use crate::audit::{Action, Actor, Series, Target};
use crate::auth::{Asking, NewKey};
use crate::openapi::Refusals;
use crate::problem::Refusal;
use crate::request::{Body, Meta, Page, Params, Path};
use crate::service::Service;
use crate::store::{enrolments, fleet};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use secrecy::ExposeSecret as _;
use skytale_proto::rest::{CreateEnrolment, CreatedEnrolment, Enrolment, Enrolments};
use skytale_proto::{Code, EnrolmentId};

/// Lets one more relay node into the fleet: makes the key that it shows.
#[utoipa::path(
    post,
    path = "/v1/enrolments",
    tag = "relays",
    operation_id = "create_enrolment",
    request_body = CreateEnrolment,
    security(("operator" = [])),
    responses(
        (status = 201, description = "The enrolment. Its key is shown here and never again.", body = CreatedEnrolment),
        Refusals
    )
)]
pub(super) async fn create(
    State(service): State<Service>,
    _: Operator,
    meta: Meta,
    Body(request): Body<CreateEnrolment>,
) -> Result<(StatusCode, Json<CreatedEnrolment>), Refusal> {
    check_label(&request.label)?;
    let inner = service.inner();
    let new = NewKey::<EnrolmentId>::generate()?;
    let hash = inner.hasher.hash(Asking::known(None), new.secret()).await?;
    let enrolment = Enrolment {
        id: new.id,
        label: request.label,
        endpoint: request.endpoint,
        created_s: inner.now_s(),
        revoked_s: None,
    };
    let mut write = inner.store.write().await?;
    let most = inner.config.limits.enrolments_max;
    if enrolments::count_in_force(&mut write).await? >= u64::from(most) {
        return Err(Refusal::new(
            Code::QuotaExceeded,
            format!("{most} relay nodes are enrolled"),
        ));
    }
    let inserted = enrolments::insert(&mut write, &enrolment, &hash).await;
    inserted.map_err(|error| {
        if error.is_taken() {
            Refusal::new(Code::EnrolmentTaken, "the endpoint has an enrolment in force")
        } else {
            error.into()
        }
    })?;
    action("enrolment.create", enrolment.id)
        .record(&mut write, &meta, enrolment.created_s)
        .await?;
    write.commit().await?;
    let created = CreatedEnrolment {
        secret: new.text.expose_secret().to_owned(),
        enrolment,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Lists the enrolments, those revoked too.
#[utoipa::path(
    get,
    path = "/v1/enrolments",
    tag = "relays",
    operation_id = "list_enrolments",
    params(Page<EnrolmentId>),
    security(("operator" = [])),
    responses((status = 200, description = "A page of enrolments.", body = Enrolments), Refusals)
)]
pub(super) async fn list(
    State(service): State<Service>,
    _: Operator,
    Params(page): Params<Page<EnrolmentId>>,
) -> Result<Json<Enrolments>, Refusal> {
    let ask = page.ask()?;
    let page = enrolments::list(&mut *service.inner().store.read().await?, &ask).await?;
    Ok(Json(Enrolments {
        enrolments: page.rows,
        next: page.next,
    }))
}

/// Revokes an enrolment, for good: its key is refused from now on, and its relay node leaves the directory.
#[utoipa::path(
    delete,
    path = "/v1/enrolments/{id}",
    tag = "relays",
    operation_id = "revoke_enrolment",
    params(("id" = EnrolmentId, Path, description = "The enrolment.")),
    security(("operator" = [])),
    responses((status = 204, description = "It is revoked, now or before."), Refusals)
)]
pub(super) async fn revoke(
    State(service): State<Service>,
    _: Operator,
    meta: Meta,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let missing = || Refusal::new(Code::NotFound, "no such enrolment");
    let id: EnrolmentId = id.parse().map_err(|_| missing())?;
    let inner = service.inner();
    let now_s = inner.now_s();
    let mut write = inner.store.write().await?;
    if enrolments::revoke(&mut write, id, now_s).await? {
        fleet::remove(&mut write, id).await?;
        action("enrolment.revoke", id).record(&mut write, &meta, now_s).await?;
        write.commit().await?;
        inner.verified.forget(id);
        return Ok(StatusCode::NO_CONTENT);
    }
    match enrolments::get(&mut write, id).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(missing()),
    }
}

const fn action(name: &'static str, enrolment: EnrolmentId) -> Action<'static> {
    Action {
        account: None,
        actor: Actor::Operator,
        name,
        target: Target::Enrolment(enrolment),
        code: None,
        counted: Series::Single,
    }
}
