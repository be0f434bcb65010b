//! What can go wrong while an image is built, each with the place and what a person can do.

use std::path::{Path, PathBuf};

/// A failed build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that the build calls is not on this machine.
    #[error("the program '{program}' is missing: install the Debian package '{package}'")]
    MissingTool {
        /// The program's name.
        program: String,
        /// The package that brings it.
        package: &'static str,
    },
    /// A program ran and failed.
    #[error("{what}: '{program}' ended with {status}; its last lines: {tail}")]
    Tool {
        /// What the program was called for.
        what: String,
        /// The program's name.
        program: String,
        /// How it ended.
        status: String,
        /// The last lines of its output.
        tail: String,
    },
    /// A file or directory could not be read or written.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried, such as "cannot write".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is there, but is not what it should be.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected, and what was found.
        reason: String,
    },
    /// Something that the build was given cannot be used.
    #[error("{0}")]
    Input(String),
}

/// The result of a step of a build.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An I/O error with its path, for `map_err`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { what, path, source }
    }

    /// A file that is not what it should be.
    pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> Error {
        Error::Malformed { path: path.to_path_buf(), reason: reason.into() }
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io("cannot read", path))
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io("cannot read", path))
}

pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, bytes).map_err(Error::io("cannot write", path))
}

pub(crate) fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io("cannot make the directory", path))
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map(drop).map_err(Error::io("cannot copy to", to))
}

/// The size of a file in bytes.
pub(crate) fn size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).map_err(Error::io("cannot look at", path))?.len())
}

/// The text of a path that goes onto a command line.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::malformed(path, "a path of the build must be UTF-8"))
}
