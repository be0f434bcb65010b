//! The files in an initial RAM disk, as the kernel unpacks it: cpio archives of the "newc" form one after another, each as it
//! is or packed by zstd or gzip (Documentation/driver-api/early-userspace/buffer-format.rst); and what is packed in those
//! files. Strict: bytes that are none of that are an error, since nobody would have looked into them.

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];
const CPIO: [&[u8]; 2] = [b"070701", b"070702"];
const LAST: &[u8] = b"TRAILER!!!";
/// Length of an entry's header.
const HEADER: usize = 110;
/// How often something may be packed in something packed.
const DEEPEST: usize = 4;
/// What one frame or member may unpack to.
const LARGEST: u64 = 2 << 30;

/// Told of each file: its name in the archive and its content.
pub type Each<'a> = dyn FnMut(&str, &[u8]) + 'a;

/// All files of all archives in it.
///
/// # Errors
/// Something in it is no archive, is damaged or breaks off.
pub fn initramfs(bytes: &[u8], each: &mut Each<'_>) -> Result<()> {
    archives(bytes, 0, each)
}

fn archives(bytes: &[u8], depth: usize, each: &mut Each<'_>) -> Result<()> {
    ensure!(depth < DEEPEST, "more than {DEEPEST} times packed");
    let mut rest = bytes;
    loop {
        rest = &rest[rest.iter().take_while(|byte| **byte == 0).count()..];
        if rest.is_empty() {
            return Ok(());
        }
        let at = bytes.len() - rest.len();
        let after = if is_cpio(rest) {
            cpio(rest, depth, each)
        } else if is_packed(rest) {
            let (content, after) =
                unpack(rest).with_context(|| format!("unpacking what begins at byte {at}"))?;
            archives(&content, depth + 1, each).map(|()| after)
        } else {
            bail!("what begins at byte {at} is neither cpio nor zstd nor gzip")
        };
        rest = after.with_context(|| format!("in what begins at byte {at}"))?;
    }
}

fn is_cpio(bytes: &[u8]) -> bool {
    CPIO.iter().any(|magic| bytes.starts_with(magic))
}

fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(ZSTD) || bytes.starts_with(GZIP)
}

/// One frame or member, and what comes after it.
fn unpack(bytes: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    if bytes.starts_with(GZIP) {
        return gunzip(bytes);
    }
    let mut frame = zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame();
    let mut content = Vec::new();
    (&mut frame).take(LARGEST + 1).read_to_end(&mut content)?;
    ensure!(content.len() as u64 <= LARGEST, "more than {LARGEST} bytes are packed in it");
    Ok((content, frame.finish()))
}

/// Where a member ends only its unpacker knows: at the first place where something else could begin, or at the end, up to
/// which `gzip` finds it whole.
fn gunzip(bytes: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let begins = |at: &usize| is_cpio(&bytes[*at..]) || is_packed(&bytes[*at..]);
    for end in (GZIP.len()..bytes.len()).filter(begins).chain([bytes.len()]) {
        let mut file = tempfile::tempfile()?;
        file.write_all(&bytes[..end])?;
        std::io::Seek::rewind(&mut file)?;
        if let Some(content) = whole_member(file)? {
            return Ok((content, &bytes[end..]));
        }
    }
    bail!("gzip finds it damaged")
}

fn whole_member(file: File) -> Result<Option<Vec<u8>>> {
    let mut gzip = Command::new("gzip");
    gzip.arg("-dc").stdin(file).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut gzip = gzip.spawn().context("starting gzip")?;
    let mut content = Vec::new();
    let read = gzip.stdout.take().context("gzip's output")?.take(LARGEST).read_to_end(&mut content);
    let whole = gzip.wait()?.success();
    read?;
    Ok(whole.then_some(content))
}

