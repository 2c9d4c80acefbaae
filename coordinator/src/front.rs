//! `divvy-coordinator front`: a proxy before the only coordinator of a grid that keeps clients' connections while the
//! coordinator restarts. Bytes pass unchanged, so that TLS stays between the client and the coordinator.
//!
//! For each client the proxy opens a connection to the coordinator, and tries again while the coordinator is away. If that
//! connection breaks before the first byte of the answer, a repeatable request is sent once more (RFC 9110, 9.2.2), and so is
//! the beginning of TLS.

mod exchange;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use service::{CommandLine, mind_peer, mind_service, variables_of};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::config::is_host_and_port;
use exchange::{Exchange, Left};

/// The most clients at the same time: each takes two descriptors and 96 KiB at most, which the 256 MiB of the manifests hold.
/// Further clients wait in the backlog.
const MAX_CLIENTS: usize = 2_048;

const BACKLOG: u32 = 4_096;

/// Longest time that the name server and then each address of the coordinator may take: where a pod is gone with its address,
/// nothing answers.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Pause between two tries to connect to the coordinator.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest time that a client may keep its end of a connection open after the coordinator has closed its own.
const LINGER: Duration = Duration::from_secs(10);

/// Number of times that a request is repeated: the request itself may break the coordinator.
const MAX_BROKEN: u32 = 3;

/// The environment of `divvy-coordinator front`, beside the variables of the logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
struct Config {
    /// `DIVVY_PUBLIC_ADDR`: address of the listener for clients. Default `0.0.0.0:8080`; port 0 picks a free one.
    public_addr: SocketAddr,
    /// `DIVVY_FRONT_TARGET`: the public port of the coordinator, as `HOST:PORT`; the host is looked up for each connection.
    /// Required.
    front_target: String,
    /// `DIVVY_FRONT_PATIENCE_MS`: how long a client waits while the coordinator is away. Default 60000.
    front_patience_ms: u32,
    /// `DIVVY_DRAIN_TIMEOUT_MS`: how long open connections may go on after SIGTERM. Default 10000.
    drain_timeout_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_addr: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            front_target: String::new(),
            front_patience_ms: 60_000,
            drain_timeout_ms: 10_000,
        }
    }
}

impl Config {
    fn from_env() -> anyhow::Result<Self> {
        let config: Self = service::from_env()?;
        ensure!(
            is_host_and_port(&config.front_target),
            "DIVVY_FRONT_TARGET must be HOST:PORT of the coordinator's public port, but is {:?}",
            config.front_target
        );
        ensure!(
            !is_own_address(&config.front_target, config.public_addr),
            "DIVVY_FRONT_TARGET must be the coordinator's public port, but {} is the front's own (DIVVY_PUBLIC_ADDR)",
            config.front_target
        );
        Ok(config)
    }
}

/// Whether `target` leads to the listener at `own`, which would ask itself without end. Of names only `localhost` is looked at.
fn is_own_address(target: &str, own: SocketAddr) -> bool {
    let Some((host, port)) = target.rsplit_once(':') else { return false };
    let host = host.trim_matches(['[', ']']);
    let is_here = match host.parse::<IpAddr>() {
        Ok(ip) => ip == own.ip() || (own.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified())),
        Err(_) => host == "localhost" && (own.ip().is_unspecified() || is_localhost(own.ip())),
    };
    is_here && port.parse::<u16>().is_ok_and(|port| port == own.port())
}

/// Whether a coordinator that takes its clients for users of its own machine gets clients of other machines from the listener at
/// `own`. Of names only `localhost` is looked at.
fn opens_loopback(target: &str, own: SocketAddr) -> bool {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host).trim_matches(['[', ']']);
    let is_loopback = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.to_canonical().is_loopback());
    is_loopback && !own.ip().to_canonical().is_loopback()
}

fn is_localhost(ip: IpAddr) -> bool {
    ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
}

