//! The address at which other processes reach this coordinator.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// An address without a host (RFC 5737): the route to it gives the address of this host that packets leave from.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The address that other processes are told: the configured one, else that of the listener, with an address of the pod or the
/// host where the listener has the unspecified address.
pub(crate) fn advertised(configured: Option<&str>, bound: SocketAddr, pod_ip: Option<IpAddr>) -> String {
    if let Some(configured) = configured {
        return configured.to_owned();
    }
    if !bound.ip().is_unspecified() {
        return bound.to_string();
    }
    SocketAddr::new(pod_ip.or_else(own_ip).unwrap_or(Ipv4Addr::LOCALHOST.into()), bound.port()).to_string()
}

/// The local address of the default route. Sends nothing: a datagram socket only looks up its route.
fn own_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_address_comes_first_then_the_listener_and_then_the_pod() {
        let (all, one) = (SocketAddr::from(([0, 0, 0, 0], 80)), SocketAddr::from(([127, 0, 0, 1], 81)));
        let pod = Some(IpAddr::from([10, 1, 2, 3]));
        assert_eq!(advertised(Some("c-0.divvy:80"), all, pod), "c-0.divvy:80");
        assert_eq!(advertised(None, one, pod), "127.0.0.1:81");
        assert_eq!(advertised(None, all, pod), "10.1.2.3:80");
        assert!(advertised(None, all, None).ends_with(":80"));
    }
}
