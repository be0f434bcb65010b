//! Running a system tool: fixed program and arguments, no shell, bounded time and output.

use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Most bytes of output that are kept.
const OUTPUT_LIMIT: u64 = 256 * 1024;

/// A tool that failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// Ran longer than allowed; it was killed.
    #[error("{program} did not end within {seconds} s and was killed")]
    TimedOut {
        /// The program.
        program: String,
        /// Seconds.
        seconds: u64,
    },
    /// Ended with an error.
    #[error("{program} {args}: {status}: {message}")]
    Failed {
        /// The program.
        program: String,
        /// Its arguments.
        args: String,
        /// Exit status as text.
        status: String,
        /// Last lines of its standard error.
        message: String,
    },
}

/// Runs `program args…` with nothing on standard input and returns its standard output.
///
/// # Errors
/// [`ToolError`]: not started, too slow (killed), or a status other than 0.
pub async fn run(program: &str, args: &[&str], limit: Duration) -> Result<String, ToolError> {
    let start = |source| ToolError::Start { program: program.to_owned(), source };
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (out, err) = tokio::join!(slurp(stdout), slurp(stderr));
        child.wait().await.map(|status| (status, out, err))
    };
    let Ok(ended) = tokio::time::timeout(limit, work).await else {
        return Err(ToolError::TimedOut { program: program.to_owned(), seconds: limit.as_secs() });
    };
    let (status, out, err) = ended.map_err(start)?;
    if status.success() {
        return Ok(out);
    }
    let mut lines: Vec<&str> = err.lines().filter(|line| !line.trim().is_empty()).collect();
    let message = lines.split_off(lines.len().saturating_sub(4)).join("; ");
    Err(ToolError::Failed {
        program: program.to_owned(),
        args: args.join(" "),
        status: status.to_string(),
        message,
    })
}

async fn slurp<R: tokio::io::AsyncRead + Unpin>(reader: Option<R>) -> String {
    let Some(mut reader) = reader else { return String::new() };
    let mut bytes = Vec::new();
    let _ = (&mut reader).take(OUTPUT_LIMIT).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_failure_and_time_are_told_apart() {
        let second = Duration::from_secs(20);
        assert_eq!(run("echo", &["a b"], second).await.unwrap(), "a b\n");
        assert!(matches!(run("false", &[], second).await, Err(ToolError::Failed { .. })));
        assert!(matches!(run("/no/such", &[], second).await, Err(ToolError::Start { .. })));
        let late = run("sleep", &["60"], Duration::from_millis(20)).await;
        assert!(matches!(late, Err(ToolError::TimedOut { .. })));
    }
}
