//! What is served, and how much of it a request asks for: conditional, by range.
//!
//! Invariant: no byte of a file on disk passes through this process on the plain listener; its descriptor goes along.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::head::Asked;
use super::range::{Part, part};

/// How long a connection goes on with the file that it opened, before it looks whether another one has its name.
const FRESH: Duration = Duration::from_secs(1);

/// Where bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Memory(Bytes),
    Disk(Arc<File>),
}

/// Something to serve, of a fixed size.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) source: Source,
    pub(crate) size: u64,
    etag: Arc<str>,
}

/// An answer, but for its connection headers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lines, each with its end.
    pub(crate) headers: String,
    pub(crate) body: Option<Source>,
    /// The part of the body's source that is meant.
    pub(crate) first: u64,
    /// Length of the body, sent or (for `HEAD`) told.
    pub(crate) length: u64,
}

impl Answer {
    /// A short text.
    pub(crate) fn text(status: u16, text: impl Into<String>) -> Self {
        let text = Bytes::from(text.into());
        Self {
            status,
            headers: "Content-Type: text/plain\r\n".to_owned(),
            length: text.len() as u64,
            body: Some(Source::Memory(text)),
            first: 0,
        }
    }

    /// One more header.
    pub(crate) fn with(mut self, header: &str) -> Self {
        self.headers.push_str(header);
        self.headers.push_str("\r\n");
        self
    }

    fn with_range(mut self, range: std::fmt::Arguments<'_>, size: u64) -> Self {
        let _ = write!(self.headers, "Content-Range: bytes {range}/{size}\r\n");
        self
    }
}

/// The file that a connection asked for last: who asks for one range after another opens it once a second.
#[derive(Debug, Default)]
pub(crate) struct Opened(Option<(PathBuf, Content, Instant)>);

impl Opened {
    /// A regular file, opened now or a moment ago.
    ///
    /// # Errors
    /// As [`Content::disk`].
    pub(crate) fn disk(&mut self, path: &Path, now: Instant) -> io::Result<Content> {
        if let Some((opened, content, at)) = &self.0
            && opened == path
            && now.duration_since(*at) < FRESH
        {
            return Ok(content.clone());
        }
        let content = Content::disk(path)?;
        self.0 = Some((path.to_owned(), content.clone(), now));
        Ok(content)
    }
}

impl Content {
    /// Bytes in memory; reads them once, for the tag.
    pub(crate) fn memory(bytes: Bytes) -> Self {
        let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let size = bytes.len() as u64;
        Self { size, etag: format!("\"{size:x}-{sum:x}\"").into(), source: Source::Memory(bytes) }
    }

    /// A regular file.
    ///
    /// # Errors
    /// It cannot be opened, or is none.
    pub(crate) fn disk(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let size = about.len();
        let etag = format!("\"{size:x}-{:x}.{:x}-{:x}\"", about.mtime(), about.mtime_nsec(), about.ino());
        Ok(Self { size, etag: etag.into(), source: Source::Disk(Arc::new(file)) })
    }

    /// The answer to a request for it.
    pub(crate) fn answer(self, asked: &Asked) -> Answer {
        let etag = &*self.etag;
        let mut headers = String::with_capacity(192);
        let _ = write!(headers, "Accept-Ranges: bytes\r\nETag: {etag}\r\n");
        let mut answer = Answer { status: 200, headers, body: None, first: 0, length: 0 };
        let same = |tags: &str| tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*");
        if asked.if_none_match.as_deref().is_some_and(same) {
            answer.status = 304;
            return answer;
        }
        answer = answer.with("Content-Type: application/octet-stream");
        let current = asked.if_range.as_deref().is_none_or(|tag| tag == etag);
        let range =
            asked.range.as_deref().filter(|_| current).map_or(Part::Whole, |text| part(text, self.size));
        match range {
            Part::Whole => answer.length = self.size,
            Part::Bytes { first, last } => {
                answer.status = 206;
                (answer.first, answer.length) = (first, last - first + 1);
                answer = answer.with_range(format_args!("{first}-{last}"), self.size);
            }
            Part::Outside => {
                answer.status = 416;
                return answer.with_range(format_args!("*"), self.size);
            }
        }
        answer.body = Some(self.source);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: Option<&str>, if_range: Option<&str>, if_none_match: Option<&str>) -> Asked {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Asked {
            range: own(range),
            if_range: own(if_range),
            if_none_match: own(if_none_match),
            ..Asked::default()
        }
    }

    #[test]
    fn each_condition() {
        let content = Content::memory(Bytes::from_static(b"0123456789"));
        let tag = content.etag.to_string();
        let weak = format!("\"x\", {tag}");
        type Case<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>, u16, u64, u64);
        let cases: &[Case<'_>] = &[
            (None, None, None, 200, 0, 10),
            (Some("bytes=2-4"), None, None, 206, 2, 3),
            (Some("bytes=2-4"), Some(&tag), None, 206, 2, 3),
            (Some("bytes=2-4"), Some("\"x\""), None, 200, 0, 10),
            (Some("bytes=10-"), None, None, 416, 0, 0),
            (None, None, Some(&tag), 304, 0, 0),
            (None, None, Some(&weak), 304, 0, 0),
            (None, None, Some("*"), 304, 0, 0),
            (None, None, Some("\"x\""), 200, 0, 10),
        ];
        for (range, if_range, if_none_match, status, first, length) in cases {
            let answer = content.clone().answer(&asked(*range, *if_range, *if_none_match));
            assert_eq!((answer.status, answer.first, answer.length), (*status, *first, *length));
            assert_eq!(answer.body.is_some(), *status < 300);
            assert!(answer.headers.contains(&tag));
        }
    }

    #[test]
    fn a_changed_file_has_another_tag_and_a_directory_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let first = Content::disk(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "two!").unwrap();
        assert_ne!(first.etag, Content::disk(&path).unwrap().etag);
        assert!(Content::disk(dir.path()).is_err());
    }

    #[test]
    fn a_connection_sees_another_file_of_the_same_name_within_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, "one").unwrap();
        std::fs::write(&two, "two!").unwrap();
        let (mut opened, now) = (Opened::default(), Instant::now());
        let first = opened.disk(&one, now).unwrap();
        std::fs::rename(&two, &one).unwrap();
        assert_eq!(opened.disk(&one, now + FRESH / 2).unwrap().etag, first.etag, "the one that it has open");
        assert_eq!(opened.disk(&one, now + FRESH).unwrap().size, 4);
        assert!(opened.disk(&two, now + FRESH).is_err());
        std::fs::remove_file(&one).unwrap();
        assert!(opened.disk(&one, now + FRESH * 2).is_err());
    }
}
