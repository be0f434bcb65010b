//! The `Range` header (RFC 9110 section 14): one range of bytes.

/// What part of a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: no range, or one that we may ignore (several ranges, other units, bad grammar).
    Whole,
    /// From `first` to `last`, both included.
    Bytes {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// A range that lies outside the file: 416.
    Outside,
}

/// Reads the header's value for a file of `size` bytes.
pub(crate) fn part(header: &str, size: u64) -> Part {
    let Some(spec) = header.trim().strip_prefix("bytes=") else { return Part::Whole };
    let Some((from, to)) = spec.split_once('-') else { return Part::Whole };
    let digits = |text: &str| text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    let (from, to) = (from.trim(), to.trim());
    if !digits(from) || !digits(to) {
        return Part::Whole;
    }
    match (from.parse::<u64>().ok(), to.parse::<u64>().ok()) {
        (None, None) => Part::Whole,
        (None, Some(0)) => Part::Outside,
        (None, Some(_)) if size == 0 => Part::Outside,
        (None, Some(tail)) => Part::Bytes { first: size.saturating_sub(tail), last: size - 1 },
        (Some(first), Some(last)) if last < first => Part::Whole,
        (Some(first), _) if first >= size => Part::Outside,
        (Some(first), last) => Part::Bytes { first, last: last.unwrap_or(u64::MAX).min(size - 1) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form() {
        let bytes = |first, last| Part::Bytes { first, last };
        for (header, size, want) in [
            ("bytes=0-0", 10, bytes(0, 0)),
            ("bytes=3-", 10, bytes(3, 9)),
            ("bytes=3-99", 10, bytes(3, 9)),
            ("bytes=-3", 10, bytes(7, 9)),
            ("bytes=-30", 10, bytes(0, 9)),
            ("bytes=10-", 10, Part::Outside),
            ("bytes=-0", 10, Part::Outside),
            ("bytes=0-", 0, Part::Outside),
            ("bytes=-1", 0, Part::Outside),
            ("bytes=5-3", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("lines=1-2", 10, Part::Whole),
            ("bytes=99999999999999999999-", 10, Part::Whole),
        ] {
            assert_eq!(part(header, size), want, "{header} of {size}");
        }
    }
}
