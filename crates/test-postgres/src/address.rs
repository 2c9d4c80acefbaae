//! Loopback addresses that are not shared.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
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

/// Ports of an address of its own for a program that cannot choose a free one.
///
/// # Panics
/// There are no free ports.
#[must_use]
pub fn own_addresses<const COUNT: usize>() -> [SocketAddr; COUNT] {
    let ip = own_ip();
    // All of them listen until the last one does, so that no two get the same port.
    let listeners = [(); COUNT].map(|()| TcpListener::bind((ip, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it is bound"))
}
