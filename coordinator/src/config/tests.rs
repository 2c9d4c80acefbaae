use super::*;

fn read(variables: &[(&str, &str)]) -> anyhow::Result<Config> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config: Config = envy::from_iter(variables)?;
    config.validate()?;
    Ok(config)
}

#[test]
fn nothing_set_is_valid_and_every_variable_is_read() {
    assert_eq!(read(&[]).expect("valid").chunk_size, DEFAULT_CHUNK_SIZE);
    let config = read(&[("chunk_size", "1"), ("evict_after_ms", "2000"), ("public_addr", "[::1]:0")]).expect("valid");
    assert_eq!((config.chunk_size.get(), config.evict_after_ms), (1, 2_000));
    assert!(config.public_addr.is_ipv6());
    for place in ["file:///mnt/results", "s3://bucket/prefix"] {
        assert!(read(&[("results_url", place)]).is_ok(), "{place}");
    }
    for address in ["coordinator-0.divvy:80", "[::1]:80", "10.0.0.1:80"] {
        assert!(read(&[("advertise_public_addr", address)]).is_ok(), "{address}");
    }
}

#[test]
fn values_out_of_their_range_are_refused_before_anything_starts() {
    for (name, value) in [
        ("chunk_size", "0"),
        ("max_attempts", "0"),
        ("max_inflight", "0"),
        ("max_body_memory", "1048576"),
        ("max_output_bytes", "65535"),
        ("max_output_bytes", "68719476737"),
        ("evict_after_ms", "1999"),
        ("leadership_lease_ms", "1199"),
        ("leadership_lease_ms", "8001"),
        ("worker_review_age_ms", "60000"),
        ("worker_service_accounts", "divvy/divvy-worker"),
        ("lease_target_ms", "0"),
        ("lease_timeout_ms", "-1"),
        ("drain_timeout_ms", "86400001"),
        ("public_addr", "8080"),
        ("results_url", "memory:///"),
        ("results_url", "nowhere:"),
        ("results_url", "s3://"),
        ("results_url", "file://host/results"),
        ("results_url", "file:results"),
        ("results_url", "file:/results"),
        ("results_url", "file://results"),
        ("advertise_public_addr", "host"),
        ("advertise_internal_addr", "host name:80"),
        ("advertise_public_addr", "http://host:80"),
        ("advertise_public_addr", "host/path:80"),
        ("advertise_public_addr", "::1:80"),
        ("store_url", "postgres://host/database"),
        ("store_url", "mysql://host/database"),
    ] {
        assert!(read(&[(name, value)]).is_err(), "{name}={value}");
    }
}

#[test]
fn the_lease_of_the_leadership_reaches_the_store() {
    let needed = [("store_url", "postgres://host/database"), ("results_url", "file:///mnt/results")];
    let lease = |more: &[(&str, &str)]| {
        let config = read(&[&needed, more].concat()).expect("valid");
        config.postgres_settings().expect("a shared store").lease
    };
    assert_eq!(lease(&[]), store::shared::LEASE);
    assert_eq!(lease(&[("leadership_lease_ms", "8000")]), Duration::from_secs(8));
}

#[test]
fn the_address_of_the_pod_is_one_or_is_not_set() {
    assert_eq!(pod_ip(String::new()).expect("unset"), None);
    assert_eq!(pod_ip("10.1.2.3".to_owned()).expect("an address"), Some([10, 1, 2, 3].into()));
    let error = pod_ip("here".to_owned()).expect_err("no address").to_string();
    assert_eq!(error, "POD_IP must be an IP address, but is \"here\"");
}

#[test]
fn a_password_is_not_shown() {
    let url = StoreUrl::try_from("postgres://me:secret@host/database".to_owned()).expect("a URL");
    assert_eq!(format!("{url:?}"), "StoreUrl(postgres://…)");
}

#[test]
fn every_variable_is_described() {
    let described = variables();
    let fields = service::fields_of::<Config>();
    for field in fields.iter().filter(|field| **field != "pod_ip") {
        let name = format!("DIVVY_{}", field.to_uppercase());
        assert!(described.iter().any(|variable| variable.name == name && variable.help.len() > 10), "{name}");
    }
    assert!(fields.len() >= 7, "{fields:?}");
}
