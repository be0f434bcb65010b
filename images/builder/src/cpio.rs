//! Writes `cpio` archives of the "newc" form, as the kernel unpacks them into its first root
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Invariants: the same content gives the same bytes (entries sorted, owner root, time 0, inodes counted from 1);
//! every directory of an entry is in the archive, before it. It reads no file and compresses nothing.

use std::collections::BTreeMap;

/// What one name of the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File { mode: u32, content: Vec<u8> },
    Symlink(String),
    CharDevice { mode: u32, major: u32, minor: u32 },
}

/// An archive in the making. Names are relative: `etc/hostname`.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    nodes: BTreeMap<String, Node>,
}

impl Archive {
    pub(crate) fn directory(&mut self, name: &str) {
        self.parents(name);
        self.nodes.entry(name.trim_matches('/').to_owned()).or_insert(Node::Directory);
    }

    pub(crate) fn file(&mut self, name: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.add(name, Node::File { mode, content: content.into() });
    }

    pub(crate) fn symlink(&mut self, name: &str, target: &str) {
        self.add(name, Node::Symlink(target.to_owned()));
    }

    pub(crate) fn device(&mut self, name: &str, mode: u32, major: u32, minor: u32) {
        self.add(name, Node::CharDevice { mode, major, minor });
    }

    fn add(&mut self, name: &str, node: Node) {
        self.parents(name);
        self.nodes.insert(name.trim_matches('/').to_owned(), node);
    }

    fn parents(&mut self, name: &str) {
        let name = name.trim_matches('/');
        for (at, _) in name.match_indices('/') {
            self.nodes.entry(name[..at].to_owned()).or_insert(Node::Directory);
        }
    }

    /// The archive's bytes, closed by its trailer and padded to 512.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // A BTreeMap's order puts each directory before what is in it: a prefix sorts first.
        for (inode, (name, node)) in (1..).zip(&self.nodes) {
            let (mode, links, content, device): (u32, u32, &[u8], (u32, u32)) = match node {
                Node::Directory => (0o040_755, 2, &[], (0, 0)),
                Node::File { mode, content } => (0o100_000 | mode, 1, content, (0, 0)),
                Node::Symlink(target) => (0o120_777, 1, target.as_bytes(), (0, 0)),
                Node::CharDevice { mode, major, minor } => (0o020_000 | mode, 1, &[], (*major, *minor)),
            };
            entry(&mut out, inode, mode, links, name, content, device);
        }
        entry(&mut out, 0, 0, 1, "TRAILER!!!", &[], (0, 0));
        pad(&mut out, 512);
        out
    }
}

fn entry(
    out: &mut Vec<u8>,
    inode: u32,
    mode: u32,
    links: u32,
    name: &str,
    content: &[u8],
    device: (u32, u32),
) {
    let fields = [
        inode,
        mode,
        0, // owner
        0, // group
        links,
        0, // time
        content.len() as u32,
        0,
        0,
        device.0,
        device.1,
        name.len() as u32 + 1,
        0, // no checksum in this form
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out, 4);
    out.extend_from_slice(content);
    pad(out, 4);
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Archive {
        let mut archive = Archive::default();
        archive.file("usr/lib/thing", 0o755, "content");
        archive.symlink("init", "usr/lib/thing");
        archive.device("dev/console", 0o600, 5, 1);
        archive.directory("proc");
        archive
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_whatever_the_order() {
        let mut other = Archive::default();
        other.directory("proc");
        other.device("dev/console", 0o600, 5, 1);
        other.symlink("init", "usr/lib/thing");
        other.file("usr/lib/thing", 0o755, "content");
        assert_eq!(example().bytes(), other.bytes());
    }

    #[test]
    fn gnu_cpio_reads_it_back() {
        use std::io::Write as _;
        let mut child = std::process::Command::new("cpio")
            .args(["-itv", "--quiet", "--numeric-uid-gid"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&example().bytes()).unwrap();
        let listing = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<_> =
            listing.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        drwxr-xr-x 2 0 0 0 Jan 1 1970 dev
        crw------- 1 0 0 5, 1 Jan 1 1970 dev/console
        lrwxrwxrwx 1 0 0 13 Jan 1 1970 init -> usr/lib/thing
        drwxr-xr-x 2 0 0 0 Jan 1 1970 proc
        drwxr-xr-x 2 0 0 0 Jan 1 1970 usr
        drwxr-xr-x 2 0 0 0 Jan 1 1970 usr/lib
        -rwxr-xr-x 1 0 0 7 Jan 1 1970 usr/lib/thing
        ");
    }
}
