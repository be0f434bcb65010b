//! What the flight recorder is told of ranges: a client that fetches a file in thousands of pieces is one line a second.
//!
//! Invariants: the first range of a file is told at once; every byte is told, in the order of the files; what was not told
//! yet is bounded by one second of requests, and told when the connection goes on to something else, or ends.

use std::time::{Duration, Instant};

/// How often ranges of the same file are told of.
const EVERY: Duration = Duration::from_secs(1);

/// The ranges of one file that a connection fetched.
#[derive(Debug, Default)]
pub(crate) struct Ranges(Option<File>);

#[derive(Debug)]
struct File {
    path: String,
    /// When it was told of last.
    told: Instant,
    /// Bytes that were sent since.
    bytes: u64,
}

impl Ranges {
    /// A range of this file was sent: what is told now, files with their bytes.
    pub(crate) fn add(&mut self, path: &str, bytes: u64, now: Instant) -> Vec<(String, u64)> {
        if let Some(file) = self.0.as_mut().filter(|file| file.path == path) {
            file.bytes += bytes;
            if now.duration_since(file.told) < EVERY {
                return Vec::new();
            }
            file.told = now;
            return vec![(file.path.clone(), std::mem::take(&mut file.bytes))];
        }
        let before = self.end();
        self.0 = Some(File { path: path.to_owned(), told: now, bytes: 0 });
        before.into_iter().chain([(path.to_owned(), bytes)]).collect()
    }

    /// No more ranges of it: what was not told yet.
    pub(crate) fn end(&mut self) -> Option<(String, u64)> {
        self.0.take().filter(|file| file.bytes > 0).map(|file| (file.path, file.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_ranges_are_some_lines_and_no_byte_is_lost() {
        let (mut ranges, begin) = (Ranges::default(), Instant::now());
        let mut told = Vec::new();
        for n in 0..1000 {
            told.extend(ranges.add("/a", 10, begin + Duration::from_millis(n * 3)));
        }
        assert_eq!(told.len(), 3, "at once, after one second and after two: {told:?}");
        assert_eq!(told[0], ("/a".to_owned(), 10));
        told.extend(ranges.add("/b", 7, begin + Duration::from_secs(3)));
        assert_eq!(told.last(), Some(&("/b".to_owned(), 7)), "another file is told at once");
        assert_eq!(told.len(), 5, "and what was left of the one before it");
        assert!(told[..4].iter().all(|(path, _)| path == "/a"));
        assert_eq!(told[..4].iter().map(|(_, bytes)| bytes).sum::<u64>(), 10_000);
        assert_eq!(ranges.end(), None, "all of it was told");
        assert!(ranges.add("/b", 1, begin + Duration::from_secs(3)).len() == 1);
        assert!(ranges.add("/b", 2, begin + Duration::from_secs(3)).is_empty());
        assert_eq!(ranges.end(), Some(("/b".to_owned(), 2)));
        assert_eq!(ranges.end(), None);
    }
}