/// One archive; what comes after it.
fn cpio<'a>(bytes: &'a [u8], depth: usize, each: &mut Each<'_>) -> Result<&'a [u8]> {
    let mut at = 0;
    loop {
        let entry = &bytes[at..];
        ensure!(is_cpio(entry) && entry.len() >= HEADER, "the archive breaks off at its byte {at}");
        let field = |number: usize| {
            let digits = &entry[6 + number * 8..14 + number * 8];
            std::str::from_utf8(digits).ok().and_then(|text| usize::from_str_radix(text, 16).ok())
        };
        let sizes = field(6).zip(field(11)).with_context(|| format!("no sizes in the entry at byte {at}"))?;
        let (content_size, name_size) = sizes;
        let content_at = (HEADER + name_size).next_multiple_of(4);
        let name = entry.get(HEADER..HEADER + name_size);
        let content = entry.get(content_at..content_at + content_size);
        let (name, content) =
            name.zip(content).with_context(|| format!("the entry at byte {at} breaks off"))?;
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let end = at + (content_at + content_size).next_multiple_of(4);
        if name == LAST {
            return Ok(bytes.get(end..).unwrap_or_default());
        }
        if !content.is_empty() {
            let name = String::from_utf8_lossy(name);
            each(&name, content);
            if is_packed(content) {
                unpacked(&name, content, depth + 1, each)?;
            }
        }
        at = end;
        ensure!(at <= bytes.len(), "the archive breaks off at its end");
    }
}

/// A file that is packed: all its frames or members.
fn unpacked(name: &str, content: &[u8], depth: usize, each: &mut Each<'_>) -> Result<()> {
    ensure!(depth < DEEPEST, "{name}: more than {DEEPEST} times packed");
    let mut rest = content;
    while is_packed(rest) {
        let (content, after) = unpack(rest).with_context(|| format!("unpacking {name}"))?;
        let inner = format!("{name}, unpacked");
        each(&inner, &content);
        if is_packed(&content) {
            unpacked(&inner, &content, depth + 1, each)?;
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, content) in files.iter().chain(&[("TRAILER!!!", &b""[..])]) {
            let mut fields = [0; 13];
            (fields[1], fields[6], fields[11]) = (0o100_644, content.len(), name.len() + 1);
            out.extend_from_slice(b"070701");
            fields.iter().for_each(|field| out.extend_from_slice(format!("{field:08x}").as_bytes()));
            out.extend_from_slice(name.as_bytes());
            out.push(0);
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 3).unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        Command::new("gzip").arg("-c").stdin(file).output().unwrap().stdout
    }

    fn files(bytes: &[u8]) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        initramfs(bytes, &mut |name, content| {
            found.push((name.to_owned(), String::from_utf8_lossy(content).into_owned()));
        })?;
        Ok(found)
    }

    #[test]
    fn every_file_of_every_archive_is_seen_however_they_are_packed_and_joined() {
        let one = |name, text: &'static str| archive(&[(name, text.as_bytes())]);
        let joined = [
            one("kernel/microcode", "as it is"),
            zstd(&one("etc/a", "by zstd")),
            gzip(&one("etc/b", "by gzip")),
            vec![0; 512],
            gzip(&[one("etc/c", "the second member"), one("etc/d", "two in one")].concat()),
            zstd(&one("etc/e", "the last")),
        ]
        .concat();
        let names =
            |bytes: &[u8]| files(bytes).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&joined), ["kernel/microcode", "etc/a", "etc/b", "etc/c", "etc/d", "etc/e"]);
        let inner = archive(&[("a.zst", &zstd(b"packed twice")), ("b.gz", &gzip(&zstd(b"three times")))]);
        let seen = files(&zstd(&inner)).unwrap();
        let has = |name: &str, text: &str| seen.iter().any(|file| *file == (name.into(), text.into()));
        assert!(has("a.zst, unpacked", "packed twice"), "{seen:?}");
        assert!(has("b.gz, unpacked, unpacked", "three times"), "{seen:?}");
    }

    #[test]
    fn what_cannot_be_looked_into_is_an_error() {
        let whole = archive(&[("etc/a", b"text")]);
        for (bytes, word) in [
            ([&whole[..], b"something else"].concat(), "neither"),
            (whole[..whole.len() / 4].to_vec(), "breaks off"),
            (zstd(&whole)[..20].to_vec(), "unpacking"),
            (gzip(&whole)[..20].to_vec(), "unpacking"),
            ([zstd(&whole), zstd(b"no archive")].concat(), "neither"),
        ] {
            let error = format!("{:#}", files(&bytes).unwrap_err());
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
