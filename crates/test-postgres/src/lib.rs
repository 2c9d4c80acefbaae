//! For tests: a PostgreSQL server from Debian's package in a directory of its own on a free port, one for each test binary
//! with a database for each test, and a proxy in front of it. The server ends with the test's process, however that ends.

mod proxy;
mod server;

pub use proxy::{Mode, Proxy};
pub use server::Server;
