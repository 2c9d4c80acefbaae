//! Decides how long an event may stay without an acknowledgement before its producer is made anew.
//!
//! After two changes of a partition's leader within a moment librdkafka may keep to a broker that does not lead the partition.
//! No later answer about the leaders changes that, and the partition's events are refused until there is another leader. A new
//! producer asks for the leaders anew. It also sends again what is under way, so it is made seldom.

/// Reports of the same late event before the producer is made anew for the first time.
const SHORTEST: u32 = 24;
/// Most reports of the same late event before the producer is made anew once more.
const LONGEST: u32 = 720;

/// Patience with the events that are not acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// The last event for which a producer was made anew, and the reports that it took.
    last: Option<(u64, u32)>,
}

impl Patience {
    /// Reports of this late event before the producer is made anew: twice as many as before if that did not help.
    pub(crate) fn reports(self, event: u64) -> u32 {
        match self.last {
            Some((last, reports)) if last == event => reports.saturating_mul(2).min(LONGEST),
            Some(_) | None => SHORTEST,
        }
    }

    /// The patience after a producer was made anew for this event.
    pub(crate) fn after(self, event: u64) -> Self {
        Self { last: Some((event, self.reports(event))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_that_is_made_anew_in_vain_lives_twice_as_long_up_to_a_bound() {
        let mut patience = Patience::default();
        let lives: Vec<_> = (0..8)
            .map(|_| {
                let reports = patience.reports(7);
                patience = patience.after(7);
                reports
            })
            .collect();
        assert_eq!(lives, [24, 48, 96, 192, 384, 720, 720, 720]);
        assert_eq!(patience.reports(8), 24, "the event before it is acknowledged");
    }
}
