//! `divvy-coordinator front`: stands before the one coordinator of a grid and keeps clients' connections while that is
//! restarted. Bytes go through as they are, so that TLS stays between the client and the coordinator.
//!
//! A connection is opened for each client's, and again and again while the coordinator is away. Where it breaks before the
//! coordinator has said anything, a request that may be repeated is sent once more (RFC 9110, 9.2.2), and so is the beginning of TLS.

mod exchange;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use service::mind_peer;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use exchange::{Exchange, Left};

/// The usage of the command, for `--help` and errors.
pub const USAGE: &str = "divvy-coordinator front --listen ADDRESS:PORT --to HOST:PORT [--patience SECONDS]\n\n\
    Keeps the connections of clients while the coordinator at HOST:PORT is restarted, for 60 seconds at most by default.\n";

/// Clients at the same time: each takes two descriptors and some kilobytes. Further ones wait in the backlog.
const MAX_CLIENTS: usize = 4_096;

const BACKLOG: u32 = 4_096;

/// How long the coordinator's host may take to answer a connection: where a pod is gone with its address nobody answers.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(50);

/// How often a request is sent once more: it may be the cause.
const MAX_BROKEN: u32 = 3;

/// How long open connections may go on after SIGTERM.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

/// The arguments of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arguments {
    listen: SocketAddr,
    to: String,
    patience: Duration,
}

impl Arguments {
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let (mut listen, mut to, mut patience) = (None, None, DEFAULT_PATIENCE);
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value = rest.next().with_context(|| format!("{name} needs a value (see --help)"))?;
            match name.as_str() {
                "--listen" => listen = Some(value.parse().with_context(|| format!("--listen {value}"))?),
                "--to" => to = Some(value.clone()),
                "--patience" => {
                    let seconds = value.parse::<u64>().ok().filter(|seconds| (1..=3_600).contains(seconds));
                    let seconds =
                        seconds.with_context(|| format!("--patience must be from 1 to 3600, but is {value}"))?;
                    patience = Duration::from_secs(seconds);
                }
                _ => bail!("there is no option {name} (see --help)"),
            }
        }
        let to: String = to.context("--to is missing (see --help)")?;
        let port = to.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        ensure!(matches!(port, Some(Ok(1..))), "--to must be HOST:PORT, but is {to}");
        Ok(Self { listen: listen.context("--listen is missing (see --help)")?, to, patience })
    }
}

/// Runs until `stop` resolves; connections that are open then have a while to end.
///
/// # Errors
/// An option is wrong, or the address cannot be bound.
pub async fn run(arguments: &[String], stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let Arguments { listen, to, patience } = Arguments::parse(arguments)?;
    let listener = bind(listen).with_context(|| format!("listen on {listen}"))?;
    info!(address = %listener.local_addr()?, %to, "serving");
    let front = Arc::new(Front { to, patience });
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
                // Such as too many open files: some are closed by and by.
                warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    info!(clients = clients.len(), "stopping: open connections go on for a while");
    let _ = timeout(DRAIN_TIMEOUT, async { while clients.join_next().await.is_some() {} }).await;
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
            let Some(server) = connected else { return warn!(to = self.to, "the coordinator stays away") };
            match exchange.begin(server).await {
                Left::Answered(server) => return exchange.go_on(server).await,
                Left::Broken if exchange.may_be_repeated() => debug!("the coordinator went away with a request"),
                Left::Broken | Left::Ended => return,
            }
        }
    }

    /// A connection to the coordinator; none where it stays away.
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
        let connecting = async {
            let mut last = io::Error::other("the name has no address");
            for address in lookup_host(&self.to).await? {
                match TcpStream::connect(address).await {
                    Ok(server) => return mind_peer(&server).map(|()| server),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Arguments> {
        Arguments::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn it_is_told_where_to_listen_and_whom_to_stand_before() {
        let all = parse("--listen 0.0.0.0:8080 --to coordinator:80 --patience 5").expect("valid");
        assert_eq!(
            (all.listen.port(), all.to.as_str(), all.patience),
            (8080, "coordinator:80", Duration::from_secs(5))
        );
        assert_eq!(parse("--to [::1]:80 --listen [::]:1").expect("valid").patience, DEFAULT_PATIENCE);
        for (wrong, told) in [
            ("--listen 0.0.0.0:1", "--to is missing"),
            ("--to a:1", "--listen is missing"),
            ("--to a:1 --listen", "--listen needs a value"),
            ("--to a --listen 0.0.0.0:1", "--to must be HOST:PORT"),
            ("--to :1 --listen 0.0.0.0:1", "--to must be HOST:PORT"),
            ("--to a:0 --listen 0.0.0.0:1", "--to must be HOST:PORT"),
            ("--to a:1 --listen localhost", "--listen localhost"),
            ("--to a:1 --listen 0.0.0.0:1 --patience 0", "--patience must be from 1 to 3600"),
            ("--to a:1 --listen 0.0.0.0:1 --port 2", "there is no option --port"),
        ] {
            let error = format!("{:#}", parse(wrong).expect_err(wrong));
            assert!(error.contains(told), "{wrong}: {error}");
        }
    }
}
