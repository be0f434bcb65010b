//! How long a transfer may take, and how often its first packets are repeated.
//!
//! Purpose: a place in the table is held by whoever shows that he is there, and by nobody without end. Before its first
//! acknowledgement a request may be forged: it costs its sender one datagram, and what answers it hits whoever has the
//! address. After it, a client is there, and must be as fast as the slowest line that a machine could boot by.

use std::time::Duration;

/// Bounds of one transfer in time and repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Without a first acknowledgement for so long, it is over.
    pub first: Duration,
    /// Until then an OACK, which is no larger than its request by much, is repeated so often at most.
    pub oacks: u32,
    /// The same of the first block, where no option was asked for: 516 bytes for a request of some twenty.
    pub blocks: u32,
    /// After the first acknowledgement: without progress for so long, it is over.
    pub give_up: Duration,
    /// A transfer may take so long, whatever its size.
    pub grace: Duration,
    /// Beyond that, it must be as fast as this, in bytes a second.
    pub least_rate: u64,
}

impl Patience {
    /// With a client that is expected.
    pub const EXPECTED: Self = Self {
        first: Duration::from_secs(10),
        oacks: 5,
        blocks: 4,
        give_up: Duration::from_secs(20),
        grace: Duration::from_secs(60),
        least_rate: 4096,
    };

    /// With anybody else.
    pub const STRANGER: Self = Self { first: Duration::from_secs(4), oacks: 3, blocks: 1, ..Self::EXPECTED };

    /// The longest that a file of `size` bytes may take.
    pub fn longest(&self, size: u64) -> Duration {
        let seconds = size / self.least_rate.max(1);
        self.grace.saturating_add(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_megabyte_by_the_slowest_line_takes_minutes_and_no_hours() {
        assert_eq!(Patience::EXPECTED.longest(0), Duration::from_secs(60));
        assert_eq!(Patience::EXPECTED.longest(1 << 20), Duration::from_secs(60 + 256));
        let none = Patience { least_rate: 0, ..Patience::STRANGER };
        assert!(none.longest(u64::MAX) > Duration::from_secs(60), "no division by nothing");
    }
}
