//! Looks for secrets in bytes, files and what is packed in files; says where, in which form, and which secret.
//!
//! A file is read once, in pieces; holes of a sparse file are passed over. A zstd frame at a file's beginning is unpacked
//! and looked through too. Not seen here: what is packed otherwise (of
//! initial RAM disks `unpack` does more), or torn apart by a file system inside a disk image.

use super::forms::Secret;
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::Path;

const PIECE: usize = 1 << 20;
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Finds of one secret in one place that are told.
const MOST: usize = 3;

/// A secret that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    pub place: String,
    /// Byte in it.
    pub offset: u64,
    /// Number of the secret.
    pub secret: usize,
    pub form: &'static str,
}

/// All forms of all secrets, as one automaton.
pub struct Scanner {
    automaton: AhoCorasick,
    patterns: Vec<(usize, &'static str)>,
    longest: usize,
}

/// What is carried from one piece to the next.
struct Window {
    bytes: Vec<u8>,
    /// Place of `bytes[0]`.
    at: u64,
}

impl Scanner {
    /// # Errors
    /// The automaton would be too large.
    pub fn new(secrets: &[Secret]) -> Result<Self> {
        let (mut forms, mut patterns) = (Vec::new(), Vec::new());
        for (number, secret) in secrets.iter().enumerate() {
            for (name, form) in secret.forms() {
                forms.push(form);
                patterns.push((number, name));
            }
        }
        let longest = forms.iter().map(Vec::len).max().unwrap_or(1);
        let automaton = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(forms);
        Ok(Self { automaton: automaton.context("too many secrets to look for")?, patterns, longest })
    }

    pub fn bytes(&self, place: &str, bytes: &[u8]) -> Vec<Find> {
        let mut finds = Vec::new();
        self.piece(place, bytes, 0, 0, &mut finds);
        finds
    }

    /// Matches that end after `fresh`: the ones before were told with the piece before.
    fn piece(&self, place: &str, bytes: &[u8], at: u64, fresh: usize, finds: &mut Vec<Find>) {
        for found in self.automaton.find_overlapping_iter(bytes).filter(|found| found.end() > fresh) {
            let (secret, form) = self.patterns[found.pattern().as_usize()];
            if finds.iter().filter(|find| find.secret == secret && find.place == place).count() < MOST {
                let offset = at + found.start() as u64;
                finds.push(Find { place: place.to_owned(), offset, secret, form });
            }
        }
    }

    /// # Errors
    /// I/O.
    pub fn reader(&self, place: &str, reader: &mut dyn Read, finds: &mut Vec<Find>) -> io::Result<u64> {
        let mut window = Window { bytes: Vec::new(), at: 0 };
        let mut piece = vec![0; PIECE];
        loop {
            let count = match reader.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if count == 0 {
                return Ok(window.at + window.bytes.len() as u64);
            }
            self.push(place, &mut window, &piece[..count], finds);
        }
    }

    fn push(&self, place: &str, window: &mut Window, piece: &[u8], finds: &mut Vec<Find>) {
        let keep = window.bytes.len().min(self.longest - 1);
        let gone = window.bytes.len() - keep;
        window.bytes.drain(..gone);
        window.at += gone as u64;
        window.bytes.extend_from_slice(piece);
        self.piece(place, &window.bytes, window.at, keep, finds);
    }

    /// A file, by its data alone, and unpacked if it begins with a zstd frame. Bytes looked at.
    ///
    /// # Errors
    /// I/O; a file that is gone is none.
    pub fn file(&self, place: &str, path: &Path, finds: &mut Vec<Find>) -> Result<u64> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error).with_context(|| format!("looking into {}", path.display())),
        };
        let mut looked = self.sparse(place, &mut file, finds).with_context(|| path.display().to_string())?;
        let mut magic = [0; 4];
        file.seek(SeekFrom::Start(0))?;
        if file.read_exact(&mut magic).is_ok() && magic == ZSTD {
            file.seek(SeekFrom::Start(0))?;
            let mut unpacked = zstd::stream::read::Decoder::new(file)?;
            // A frame that breaks off is looked at as far as it goes; the image's own hashes are others' matter.
            let place = format!("{place}, unpacked");
            if let Ok(count) = self.reader(&place, &mut unpacked, finds) {
                looked += count;
            }
        }
        Ok(looked)
    }

    fn sparse(&self, place: &str, file: &mut File, finds: &mut Vec<Find>) -> io::Result<u64> {
        let (mut at, mut looked) = (0, 0);
        while let Some((from, to)) = extent(file, at)? {
            file.seek(SeekFrom::Start(from))?;
            let mut window = Window { bytes: Vec::new(), at: from };
            let mut data = (&mut *file).take(to - from);
            let mut piece = vec![0; PIECE];
            loop {
                let count = data.read(&mut piece)?;
                if count == 0 {
                    break;
                }
                looked += count as u64;
                self.push(place, &mut window, &piece[..count], finds);
            }
            at = to;
        }
        Ok(looked)
    }
}

