//! `dayzero serve` as a child of PID 1: started, listened to, started again when it ends, and ended in order.
//!
//! Invariants: what it says on standard output goes to the screen and nowhere else (a claim code is there); what it
//! says on standard error goes to a log of bounded size; every orphan of the machine is reaped here.

use super::screen::Serving;
use super::{Board, disk};
use dayzero_model::Secret;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::signal::unix::Signal as Signals;
use tokio::time::Instant;

const PROGRAM: &str = "/usr/bin/dayzero";
const LOG: &str = "/data/log/serve.log";
/// The log's size before it is begun anew; the one before is kept.
const LOG_MOST: u64 = 8 << 20;
/// Longest line of either output that is kept.
const LINE_MOST: u64 = 8 << 10;
/// How long it may take to end in order.
const GRACE: Duration = Duration::from_secs(30);
/// How long killed processes may take to be gone.
const LAST: Duration = Duration::from_secs(3);
/// Pause before it is started again; it doubles while it ends at once.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Having run for so long, it did not end at once.
const HEALTHY: Duration = Duration::from_secs(60);

/// Keeps it running. Never ends; a drop leaves the child as it is, for [`end`].
pub(super) async fn keep(board: Rc<Board>, config: PathBuf, mut children: Signals) {
    let log = Rc::new(RefCell::new(Log::default()));
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        let ended = match start(&board, &config, &log) {
            Ok(pid) => {
                board.child.set(Some(pid));
                let status = reap(pid, &mut children).await;
                board.child.set(None);
                // What it said last is still in the pipe.
                tokio::time::sleep(Duration::from_millis(200)).await;
                format!("dayzero serve {}", told(status))
            }
            Err(error) => format!("dayzero serve does not start: {error}"),
        };
        pause = if began.elapsed() > HEALTHY { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        let last = log.borrow().last();
        board.change(|view| {
            view.serving = None;
            view.doing = "dayzero serve is started again and again".to_owned();
        });
        board.fault("serve", Some([ended, last].join("\n").trim_end().to_owned()));
        tokio::time::sleep(pause).await;
    }
}

fn told(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("ended with code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was ended by {signal}"),
        other => format!("ended: {other:?}"),
    }
}

fn start(board: &Rc<Board>, config: &Path, log: &Rc<RefCell<Log>>) -> std::io::Result<Pid> {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--config"]).arg(config).env_clear().env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(stdout) = child.stdout.take() {
        let stdout = tokio::process::ChildStdout::from_std(stdout)?;
        tokio::task::spawn_local(listen(board.clone(), stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        let stderr = tokio::process::ChildStderr::from_std(stderr)?;
        let log = log.clone();
        tokio::task::spawn_local(lines(stderr, move |line| log.borrow_mut().write(line)));
    }
    // Reaped by its pid, together with everybody's orphans.
    Ok(Pid::from_raw(i32::try_from(child.id()).unwrap_or(-1)))
}

/// Each line of a stream, without its end; an overlong one in pieces.
async fn lines(stream: impl AsyncRead + Unpin, mut each: impl FnMut(&str)) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stream).take(LINE_MOST).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => each(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

async fn listen(board: Rc<Board>, stdout: impl AsyncRead + Unpin) {
    let mut saying = Serving::default();
    lines(stdout, |line| match heard(&mut saying, line) {
        Heard::Ready => {
            // The master key was made, if it was missing: nothing more is written there.
            disk::seal_esp();
            board.fault("serve", None);
            board.change(|view| view.serving = Some(std::mem::take(&mut saying)));
        }
        Heard::Claimed => board.change(|view| {
            if let Some(serving) = &mut view.serving {
                serving.claim = None;
            }
        }),
        Heard::Nothing => {}
    })
    .await;
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Ready,
    Claimed,
    Nothing,
}

fn heard(saying: &mut Serving, line: &str) -> Heard {
    match line.split_once(": ") {
        Some(("listen", place)) => saying.listen = place.to_owned(),
        Some(("fingerprint", print)) => saying.fingerprint = print.to_owned(),
        Some(("claim", code)) => saying.claim = Some(Secret::new(code.to_owned())),
        _ if line == "ready" => return Heard::Ready,
        _ if line == "claimed" => return Heard::Claimed,
        _ => {}
    }
    Heard::Nothing
}

/// Reaps whatever ends until `pid` does.
async fn reap(pid: Pid, children: &mut Signals) -> WaitStatus {
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match status {
                WaitStatus::StillAlive => break,
                status if status.pid() == Some(pid) => return status,
                _ => {}
            }
        }
        let _ = children.recv().await;
    }
}

