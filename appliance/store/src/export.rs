//! Export and import: all records and blobs as zstd-compressed JSON lines, closed by a count and a hash.
//!
//! Secrets stay sealed in it (the vault's key is not in the store). An import keeps tables, keys, schemas, values and
//! times; revisions begin anew, so nothing may keep a revision inside a value.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dayzero_model::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use crate::files::{create_dir, write_whole};
use crate::store::{MAX_TRANSACTION, MAX_VALUE};
use crate::table::{raw_key, split_key};
use crate::tx::{Request, Write as TxWrite};
use crate::{BlobRef, Revision, Store, StoreError, envelope};

const VERSION: u32 = 1;
const PART: usize = 96 << 10;
const MAX_LINE: u64 = 256 << 10;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Begin { version: u32, revision: Revision, at: Timestamp },
    Record { table: String, key: String, schema: u16, at: Timestamp, value: serde_json::Value },
    Blob { sha256: Sha256, size: u64, base64: String },
    End { records: u64, blobs: u64, sha256: Sha256 },
}

/// What an export or import moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Records.
    pub records: u64,
    /// Blobs.
    pub blobs: u64,
}

/// Writes through a hash.
struct Hashing<W> {
    to: W,
    hash: sha2::Sha256,
}

impl<W: Write> Hashing<W> {
    fn line(&mut self, line: &Line) -> Result<(), StoreError> {
        let failed = StoreError::io("write", Path::new("the export"));
        let mut text = serde_json::to_vec(line).map_err(|e| failed_json(&e))?;
        text.push(b'\n');
        self.hash.update(&text);
        self.to.write_all(&text).map_err(failed)
    }
}

fn failed_json(e: &serde_json::Error) -> StoreError {
    StoreError::Engine { action: "export", detail: e.to_string() }
}

impl Store {
    /// Writes everything to `to`. One consistent state of the records; commits wait meanwhile. Blocks.
    pub fn export(&self, to: impl Write) -> Result<Moved, StoreError> {
        let failed = || StoreError::io("write", Path::new("the export"));
        let compressed = zstd::Encoder::new(to, 3).map_err(failed())?;
        let mut out = Hashing { to: compressed, hash: sha2::Sha256::new() };
        let mut moved = Moved::default();
        out.line(&Line::Begin { version: VERSION, revision: self.revision(), at: (self.options().clock)() })?;
        self.view().scan(&[], None, &mut |key, stored| {
            let envelope = envelope::open(key, stored)?;
            let (table, key) = split_key(key);
            let decode = |e: serde_json::Error| StoreError::Decode {
                table: table.to_owned(),
                key: key.to_owned(),
                detail: e.to_string(),
            };
            out.line(&Line::Record {
                table: table.to_owned(),
                key: key.to_owned(),
                schema: envelope.schema,
                at: envelope.written_at,
                value: serde_json::from_slice(envelope.body).map_err(decode)?,
            })?;
            moved.records += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        for blob in self.blobs()? {
            let content = self.get_blob(&blob)?;
            // An empty blob has one empty part.
            let parts = content.chunks(PART).chain(content.is_empty().then_some(&content[..]));
            for part in parts {
                out.line(&Line::Blob { sha256: blob.sha256, size: blob.size, base64: BASE64.encode(part) })?;
            }
            moved.blobs += 1;
        }
        let sha256 = Sha256(out.hash.clone().finalize().into());
        out.line(&Line::End { records: moved.records, blobs: moved.blobs, sha256 })?;
        let mut to = out.to.finish().map_err(failed())?;
        to.flush().map_err(failed())?;
        Ok(moved)
    }

    /// Exports into a new file below `exports/` of the data directory, durably, and removes the oldest above
    /// [`crate::Options::keep_exports`]. Blocks.
    pub fn export_file(&self) -> Result<PathBuf, StoreError> {
        let dir = self.dir().join("exports");
        create_dir(&dir)?;
        let name = format!("{:015}-r{:012}.jsonl.zst", (self.options().clock)().0, self.revision().0);
        let path = dir.join(name);
        write_whole(&path, |file| self.export(file))?;
        let mut all = list(&dir);
        while all.len() > self.options().keep_exports.max(1) {
            let oldest = all.remove(0);
            fs::remove_file(&oldest).map_err(StoreError::io("remove", &oldest))?;
        }
        Ok(path)
    }

    /// Reads an export into this store, which must be empty. The whole of it is checked before the first record is written.
    /// Blocks; call it outside a runtime or on a blocking thread.
    pub fn import(&self, mut from: impl Read) -> Result<Moved, StoreError> {
        let records = self.verify()?.records;
        if records > 0 {
            return Err(StoreError::NotEmpty { records });
        }
        let path = self.dir().join("import.tmp");
        let result = (|| {
            let mut spool = File::options().read(true).write(true).create(true).truncate(true).open(&path);
            let spool = spool.as_mut().map_err(|e| StoreError::io("create", &path)(e.kind().into()))?;
            std::io::copy(&mut from, spool).map_err(StoreError::io("write", &path))?;
            spool.rewind().map_err(StoreError::io("read", &path))?;
            read(&*spool, |_| Ok(()))?;
            spool.rewind().map_err(StoreError::io("read", &path))?;
            let mut loader = Loader { store: self, request: Request::default(), blob: None };
            let moved = read(&*spool, |line| loader.take(line))?;
            loader.flush()?;
            Ok(moved)
        })();
        drop(fs::remove_file(&path));
        result
    }
}

/// Exports in a directory, oldest first.
fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.to_string_lossy().ends_with(".jsonl.zst")).collect();
    all.sort();
    all
}

