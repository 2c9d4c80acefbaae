//! Settings of traces from the environment, by the names that OpenTelemetry's specification gives its variables.

use std::env;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderName, HeaderValue};

/// The protocol that is spoken.
const PROTOCOL: &str = "http/protobuf";

/// Bound on the time of a collector's answer to a batch, in milliseconds: the specification's default, and the largest value.
const TIMEOUT_MS: u64 = 10_000;
const MAX_TIMEOUT_MS: u64 = 60_000;

/// Variable of the spans that wait at most, and the specification's default.
const QUEUE_SIZE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const QUEUE_PLACES: usize = 2048;

/// Largest numbers of the variables of the queue. Its places are made at the start and take 40 MB at most.
const BATCHING: [(&str, u64); 3] = [
    (QUEUE_SIZE, 100_000),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 100_000),
    // A day.
    ("OTEL_BSP_SCHEDULE_DELAY", 86_400_000),
];

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// A collector, and how this process names itself to it.
#[derive(Debug)]
pub(super) struct Settings {
    /// Address of the collector.
    pub(super) endpoint: String,
    pub(super) resource: Resource,
    pub(super) timeout: Duration,
    /// Spans that wait for the collector at most.
    pub(super) queue_places: usize,
    /// A file of authorities that the collector's certificate may be of.
    pub(super) ca_file: Option<PathBuf>,
}

impl Settings {
    /// Reads the settings; `None` if traces are off.
    pub(super) fn from_env(service: &'static str, version: &'static str) -> anyhow::Result<Option<Self>> {
        Self::from_variables(
            &|name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty()),
            service,
            version,
        )
    }

    fn from_variables(
        variable: &dyn Fn(&str) -> Option<String>,
        service: &'static str,
        version: &'static str,
    ) -> anyhow::Result<Option<Self>> {
        let is = |name, value: &str| variable(name).is_some_and(|set| set.trim().eq_ignore_ascii_case(value));
        // The variable of traces takes precedence over that of all signals.
        let own_or_common = |what: &str| {
            let own = variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{what}"));
            own.or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{what}")))
        };
        let Some(endpoint) = own_or_common("ENDPOINT") else { return Ok(None) };
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        if let Some(exporter) = variable("OTEL_TRACES_EXPORTER").filter(|_| !is("OTEL_TRACES_EXPORTER", "otlp")) {
            bail!("OTEL_TRACES_EXPORTER is {exporter:?}, and must be otlp or none");
        }
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            bail!("OTEL_EXPORTER_OTLP_ENDPOINT must begin with http:// or https://");
        }
        if has_user(&endpoint) {
            bail!(
                "OTEL_EXPORTER_OTLP_ENDPOINT must not have a user or a password, which no request would carry: \
                 OTEL_EXPORTER_OTLP_HEADERS is for that"
            );
        }
        if let Some(protocol) =
            own_or_common("PROTOCOL").filter(|protocol| !protocol.trim().eq_ignore_ascii_case(PROTOCOL))
        {
            bail!("OTEL_EXPORTER_OTLP_PROTOCOL is {protocol:?}, and only {PROTOCOL} is spoken");
        }
        if let Some(compression) =
            own_or_common("COMPRESSION").filter(|value| !value.trim().eq_ignore_ascii_case("none"))
        {
            bail!("OTEL_EXPORTER_OTLP_COMPRESSION is {compression:?}, and spans are sent without");
        }
        check_headers(&own_or_common("HEADERS").unwrap_or_default())?;
        check_sampler(variable)?;
        check_batching(variable)?;
        let timeout = match own_or_common("TIMEOUT") {
            Some(timeout) => {
                timeout.trim().parse().context("OTEL_EXPORTER_OTLP_TIMEOUT is no number of milliseconds")?
            }
            None => TIMEOUT_MS,
        };
        Ok(Some(Self {
            endpoint,
            resource: resource(variable, service, version),
            timeout: Duration::from_millis(timeout.clamp(1, MAX_TIMEOUT_MS)),
            queue_places: variable(QUEUE_SIZE).and_then(|places| places.parse().ok()).unwrap_or(QUEUE_PLACES),
            ca_file: own_or_common("CERTIFICATE").map(PathBuf::from),
        }))
    }
}

