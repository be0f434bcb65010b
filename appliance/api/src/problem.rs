//! Errors as `application/problem+json` (RFC 9457). The asker's faults are 4xx, the system's 5xx.
//!
//! Invariant: `detail` is a sentence for a person, with the remedy where there is one; it holds no secret. What the
//! system failed with goes to the log with its chain of causes, and is told in one sentence.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dayzero_control::ServiceError;
use dayzero_trust::{LoginError, TrustError};
use serde::{Deserialize, Serialize};

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable URN of the kind, such as `urn:dayzero:problem:not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What happened and what to do, for a person.
    pub detail: String,
    /// Seconds after which trying again may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem of a kind: its stable word, status and sentence.
    pub fn new(status: StatusCode, word: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:dayzero:problem:{word}"),
            title: word.replace('-', " "),
            status: status.as_u16(),
            detail: detail.into(),
            retry_after: None,
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    pub(crate) fn unauthenticated() -> Self {
        let detail = "log in first: POST /v1/login, or open the console in a browser";
        Self::new(StatusCode::UNAUTHORIZED, "not-logged-in", detail)
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// The system's fault, logged with its causes and told in one sentence.
    pub(crate) fn system(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut chain = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            next = cause.source();
        }
        tracing::error!(error = %chain, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "system", chain)
    }

    /// True if the asker must change something.
    pub fn is_askers_fault(&self) -> bool {
        self.status < 500
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = self.retry_after;
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let detail = error.to_string();
        match &error {
            ServiceError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "not-found", detail),
            ServiceError::Refused { .. } => Self::new(StatusCode::CONFLICT, "refused", detail),
            ServiceError::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", detail),
            ServiceError::BadPlan(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-plan", detail),
            ServiceError::Store(_) | ServiceError::System(_) => Self::system(&error),
        }
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        let detail = error.to_string();
        match error {
            LoginError::Wrong => Self::new(StatusCode::UNAUTHORIZED, "wrong-login", detail),
            LoginError::WrongCode => Self::new(StatusCode::UNAUTHORIZED, "wrong-code", detail),
            LoginError::BadPassword => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-password", detail),
            LoginError::Throttled { seconds } => Self {
                retry_after: Some(seconds),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "throttled", detail)
            },
            LoginError::System(error) => Self::system(&error),
        }
    }
}

impl From<TrustError> for Problem {
    fn from(error: TrustError) -> Self {
        Self::system(&error)
    }
}

impl From<dayzero_store::StoreError> for Problem {
    fn from(error: dayzero_store::StoreError) -> Self {
        Self::system(&error)
    }
}
