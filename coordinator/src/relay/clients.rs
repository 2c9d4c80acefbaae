//! The HTTP clients that pass requests on.

use std::time::Duration;

use api::client::{ClientTls, StartError, UNREAD_TIMEOUT, http_client_with, upload_client_with};
use reqwest::Client;
use service::BodySize;

/// Longest time that a leader's host may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A client for each size of body.
#[derive(Debug)]
pub(super) struct Clients {
    usual: Client,
    /// For bodies that the leader may leave unread for a while.
    file: Client,
}

impl Clients {
    pub(super) fn new(is_https: bool) -> Result<Self, StartError> {
        let tls = ClientTls::from_env()?;
        Ok(Self {
            usual: http_client_with(CONNECT_TIMEOUT, &tls, is_https)?,
            file: upload_client_with(CONNECT_TIMEOUT, UNREAD_TIMEOUT, &tls, is_https)?,
        })
    }

    pub(super) fn of(&self, size: BodySize) -> &Client {
        match size {
            BodySize::Usual | BodySize::Form => &self.usual,
            BodySize::File => &self.file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_outlasts_the_time_for_which_a_leader_may_leave_it_unread() {
        assert!(UNREAD_TIMEOUT > service::Limits::default().unread_body_timeout);
    }
}
