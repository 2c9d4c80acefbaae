//! Loopback addresses that are not shared.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

/// An address of this host that nobody else uses: its ports stay free while nobody listens on them. A port of 127.0.0.1 does
/// not: any connection that is opened on the machine may take it as its local port meanwhile.
///
/// # Panics
/// A process asks for more than 1022.
#[must_use]
pub fn own_ip() -> Ipv4Addr {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    assert!(number < 1023, "ten bits of the address tell the listeners of one process apart");
    // The other 14 tell processes apart that run at the same time: their numbers are close together.
    let [_, x, y, z] = ((number << 14) | (std::process::id() & 0x3fff)).to_be_bytes();
    Ipv4Addr::new(127, x, y, z)
}

/// Below the ports that the system gives to connections and to listeners that leave the choice to it.
const FIRST_PORT: u16 = 17_600;

/// Ports of an address of its own for a program that cannot choose a free one.
///
/// No listener looks for them: a process that is forked meanwhile would keep it open until its `exec`, and the port taken.
#[must_use]
pub fn own_addresses<const COUNT: usize>() -> [SocketAddr; COUNT] {
    let ip = own_ip();
    let mut ports = FIRST_PORT..;
    [(); COUNT].map(|()| SocketAddr::from((ip, ports.next().expect("few are asked for"))))
}