/// Whether a URL has a user or a password, which would come into logs.
fn has_user(url: &str) -> bool {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    authority.is_some_and(|authority| authority.contains('@'))
}

/// Refuses headers that the SDK would silently leave out. The values are secret.
fn check_headers(headers: &str) -> anyhow::Result<()> {
    let is_header = |(name, value): (&str, &str)| {
        let value = percent_decode_str(value.trim()).decode_utf8();
        let is_value = value.is_ok_and(|value| !value.is_empty() && HeaderValue::from_str(&value).is_ok());
        is_value && HeaderName::from_str(name.trim()).is_ok()
    };
    let mut headers = headers.split(',').map(str::trim).filter(|header| !header.is_empty());
    if !headers.all(|header| header.split_once('=').is_some_and(is_header)) {
        bail!(
            "OTEL_EXPORTER_OTLP_HEADERS must be headers as name=value with commas between, the values percent-encoded"
        );
    }
    Ok(())
}

/// Refuses numbers that the SDK would silently replace, and those with which it would take a core or all memory for itself.
fn check_batching(variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    for (name, most) in BATCHING {
        let Some(value) = variable(name) else { continue };
        if !value.parse::<u64>().is_ok_and(|number| (1..=most).contains(&number)) {
            bail!("{name} is {value:?}, and must be a number from 1 to {most}");
        }
    }
    Ok(())
}

/// Refuses unknown samplers: the SDK would silently take the default instead.
fn check_sampler(variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let Some(sampler) = variable("OTEL_TRACES_SAMPLER") else { return Ok(()) };
    if !SAMPLERS.contains(&sampler.as_str()) {
        bail!("OTEL_TRACES_SAMPLER is {sampler:?}, and must be one of {}", SAMPLERS.join(", "));
    }
    let share = variable("OTEL_TRACES_SAMPLER_ARG").map(|share| share.trim().parse::<f64>());
    let is_share = matches!(share, Some(Ok(share)) if (0.0..=1.0).contains(&share));
    if sampler.ends_with("traceidratio") && !is_share {
        bail!("OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1 for {sampler}");
    }
    Ok(())
}

