//! Network namespaces by name, as `ip netns` keeps them: made, entered by a thread of their own, and removed.
//!
//! Invariants: the calling thread's namespace never changes (a fresh thread enters and ends); a name that exists
//! already is an error, never taken over. It does not know which namespaces a lab has.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A namespace that could not be made, entered or configured.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The name is taken.
    #[error(
        "network namespace '{0}' exists and is not this lab's: remove it with 'ip netns delete {0}' if nobody uses it"
    )]
    Exists(String),
    /// `ip` said no.
    #[error("'ip {command}' failed: {said}")]
    Ip {
        /// Its arguments or batch line.
        command: String,
        /// What it wrote to stderr.
        said: String,
    },
    /// A system call failed.
    #[error("cannot {doing} in network namespace '{name}'")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The namespace.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

/// Where `ip netns` keeps the names.
pub fn path_of(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// Inode of a named namespace, if it exists.
pub fn inode_of(name: &str) -> Option<u64> {
    std::fs::metadata(path_of(name)).ok().map(|meta| meta.ino())
}

/// Runs `ip` with arguments.
pub fn ip(arguments: &[&str]) -> Result<(), NetnsError> {
    run_ip(arguments, None)
}

fn run_ip(arguments: &[&str], batch: Option<&str>) -> Result<(), NetnsError> {
    use std::io::Write;
    let fail =
        |said: String| NetnsError::Ip { command: batch.unwrap_or(&arguments.join(" ")).to_owned(), said };
    let input = if batch.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(input)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fail(error.to_string()))?;
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), batch) {
        stdin.write_all(text.as_bytes()).map_err(|error| fail(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| fail(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

impl Netns {
    /// Makes a namespace and opens it, with `lo` up.
    pub fn create(name: &str) -> Result<Self, NetnsError> {
        if inode_of(name).is_some() {
            return Err(NetnsError::Exists(name.to_owned()));
        }
        ip(&["netns", "add", name])?;
        let netns = Self::open(name)?;
        netns.configure("link set lo up\n")?;
        Ok(netns)
    }

    /// Opens one that exists.
    pub fn open(name: &str) -> Result<Self, NetnsError> {
        let file = File::open(path_of(name)).map_err(|source| NetnsError::Io {
            doing: "open the handle",
            name: name.to_owned(),
            source,
        })?;
        Ok(Self { name: name.to_owned(), file })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A second descriptor of it, for a child to enter.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Runs lines of `ip -batch` in it.
    pub fn configure(&self, batch: &str) -> Result<(), NetnsError> {
        run_ip(&["-n", &self.name, "-batch", "-"], Some(batch))
    }

    /// Runs `work` on a thread that has entered the namespace. Sockets and taps made there stay in it.
    pub fn run<T: Send>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, NetnsError> {
        let entered = || {
            nix::sched::setns(&self.file, nix::sched::CloneFlags::CLONE_NEWNET)?;
            work()
        };
        let result = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("lab-netns".into()).spawn_scoped(scope, entered)?;
            thread.join().map_err(|_| io::Error::other("the thread in the namespace ended abnormally"))?
        });
        result.map_err(|source| NetnsError::Io { doing, name: self.name.clone(), source })
    }
}

/// Removes a namespace by name; one that is gone already is no error.
pub fn remove(name: &str) -> Result<(), NetnsError> {
    if inode_of(name).is_none() {
        return Ok(());
    }
    ip(&["netns", "delete", name])
}
