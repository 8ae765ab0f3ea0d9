//! Routes. Each file serves one noun; what they share is here.

mod answer;
mod archive;
mod artifacts;
mod caller;
mod device;
mod events;
mod experiments;
mod files;
mod html;
mod inspections;
mod keys;
mod limits;
mod openid;
mod operate;
mod page;
mod runs;
mod trial;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware;
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::limits::Limiter;
use self::operate::Requests;
use crate::openid::CALLBACK;
use crate::service::Service;
use crate::wire::Page;

/// Bytes of the largest form.
const FORM: usize = 1 << 14;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    service: Arc<Service>,
    requests: Arc<Requests>,
    limiter: Arc<Limiter>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Finetuner",
        description = "Fine-tuning embedding models as a service. Every error is `{\"error\": {code, message, param, type}}`; \
                       lists are pages with a cursor (`after`); times are RFC 3339.",
        license(name = "Apache-2.0"),
    ),
    modifiers(&Bearer),
    security(("key" = []))
)]
struct Description;

/// Keys are bearer tokens.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A key, as in `ft_…`")).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(files::create, files::list))
        .routes(routes!(files::get, files::append, files::delete))
        .routes(routes!(experiments::create, experiments::list))
        .routes(routes!(experiments::get, experiments::delete))
        .routes(routes!(runs::create, runs::list))
        .routes(routes!(runs::get, runs::delete))
        .routes(routes!(runs::cancel))
        .routes(routes!(events::events))
        .routes(routes!(events::logs))
        .routes(routes!(events::metrics))
        .routes(routes!(events::checkpoints))
        .routes(routes!(artifacts::get))
        .routes(routes!(artifacts::file))
        .routes(routes!(archive::link))
        .routes(routes!(archive::download))
        .routes(routes!(trial::examples))
        .routes(routes!(trial::search))
        .routes(routes!(inspections::create))
        .routes(routes!(inspections::fields))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::current))
        .routes(routes!(keys::revoke))
        .routes(routes!(device::begin))
        .routes(routes!(device::token))
        .routes(routes!(openid::ways))
        .routes(routes!(operate::healthy))
        .routes(routes!(operate::ready))
        .routes(routes!(operate::metrics))
}

/// The OpenAPI 3.1 description of every route, made from the code.
pub fn description() -> utoipa::openapi::OpenApi {
    described(routes().into_openapi())
}

/// The router's word for the rest of a path is none of OpenAPI's.
fn described(mut description: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let paths = std::mem::take(&mut description.paths.paths);
    description.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    description
}

/// The router of a server.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let shared = Shared { service, requests: Arc::default(), limiter: Arc::default() };
    let (router, description) = routes().split_for_parts();
    let description = Bytes::from(described(description).to_json().unwrap_or_default());
    router
        .merge(page::router())
        .route("/activate", axum::routing::get(device::page).post(device::decide))
        .route("/login/openid", axum::routing::get(openid::leave))
        .route(CALLBACK, axum::routing::get(openid::come_back))
        .route("/openapi.json", axum::routing::get(move || openapi(description.clone())))
        .fallback(answer::no_such_route)
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(DefaultBodyLimit::max(FORM))
        .layer(middleware::from_fn(limits::refuse_nul))
        .layer(middleware::from_fn_with_state(shared.clone(), limits::bound))
        .layer(middleware::from_fn_with_state(shared.clone(), operate::observe))
        .with_state(shared)
}

async fn openapi(description: Bytes) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], description)
}

/// A page out of one item more than it may hold.
fn page<T>(mut items: Vec<T>, limit: i64, cursor: impl Fn(&T) -> String) -> Page<T> {
    let has_more = items.len() as i64 > limit;
    items.truncate(usize::try_from(limit).unwrap_or(0));
    let next = items.last().map(cursor).filter(|_| has_more);
    Page { data: items, has_more, next }
}
