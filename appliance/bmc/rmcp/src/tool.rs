//! Running `ipmitool`: how a call is made, bounded and judged.

use crate::RmcpError;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

/// Bounds of one call.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Wall time of one `ipmitool`.
    pub call: Duration,
    /// Bytes kept of each of its two outputs.
    pub output: usize,
    /// `-N`: seconds before a packet is repeated.
    pub packet_timeout: u8,
    /// `-R`: repeats.
    pub retries: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self { call: Duration::from_secs(30), output: 256 << 10, packet_timeout: 2, retries: 3 }
    }
}

/// A user and a password. `Debug` shows the user alone; the password is wiped on drop.
#[derive(Clone)]
pub struct Login {
    /// Account name, at most 16 bytes.
    pub user: String,
    pub(crate) password: Zeroizing<String>,
}

impl Login {
    /// A login from its two parts.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Zeroizing::new(password.into()) }
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// One BMC's LAN side. Cheap to clone; holds no connection: each call is a session of its own.
#[derive(Clone, Debug)]
pub struct Ipmi {
    pub(crate) address: SocketAddr,
    pub(crate) login: Login,
    pub(crate) cipher: u8,
    /// LAN channel whose users and addresses are meant: 1 nearly everywhere.
    pub(crate) channel: u8,
    pub(crate) limits: Limits,
    pub(crate) binary: String,
}

/// What a finished call left.
struct Output {
    success: bool,
    out: String,
    err: String,
}

impl Ipmi {
    /// A BMC at `address` (UDP port 623), cipher suite 3, LAN channel 1.
    pub fn new(address: SocketAddr, login: Login) -> Self {
        Self { address, login, cipher: 3, channel: 1, limits: Limits::default(), binary: "ipmitool".into() }
    }

    /// Another LAN channel.
    #[must_use]
    pub fn with_channel(self, channel: u8) -> Self {
        Self { channel, ..self }
    }

    /// Other bounds.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same BMC, another login.
    #[must_use]
    pub fn with_login(&self, login: Login) -> Self {
        Self { login, ..self.clone() }
    }

    /// The account that is used.
    pub fn user(&self) -> &str {
        &self.login.user
    }

    /// The command up to the verb. The password is in the environment alone (`-E`).
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(k, _)| k == "PATH"))
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .env("IPMITOOL_PASSWORD", self.login.password.as_str())
            .env("IPMI_PASSWORD", self.login.password.as_str())
            .args(["-I", "lanplus", "-E", "-C", &self.cipher.to_string()])
            .args(["-N", &self.limits.packet_timeout.to_string(), "-R", &self.limits.retries.to_string()])
            .args(["-H", &self.address.ip().to_string(), "-p", &self.address.port().to_string()])
            .args(["-U", &self.login.user])
            .kill_on_drop(true);
        command
    }

    /// Runs one command and returns its output.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<String, RmcpError> {
        let what = args.join(" ");
        let mut command = self.command();
        command.args(args);
        let output = self.finish(command, None, &what).await?;
        if output.success {
            return Ok(output.out);
        }
        self.failed(&output, what, false).await
    }

    /// Runs command lines that carry a password: they go by standard input (`exec` stops at the first that fails).
    /// Neither output is shown in an error.
    pub(crate) async fn run_secret(&self, what: &str, lines: &str) -> Result<(), RmcpError> {
        let mut command = self.command();
        command.args(["exec", "/dev/stdin"]);
        let output = self.finish(command, Some(lines), what).await?;
        if output.success { Ok(()) } else { self.failed(&output, what.to_owned(), true).await.map(|_| ()) }
    }

    async fn failed(&self, output: &Output, what: String, secret: bool) -> Result<String, RmcpError> {
        if output.err.contains("Unable to establish") {
            return Err(self.diagnose().await);
        }
        let reason = if secret { String::new() } else { last_lines(&output.err) };
        Err(RmcpError::Command { what, reason })
    }

    /// Why no session came up: the handshake's own words, which only `-v` shows.
    async fn diagnose(&self) -> RmcpError {
        let mut command = self.command();
        command.args(["-v", "chassis", "power", "status"]);
        match self.finish(command, None, "chassis power status").await {
            Ok(output) => self.classify(&format!("{}\n{}", output.err, output.out)),
            Err(error) => error,
        }
    }

    pub(crate) fn classify(&self, text: &str) -> RmcpError {
        let wrong = |reason| RmcpError::WrongCredential { user: self.login.user.clone(), reason };
        let refusals = [
            ("HMAC is invalid", "wrong password"),
            ("unauthorized name", "unknown or disabled user"),
            ("invalid role", "the user may not be administrator"),
            ("unauthorized role", "the user may not be administrator"),
            ("Insufficient privilege", "the user may not be administrator"),
            ("Unable to set Session Privilege Level", "the user may not be administrator"),
        ];
        match refusals.iter().find(|(needle, _)| text.contains(needle)) {
            Some((_, reason)) => wrong(reason),
            None => RmcpError::Unreachable { address: self.address.to_string() },
        }
    }

    async fn finish(
        &self,
        mut command: Command,
        stdin: Option<&str>,
        what: &str,
    ) -> Result<Output, RmcpError> {
        let spawn = |context| move |source| RmcpError::Spawn { context, source };
        command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(spawn("start"))?;
        let done = tokio::time::timeout(self.limits.call, self.exchange(&mut child, stdin)).await;
        let result = match done {
            Ok(result) => result.map_err(spawn("exchange"))?,
            Err(_) => {
                child.kill().await.map_err(spawn("kill"))?;
                return Err(RmcpError::Timeout { address: self.address.to_string(), what: what.to_owned() });
            }
        };
        tracing::debug!(address = %self.address, what, success = result.success, "ipmitool");
        Ok(result)
    }

    async fn exchange(&self, child: &mut Child, stdin: Option<&str>) -> std::io::Result<Output> {
        let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let (Some(mut input), Some(text)) = (input, stdin) {
                // A child that has already ended does not read: its exit status tells why.
                let _ = input.write_all(text.as_bytes()).await;
            }
        };
        let limit = self.limits.output;
        let ((), out, err) = tokio::join!(write, bounded(out, limit), bounded(err, limit));
        let status = child.wait().await?;
        Ok(Output { success: status.success(), out: out?, err: err? })
    }
}

