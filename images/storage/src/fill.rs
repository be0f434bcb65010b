//! Fills a volume from a template: streamed by HTTP, hashed on the way, and read back from the device. The device is held
//! exclusively meanwhile: one that is mounted, or part of something, is refused before a byte is written.

use crate::StorageError;
use crate::block::{Access, Device};
use dayzero_model::Sha256;
use sha2::Digest;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

const BLOCK: usize = 1 << 20;

fn wrong(code: &'static str, sentence: String, expected: String, observed: String) -> StorageError {
    StorageError::wrong(code, sentence, expected, observed)
}

/// Writes the template at `url` to the volume, and returns the SHA-256 of what was read back.
///
/// # Errors
/// `volume-in-use`, `template-unreachable`, `template-too-large`, `template-corrupt` (another hash than expected: the volume's head is
/// cleared, so that nothing boots from it), or I/O.
pub async fn fill(volume: &Path, url: &str, expected: &Sha256) -> Result<Sha256, StorageError> {
    let unreachable = |error: reqwest::Error| {
        let observed = error.without_url().to_string();
        wrong(
            "template-unreachable",
            format!("the template {url} cannot be fetched: {observed}"),
            "HTTP 200".to_owned(),
            observed,
        )
    };
    let client = crate::source::client(None)?;
    let mut response = client.get(url).send().await.map_err(unreachable)?;
    if response.status() != reqwest::StatusCode::OK {
        let status = response.status().to_string();
        return Err(wrong(
            "template-unreachable",
            format!("the template {url}: {status}"),
            "HTTP 200".to_owned(),
            status,
        ));
    }
    let room = volume_size(volume)?;
    let held = std::sync::Arc::new(hold(volume)?);
    // What a deleted volume of somebody else's left here is not for the next one to read.
    let whole = held.clone();
    let emptied = tokio::task::spawn_blocking(move || whole.zero(0, room - room % 512)).await;
    emptied.map_err(|error| StorageError::io("emptying", volume)(error.into()))??;
    let mut out = open(volume, true)?;
    let (mut hash, mut len) = (sha2::Sha256::new(), 0_u64);
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        len += chunk.len() as u64;
        if len > room {
            let sentence = format!("the template {url} does not fit into {}", volume.display());
            return Err(wrong(
                "template-too-large",
                sentence,
                format!("at most {room} bytes"),
                format!("more than {room}"),
            ));
        }
        hash.update(&chunk);
        out.write_all(&chunk).map_err(StorageError::io("volume", volume))?;
    }
    out.sync_all().map_err(StorageError::io("volume", volume))?;
    let fetched = Sha256(hash.finalize().into());
    if fetched != *expected {
        clear_head(volume)?;
        let sentence = format!("the template {url} is not the registered one");
        return Err(wrong("template-corrupt", sentence, expected.to_string(), fetched.to_string()));
    }
    let volume = volume.to_owned();
    let read = tokio::task::spawn_blocking(move || read_back(&volume, len)).await;
    let read =
        read.map_err(|error| StorageError::io("reading back", Path::new("the volume"))(error.into()))??;
    if read != fetched {
        let sentence = "what was written to the volume reads back differently".to_owned();
        return Err(wrong("volume-corrupt", sentence, fetched.to_string(), read.to_string()));
    }
    Ok(read)
}

/// Opens a volume so that nothing else can claim it; a device that something has claimed is refused.
///
/// # Errors
/// `volume-in-use`, or I/O.
pub(crate) fn hold(volume: &Path) -> Result<Device, StorageError> {
    Device::open(volume, Access::Exclusive).map_err(|error| refused(volume, error))
}

fn refused(volume: &Path, error: StorageError) -> StorageError {
    match error {
        StorageError::Io { source, .. } if source.kind() == std::io::ErrorKind::ResourceBusy => wrong(
            crate::lvm::IN_USE,
            format!("{} is in use on this host, and is not overwritten", volume.display()),
            "a volume that nothing has open".to_owned(),
            source.to_string(),
        ),
        other => other,
    }
}

fn open(volume: &Path, write: bool) -> Result<std::fs::File, StorageError> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(write)
        .open(volume)
        .map_err(StorageError::io("volume", volume))
}

fn volume_size(volume: &Path) -> Result<u64, StorageError> {
    open(volume, false)?.seek(SeekFrom::End(0)).map_err(StorageError::io("volume", volume))
}

fn clear_head(volume: &Path) -> Result<(), StorageError> {
    let io = || StorageError::io("volume", volume);
    let mut out = open(volume, true)?;
    out.write_all(&[0; 4096]).map_err(io())?;
    out.sync_all().map_err(io())
}

/// Past the page cache: what the device holds.
fn read_back(volume: &Path, len: u64) -> Result<Sha256, StorageError> {
    let io = || StorageError::io("volume", volume);
    let file = open(volume, false)?;
    let _ = nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let (mut hash, mut buffer) = (sha2::Sha256::new(), vec![0; BLOCK]);
    let mut rest = file.take(len);
    loop {
        let read = rest.read(&mut buffer).map_err(io())?;
        if read == 0 {
            return Ok(Sha256(hash.finalize().into()));
        }
        hash.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn serve(body: &'static [u8]) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/t.raw", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(body).await.unwrap();
        });
        url
    }

    fn volume(len: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(len).unwrap();
        file
    }

    #[tokio::test]
    async fn a_template_is_written_and_read_back() {
        let file = volume(8192);
        std::fs::write(file.path(), [0xaa; 8192]).unwrap();
        let read =
            fill(file.path(), &serve(b"boot sector").await, &Sha256::of(b"boot sector")).await.unwrap();
        assert_eq!(read, Sha256::of(b"boot sector"));
        let now = std::fs::read(file.path()).unwrap();
        assert!(now.starts_with(b"boot sector") && now[11..].iter().all(|byte| *byte == 0), "old data shows");
    }

    #[tokio::test]
    async fn a_wrong_template_leaves_nothing_bootable() {
        let file = volume(8192);
        let error = fill(file.path(), &serve(b"other").await, &Sha256::of(b"boot sector")).await.unwrap_err();
        assert_eq!(error.code(), "template-corrupt");
        assert!(std::fs::read(file.path()).unwrap().iter().all(|byte| *byte == 0));
        let error = fill(volume(2).path(), &serve(b"other").await, &Sha256::of(b"other")).await.unwrap_err();
        assert_eq!(error.code(), "template-too-large");
    }

    #[test]
    fn a_device_that_something_has_claimed_is_refused_in_words() {
        let volume = Path::new("/dev/dz-lun0/vol-hello");
        for (errno, code) in [(libc::EBUSY, "volume-in-use"), (libc::EIO, "io")] {
            let error = StorageError::io("opening", volume)(std::io::Error::from_raw_os_error(errno));
            assert_eq!(refused(volume, error).code(), code);
        }
    }
}
