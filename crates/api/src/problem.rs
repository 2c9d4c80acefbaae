//! Errors as RFC 9457 problem details.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error as the client sees it. `type` is left out: it is `about:blank`, the status says the kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The status' standard phrase.
    #[schema(value_type = String)]
    pub title: Cow<'static, str>,
    /// HTTP status code.
    pub status: u16,
    /// The fault of this request, and the values that are allowed.
    pub detail: String,
    /// The request's field that is wrong, where it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub field: Option<Cow<'static, str>>,
}