/// Attributes of this process; those of the environment take precedence.
fn resource(variable: &dyn Fn(&str) -> Option<String>, service: &'static str, version: &'static str) -> Resource {
    let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_given =
        |name| attributes.split(',').any(|pair| pair.split_once('=').is_some_and(|(key, _)| key.trim() == name));
    let has_name = variable("OTEL_SERVICE_NAME").is_some() || is_given("service.name");
    let host = variable("HOSTNAME").unwrap_or_else(|| "localhost".to_owned());
    let instance = format!("{host}:{}", std::process::id());
    let own = [("service.version", version.to_owned()), ("service.instance.id", instance)];
    let own = own.into_iter().filter(|(name, _)| !is_given(name)).map(|(name, value)| KeyValue::new(name, value));
    let resource = Resource::builder().with_attributes(own);
    if has_name { resource.build() } else { resource.with_service_name(service).build() }
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> anyhow::Result<Option<Settings>> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::from_variables(&find, "divvy-test", "1.2.3")
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn traces_are_off_without_an_endpoint_and_where_the_environment_says_so() {
        assert!(read(&[]).expect("valid").is_none());
        assert!(read(&[("OTEL_SERVICE_NAME", "x")]).expect("valid").is_none());
        assert!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]).expect("valid").is_none());
        assert!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).expect("valid").is_none());
        assert!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")]).expect("valid").is_some());
    }

    #[test]
    fn variables_of_traces_alone_stand_above_those_of_all_signals() {
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/x");
        let timeouts = [("OTEL_EXPORTER_OTLP_TIMEOUT", "5"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "900000")];
        let settings = read(&[&[ENDPOINT, own], timeouts.as_slice()].concat()).expect("valid").expect("on");
        assert_eq!((settings.endpoint.as_str(), settings.timeout), (own.1, Duration::from_mins(1)));
        assert_eq!(read(&[own]).expect("valid").expect("on").timeout, Duration::from_secs(10));
        let places = |settings: Option<Settings>| settings.expect("on").queue_places;
        assert_eq!(places(read(&[own]).expect("valid")), 2048);
        assert_eq!(places(read(&[own, ("OTEL_BSP_MAX_QUEUE_SIZE", "7")]).expect("valid")), 7);
    }

    #[test]
    fn what_cannot_be_done_is_an_error_that_names_its_variable() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_TRACES_EXPORTER", "console"),
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1000000000000"),
        ] {
            let error = read(&[ENDPOINT, (name, value)]).expect_err(name);
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
        let ratio = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        assert!(read(&[ENDPOINT, ratio]).is_err());
        assert!(read(&[ENDPOINT, ratio, ("OTEL_TRACES_SAMPLER_ARG", "1.5")]).is_err());
        assert!(read(&[ENDPOINT, ratio, ("OTEL_TRACES_SAMPLER_ARG", "0.25")]).expect("valid").is_some());
    }

    #[test]
    fn names_of_protocol_compression_and_exporter_may_be_in_capitals() {
        let names = [
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "HTTP/protobuf"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "None"),
            ("OTEL_TRACES_EXPORTER", "OTLP"),
        ];
        assert!(read(&names).expect("valid").is_some());
    }

    #[test]
    fn an_address_without_http_is_an_error_that_names_its_variable() {
        for endpoint in ["otel-collector:4318", "otel-collector", "grpc://otel-collector:4317"] {
            let error = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]).expect_err(endpoint);
            assert!(
                format!("{error:#}").starts_with("OTEL_EXPORTER_OTLP_ENDPOINT must begin with http://"),
                "{error:#}"
            );
        }
    }

    #[test]
    fn headers_that_would_be_left_out_are_refused_without_repeating_them() {
        let of = |headers| read(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", headers)]);
        for headers in ["hush", "a=1,hush", "=hush", "hush=", "two words=hush", "a=hush%0Ahush", "a=%FFhush"] {
            let error = format!("{:#}", of(headers).expect_err(headers));
            assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("hush"), "{error}");
        }
        for headers in ["authorization=Bearer%20a%2Cb==, x-tenant = me ,", ",", "a=b"] {
            assert!(of(headers).expect("valid").is_some(), "{headers}");
        }
    }

    #[test]
    fn an_endpoint_with_a_password_is_refused_without_repeating_it() {
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
            let error = format!("{:#}", read(&[(name, "https://me:hush@collector:4318/v1")]).expect_err(name));
            assert!(error.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !error.contains("hush"), "{error}");
        }
        let path = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/a@b?c@d");
        assert!(read(&[path]).expect("valid").is_some());
    }

    #[test]
    fn a_process_has_a_name_of_its_own_unless_the_environment_gives_one() {
        let value = |settings: &Settings, name: &'static str| {
            settings.resource.get(&Key::from_static_str(name)).map(|value| value.to_string())
        };
        let settings = read(&[ENDPOINT]).expect("valid").expect("on");
        assert_eq!(value(&settings, "service.name").as_deref(), Some("divvy-test"));
        assert_eq!(value(&settings, "service.version").as_deref(), Some("1.2.3"));
        let given = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine, service.version=9");
        let settings = read(&[ENDPOINT, given]).expect("valid").expect("on");
        assert_ne!(value(&settings, "service.name").as_deref(), Some("divvy-test"));
        assert_ne!(value(&settings, "service.version").as_deref(), Some("1.2.3"));
    }
}