/// The newest export in a directory.
pub(crate) fn newest(dir: &Path) -> Option<PathBuf> {
    list(dir).pop()
}

/// Walks an export and checks its form, counts and hash; `take` gets each line.
fn read(from: &File, mut take: impl FnMut(Line) -> Result<(), StoreError>) -> Result<Moved, StoreError> {
    let at = |line: u64| move |detail: String| StoreError::BadImport { line, detail };
    let decoder = zstd::Decoder::new(from).map_err(|e| at(0)(format!("no zstd stream: {e}")))?;
    let mut lines = BufReader::new(decoder);
    let mut hash = sha2::Sha256::new();
    let mut moved = Moved::default();
    let mut last_blob = None;
    let mut number = 0;
    loop {
        number += 1;
        let bad = at(number);
        let mut text = Vec::new();
        let read = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut text);
        read.map_err(|e| bad(format!("cannot decompress: {e}")))?;
        if text.last() != Some(&b'\n') {
            let what = if text.len() as u64 == MAX_LINE {
                "the line is too long"
            } else {
                "the file ends before its end line"
            };
            return Err(bad(what.to_owned()));
        }
        let line: Line = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        match &line {
            Line::Begin { version, .. } if number == 1 && *version == VERSION => {}
            Line::Begin { version, .. } => return Err(bad(format!("a begin line of version {version}"))),
            _ if number == 1 => return Err(bad("the begin line is missing".to_owned())),
            Line::Record { .. } => moved.records += 1,
            Line::Blob { sha256, .. } => {
                moved.blobs += u64::from(last_blob != Some(*sha256));
                last_blob = Some(*sha256);
            }
            Line::End { records, blobs, sha256 } => {
                let found = Sha256(hash.finalize().into());
                if (*records, *blobs) != (moved.records, moved.blobs) {
                    return Err(bad(format!(
                        "{records} records and {blobs} blobs announced, found {moved:?}"
                    )));
                }
                if found != *sha256 {
                    return Err(bad(format!("the hash is {found}, announced was {sha256}")));
                }
                return Ok(moved);
            }
        }
        hash.update(&text);
        take(line)?;
    }
}

struct Loader<'a> {
    store: &'a Store,
    request: Request,
    blob: Option<(BlobRef, Vec<u8>)>,
}

impl Loader<'_> {
    fn take(&mut self, line: Line) -> Result<(), StoreError> {
        match line {
            Line::Record { table, key, schema, at, value } => {
                let body = serde_json::to_vec(&value).map_err(|e| failed_json(&e))?;
                let (raw, size) = (raw_key(&table, &key), body.len());
                if size > 2 * MAX_VALUE || table.contains('\0') || key.contains('\0') {
                    return Err(StoreError::BadImport {
                        line: 0,
                        detail: format!("{table}/{key} cannot be stored"),
                    });
                }
                self.request.size += raw.len() + size + crate::log::WRITE_OVERHEAD;
                self.request.writes.push(TxWrite::Put { key: raw, schema, at: Some(at), body });
                if self.request.size > MAX_TRANSACTION / 2 { self.flush() } else { Ok(()) }
            }
            Line::Blob { sha256, size, base64 } => {
                let part = BASE64.decode(base64);
                let part = part.map_err(|e| StoreError::BadImport { line: 0, detail: e.to_string() })?;
                let mut blob = match self.blob.take() {
                    Some(known) if known.0.sha256 == sha256 => known,
                    _ => (BlobRef { sha256, size }, Vec::new()),
                };
                blob.1.extend_from_slice(&part);
                if blob.1.len() as u64 >= blob.0.size {
                    let stored = self.store.put_blob(&blob.1)?;
                    if stored.sha256 != sha256 {
                        let detail = format!("blob {sha256} has the hash {}", stored.sha256);
                        return Err(StoreError::BadImport { line: 0, detail });
                    }
                } else {
                    self.blob = Some(blob);
                }
                Ok(())
            }
            Line::Begin { .. } | Line::End { .. } => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let request = std::mem::take(&mut self.request);
        if request.writes.is_empty() {
            return Ok(());
        }
        let (answer, receive) = std::sync::mpsc::sync_channel(1);
        self.store.submit(request, Box::new(move |result| drop(answer.send(result))))?;
        receive.recv().unwrap_or(Err(StoreError::Closed)).map(|_| ())
    }
}