/// Reads to the end, keeps the first `limit` bytes.
async fn bounded(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> std::io::Result<String> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let mut chunk = [0; 4096];
    loop {
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        kept.extend_from_slice(&chunk[..n.min(limit - kept.len())]);
    }
}

/// The last lines of an error output, shortened, on one line.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    last.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipmi() -> Ipmi {
        Ipmi::new("127.0.0.1:623".parse().unwrap(), Login::new("ADMIN", "hunter2"))
    }

    #[test]
    fn the_password_is_in_the_environment_and_nowhere_else() {
        let command = ipmi().command();
        let std = command.as_std();
        assert!(std.get_args().all(|a| !a.to_string_lossy().contains("hunter2")), "{:?}", std.get_args());
        assert!(std.get_envs().any(|(k, v)| k == "IPMITOOL_PASSWORD" && v == Some("hunter2".as_ref())));
        assert!(!format!("{:?}", ipmi()).contains("hunter2"));
    }

    #[test]
    fn the_handshake_tells_a_wrong_password_from_silence() {
        let cases = [
            ("> RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session", true),
            ("RAKP 2 message indicates an error : unauthorized name\nError: …", true),
            (
                "Get Auth Capabilities error\nError issuing Get Channel Authentication Capabilities request",
                false,
            ),
        ];
        for (text, wrong) in cases {
            assert_eq!(matches!(ipmi().classify(text), RmcpError::WrongCredential { .. }), wrong, "{text}");
        }
    }

    #[tokio::test]
    async fn a_call_is_bounded_in_output_and_time() {
        let mut tool = ipmi();
        tool.limits.output = 10;
        let mut yes = Command::new("sh");
        yes.args(["-c", "i=0; while [ $i -lt 999 ]; do echo 0123456789; i=$((i+1)); done"]);
        assert_eq!(tool.finish(yes, None, "x").await.unwrap().out.len(), 10);
        tool.limits.call = Duration::from_millis(50);
        let mut slow = Command::new("sleep");
        slow.arg("1000");
        assert!(matches!(tool.finish(slow, None, "x").await, Err(RmcpError::Timeout { .. })));
    }

    #[tokio::test]
    async fn a_secret_line_goes_by_standard_input_and_is_not_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let fake = dir.path().join("ipmitool");
        let log = dir.path().join("log");
        let script =
            format!("#!/bin/sh\necho \"$@\" >{0}.args\ncat >{0}.in\ncat {0}.in >&2\nexit 1\n", log.display());
        std::fs::write(&fake, script).unwrap();
        std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut tool = ipmi();
        tool.binary = fake.display().to_string();
        let error =
            tool.run_secret("user set password 3", "user set password 3 n3wpass 16\n").await.unwrap_err();
        assert!(!error.to_string().contains("n3wpass"), "{error}");
        let args = std::fs::read_to_string(format!("{}.args", log.display())).unwrap();
        assert!(!args.contains("n3wpass") && args.contains("exec /dev/stdin"), "{args}");
        assert!(std::fs::read_to_string(format!("{}.in", log.display())).unwrap().contains("n3wpass"));
    }
}
