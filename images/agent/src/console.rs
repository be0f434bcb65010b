//! The serial console of the discovery image: log lines out, and the one line that the appliance types back.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use tokio::sync::mpsc;

/// Longest console line that is looked at.
const LINE_LIMIT: usize = 200;

/// Prints one line on the console; a console that does not take it is no reason to stop.
pub fn print(line: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = writeln!(console, "\r{line}\r");
    }
}

/// Lines typed on the console, as they come. Echo is off, so that what is typed is not read back as our own output.
/// A thread reads for the life of the process; the channel holds at most 16 lines, further ones are dropped.
///
/// # Errors
/// The console cannot be opened.
pub fn lines() -> std::io::Result<mpsc::Receiver<String>> {
    let console = OpenOptions::new().read(true).write(true).open("/dev/console")?;
    quiet(&console);
    let (sender, receiver) = mpsc::channel(16);
    std::thread::Builder::new().name("console".to_owned()).spawn(move || {
        let mut reader = BufReader::new(console);
        let mut line = Vec::new();
        loop {
            line.clear();
            match std::io::Read::take(&mut reader, LINE_LIMIT as u64).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => std::thread::sleep(std::time::Duration::from_millis(500)),
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line).trim().to_owned();
                    let closed = |e| matches!(e, mpsc::error::TrySendError::Closed(_));
                    if !text.is_empty() && sender.try_send(text).is_err_and(closed) {
                        return;
                    }
                }
            }
        }
    })?;
    Ok(receiver)
}

fn quiet(console: &File) {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    if let Ok(mut settings) = tcgetattr(console) {
        settings.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ISIG);
        let _ = tcsetattr(console, SetArg::TCSANOW, &settings);
    }
}
