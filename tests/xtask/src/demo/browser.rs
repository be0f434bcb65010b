//! A headless Chromium, driven by ChromeDriver (W3C WebDriver, JSON over HTTP on loopback).

use super::leftovers::{Ending, start};
use crate::paths;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 9515;
/// The name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One browser window.
pub struct Browser {
    driver: Child,
    session: String,
}

impl Browser {
    /// Starts ChromeDriver and a browser with an empty profile.
    pub fn start() -> Result<Self> {
        let dir = paths::demo().join("browser");
        std::fs::create_dir_all(&dir)?;
        // In a pid namespace, so that no process of the browser outlives the driver's.
        let mut driver = Command::new("unshare");
        driver.args(["--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]);
        driver.args(["/usr/bin/chromedriver", &format!("--port={PORT}")]);
        driver.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = start(&mut driver, Ending::Killed).context("package chromium-driver")?;
        let mut browser = Self { driver, session: String::new() };
        browser.wait_ready()?;
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--window-size=1280,900",
        ];
        let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        args.push(format!("--user-data-dir={}", dir.display()));
        // The console's certificate is the site's own; its fingerprint is compared by the caller.
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "acceptInsecureCerts": true,
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": args}}}});
        let made = call("POST", "/session", Some(&wanted))?;
        browser.session = made["sessionId"].as_str().context("no session")?.to_owned();
        Ok(browser)
    }

    fn wait_ready(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match call("GET", "/status", None) {
                Ok(status) if status["ready"] == true => return Ok(()),
                _ if Instant::now() > until => bail!("chromedriver does not get ready within 30 s"),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn at(&self, path: &str) -> String {
        format!("/session/{}{path}", self.session)
    }

    pub fn open(&self, url: &str) -> Result<()> {
        call("POST", &self.at("/url"), Some(&json!({"url": url})))?;
        Ok(())
    }

    pub fn title(&self) -> Result<String> {
        Ok(call("GET", &self.at("/title"), None)?.as_str().unwrap_or_default().to_owned())
    }

    /// Runs a script of ours in the page and returns its value.
    pub fn script(&self, text: &str) -> Result<Value> {
        call("POST", &self.at("/execute/sync"), Some(&json!({"script": text, "args": []})))
    }

    fn element(&self, selector: &str) -> Result<String> {
        let body = json!({"using": "css selector", "value": selector});
        let found = call("POST", &self.at("/element"), Some(&body))
            .with_context(|| format!("no element {selector}"))?;
        Ok(found[ELEMENT].as_str().context("no element id")?.to_owned())
    }

    pub fn has(&self, selector: &str) -> bool {
        self.element(selector).is_ok()
    }

    /// Values of the cookies that the browser would send to the open page.
    pub fn cookies(&self) -> Result<Vec<String>> {
        let cookies = call("GET", &self.at("/cookie"), None)?;
        let values = cookies.as_array().context("no list of cookies")?.iter();
        Ok(values.filter_map(|cookie| cookie["value"].as_str().map(str::to_owned)).collect())
    }

    pub fn fill(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.element(selector)?;
        call("POST", &self.at(&format!("/element/{element}/value")), Some(&json!({"text": text})))?;
        Ok(())
    }

    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.element(selector)?;
        call("POST", &self.at(&format!("/element/{element}/click")), Some(&json!({})))?;
        Ok(())
    }

    pub fn text(&self, selector: &str) -> Result<String> {
        let element = self.element(selector)?;
        Ok(call("GET", &self.at(&format!("/element/{element}/text")), None)?
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// The page as PNG.
    pub fn picture(&self, file: &std::path::Path) -> Result<()> {
        let shot = call("GET", &self.at("/screenshot"), None)?;
        let text = shot.as_str().context("no screenshot")?;
        let mut decode = Command::new("base64");
        decode.arg("-d").stdin(Stdio::piped()).stdout(std::fs::File::create(file)?);
        let mut child = decode.spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("stdin")?, text.as_bytes())?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = call("DELETE", &self.at(""), None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One WebDriver call by curl; the body goes by standard input, so that nothing typed stands in an argument list.
fn call(method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "60", "--noproxy", "*", "-X", method])
        .arg(format!("http://127.0.0.1:{PORT}{path}"));
    if body.is_some() {
        curl.args(["-H", "Content-Type: application/json", "--data-binary", "@-"]);
    }
    curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = curl.spawn().context("starting curl")?;
    let mut stdin = child.stdin.take().context("stdin")?;
    if let Some(body) = body {
        std::io::Write::write_all(&mut stdin, &serde_json::to_vec(body)?)?;
    }
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("WebDriver {method} {path}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let answer: Value = serde_json::from_slice(&output.stdout).context("WebDriver answered no JSON")?;
    match &answer["value"] {
        Value::Object(value) if value.contains_key("error") => {
            bail!("WebDriver {method} {path}: {} {}", shown(&value["error"]), shown(&value["message"]))
        }
        value => Ok(value.clone()),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}
