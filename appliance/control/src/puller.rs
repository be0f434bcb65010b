//! Who pulls paths: the virtual rack's daemon, or a person.

use crate::control::Control;
use crate::port::Port;
use crate::view::Todo;
use crate::world::{Path, PathPuller};
use dayzero_model::proof::Break;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// The lab's answer in time.
const LAB: Duration = Duration::from_secs(10);
/// A person's answer in time.
const PERSON: Duration = Duration::from_secs(600);
const MAX_LINE: u64 = 1 << 20;

/// The virtual rack: one JSON line a request on its daemon's socket, or on the serial port of a machine of that rack
/// that leads there.
pub(crate) struct LabPuller {
    place: PathBuf,
    /// A port stays open: only one process may have it.
    port: tokio::sync::Mutex<Option<Port>>,
}

impl LabPuller {
    /// By the daemon's socket, or by the port's character device.
    pub(crate) fn new(place: PathBuf) -> Self {
        Self { place, port: tokio::sync::Mutex::default() }
    }

    async fn talk(&self, request: &str) -> std::io::Result<String> {
        use std::os::unix::fs::FileTypeExt;
        if !std::fs::metadata(&self.place)?.file_type().is_char_device() {
            let mut stream = UnixStream::connect(&self.place).await?;
            stream.write_all(format!("{request}\n").as_bytes()).await?;
            let mut line = String::new();
            BufReader::new(stream.take(MAX_LINE)).read_line(&mut line).await?;
            return Ok(line);
        }
        let mut held = self.port.lock().await;
        // After a failure, or if this is given up, the port is closed, and whatever comes late is skipped at the next
        // opening.
        let mut port = match held.take() {
            Some(port) => port,
            None => Port::open(&self.place).await?,
        };
        let line = port.ask(request).await?;
        *held = Some(port);
        Ok(line)
    }

    async fn ask(&self, verb: &str, path: &Path) -> Result<(), String> {
        let request = serde_json::json!({ verb: { "host": path.host, "nic": path.nic } });
        let answer = tokio::time::timeout(LAB, self.talk(&request.to_string())).await;
        let line =
            answer.map_err(|_| "the lab did not answer".to_owned())?.map_err(|e| format!("the lab: {e}"))?;
        match serde_json::from_str::<serde_json::Value>(&line) {
            Ok(serde_json::Value::String(done)) if done == "done" => Ok(()),
            Ok(other) => Err(format!("the lab refused {verb}: {other}")),
            Err(error) => Err(format!("the lab's answer cannot be read: {error}")),
        }
    }
}

#[async_trait::async_trait]
impl PathPuller for LabPuller {
    async fn pull(&self, path: &Path, how: Break) -> Result<(), String> {
        let verb = match how {
            Break::Cable => "pull-cable",
            Break::DeadSwitch => "mute-port",
        };
        self.ask(verb, path).await
    }

    async fn restore(&self, path: &Path) -> Result<(), String> {
        self.ask("plug", path).await?;
        self.ask("unmute-port", path).await
    }
}

/// A person in front of the rack: asked on the to-do list, answers with `dayzero confirm`.
#[derive(Default)]
pub(crate) struct PersonPuller {
    asked: Mutex<BTreeMap<String, (String, oneshot::Sender<()>)>>,
}

impl PersonPuller {
    fn asked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (String, oneshot::Sender<()>)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, path: &Path, what: String) -> Result<(), String> {
        let id = format!("{}-{}", path.host, path.role);
        let (done, wait) = oneshot::channel();
        self.asked().insert(id.clone(), (what.clone(), done));
        let answer = tokio::time::timeout(PERSON, wait).await;
        self.asked().remove(&id);
        match answer {
            Ok(Ok(())) => Ok(()),
            _ => Err(format!("nobody confirmed within {} s: {what}", PERSON.as_secs())),
        }
    }
}

#[async_trait::async_trait]
impl PathPuller for PersonPuller {
    async fn pull(&self, path: &Path, how: Break) -> Result<(), String> {
        let what = match how {
            Break::Cable => format!("pull the cable of {} {} at {}", path.host, path.role, path.port),
            Break::DeadSwitch => format!(
                "stop port {} from forwarding, its link staying up ({} {})",
                path.port, path.host, path.role
            ),
        };
        self.ask(path, what).await
    }

    async fn restore(&self, path: &Path) -> Result<(), String> {
        self.ask(path, format!("restore {} {} at {}", path.host, path.role, path.port)).await
    }

    fn asks(&self) -> Vec<(String, String)> {
        self.asked().iter().map(|(id, (what, _))| (id.clone(), what.clone())).collect()
    }

    fn confirm(&self, id: &str) -> bool {
        self.asked().remove(id).is_some_and(|(_, done)| done.send(()).is_ok())
    }
}

impl Control {
    /// What the puller asks of a person.
    pub(crate) fn asked(&self) -> Vec<Todo> {
        let now = self.now();
        let todo = |(id, what): (String, String)| Todo {
            host: None,
            code: "pull-path".to_owned(),
            sentence: what,
            evidence: Vec::new(),
            next_action: format!("do so, then `dayzero confirm {id}`"),
            since: now,
        };
        self.world.puller.asks().into_iter().map(todo).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        Path {
            host: "host1".parse().unwrap(),
            role: "pod-b".parse().unwrap(),
            nic: 1,
            port: dayzero_model::site::SwitchPort { switch: "sw-b".parse().unwrap(), port: "1".to_owned() },
        }
    }

    #[tokio::test]
    async fn the_lab_is_spoken_to_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lab.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let lab = async {
            let mut seen = Vec::new();
            for answer in ["\"done\"\n", "\"done\"\n", "\"done\"\n", "{\"refused\":{\"reason\":\"no\"}}\n"] {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                seen.push(line.trim().to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            seen
        };
        let puller = LabPuller::new(socket.clone());
        let path = path();
        let pulls = async {
            puller.pull(&path, Break::Cable).await.unwrap();
            puller.restore(&path).await.unwrap();
            puller.pull(&path, Break::DeadSwitch).await.unwrap_err()
        };
        let (seen, error) = tokio::join!(lab, pulls);
        insta::assert_snapshot!(seen.join("\n"), @r#"
        {"pull-cable":{"host":"host1","nic":1}}
        {"plug":{"host":"host1","nic":1}}
        {"unmute-port":{"host":"host1","nic":1}}
        {"mute-port":{"host":"host1","nic":1}}
        "#);
        assert!(error.contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_person_is_asked_and_confirms() {
        let (puller, path) = (PersonPuller::default(), path());
        let answer = async {
            while puller.asks().is_empty() {
                tokio::task::yield_now().await;
            }
            assert!(!puller.confirm("host2-pod-b"));
            assert_eq!(puller.asks()[0].1, "pull the cable of host1 pod-b at sw-b/1");
            assert!(puller.confirm("host1-pod-b"));
        };
        let (pulled, ()) = tokio::join!(puller.pull(&path, Break::Cable), answer);
        pulled.unwrap();
        assert!(puller.asks().is_empty());
    }
}
