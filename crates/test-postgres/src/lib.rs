//! For tests: a PostgreSQL server from Debian's package in a directory and at an address of its own, one for each test binary
//! with a database for each test, and a proxy in front of it. The server ends with the test's process, however that ends.

mod address;
mod proxy;
mod server;

pub use address::{own_addresses, own_ip};
pub use proxy::{Mode, Proxy};
pub use server::Server;
