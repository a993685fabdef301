//! What requests are answered with when it is not what was asked for.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::escape::json_for_terminal;
use crate::store::StoreFault;

/// The media type of JSON Lines.
pub(super) const JSON_LINES: &str = "application/x-ndjson";

/// A refusal: a status and a text for whoever asked.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// 400: the request is wrong in a way that the text names.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 401.
    pub(super) fn unauthorized() -> Self {
        let text = "this wants the header \"Authorization: Bearer TOKEN\" with the token in admin.token_file";
        Self::new(StatusCode::UNAUTHORIZED, text)
    }
}

impl From<StoreFault> for Refusal {
    /// 503: the store is out.
    fn from(fault: StoreFault) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the claim store does not answer: {fault}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let json = serde_json::json!({ "error": self.text }).to_string();
        let mut response = with_type("application/json", format!("{}\n", json_for_terminal(&json)));
        *response.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A body of this media type, which nobody is to keep.
pub(super) fn with_type(media_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
