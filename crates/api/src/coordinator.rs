//! The coordinators of a grid.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The role of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CoordinatorRole {
    /// It leases tasks to workers.
    Leader,
    /// It answers reads, takes jobs, passes on the rest, and leads when the leader is gone.
    Standby,
}

/// A coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoordinatorSummary {
    /// Its name.
    pub id: String,
    /// This run of its process.
    pub instance: Uuid,
    /// Host and port for clients.
    pub public_address: String,
    /// Host and port for workers and the other coordinators.
    pub internal_address: String,
    /// Its role.
    pub role: CoordinatorRole,
    /// The epoch of its term, where it leads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<u64>,
    /// Its version.
    pub version: String,
    /// Start of its process.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Time since its last contact.
    pub last_contact_ms_ago: u64,
}

/// Answer to `GET /v1/coordinators`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoordinatorList {
    /// In the order of their starts.
    pub coordinators: Vec<CoordinatorSummary>,
}
