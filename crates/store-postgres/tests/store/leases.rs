//! Coordinators whose leases of the leadership differ in length.

use std::time::{Duration, Instant};

use store::Shared;
use store::shared::{Acquired, LEASE};

use crate::helpers::*;

#[test]
fn a_lease_lasts_as_its_holder_says_though_other_coordinators_have_shorter_or_longer_leases() {
    const LONG: Duration = Duration::from_hours(1);
    let database = Database::new();
    let (long, short) = (database.open_leased(LONG), database.open());
    let (mut long, mut short) = (long.leadership(), short.leadership());
    let term = acquire_free(&mut *long, 1);
    assert_eq!(term.lasts, LONG);
    let since = Instant::now();
    while since.elapsed() < 2 * LEASE {
        match acquire(&mut *short, 2) {
            Acquired::Held { expires_in, .. } => assert!(expires_in > LEASE && expires_in <= LONG, "{expires_in:?}"),
            leads @ Acquired::Leads(_) => panic!("the leader may still have trusted its lease: {leads:?}"),
        }
    }
    assert_eq!(long.renew(term.epoch).map(|renewed| renewed.lasts), Ok(LONG));

    long.resign(term.epoch).expect("reachable");
    let term = acquire_free(&mut *short, 2);
    assert_eq!(term.lasts, LEASE);
    // As an hour less on the server's clock makes it: the lease ends by the other coordinator's own clock.
    database.ask("UPDATE lease SET expires_at = expires_at + interval '1 hour'");
    let next = eventually("the short lease is over", || match acquire(&mut *long, 1) {
        Acquired::Leads(next) => Ok(next),
        held @ Acquired::Held { .. } => Err(format!("{held:?}")),
    });
    assert_eq!((next.epoch > term.epoch, next.lasts), (true, LONG));
}
