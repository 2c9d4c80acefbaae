//! The database and the ways to it: a connection URI as libpq reads it, with several hosts and all values of `sslmode`.

use std::str::FromStr;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::form_urlencoded;

use crate::error::OpenError;
use crate::pulse::Pulse;
use crate::tls;

/// Longest time for all hosts together to accept a connection, unless the URL says otherwise: a question about the lease waits little
/// longer, so that hosts that do not answer must leave time for the others.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shortest time for one host.
const HOST_TIMEOUT: Duration = Duration::from_millis(200);
/// Time for which a connection lives that gets no acknowledgement, unless the URL says otherwise.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a connection is probed, unless the URL says otherwise.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Time between two probes, unless the URL says otherwise. After an unanswered probe the connection lives for
/// [`TCP_USER_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// A database and the ways to it, in the order in which they are tried.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) ways: Vec<Config>,
    pub(crate) tls: MakeRustlsConnect,
    /// Host and database for messages, without a password.
    pub(crate) place: String,
    /// Whether the database answers, on whatever connection.
    pub(crate) pulse: Pulse,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("place", &self.place).finish_non_exhaustive()
    }
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl FromStr for Mode {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                let modes = "disable, allow, prefer, require, verify-ca or verify-full";
                return Err(OpenError::Url(format!("sslmode must be {modes}, but is {text}")));
            }
        })
    }
}

/// A URI, separated from the parameters that this module handles.
struct Uri {
    rest: String,
    mode: Mode,
    root_cert: Option<String>,
    /// Whether the URI has `keepalives_idle`: the driver does not tell its own default from a given value.
    sets_keepalives_idle: bool,
}

impl Uri {
    /// Other parsers do not accept several hosts with their ports in a URL, so the text is only split here.
    fn parse(text: &str) -> Result<Self, OpenError> {
        if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(OpenError::Url("it must begin with postgres:// or postgresql://".to_owned()));
        }
        let host = text.find('@').unwrap_or(0);
        let end = text[host..].find('?').map_or(text.len(), |place| host + place);
        // The text behind the first @ is the rest of a password, and would be shown as a host or a parameter.
        let unescaped = || OpenError::Url("an @ in a name or the password must be written as %40".to_owned());
        if text[host..end].matches('@').count() > 1 {
            return Err(unescaped());
        }
        let rest = text[..end].to_owned();
        let mut uri = Self { rest, mode: Mode::Prefer, root_cert: None, sets_keepalives_idle: false };
        let mut separator = '?';
        for parameter in text[end..].trim_start_matches('?').split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                name if name.contains('@') => return Err(unescaped()),
                "sslmode" => uri.mode = decoded(value).parse()?,
                "sslrootcert" => uri.root_cert = Some(decoded(value)),
                "options" if decoded(value).contains("search_path") => {
                    let why = "search_path cannot be set: the tables are in the schema divvy; give each grid its own database";
                    return Err(OpenError::Url(why.to_owned()));
                }
                name => {
                    uri.sets_keepalives_idle |= name == "keepalives_idle";
                    uri.rest.push(separator);
                    uri.rest.push_str(parameter);
                    separator = '&';
                }
            }
        }
        Ok(uri)
    }
}

/// A percent-encoded value; a plus sign stands for itself.
fn decoded(value: &str) -> String {
    let value = value.replace('+', "%2B").replace('=', "%3D");
    form_urlencoded::parse(value.as_bytes()).map(|(name, _)| name.into_owned()).collect()
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self, OpenError> {
        let Uri { rest, mode, root_cert, sets_keepalives_idle } = Uri::parse(text)?;
        let mut config =
            Config::from_str(&rest).map_err(|error| OpenError::Url(crate::error::DbError::from(error).to_string()))?;
        if config.get_hosts().is_empty() {
            return Err(OpenError::Url("it names no host".to_owned()));
        }
        set_defaults(&mut config);
        // The driver's own default is two hours.
        if !sets_keepalives_idle {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        let roots = roots(mode, root_cert.as_deref())?;
        let tls = tls::connector(roots, mode == Mode::VerifyFull).map_err(OpenError::Url)?;
        let with = |ssl_mode| {
            let mut config = config.clone();
            config.ssl_mode(ssl_mode);
            config
        };
        let ways = match mode {
            Mode::Disable => vec![with(SslMode::Disable)],
            Mode::Allow => vec![with(SslMode::Disable), with(SslMode::Require)],
            Mode::Prefer => vec![with(SslMode::Prefer), with(SslMode::Disable)],
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => vec![with(SslMode::Require)],
        };
        Ok(Self { ways, tls, place: place(&config), pulse: Pulse::default() })
    }
}

fn set_defaults(config: &mut Config) {
    // A replica among several hosts answers with an old state: events would look forgotten that are only late there.
    if config.get_hosts().len() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_connect_timeout().is_none() {
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX).max(1);
        config.connect_timeout((CONNECT_TIMEOUT / hosts).max(HOST_TIMEOUT));
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if config.get_application_name().is_none() {
        config.application_name("divvy");
    }
}

/// The authorities of the server's certificate; `None` accepts any certificate.
fn roots(mode: Mode, root_cert: Option<&str>) -> Result<Option<RootCertStore>, OpenError> {
    let unreadable = |path: &str, detail: String| OpenError::Url(format!("sslrootcert {path}: {detail}"));
    let mut roots = RootCertStore::empty();
    match (mode, root_cert) {
        (Mode::Disable, _) | (Mode::Allow | Mode::Prefer | Mode::Require, None) => return Ok(None),
        (_, Some("system")) | (Mode::VerifyCa | Mode::VerifyFull, None) => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        // Like libpq, `require` verifies the certificate if an authority is named.
        (_, Some(path)) => {
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unreadable(path, error.to_string()))?;
                roots.add(certificate).map_err(|error| unreadable(path, error.to_string()))?;
            }
        }
    }
    if roots.is_empty() {
        return Err(OpenError::Url(format!("sslrootcert {}: no certificate was found", root_cert.unwrap_or("system"))));
    }
    Ok(Some(roots))
}

fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or(ports.first()).unwrap_or(&5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        }
    });
    let hosts = hosts.collect::<Vec<_>>().join(",");
    format!("{hosts}/{}", config.get_dbname().or(config.get_user()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, OpenError> {
        Target::parse(url)
    }

    #[test]
    fn each_sslmode_of_libpq_has_its_ways_in_order() {
        for (mode, ways) in [
            ("disable", vec![SslMode::Disable]),
            ("allow", vec![SslMode::Disable, SslMode::Require]),
            ("prefer", vec![SslMode::Prefer, SslMode::Disable]),
            ("require", vec![SslMode::Require]),
            ("verify-full", vec![SslMode::Require]),
        ] {
            let target = parse(&format!("postgres://me:secret@db.example:6432/jobs?sslmode={mode}"));
            if mode == "verify-full" && matches!(&target, Err(OpenError::Url(why)) if why.contains("no certificate")) {
                // This machine has no authorities.
                continue;
            }
            let target = target.expect("a mode of libpq");
            assert_eq!(target.ways.iter().map(Config::get_ssl_mode).collect::<Vec<_>>(), ways, "{mode}");
            assert_eq!(target.place, "db.example:6432/jobs");
        }
    }

    #[test]
    fn several_hosts_are_tried_in_order_and_other_parameters_stay_as_they_are() {
        let parameters = "sslmode=disable&target_session_attrs=read-write&options=-c%20a%3Db&application_name=a+b%26c";
        let url = format!("postgresql://me:a%40b%3Fc@one:5433,two,[::1]:5434/jobs?{parameters}");
        let target = parse(&url).expect("libpq takes it");
        assert_eq!(target.place, "one:5433,two:5432,::1:5434/jobs");
        let way = &target.ways[0];
        assert_eq!((way.get_user(), way.get_password()), (Some("me"), Some(&b"a@b?c"[..])));
        assert_eq!((way.get_options(), way.get_application_name()), (Some("-c a=b"), Some("a+b&c")));
        assert_eq!(way.get_ports(), [5433, 5432, 5434]);
        let path =
            parse("postgres://me@one/jobs?sslmode=require&sslrootcert=/no%20where+/ca.pem").expect_err("no file");
        assert!(path.to_string().contains("/no where+/ca.pem"), "{path}");
    }

    #[test]
    fn of_several_hosts_one_that_allows_writes_is_used() {
        for (hosts, attributes) in [
            ("one", TargetSessionAttrs::Any),
            ("one,two", TargetSessionAttrs::ReadWrite),
            ("one:5433,two:5434", TargetSessionAttrs::ReadWrite),
        ] {
            let target = parse(&format!("postgres://me@{hosts}/jobs?sslmode=disable")).expect("libpq takes it");
            assert_eq!(target.ways[0].get_target_session_attrs(), attributes, "{hosts}");
        }
    }

    #[test]
    fn hosts_that_do_not_answer_leave_time_for_the_others_unless_the_url_says_otherwise() {
        for (hosts, parameters, timeout_ms) in [
            ("one", "", 1000),
            ("one,two", "", 500),
            ("1,2,3,4,5,6,7,8", "", 200),
            ("one,two", "&connect_timeout=3", 3000),
        ] {
            let target =
                parse(&format!("postgres://me@{hosts}/jobs?sslmode=disable{parameters}")).expect("libpq takes it");
            let timeout = Duration::from_millis(timeout_ms);
            assert_eq!(target.ways[0].get_connect_timeout(), Some(&timeout), "{hosts}{parameters}");
        }
    }

    #[test]
    fn server_whose_host_is_gone_is_noticed_within_seconds_unless_the_url_says_otherwise() {
        let intervals = |parameters: &str| {
            let target = parse(&format!("postgres://me@db/jobs?sslmode=disable{parameters}")).expect("libpq takes it");
            let way = &target.ways[0];
            (way.get_keepalives_idle().as_secs(), way.get_keepalives_interval().map(|interval| interval.as_secs()))
        };
        assert_eq!(intervals(""), (10, Some(2)));
        assert_eq!(intervals("&keepalives_idle=5&keepalives_interval=7"), (5, Some(7)));
        assert_eq!(intervals("&keepalives_idle=30"), (30, Some(2)));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_password() {
        for (url, said) in [
            ("postgres://me:secret@db/jobs?sslmode=maybe", "sslmode must be"),
            ("postgres://me:secret@db/jobs?colour=red", "colour"),
            ("postgres:///jobs", "names no host"),
            ("postgres://me:my@secret@db/jobs", "must be written as %40"),
            ("postgres://me:my@very/secret@db/jobs", "must be written as %40"),
            ("postgres://me:my@very?secret@db/jobs", "must be written as %40"),
            ("postgres://me:secret@db/jobs?options=-c%20search_path%3Dother", "give each grid its own database"),
            ("mysql://me:secret@db/jobs", "begin with postgres://"),
            ("postgres://me:secret@one:5432,two:many/jobs", "port"),
            ("postgres://me:secret@db/jobs?sslmode=require&sslrootcert=/nowhere.pem", "/nowhere.pem"),
        ] {
            let error = parse(url).expect_err("it is wrong").to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
    }
}