/// The command as its command line shows it.
#[must_use]
pub fn command_line() -> CommandLine {
    CommandLine {
        name: "divvy-coordinator front",
        version: env!("CARGO_PKG_VERSION"),
        about: "Keeps the connections of clients while the one coordinator of a grid is restarted.",
        commands: &[],
        variables: variables_of(include_str!("front.rs")),
        check: || Config::from_env().map(drop),
    }
}

/// Runs until `stop` resolves; connections that are open then may go on for the drain timeout.
///
/// # Errors
/// A variable is wrong, or the address cannot be bound.
pub async fn run(stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    service::warn_about_unknown_variables(&[&command_line().variables]);
    let Config { public_addr, front_target: to, front_patience_ms, drain_timeout_ms } = Config::from_env()?;
    let listener = bind(public_addr).with_context(|| format!("listen on {public_addr} (DIVVY_PUBLIC_ADDR)"))?;
    let address = listener.local_addr()?;
    info!(%address, %to, "serving");
    if opens_loopback(&to, address) {
        warn!(
            %address,
            %to,
            "DIVVY_FRONT_TARGET is on loopback: a coordinator without tokens takes every client of this front for a user of \
             this machine, and runs its Python calls"
        );
    }
    let patience = Duration::from_millis(front_patience_ms.into());
    let front = Arc::new(Front { to, patience, last_addresses: Mutex::default() });
    let (room, mut clients) = (Arc::new(Semaphore::new(MAX_CLIENTS)), JoinSet::new());
    let mut stop = std::pin::pin!(stop);
    loop {
        while clients.try_join_next().is_some() {}
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((client, _)) => {
                let front = Arc::clone(&front);
                clients.spawn(async move {
                    let _permit = permit;
                    front.serve(client).await;
                });
            }
            Err(error) => {
                // An error such as too many open files passes when connections are closed.
                warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let drain_timeout = Duration::from_millis(drain_timeout_ms.into());
    info!(clients = clients.len(), "stopping: open connections go on for a while");
    let _ = timeout(drain_timeout, async { while clients.join_next().await.is_some() {} }).await;
    info!("stopped");
    Ok(())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[derive(Debug)]
struct Front {
    to: String,
    patience: Duration,
    /// The addresses that the last look-up of `to` found.
    last_addresses: Mutex<Vec<SocketAddr>>,
}

impl Front {
    /// Serves one client's connection to its end.
    async fn serve(&self, client: TcpStream) {
        if mind_peer(&client).is_err() {
            return;
        }
        let mut exchange = Exchange::new(client);
        for _ in 0..=MAX_BROKEN {
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = exchange.is_left() => return,
            };
            let Some(server) = connected else { return warn!(to = self.to, "the coordinator is unreachable") };
            match exchange.begin(server).await {
                Left::Answered(server) => return exchange.go_on(server, LINGER).await,
                Left::Broken if exchange.may_be_repeated() => debug!("the coordinator went away with a request"),
                Left::Broken | Left::Ended => return,
            }
        }
    }

    /// A connection to the coordinator; `None` if it stays away.
    async fn connect(&self) -> Option<TcpStream> {
        let until = Instant::now() + self.patience;
        loop {
            match self.try_to_connect().await {
                Ok(server) => return Some(server),
                Err(error) if Instant::now() > until => {
                    debug!(%error, "the coordinator cannot be reached");
                    return None;
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn try_to_connect(&self) -> io::Result<TcpStream> {
        let addresses = self.addresses().await?;
        let server = first_of(&addresses, TcpStream::connect::<SocketAddr>).await?;
        mind_service(&server).map(|()| server)
    }

    /// The coordinator's addresses. While the name server is away they are the last known ones: a Service keeps its address.
    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let found = timeout(CONNECT_TIMEOUT, lookup_host(&self.to)).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(Vec::from_iter);
        let mut last = self.last_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(found) => last.clone_from(&found),
            Err(error) if last.is_empty() => return Err(error),
            Err(_) => {}
        }
        Ok(last.clone())
    }
}

/// Connects to the first address that takes a connection; one that is silent leaves their time to the others.
async fn first_of<T, F: Future<Output = io::Result<T>>>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, connect(*address)).await {
            Ok(Ok(server)) => return Ok(server),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_address_does_not_keep_the_next_one_from_being_tried() {
        let addresses = [1, 2, 3].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let connect = |address: SocketAddr| async move {
            match address.port() {
                1 => Err(io::ErrorKind::ConnectionRefused.into()),
                2 => std::future::pending::<io::Result<SocketAddr>>().await,
                _ => Ok(address),
            }
        };
        assert_eq!(first_of(&addresses, connect).await.expect("the last one"), addresses[2]);
        assert!(first_of(&addresses[..2], connect).await.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut));
        assert!(first_of(&[], connect).await.is_err());
    }

    #[tokio::test]
    async fn last_addresses_serve_while_the_name_is_not_found() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let front = |to: &str, last: &[SocketAddr]| Front {
            to: to.to_owned(),
            patience: Duration::ZERO,
            last_addresses: Mutex::new(last.to_vec()),
        };
        // No host has a name with this ending (RFC 6761).
        let lost = front("coordinator.invalid:80", &[]);
        assert!(lost.try_to_connect().await.is_err());
        let remembering = front("coordinator.invalid:80", &[address]);
        assert_eq!(remembering.try_to_connect().await.expect("the last address").peer_addr().ok(), Some(address));
        let found = front(&address.to_string(), &[(Ipv4Addr::LOCALHOST, 1).into()]);
        assert_eq!(found.try_to_connect().await.expect("the new address").peer_addr().ok(), Some(address));
        assert_eq!(*found.last_addresses.lock().expect("not poisoned"), [address]);
    }

    #[test]
    fn front_that_would_ask_itself_is_told_from_one_before_a_coordinator() {
        let is_own = |target, own: &str| is_own_address(target, own.parse().expect("an address"));
        for (target, own) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("[::1]:80", "[::]:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("localhost:80", "0.0.0.0:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert!(is_own(target, own), "{target} at {own}");
        }
        for (target, own) in [
            ("127.0.0.1:81", "127.0.0.1:80"),
            ("127.0.0.2:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "192.0.2.1:80"),
            ("localhost:80", "192.0.2.1:80"),
            ("localhost:80", "127.0.0.2:80"),
            ("192.0.2.2:80", "0.0.0.0:80"),
            ("coordinator:80", "0.0.0.0:80"),
        ] {
            assert!(!is_own(target, own), "{target} at {own}");
        }
    }

    #[test]
    fn a_front_that_opens_a_loopback_port_to_other_machines_is_known() {
        let opens = |target: &str, own: &str| opens_loopback(target, own.parse().expect("an address"));
        for (target, own) in [
            ("127.0.0.1:81", "0.0.0.0:80"),
            ("127.9.9.9:81", "192.0.2.1:80"),
            ("localhost:81", "[::]:80"),
            ("[::1]:81", "0.0.0.0:80"),
            ("[::ffff:127.0.0.1]:81", "0.0.0.0:80"),
        ] {
            assert!(opens(target, own), "{target} at {own}");
        }
        for (target, own) in [
            ("127.0.0.1:81", "127.0.0.1:80"),
            ("localhost:81", "[::1]:80"),
            ("192.0.2.1:81", "0.0.0.0:80"),
            ("coordinator:81", "0.0.0.0:80"),
        ] {
            assert!(!opens(target, own), "{target} at {own}");
        }
    }

    #[test]
    fn every_variable_is_described() {
        let described = command_line().variables;
        let named: Vec<_> = described.iter().map(|variable| variable.name.as_str()).collect();
        let fields = service::fields_of::<Config>();
        let fields: Vec<_> = fields.iter().map(|field| format!("DIVVY_{}", field.to_uppercase())).collect();
        assert_eq!(named, fields);
    }
}
