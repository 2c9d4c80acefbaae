//! Checks before the handlers of a listener, and their settings.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use api::client::{ClientTls, tls};
use serde::Deserialize;

use crate::access::Access;
use crate::command_line::{Variable, variables_of};
use crate::guard::AllowedHosts;
use crate::tls::{Tls, TlsFiles};

/// The environment of a service's listeners.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DoorSettings {
    /// `DIVVY_API_TOKENS_FILE`: a TOML file of the tokens that the public port demands. Default: none, the port is open.
    pub api_tokens_file: Option<PathBuf>,
    /// `DIVVY_ANONYMOUS_READ`: `1` leaves reading open where there are tokens. Default 0.
    #[serde(deserialize_with = "crate::config::flag")]
    pub anonymous_read: bool,
    /// `DIVVY_ALLOWED_HOSTS`: the names, with commas between, by which the listeners may be asked; addresses always may.
    /// Default: any name, but for a listener on a loopback address, which answers for `localhost` and loopback addresses.
    pub allowed_hosts: AllowedHosts,
    /// `DIVVY_TLS_CERT`: a PEM file of the listeners' certificate chain. Default: none, no TLS.
    pub tls_cert: Option<PathBuf>,
    /// `DIVVY_TLS_KEY`: a PEM file of the key of `DIVVY_TLS_CERT`.
    pub tls_key: Option<PathBuf>,
    /// `DIVVY_TLS_CLIENT_CA`: a PEM file of the authority whose certificates the internal port and workers demand of their
    /// clients, but for probes. Default: none.
    pub tls_client_ca: Option<PathBuf>,
    /// `DIVVY_WORKER_TLS_NAME`: the name that the certificates of all workers have. With it the coordinator sends leases
    /// over TLS. Default: none.
    pub worker_tls_name: Option<String>,
    /// No variable: whether coordinators and workers are one process, whose internal listeners are reached over loopback
    /// alone and need no TLS.
    #[serde(skip)]
    pub is_one_process: bool,
}

/// Demands of a listener. By default it only demands a loopback name in requests to a loopback address.
#[derive(Clone, Debug)]
pub struct Doors {
    pub(crate) access: Access,
    pub(crate) allowed_hosts: Arc<AllowedHosts>,
    pub(crate) tls: Option<Tls>,
}

impl Default for Doors {
    fn default() -> Self {
        Self { access: Access::open(), allowed_hosts: Arc::default(), tls: None }
    }
}

/// Variables that a listener without clients of its own does not read.
const PUBLIC_ONLY: [&str; 3] = ["DIVVY_API_TOKENS_FILE", "DIVVY_ANONYMOUS_READ", "DIVVY_WORKER_TLS_NAME"];

impl DoorSettings {
    /// The variables of a service with a public listener, those of its clients' TLS among them.
    #[must_use]
    pub fn variables() -> Vec<Variable> {
        let of_clients = tls::VARIABLES.map(|(name, help)| Variable { name: name.to_owned(), help: help.to_owned() });
        let mut variables = variables_of(include_str!("doors.rs"));
        variables.extend(of_clients);
        variables
    }

    /// The variables of a service without a public listener.
    #[must_use]
    pub fn internal_variables() -> Vec<Variable> {
        Self::variables().into_iter().filter(|variable| !PUBLIC_ONLY.contains(&variable.name.as_str())).collect()
    }

    /// The checks of clients: tokens, and TLS without certificates of their own.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn public(&self) -> anyhow::Result<Doors> {
        let access = match &self.api_tokens_file {
            Some(file) => Access::from_file(file, self.anonymous_read).context("read DIVVY_API_TOKENS_FILE")?,
            None => Access::open(),
        };
        Ok(Doors { access, ..self.doors(None)? })
    }

    /// The checks between the services, beside the worker token: TLS with certificates on both sides.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn internal(&self) -> anyhow::Result<Doors> {
        let doors = self.doors(self.tls_client_ca.clone())?;
        Ok(Doors { tls: doors.tls.filter(|_| self.has_internal_tls()), ..doors })
    }

    /// Checks the variables of TLS, those of clients too, without reading the files that they name.
    ///
    /// # Errors
    /// The variables contradict each other, or a name is not valid for a server.
    pub fn check(&self) -> anyhow::Result<()> {
        self.files(None)?;
        self.worker_name()?;
        ClientTls::named_by_env()?;
        Ok(())
    }

    /// The transport of leases: the scheme of a worker's URL, and the TLS of the client that sends the leases.
    ///
    /// # Errors
    /// The environment of clients' TLS is incomplete.
    pub fn to_workers(&self) -> anyhow::Result<(&'static str, ClientTls)> {
        let scheme = if self.worker_tls_name.is_some() { "https" } else { "http" };
        Ok((scheme, ClientTls { server_name: self.worker_name()?, ..ClientTls::from_env()? }))
    }

    fn worker_name(&self) -> anyhow::Result<Option<String>> {
        let name = self.worker_tls_name.clone();
        name.as_deref().map(tls::server_name_of).transpose().context("DIVVY_WORKER_TLS_NAME cannot be used")?;
        Ok(name)
    }

    /// Whether the listeners speak TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// Whether the listeners of the services for each other speak TLS.
    #[must_use]
    pub fn has_internal_tls(&self) -> bool {
        self.has_tls() && (!self.is_one_process || self.worker_tls_name.is_some())
    }

    fn doors(&self, client_ca: Option<PathBuf>) -> anyhow::Result<Doors> {
        let tls = self.files(client_ca)?.map(Tls::from_files).transpose()?;
        Ok(Doors { access: Access::open(), allowed_hosts: Arc::new(self.allowed_hosts.clone()), tls })
    }

    fn files(&self, client_ca: Option<PathBuf>) -> anyhow::Result<Option<TlsFiles>> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: cert.clone(), key: key.clone(), client_ca })),
            (None, None) if self.tls_client_ca.is_none() => Ok(None),
            (None, None) => bail!("DIVVY_TLS_CLIENT_CA needs DIVVY_TLS_CERT and DIVVY_TLS_KEY"),
            (Some(_), None) | (None, Some(_)) => bail!("set both DIVVY_TLS_CERT and DIVVY_TLS_KEY, or neither"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_described() {
        let described = DoorSettings::variables();
        let fields = crate::fields_of::<DoorSettings>();
        for field in fields {
            let name = format!("DIVVY_{}", field.to_uppercase());
            assert!(described.iter().any(|variable| variable.name == name && variable.help.len() > 10), "{name}");
        }
        assert_eq!(described.len(), fields.len() + tls::VARIABLES.len(), "{described:?}");
        assert_eq!(DoorSettings::internal_variables().len(), described.len() - PUBLIC_ONLY.len());
    }
}
