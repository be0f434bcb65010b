//! A client of the QEMU Machine Protocol: commands with answers by id, events as a broadcast.
//!
//! Invariants: one line is at most 1 MiB; a command has a deadline; when the socket closes, every waiting command
//! fails and the event stream ends. It knows no command's meaning. Source: QEMU docs/interop/qmp-spec.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{broadcast, oneshot};

const LINE_LIMIT: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(20);

/// A QMP command that failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed or spoke no QMP.
    #[error("QMP connection failed")]
    Io(#[from] io::Error),
    /// QEMU refused the command.
    #[error("QEMU refused '{command}': {said}")]
    Refused {
        /// The command's name.
        command: String,
        /// QEMU's own words.
        said: String,
    },
    /// QEMU has ended.
    #[error("QEMU ended before it answered '{0}'")]
    Ended(String),
    /// No answer in time.
    #[error("QEMU did not answer '{0}' within 20 s")]
    Late(String),
}

/// An event: its name and data.
#[derive(Clone, Debug)]
pub struct Event {
    /// Such as `RESET` or `SHUTDOWN`.
    pub name: String,
    /// Its `data` object, or null.
    pub data: Value,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

/// One open monitor connection.
#[derive(Debug)]
pub struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next: AtomicU64,
    events: broadcast::WeakSender<Event>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Qmp {
    /// Takes a connected stream: reads the greeting, negotiates, and starts reading. The receiver sees every event
    /// from then on, and is closed when QEMU ends.
    pub async fn start(stream: UnixStream) -> Result<(Self, broadcast::Receiver<Event>), QmpError> {
        let (read, writer) = stream.into_split();
        let mut read = BufReader::new(read);
        let greeting = next_line(&mut read).await?.ok_or_else(|| QmpError::Ended("greeting".into()))?;
        if greeting.get("QMP").is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no QMP greeting").into());
        }
        let (events, first_receiver) = broadcast::channel(256);
        let weak = events.downgrade();
        let waiting = Waiting::default();
        let reader = tokio::spawn(read_all(read, waiting.clone(), events));
        let writer = tokio::sync::Mutex::new(writer);
        let qmp = Self { writer, waiting, next: AtomicU64::new(1), events: weak, reader };
        qmp.command("qmp_capabilities", Value::Null).await?;
        Ok((qmp, first_receiver))
    }

    /// Runs one command; `arguments` null = none. Gives its `return` value.
    pub async fn command(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let (answer, answered) = oneshot::channel();
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.insert(id, answer);
        }
        if self.reader.is_finished() {
            return Err(QmpError::Ended(command.into()));
        }
        let mut line = message.to_string();
        line.push('\n');
        self.writer.lock().await.write_all(line.as_bytes()).await?;
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(said))) => Err(QmpError::Refused { command: command.into(), said }),
            Ok(Err(_)) => Err(QmpError::Ended(command.into())),
            Err(_) => {
                if let Ok(mut waiting) = self.waiting.lock() {
                    waiting.remove(&id);
                }
                Err(QmpError::Late(command.into()))
            }
        }
    }

    /// Events from now on; none when QEMU has ended.
    pub fn events(&self) -> Option<broadcast::Receiver<Event>> {
        self.events.upgrade().map(|events| events.subscribe())
    }
}

async fn next_line(read: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Option<Value>, io::Error> {
    let mut line = Vec::new();
    let count = read.take(LINE_LIMIT).read_until(b'\n', &mut line).await?;
    if count == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "QMP line is cut off or longer than 1 MiB"));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

async fn read_all(
    mut read: impl AsyncBufReadExt + Unpin,
    waiting: Waiting,
    events: broadcast::Sender<Event>,
) {
    loop {
        let message = match next_line(&mut read).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "QMP connection ended");
                break;
            }
        };
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            let data = message.get("data").cloned().unwrap_or(Value::Null);
            let _nobody_listens = events.send(Event { name: name.to_owned(), data });
            continue;
        }
        let Some(id) = message.get("id").and_then(Value::as_u64) else { continue };
        let Some(answer) = waiting.lock().ok().and_then(|mut waiting| waiting.remove(&id)) else { continue };
        let result = match message.get("return") {
            Some(value) => Ok(value.clone()),
            None => Err(message["error"]["desc"].as_str().unwrap_or("no reason given").to_owned()),
        };
        let _gave_up = answer.send(result);
    }
    if let Ok(mut waiting) = waiting.lock() {
        waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn peer(script: Vec<(&'static str, String)>, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        write.write_all(b"{\"QMP\":{\"version\":{}}}\r\n").await.unwrap();
        for (expect, answers) in script {
            let asked = next_line(&mut read).await.unwrap().unwrap();
            assert_eq!(asked["execute"], expect);
            let answers = answers.replace("ID", &asked["id"].to_string());
            write.write_all(answers.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn answers_events_refusals_and_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let script = vec![
            ("qmp_capabilities", "{\"return\":{},\"id\":ID}\n".to_owned()),
            (
                "stop",
                "{\"event\":\"STOP\",\"data\":{\"a\":1}}\n{\"return\":{\"x\":2},\"id\":ID}\n".to_owned(),
            ),
            ("bad", "{\"error\":{\"class\":\"G\",\"desc\":\"no such thing\"},\"id\":ID}\n".to_owned()),
            ("quit", String::new()),
        ];
        let served = tokio::spawn(peer(script, theirs));
        let (qmp, mut events) = Qmp::start(ours).await.unwrap();
        assert_eq!(qmp.command("stop", Value::Null).await.unwrap()["x"], 2);
        assert_eq!(events.recv().await.unwrap().name, "STOP");
        let refused = qmp.command("bad", json!({})).await.unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refused 'bad': no such thing");
        assert!(matches!(qmp.command("quit", Value::Null).await, Err(QmpError::Ended(_))));
        served.await.unwrap();
        assert!(matches!(events.recv().await, Err(broadcast::error::RecvError::Closed)));
    }
}
