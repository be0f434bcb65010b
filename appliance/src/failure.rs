//! Why a command ended without success, and with which exit code: 1 the system's failure, 2 the user's fault.

use std::error::Error;

/// The end of a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user must change something: exit code 2.
    User(String),
    /// The system failed: exit code 1.
    System(String),
    /// All is said already: this exit code.
    Quiet(u8),
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

impl Failure {
    /// The user's fault.
    pub(crate) fn user(text: impl Into<String>) -> Self {
        Self::User(text.into())
    }

    /// The system's failure, with its causes.
    pub(crate) fn system(error: &(dyn Error + 'static)) -> Self {
        Self::System(chain(error))
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::System(_) => 1,
            Self::User(_) => 2,
            Self::Quiet(code) => *code,
        }
    }

    /// What is still to be said.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Self::System(text) | Self::User(text) => Some(text),
            Self::Quiet(_) => None,
        }
    }
}