/// The next stretch of data from `at` on; none = the end.
fn extent(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek};
    let offset = |offset: u64| i64::try_from(offset).map_err(io::Error::other);
    let _ = file.as_raw_fd();
    let from = match lseek(file, offset(at)?, Whence::SeekData) {
        Ok(from) => from,
        Err(Errno::ENXIO) => return Ok(None),
        // A file system that knows no holes: all of it is data.
        Err(Errno::EINVAL) if at == 0 => return Ok(Some((0, u64::MAX))),
        Err(Errno::EINVAL) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let to = lseek(file, from, Whence::SeekHole)?;
    let plain = |offset: i64| u64::try_from(offset).map_err(io::Error::other);
    Ok(Some((plain(from)?, plain(to)?)))
}

#[cfg(test)]
mod tests {
    use super::super::forms::Kind;
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use std::os::unix::fs::FileExt;

    const PLAIN: &str = "pL4nted/s3cret+of=the run";

    fn scanner() -> Scanner {
        let other = Secret::new(Kind::MasterKey, "", [9; 32]).unwrap();
        let planted = Secret::new(Kind::BmcPassword, "host1", PLAIN).unwrap();
        Scanner::new(&[other, planted]).unwrap()
    }

    /// The secret as each careless program would write it.
    fn written() -> Vec<(&'static str, Vec<u8>)> {
        let percent: String = PLAIN
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        vec![
            ("as it is", PLAIN.into()),
            ("in hex", hex::encode(PLAIN).into()),
            ("in upper-case hex", hex::encode_upper(PLAIN).into()),
            ("in base64", STANDARD.encode(format!("root:{PLAIN}")).into()),
            ("in base64", URL_SAFE.encode(PLAIN).into()),
            ("percent-encoded", percent.into()),
            ("in UTF-16, little-endian", PLAIN.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("in UTF-16, big-endian", PLAIN.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ]
    }

    #[test]
    fn a_planted_secret_is_found_in_each_form_in_a_file_and_in_a_packed_chunk() {
        let (dir, scanner) = (tempfile::tempdir().unwrap(), scanner());
        for (form, text) in written() {
            // Across the border of two pieces, so that carrying over is tried too.
            let at = PIECE - text.len() / 2;
            let mut content = vec![b'x'; 2 * PIECE];
            content[at..at + text.len()].copy_from_slice(&text);
            let plain = dir.path().join("plain");
            std::fs::write(&plain, &content).unwrap();
            let mut finds = Vec::new();
            scanner.file("plain", &plain, &mut finds).unwrap();
            assert_eq!(finds.len(), 1, "{form}: {finds:?}");
            assert_eq!((finds[0].secret, finds[0].form), (1, form));
            assert!(finds[0].offset.abs_diff(at as u64) <= 8, "{form}: {finds:?}");

            let packed = dir.path().join("chunk");
            std::fs::write(&packed, zstd::bulk::compress(&content, 3).unwrap()).unwrap();
            let mut finds = Vec::new();
            scanner.file("chunk", &packed, &mut finds).unwrap();
            assert!(finds.iter().any(|find| find.place == "chunk, unpacked"), "{form}: {finds:?}");
        }
        let clean = dir.path().join("clean");
        std::fs::write(&clean, vec![b'x'; 3 * PIECE]).unwrap();
        let mut finds = Vec::new();
        assert_eq!(scanner.file("clean", &clean, &mut finds).unwrap(), 3 * PIECE as u64);
        assert!(finds.is_empty(), "{finds:?}");
    }

    #[test]
    fn holes_are_passed_over_and_what_lies_behind_them_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let file = File::create(&path).unwrap();
        file.set_len(8 << 30).unwrap();
        file.write_all_at(PLAIN.as_bytes(), (5 << 30) + 77).unwrap();
        let mut finds = Vec::new();
        let looked = scanner().file("disk", &path, &mut finds).unwrap();
        assert_eq!(finds.iter().map(|find| find.offset).collect::<Vec<_>>(), [(5 << 30) + 77]);
        assert!(looked < 16 << 20, "{looked} bytes were read");
        assert_eq!(scanner().file("gone", &dir.path().join("gone"), &mut finds).unwrap(), 0);
    }
}
