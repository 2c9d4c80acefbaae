//! The list of members.

use std::time::Duration;

use store::Epoch;
use store::shared::{MEMBER_KEPT, Member, MemberStatus};
use tokio_postgres::Row;

use crate::error::DbError;
use crate::link::Link;
use crate::rows;

const MEMBERS: &str = "SELECT id, name, public_address, internal_address, version, started_at, \
     (extract(epoch FROM clock_timestamp() - seen_at) * 1000)::bigint, \
     (SELECT epoch FROM lease WHERE holder = members.id AND expires_at > clock_timestamp()) FROM members \
     WHERE seen_at > clock_timestamp() - $1::bigint * interval '1 ms' ORDER BY started_at, id";

pub(crate) async fn members(link: &Link) -> Result<Vec<MemberStatus>, DbError> {
    let kept = i64::try_from(MEMBER_KEPT.as_millis()).unwrap_or(i64::MAX);
    link.query(MEMBERS, &[&kept]).await?.iter().map(status).collect()
}

fn status(row: &Row) -> Result<MemberStatus, DbError> {
    let member = Member {
        id: rows::get(row, 0)?,
        name: rows::get(row, 1)?,
        public_address: rows::get(row, 2)?,
        internal_address: rows::get(row, 3)?,
        version: rows::get(row, 4)?,
        started_at: rows::time(row, 5)?,
    };
    // The time is negative after a clock was set back.
    let last_contact = Duration::from_millis(u64::try_from(rows::get::<i64>(row, 6)?).unwrap_or(0));
    let leads = rows::get::<Option<i64>>(row, 7)?.map(|epoch| Epoch(epoch.unsigned_abs()));
    Ok(MemberStatus { member, last_contact, leads })
}
