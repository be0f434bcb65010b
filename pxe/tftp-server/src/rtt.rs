//! When to send again: the round trip as measured (RFC 6298's estimator with a floor fit for a LAN).
//!
//! Purpose: a retransmission interval that follows the client, since fixed seconds make a lossy boot crawl. It is
//! safe to be short only because a duplicate acknowledgement never makes us send (see `transfer`).

use std::time::Duration;

/// Interval before the first sample.
pub(crate) const FIRST: Duration = Duration::from_millis(500);
/// Never shorter than this: firmware answers in bursts.
pub(crate) const FLOOR: Duration = Duration::from_millis(10);
/// Never longer than this; longer than the 5 s after which clients that answer a duplicate once (atftp) ask again by
/// themselves, if only nothing comes meanwhile.
pub(crate) const CEILING: Duration = Duration::from_secs(6);

/// Smoothed round trip, its variation and the back-off of the block in flight.
#[derive(Clone, Debug)]
pub(crate) struct RoundTrip {
    smoothed: Option<(Duration, Duration)>,
    backoff: u32,
    ceiling: Duration,
}

impl RoundTrip {
    /// `ceiling`: the client's negotiated timeout; the interval never exceeds it.
    pub(crate) fn new(ceiling: Option<Duration>) -> Self {
        Self { smoothed: None, backoff: 0, ceiling: ceiling.unwrap_or(CEILING).min(CEILING) }
    }

    /// A round trip of something that was sent once (Karn: never of what was sent again).
    pub(crate) fn sample(&mut self, trip: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (trip, trip / 2),
            Some((mean, deviation)) => {
                let off = mean.abs_diff(trip);
                ((mean * 7 + trip) / 8, (deviation * 3 + off) / 4)
            }
        });
    }

    /// Something new was acknowledged.
    pub(crate) fn progressed(&mut self) {
        self.backoff = 0;
    }

    /// The interval ran out.
    pub(crate) fn expired(&mut self) {
        self.backoff = (self.backoff + 1).min(12);
    }

    /// The interval to wait now.
    pub(crate) fn interval(&self) -> Duration {
        let plain = match self.smoothed {
            None => FIRST,
            Some((mean, deviation)) => (mean + deviation * 4).max(FLOOR),
        };
        plain.saturating_mul(1 << self.backoff).min(self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_client_within_bounds() {
        let mut trip = RoundTrip::new(None);
        assert_eq!(trip.interval(), FIRST);
        for _ in 0..20 {
            trip.sample(Duration::from_micros(200));
        }
        assert_eq!(trip.interval(), FLOOR);
        trip.sample(Duration::from_millis(80));
        assert!(trip.interval() > Duration::from_millis(60), "jitter widens: {:?}", trip.interval());
        for _ in 0..40 {
            trip.expired();
        }
        assert_eq!(trip.interval(), CEILING);
        trip.progressed();
        assert!(trip.interval() < Duration::from_millis(200));
    }

    #[test]
    fn a_negotiated_timeout_is_the_longest_wait() {
        let mut trip = RoundTrip::new(Some(Duration::from_secs(1)));
        for _ in 0..9 {
            trip.expired();
        }
        assert_eq!(trip.interval(), Duration::from_secs(1));
    }
}