/// Ends the child in order. Its output is still read meanwhile: a process whose log nobody takes cannot end.
pub(super) async fn end(child: Option<Pid>) {
    let Some(pid) = child else { return };
    let _ = kill(pid, Signal::SIGTERM);
    let until = Instant::now() + GRACE;
    while Instant::now() < until && waitpid(pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends whatever still runs beside PID 1.
pub(super) fn end_all() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    let until = std::time::Instant::now() + LAST;
    while std::time::Instant::now() < until && waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The log of standard error: a file of bounded size, and its last lines.
#[derive(Default)]
struct Log {
    file: Option<(File, u64)>,
    last: VecDeque<String>,
}

impl Log {
    fn write(&mut self, line: &str) {
        self.last.push_back(line.to_owned());
        if self.last.len() > 3 {
            self.last.pop_front();
        }
        // A full disk is no reason to stop listening.
        let _ = self.append(Path::new(LOG), line);
    }

    fn append(&mut self, path: &Path, line: &str) -> std::io::Result<()> {
        let (mut file, length) = match self.file.take() {
            Some(open) if open.1 < LOG_MOST => open,
            _ => open_log(path)?,
        };
        writeln!(file, "{line}")?;
        self.file = Some((file, length + line.len() as u64 + 1));
        Ok(())
    }

    /// The last lines, for the screen.
    fn last(&self) -> String {
        self.last.iter().map(|line| line.chars().take(300).collect::<String>()).collect::<Vec<_>>().join("\n")
    }
}

/// Opens the log to go on, or, if it is full, a new one in its place.
fn open_log(path: &Path) -> std::io::Result<(File, u64)> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if std::fs::metadata(path).is_ok_and(|about| about.len() >= LOG_MOST) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serve_says_becomes_the_screen_s() {
        let mut saying = Serving::default();
        for line in
            ["listen: 0.0.0.0:8443", "console: https://10.0.2.15:8443/", "fingerprint: ab", "claim: X-Y", "x"]
        {
            assert_eq!(heard(&mut saying, line), Heard::Nothing, "{line}");
        }
        assert_eq!((&*saying.listen, &*saying.fingerprint), ("0.0.0.0:8443", "ab"));
        assert_eq!(saying.claim.as_ref().map(|claim| claim.expose().as_str()), Some("X-Y"));
        assert_eq!(heard(&mut saying, "ready"), Heard::Ready);
        assert_eq!(heard(&mut saying, "claimed"), Heard::Claimed);
    }

    #[test]
    fn the_log_is_bounded_and_its_last_lines_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/serve.log");
        std::fs::create_dir(dir.path().join("log")).unwrap();
        std::fs::write(&path, vec![b'x'; LOG_MOST as usize]).unwrap();
        let mut log = Log::default();
        log.append(&path, "after").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
        assert_eq!(std::fs::metadata(path.with_extension("log.1")).unwrap().len(), LOG_MOST);
        log.append(&path, "and on").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\nand on\n");
        for line in ["1", "2", "3", "4"] {
            log.last.push_back(line.to_owned());
        }
        assert!(log.last().ends_with("3\n4"));
    }

    #[tokio::test]
    async fn an_overlong_line_comes_in_pieces() {
        let text = [vec![b'a'; LINE_MOST as usize + 5], b"\nend".to_vec()].concat();
        let mut seen = Vec::new();
        lines(&text[..], |line| seen.push(line.len())).await;
        assert_eq!(seen, [LINE_MOST as usize, 5, 3]);
    }
}
