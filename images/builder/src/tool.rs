//! Runs the system's image tools (mmdebstrap, mke2fs, mtools, GRUB).
//!
//! Invariants: a tool dies with this process ([`Tool::isolated`] also with all its children, and its mounts exist in a
//! mount namespace of its own alone, so that none is left behind); its output is kept and quoted when it fails; no
//! secret goes through here. It knows nothing of what the tools make.

use crate::error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The Debian package of each program that a build calls.
const PACKAGES: [(&str, &str); 23] = [
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("cp", "coreutils"),
    ("debugfs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("dpkg-deb", "dpkg"),
    ("grub-mkimage", "grub-common"),
    ("dpkg-query", "dpkg"),
    ("du", "coreutils"),
    ("dumpe2fs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("mcopy", "mtools"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.vfat", "dosfstools"),
    ("mmd", "mtools"),
    ("mmdebstrap", "mmdebstrap"),
    ("setpriv", "util-linux"),
    ("sh", "dash"),
    ("strip", "binutils"),
    ("sfdisk", "fdisk"),
    ("unshare", "util-linux"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// The Debian packages that a machine needs to build every image.
pub fn needed_packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = PACKAGES.iter().map(|(_, package)| *package).collect();
    packages.extend(["busybox-static", "grub-pc-bin", "grub-efi-amd64-bin"]);
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// One call of a program.
pub(crate) struct Tool {
    program: String,
    args: Vec<OsString>,
    env: Vec<(&'static str, String)>,
    input: Option<Vec<u8>>,
    directory: Option<std::path::PathBuf>,
    isolated: bool,
}

impl Tool {
    pub(crate) fn new(program: &str) -> Self {
        // A fixed clock and language: the same inputs give the same bytes, and messages can be read by a program.
        let epoch = crate::EPOCH.to_string();
        let env = vec![
            ("SOURCE_DATE_EPOCH", epoch.clone()),
            ("E2FSPROGS_FAKE_TIME", epoch),
            ("LC_ALL", "C.UTF-8".into()),
            ("TZ", "UTC".into()),
            ("MTOOLS_SKIP_CHECK", "1".into()),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ];
        Self { program: program.to_owned(), args: vec![], env, input: None, directory: None, isolated: false }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    pub(crate) fn directory(mut self, path: &Path) -> Self {
        self.directory = Some(path.to_path_buf());
        self
    }

    /// Runs it in mount and process namespaces of its own: when it ends, or this process does, nothing of it remains.
    pub(crate) fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// Runs the program to its end and gives what it printed on standard output. `what` says why, for the error.
    pub(crate) fn run(self, what: &str) -> Result<Vec<u8>> {
        let package =
            PACKAGES.iter().find(|(name, _)| *name == self.program).map_or("?", |(_, package)| package);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if self.isolated {
            command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        }
        command.arg(&self.program).args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if !on_path(&self.program) {
            return Err(Error::MissingTool { program: self.program, package });
        }
        let failed = |source| Error::Io { what: "cannot run", path: self.program.clone().into(), source };
        let mut child = command.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        let input = self.input.unwrap_or_default();
        // Written beside the reading of the output: either pipe may fill first. A program that stops reading tells by
        // its status what it disliked, so a broken pipe is no news.
        let writer = std::thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
        let output = child.wait_with_output().map_err(failed)?;
        drop(writer.join());
        if output.status.success() {
            return Ok(output.stdout);
        }
        let mut all = output.stdout;
        all.truncate(1 << 20);
        all.extend_from_slice(&output.stderr);
        Err(Error::Tool {
            what: what.to_owned(),
            program: self.program,
            status: output.status.to_string(),
            tail: last_lines(&String::from_utf8_lossy(&all), 15),
        })
    }

    /// As [`Tool::run`], and the output as text.
    pub(crate) fn text(self, what: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.run(what)?).into_owned())
    }
}

fn on_path(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin", "/usr/local/sbin"]
        .iter()
        .any(|directory| Path::new(directory).join(program).exists())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_last_words_of_the_program() {
        let error = Tool::new("xz").arg("-dc").input("no archive").run("unpacking a test").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("unpacking a test") && text.contains("format not recognized"), "{text}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = Tool::new("no-such-program").run("nothing").unwrap_err();
        assert!(matches!(error, Error::MissingTool { .. }), "{error}");
        assert!(needed_packages().contains(&"mmdebstrap") && needed_packages().contains(&"grub-pc-bin"));
    }

    #[test]
    fn large_input_and_output_do_not_block_each_other() {
        let input = vec![b'x'; 3 << 20];
        let packed = Tool::new("zstd").args(["-q", "-1", "-c"]).input(input.clone()).run("packing").unwrap();
        let back = Tool::new("zstd").args(["-q", "-dc"]).input(packed).run("unpacking").unwrap();
        assert!(back == input);
    }

    #[test]
    fn an_isolated_program_mounts_nothing_outside() {
        let before = std::fs::read_to_string("/proc/self/mounts").unwrap();
        // SAFETY is the system's: this needs root, as every build does.
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        Tool::new("unshare")
            .args(["sh", "-c", "mount -t tmpfs dayzero-test /mnt && ls /mnt"])
            .isolated()
            .run("a mount")
            .unwrap();
        assert_eq!(before, std::fs::read_to_string("/proc/self/mounts").unwrap());
    }
}
