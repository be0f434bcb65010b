//! How fast a link is, and how many clients it carries at once.

use std::path::Path;

/// What each client that has a place is to have of the link, Mbit/s.
const SHARE: u64 = 100;
/// Places of a link whose speed is not known (virtual ones say nothing).
const UNKNOWN: usize = 64;
const FEWEST: usize = 8;
const MOST: usize = 512;

/// Places of the link behind a device: its speed over [`SHARE`].
pub(crate) fn places(device: &str) -> usize {
    let text = std::fs::read_to_string(Path::new("/sys/class/net").join(device).join("speed"));
    from_speed(text.ok().and_then(|text| text.trim().parse().ok()))
}

fn from_speed(mbit: Option<i64>) -> usize {
    match mbit.map(u64::try_from) {
        Some(Ok(mbit)) if mbit > 0 => usize::try_from(mbit / SHARE).unwrap_or(MOST).clamp(FEWEST, MOST),
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_share() {
        for (mbit, want) in [
            (None, 64),
            (Some(-1), 64),
            (Some(0), 64),
            (Some(100), 8),
            (Some(1000), 10),
            (Some(10_000), 100),
            (Some(400_000), 512),
        ] {
            assert_eq!(from_speed(mbit), want, "{mbit:?}");
        }
    }
}
