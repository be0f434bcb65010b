//! Who asks, and the guard before each route.
//!
//! A listener puts an [`Identity`] into the request's extensions once it knows one; the guard compares its role with
//! what the route needs. A route without a guard does not exist: [`crate::routes`] puts one before each.

use crate::Problem;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dayzero_trust::Role;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name for the timeline: a user's, or `uid:0` on the Unix socket.
    pub who: String,
    /// What it may do.
    pub role: Role,
    /// From where: a peer address, or `unix`.
    pub from: String,
    /// The session's id, where there is one.
    pub(crate) session: Option<dayzero_model::secret::Secret<String>>,
}

/// From where a request comes, also when nobody is known yet: login throttling counts by it.
#[derive(Clone, Debug)]
pub(crate) struct From(pub(crate) String);

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody in particular; such a route shows no fact and changes nothing but a login.
    Open,
    /// At least this role.
    Role(Role),
    /// An administrator at the machine itself: the Unix socket only.
    Machine,
}

/// Stops who may not.
pub(crate) async fn guard(access: Access, request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Identity>();
    match (access, identity) {
        (Access::Open, _) => {}
        (_, None) => return Problem::unauthenticated().into_response(),
        (Access::Role(needed), Some(identity)) if !identity.role.may(needed) => {
            let needed = format!("{needed:?}").to_lowercase();
            return Problem::forbidden(format!(
                "'{}' may not do this: it needs the role {needed}; ask an administrator",
                identity.who
            ))
            .into_response();
        }
        (Access::Machine, Some(identity)) if identity.from != "unix" => {
            return Problem::forbidden("this is done at the machine only: use `dayzero` there")
                .into_response();
        }
        (Access::Role(_) | Access::Machine, Some(_)) => {}
    }
    next.run(request).await
}

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthenticated)
    }
}

/// The identity, where there is one.
pub(crate) struct Maybe(pub(crate) Option<Identity>);

impl<S: Send + Sync> FromRequestParts<S> for Maybe {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Identity>().cloned()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for From {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let unknown = || Problem::bad_request("it is not known where this request comes from");
        parts.extensions.get::<Self>().cloned().ok_or_else(unknown)
    }
}
