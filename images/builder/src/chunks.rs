//! Cuts a partition's content into chunks of 1 MiB: zeros, or a zstd frame in a file named by the hash of its content.
//!
//! Invariants: a chunk's name is the BLAKE3 hash of the content *before* compression, so that an installer verifies what
//! it writes; a file in a store is complete (written aside, then renamed). Known chunks are linked, not packed again.

use crate::error::{self, Error, Result};
use dayzero_model::install::Chunk;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Bytes of a chunk before compression.
pub(crate) const SIZE: usize = 1 << 20;
const LEVEL: i32 = 3;

/// The file of a chunk in a store's directory.
pub fn chunk_path(store: &Path, blake3: &str) -> PathBuf {
    store.join(&blake3[..2.min(blake3.len())]).join(blake3)
}

/// Cuts `image` into `store`; chunks that `known` has are linked from there.
pub(crate) fn cut(image: &Path, store: &Path, known: Option<&Path>) -> Result<Vec<Chunk>> {
    let length = error::size(image)?;
    let count = usize::try_from(length.div_ceil(SIZE as u64)).unwrap_or(usize::MAX);
    let next = Mutex::new((0, File::open(image).map_err(Error::io("cannot open", image))?));
    let chunks = Mutex::new(vec![Chunk::Zero; count]);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    let work = || -> Result<()> {
        let mut buffer = Vec::with_capacity(SIZE);
        loop {
            // A worker that failed poisons nothing that matters: the others end, and the error is returned.
            let number = {
                let Ok(mut guard) = next.lock() else { return Ok(()) };
                if guard.0 == count {
                    return Ok(());
                }
                buffer.clear();
                let limit = SIZE as u64;
                (&mut guard.1)
                    .take(limit)
                    .read_to_end(&mut buffer)
                    .map_err(Error::io("cannot read", image))?;
                guard.0 += 1;
                guard.0 - 1
            };
            let chunk = put(&buffer, store, known)?;
            if let Ok(mut chunks) = chunks.lock() {
                chunks[number] = chunk;
            }
        }
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let stopped = || Err(Error::Input("a worker that cut an image into chunks stopped".into()));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| stopped())).collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    chunks.into_inner().map_err(|_| Error::Input("a worker that cut an image into chunks stopped".into()))
}

fn put(content: &[u8], store: &Path, known: Option<&Path>) -> Result<Chunk> {
    if content.iter().all(|byte| *byte == 0) {
        return Ok(Chunk::Zero);
    }
    let blake3 = blake3::hash(content).to_hex().to_string();
    let path = chunk_path(store, &blake3);
    if !path.exists() {
        error::make_dir(path.parent().unwrap_or(store))?;
        let linked = known.is_some_and(|known| std::fs::hard_link(chunk_path(known, &blake3), &path).is_ok());
        if !linked && !path.exists() {
            let packed = zstd::bulk::compress(content, LEVEL).map_err(Error::io("cannot pack", &path))?;
            let aside = path.with_extension(format!("{:?}", std::thread::current().id()));
            error::write(&aside, packed)?;
            std::fs::rename(&aside, &path).map_err(Error::io("cannot finish", &path))?;
        }
    }
    let compressed =
        u32::try_from(error::size(&path)?).map_err(|e| Error::malformed(&path, e.to_string()))?;
    Ok(Chunk::Data { blake3, compressed })
}

/// The content of a chunk, verified against its name.
///
/// # Errors
/// When the file is missing, no zstd frame, or holds something else.
pub fn read_chunk(store: &Path, blake3: &str) -> Result<Vec<u8>> {
    let path = chunk_path(store, blake3);
    let packed = error::read(&path)?;
    let content = zstd::bulk::decompress(&packed, SIZE).map_err(Error::io("cannot unpack", &path))?;
    if blake3::hash(&content).to_hex().as_str() != blake3 {
        return Err(Error::malformed(&path, "the content does not have the hash that names it"));
    }
    Ok(content)
}

/// Number of chunks with content, and the sum of their packed sizes.
pub(crate) fn totals(chunks: &[Chunk]) -> (usize, u64) {
    let sizes = chunks.iter().filter_map(|chunk| match chunk {
        Chunk::Zero => None,
        Chunk::Data { compressed, .. } => Some(u64::from(*compressed)),
    });
    sizes.fold((0, 0), |(count, sum), size| (count + 1, sum + size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_can_be_put_together_and_a_damaged_chunk_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let (image, store) = (directory.path().join("image"), directory.path().join("chunks"));
        let mut content = vec![0; 3 * SIZE + 100];
        content[SIZE + 5] = 1;
        content[3 * SIZE] = 2;
        std::fs::write(&image, &content).unwrap();
        let chunks = cut(&image, &store, None).unwrap();
        assert_eq!(chunks.len(), 4);
        assert_eq!((&chunks[0], &chunks[2]), (&Chunk::Zero, &Chunk::Zero));
        let mut back = Vec::new();
        for chunk in &chunks {
            match chunk {
                Chunk::Zero => back.resize(back.len() + SIZE, 0),
                Chunk::Data { blake3, .. } => back.extend(read_chunk(&store, blake3).unwrap()),
            }
        }
        assert!(back == content);
        assert_eq!(totals(&chunks).0, 2);

        // A second store takes the files over instead of packing them again.
        let second = directory.path().join("second");
        assert_eq!(cut(&image, &second, Some(&store)).unwrap(), chunks);
        let Chunk::Data { blake3, .. } = &chunks[1] else { panic!("chunk 1 has content") };
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(std::fs::metadata(chunk_path(&second, blake3)).unwrap().nlink(), 2);

        std::fs::write(chunk_path(&store, blake3), zstd::bulk::compress(b"other", 3).unwrap()).unwrap();
        assert!(read_chunk(&store, blake3).is_err());
    }
}
