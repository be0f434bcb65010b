//! The one place where `dayzero` writes to its terminal: standard output for results, standard error for errors.
//!
//! Invariants: a result is either JSON (the view, exactly, and nothing else) or text; lines that this crate lays out fit
//! 100 columns; control characters that came from the network never reach the terminal. A closed pipe ends quietly.

use crate::failure::Failure;
use dayzero_model::Secret;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use serde::Serialize;
use std::io::{self, BufRead, IsTerminal, Write};

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For tools: the view as JSON.
    Json,
}

/// The terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// How results are written.
    pub format: Format,
}

impl Output {
    /// A result: JSON as it is, or the text made from it.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => {
                let json = serde_json::to_string_pretty(value).map_err(|e| Failure::system(&e))?;
                self.raw(&format!("{json}\n"))
            }
            Format::Text => self.text(&text(value)),
        }
    }

    /// Lines for people; without control characters; ends with one line feed.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let clean: String =
            text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
        let end = if clean.is_empty() || clean.ends_with('\n') { "" } else { "\n" };
        self.raw(&format!("{clean}{end}"))
    }

    /// A sentence that says what was done; nothing in JSON.
    pub(crate) fn done(self, sentence: &str) -> Result<(), Failure> {
        if self.format == Format::Text { self.text(sentence) } else { self.raw("{}\n") }
    }

    /// Text as it is.
    pub(crate) fn raw(self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are: a file, for a pipe.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = out.write_all(bytes).and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Quiet(0)),
            other => other.map_err(|e| Failure::system(&e)),
        }
    }

    /// A note beside the result: standard error.
    pub(crate) fn note(self, text: &str) {
        let clean: String =
            text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "{}", clean.trim_end_matches('\n'));
    }

    /// Asks a question on the terminal; the answer without its line end, none at the end of input.
    pub(crate) fn ask(self, question: &str) -> Result<Option<String>, Failure> {
        let mut err = io::stderr().lock();
        write!(err, "{question} ").and_then(|()| err.flush()).map_err(|e| Failure::system(&e))?;
        let mut line = String::new();
        let count = io::stdin().lock().read_line(&mut line).map_err(|e| Failure::system(&e))?;
        Ok((count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Asks for a secret: without echo on a terminal, else the next line of standard input.
    pub(crate) fn ask_secret(self, question: &str) -> Result<Secret<String>, Failure> {
        let quiet = Quiet::begin();
        let answer = self.ask(question);
        if quiet.is_some() {
            let _ = writeln!(io::stderr());
        }
        drop(quiet);
        let nothing = || Failure::user(format!("nothing was typed after '{question}'"));
        answer?.filter(|text| !text.is_empty()).map(Secret::new).ok_or_else(nothing)
    }

    /// True if standard output is a terminal.
    pub(crate) fn writes_to_terminal(self) -> bool {
        io::stdout().is_terminal()
    }

    /// True if a person sits at standard input.
    pub(crate) fn is_person(self) -> bool {
        io::stdin().is_terminal()
    }
}

/// A terminal that does not echo what is typed, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    /// None where standard input is no terminal.
    fn begin() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet).ok()?;
        Some(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
